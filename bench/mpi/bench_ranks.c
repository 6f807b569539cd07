/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_ranks.c: what scripts/bench-mpi fits a model to: latency and bandwidth between two ranks,
 * calls over all ranks, forward and backward, and beside each what the ranks take for the same work
 * when they compute it at the same time without a message. Medians of some repeats, in which call
 * and work take turns. Rank 0 prints lines of "name value"; of a call "call name=value ...", where
 * seconds are the call's, local those without messages, ratio what the latter are of the former,
 * predicted what the library predicts by the rate of the latter; local_processor and processor what
 * a rank computes, by the processor's clock; and of a ring what becomes of its messages, as
 * message_trace.h has it, with messages and home what the same ones take where nothing is computed.
 * Usage: bench_ranks <repeats> <heads> <part of a call's name, or all> <rows of the whole>...
 * A call's name is that of its pass, scheme, placement and, with it, causal, with - between.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attention/attention.h>
#include <attention/mpi.h>

#include "message_trace.h"
#include "ranks_work.h"

enum { MOST_REPEATS = 100 };

static int repeats;

/* The slowest rank's time from a common start. */
static double seconds_of_all(double start) {
    double mine = MPI_Wtime() - start, slowest;
    MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return slowest;
}

static double begin(void) {
    MPI_Barrier(MPI_COMM_WORLD);
    return MPI_Wtime();
}

/* One way of a message between ranks 0 and 1, there and back a number of times. */
static double message_seconds(int bytes) {
    enum { TURNS = 20 };
    char *const data = (char *)numbers(bytes / (int)sizeof(float) + 1);
    double least = DBL_MAX;
    for (int repeat = 0; repeat < 3 * repeats; ++repeat) {
        const double start = begin();
        for (int turn = 0; turn < 2 * TURNS && this_rank < 2; ++turn) {
            if (turn % 2 == this_rank) {
                MPI_Send(data, bytes, MPI_BYTE, 1 - this_rank, 0, MPI_COMM_WORLD);
            } else {
                MPI_Recv(data, bytes, MPI_BYTE, 1 - this_rank, 0, MPI_COMM_WORLD,
                         MPI_STATUS_IGNORE);
            }
        }
        least = fmin(least, seconds_of_all(start) / (2 * TURNS));
    }
    free(data);
    return least;
}

static int compare_numbers(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static double median_of(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, compare_numbers);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

/* So many of a ring's messages, where nothing is computed: a rank's keys and values, or their
 * gradients. */
static double seconds_of_messages(const measured_call *call, int messages) {
    const int64_t block = call->rows / num_ranks * num_key_heads * 2 * FEATURES;
    float *const sent = numbers(block), *const received = numbers(block);
    double seconds[MOST_REPEATS] = {0};
    for (int repeat = 0; repeat < repeats; ++repeat) {
        const double start = begin();
        for (int i = 0; i < messages; ++i) {
            MPI_Sendrecv(sent, (int)block, MPI_FLOAT, (this_rank + 1) % num_ranks, 0, received,
                         (int)block, MPI_FLOAT, (this_rank + num_ranks - 1) % num_ranks, 0,
                         MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        }
        seconds[repeat] = seconds_of_all(start);
    }
    free(sent);
    free(received);
    return median_of(seconds, repeats);
}

/* ---- over all ranks ---- */

static workspace workspace_of_call(attn_context *context, const call_tensors *tensors,
                                   const attn_mpi_params *params) {
    const attn_tensor *const views = tensors->views;
    size_t forward = 0, backward = 0;
    if (attn_mpi_sdpa_workspace_bytes(context, MPI_COMM_WORLD, &views[QUERY], &views[KEY],
                                      &views[VALUE], &tensors->params, params, &views[OUTPUT],
                                      &forward) != ATTN_OK ||
        attn_mpi_sdpa_backward_workspace_bytes(
            context, MPI_COMM_WORLD, &views[QUERY], &views[KEY], &views[VALUE], &tensors->params,
            params, &views[OUTPUT], &tensors->gradients, &backward) != ATTN_OK) {
        fail("a workspace");
    }
    return make_workspace(forward, backward);
}

static void run_call(attn_context *context, call_tensors *tensors, const attn_mpi_params *params,
                     int is_backward, const workspace *memory) {
    const attn_tensor *const views = tensors->views;
    const attn_status status =
        is_backward
            ? attn_mpi_sdpa_backward(context, MPI_COMM_WORLD, &views[QUERY], &views[KEY],
                                     &views[VALUE], &tensors->params, params, &views[OUTPUT],
                                     &tensors->gradients, memory->data, memory->bytes)
            : attn_mpi_sdpa(context, MPI_COMM_WORLD, &views[QUERY], &views[KEY], &views[VALUE],
                            &tensors->params, params, &views[OUTPUT], memory->data, memory->bytes);
    if (status != ATTN_OK) {
        fail("a call");
    }
}

/* What the slowest rank takes for the call and without messages, medians, and what ranks take for
 * messages, means over repeats. */
typedef struct call_times {
    double seconds, local, ratio;
    double local_processor; /* a rank's, without messages */
    message_trace trace;
} call_times;

static double time_parts(attn_context *context, local_part *parts, int count, int is_backward,
                         double *processor) {
    double sum;
    const double start = begin(), processor_start = trace_processor_seconds();
    for (int i = 0; i < count; ++i) {
        compute_part(context, &parts[i], is_backward);
    }
    const double mine = trace_processor_seconds() - processor_start;
    const double seconds = seconds_of_all(start);
    MPI_Allreduce(&mine, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    *processor += sum / num_ranks / repeats;
    return seconds;
}

static void add_trace(const message_trace *added, message_trace *sum) {
    sum->processor += added->processor / repeats;
    sum->looked += added->looked / repeats;
    sum->waited += added->waited / repeats;
    sum->shown += added->shown / repeats;
    sum->shown_home += added->shown_home / repeats;
}

static double repeat_call(attn_context *context, const measured_call *call,
                          const attn_mpi_params *params, call_tensors *tensors,
                          const workspace *memory, call_times *times) {
    const double start = begin();
    trace_begin();
    run_call(context, tensors, params, call->is_backward, memory);
    const message_trace trace = trace_end();
    const double seconds = seconds_of_all(start);
    add_trace(&trace, &times->trace);
    return seconds;
}

/* All ranks compute at the same time, so that they share memory and clock as in the call, with
 * which it takes turns, since machines change their pace. */
static call_times time_call(attn_context *context, const measured_call *call,
                            const attn_mpi_params *params, local_part *parts, int count) {
    call_tensors tensors;
    call_times times = {0};
    double seconds[MOST_REPEATS] = {0}, local[MOST_REPEATS] = {0}, ratios[MOST_REPEATS] = {0};
    make_tensors(call->rows / num_ranks, call->rows / num_ranks, 1, call->is_causal, &tensors);
    const workspace memory = workspace_of_call(context, &tensors, params);
    /* Output and lse for a backward pass. */
    run_call(context, &tensors, params, 0, &memory);
    (void)time_parts(context, parts, count, 0, &times.local_processor);
    times.local_processor = 0;
    for (int i = 0; i < repeats; ++i) {
        if (i % 2 == 0) {
            local[i] = time_parts(context, parts, count, call->is_backward, &times.local_processor);
        }
        seconds[i] = repeat_call(context, call, params, &tensors, &memory, &times);
        if (i % 2 != 0) {
            local[i] = time_parts(context, parts, count, call->is_backward, &times.local_processor);
        }
        ratios[i] = local[i] / seconds[i];
    }
    times.seconds = median_of(seconds, repeats);
    times.local = median_of(local, repeats);
    times.ratio = median_of(ratios, repeats);
    free(memory.data);
    free_tensors(&tensors);
    return times;
}

/* What the library predicts by this rate. */
static double predict(attn_context *context, const measured_call *call, attn_mpi_params params) {
    call_tensors tensors;
    attn_mpi_report report = {.struct_size = sizeof report};
    make_tensors(call->rows / num_ranks, call->rows / num_ranks, 1, call->is_causal, &tensors);
    const attn_tensor *const views = tensors.views;
    const attn_status status =
        call->is_backward
            ? attn_mpi_sdpa_backward_explain(context, MPI_COMM_WORLD, &views[QUERY], &views[KEY],
                                             &views[VALUE], &tensors.params, &params,
                                             &views[OUTPUT], &tensors.gradients, &report)
            : attn_mpi_sdpa_explain(context, MPI_COMM_WORLD, &views[QUERY], &views[KEY],
                                    &views[VALUE], &tensors.params, &params, &views[OUTPUT],
                                    &report);
    if (status != ATTN_OK) {
        fail("a report");
    }
    free_tensors(&tensors);
    return call->scheme == ATTN_MPI_SCHEME_RING ? report.ring_seconds : report.heads_seconds;
}

static void measure_call(attn_context *context, measured_call call, attn_mpi_params params) {
    local_part parts[2];
    double products, pairs;
    const int count = make_parts(context, &call, parts);
    const int is_ring = call.scheme == ATTN_MPI_SCHEME_RING && num_ranks > 1;
    params.scheme = call.scheme;
    params.placement = call.placement;
    count_work(&call, parts, count, &products, &pairs);
    const call_times times = time_call(context, &call, &params, parts, count);
    /* Of what is beside the call in time, since machines change their pace. */
    params.products_per_second = products / (times.ratio * times.seconds);
    const double predicted = predict(context, &call, params);
    const int on_the_way = is_ring ? (num_ranks - 1) * (call.is_backward ? 2 : 1) : 0;
    const double messages = seconds_of_messages(&call, on_the_way);
    const double home = seconds_of_messages(&call, is_ring && call.is_backward);
    if (this_rank == 0) {
        printf("call which=%s scheme=%s placement=%s causal=%d rows=%lld pairs=%.9g seconds=%.9g "
               "local=%.9g ratio=%.9g predicted=%.9g rate=%.9g ",
               call.is_backward ? "backward" : "forward",
               call.scheme == ATTN_MPI_SCHEME_RING ? "ring" : "heads",
               call.placement == ATTN_MPI_PLACEMENT_ZIGZAG ? "zigzag" : "contiguous",
               (int)call.is_causal, (long long)call.rows, pairs, times.seconds, times.local,
               times.ratio, predicted, params.products_per_second);
        printf("local_processor=%.9g processor=%.9g looked=%.9g waited=%.9g shown=%.9g "
               "shown_home=%.9g messages=%.9g "
               "home=%.9g\n",
               times.local_processor, times.trace.processor, times.trace.looked, times.trace.waited,
               times.trace.shown, times.trace.shown_home, messages, home);
        (void)fflush(stdout);
    }
    free_parts(parts, count);
}

enum { CONTIGUOUS = ATTN_MPI_PLACEMENT_CONTIGUOUS, ZIGZAG = ATTN_MPI_PLACEMENT_ZIGZAG };

/* Of any number of rows. */
static const struct named_call {
    const char *name;
    measured_call call;
} calls[] = {{"forward-ring-contiguous", {0, ATTN_MPI_SCHEME_RING, CONTIGUOUS, 0, 0}},
             {"forward-ring-contiguous-causal", {0, ATTN_MPI_SCHEME_RING, CONTIGUOUS, 1, 0}},
             {"forward-ring-zigzag-causal", {0, ATTN_MPI_SCHEME_RING, ZIGZAG, 1, 0}},
             {"forward-heads-contiguous-causal", {0, ATTN_MPI_SCHEME_HEADS, CONTIGUOUS, 1, 0}},
             {"backward-ring-contiguous", {1, ATTN_MPI_SCHEME_RING, CONTIGUOUS, 0, 0}},
             {"backward-ring-contiguous-causal", {1, ATTN_MPI_SCHEME_RING, CONTIGUOUS, 1, 0}},
             {"backward-ring-zigzag-causal", {1, ATTN_MPI_SCHEME_RING, ZIGZAG, 1, 0}},
             {"backward-heads-contiguous-causal", {1, ATTN_MPI_SCHEME_HEADS, CONTIGUOUS, 1, 0}}};

/* Heads can be dealt out only where each rank gets some. */
static int is_wanted(const struct named_call *named, const char *part) {
    return (strcmp(part, "all") == 0 || strstr(named->name, part) != NULL) &&
           (named->call.scheme == ATTN_MPI_SCHEME_RING || num_key_heads >= num_ranks);
}

static void measure_calls(attn_context *context, const char *part, int64_t rows,
                          attn_mpi_params params) {
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; ++i) {
        if (is_wanted(&calls[i], part)) {
            measured_call call = calls[i].call;
            call.rows = rows;
            measure_call(context, call, params);
        }
    }
}

static void measure_messages(attn_mpi_params *params) {
    const int large = 8 << 20;
    if (num_ranks > 1) {
        params->latency_seconds = message_seconds(8);
        params->bytes_per_second = large / (message_seconds(large) - params->latency_seconds);
    }
    if (this_rank == 0) {
        printf("heads %d\nkey_heads %d\nfeatures %d\nranks %d\n", num_heads, num_key_heads,
               FEATURES, num_ranks);
        printf("latency_seconds %.9g\nbytes_per_second %.9g\n", params->latency_seconds,
               params->bytes_per_second);
    }
}

int main(int argc, char **argv) {
    int level;
    attn_context *context;
    attn_mpi_params params = {.struct_size = sizeof params};
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 1};
    MPI_Init_thread(&argc, &argv, MPI_THREAD_SINGLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &this_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &num_ranks);
    repeats = argc > 4 ? (int)strtol(argv[1], NULL, 10) : 0;
    num_heads = argc > 4 ? (int)strtol(argv[2], NULL, 10) : 0;
    num_key_heads = num_heads >= 4 ? num_heads / 4 : 1;
    if (repeats < 1 || repeats > MOST_REPEATS || num_heads < 1 || num_heads % num_key_heads != 0 ||
        attn_context_create(&config, &context) != ATTN_OK) {
        fail("usage: bench_ranks <repeats> <heads> <part of a call's name, or all> <rows>...");
    }
    measure_messages(&params);
    for (int i = 4; i < argc; ++i) {
        measure_calls(context, argv[3], strtoll(argv[i], NULL, 10), params);
    }
    attn_context_destroy(context);
    if (this_rank == 0) {
        printf("end\n");
        (void)fflush(stdout);
    }
    MPI_Finalize();
    return 0;
}
