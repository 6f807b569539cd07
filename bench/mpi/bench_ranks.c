/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_ranks.c: what scripts/bench-mpi fits a model to: latency and bandwidth between two ranks,
 * calls over all ranks, forward and backward, and beside each what the ranks take for the same work
 * when they compute it at the same time without a message, each the least of some repeats. Rank 0
 * prints lines of "name value"; of a call
 *
 *     call <pass> <scheme> <placement> <causal> <rows of the whole> <pairs that are seen> <seconds>
 *          <seconds without messages> <seconds that the library predicts by the rate of these>
 *          <products a second> <seconds in MPI_Waitall> <seconds in MPI_Testall>
 *          <seconds of messages>
 *
 * the last three of a ring: what a rank waits for messages, what it spends looking after them, and
 * what the same messages take where nothing is computed.
 * Usage: bench_ranks <repeats> <rows of the whole>...
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <attention/attention.h>
#include <attention/mpi.h>

enum { HEADS = 8, KEY_HEADS = 2, FEATURES = 128 };

static int this_rank, num_ranks, repeats;

static void fail(const char *what) {
    (void)fprintf(stderr, "rank %d: %s: %s\n", this_rank, what, attn_last_error());
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static float *numbers(int64_t count) {
    float *const data = malloc((size_t)count * sizeof *data);
    if (data == NULL) {
        fail("no memory");
        exit(1);
    }
    for (int64_t i = 0; i < count; ++i) {
        data[i] = (float)((i * 7919 + this_rank) % 1009) / 1009.0f - 0.5f;
    }
    return data;
}

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

/* ---- where a ring's time goes ---- */

static double waited_seconds, progress_seconds;

/* The library's own calls come here first, as MPI's profiling interface allows. */
int MPI_Waitall(int count, MPI_Request *requests, MPI_Status *states) {
    const double start = MPI_Wtime();
    const int code = PMPI_Waitall(count, requests, states);
    waited_seconds += MPI_Wtime() - start;
    return code;
}

int MPI_Testall(int count, MPI_Request *requests, int *is_done, MPI_Status *states) {
    const double start = MPI_Wtime();
    const int code = PMPI_Testall(count, requests, is_done, states);
    progress_seconds += MPI_Wtime() - start;
    return code;
}

/* ---- a call ---- */

enum tensor { QUERY, KEY, VALUE, OUTPUT, GIVEN, OF_QUERY, OF_KEY, OF_VALUE, LSE, NUM_TENSORS };

typedef struct measured_call {
    int is_backward;
    int32_t scheme, placement, is_causal;
    int64_t rows; /* of the whole */
} measured_call;

/* Tensors with so many rows of queries and keys, of so many heads. */
typedef struct call_tensors {
    float *data[NUM_TENSORS];
    attn_tensor views[NUM_TENSORS];
    attn_sdpa_params params;
    attn_sdpa_gradients gradients;
} call_tensors;

static int is_of_keys(int which) {
    return which == KEY || which == VALUE || which == OF_KEY || which == OF_VALUE;
}

static void make_tensors(int64_t rows, int64_t keys, int64_t parts, int32_t is_causal,
                         call_tensors *made) {
    for (int i = 0; i < NUM_TENSORS; ++i) {
        const int64_t shape[] = {(is_of_keys(i) ? KEY_HEADS : HEADS) / parts,
                                 is_of_keys(i) ? keys : rows, FEATURES};
        made->data[i] = numbers(shape[0] * shape[1] * FEATURES + 1);
        if (attn_tensor_init(&made->views[i], made->data[i], ATTN_DTYPE_FLOAT32, i == LSE ? 2 : 3,
                             shape) != ATTN_OK) {
            fail("attn_tensor_init");
        }
    }
    made->params = (attn_sdpa_params){.struct_size = sizeof made->params,
                                      .enable_gqa = 1,
                                      .is_causal = is_causal,
                                      .lse = &made->views[LSE]};
    made->gradients = (attn_sdpa_gradients){.struct_size = sizeof made->gradients,
                                            .output = &made->views[GIVEN],
                                            .query = &made->views[OF_QUERY],
                                            .key = &made->views[OF_KEY],
                                            .value = &made->views[OF_VALUE]};
}

static void free_tensors(call_tensors *made) {
    for (int i = 0; i < NUM_TENSORS; ++i) {
        free(made->data[i]);
    }
}

/* ---- the same work without messages ---- */

/* Rows that stand side by side in the whole, over the keys that they may see. */
typedef struct local_part {
    int64_t first, rows, keys;
    attn_tensor offset;
    call_tensors tensors;
} local_part;

static double pairs_of(const local_part *part, int32_t is_causal) {
    return is_causal ? (double)part->rows * (double)part->first +
                           (double)part->rows * ((double)part->rows + 1) / 2
                     : (double)part->rows * (double)part->keys;
}

/* What a rank computes of a call, as one or two parts; returns how many. */
static int make_parts(const measured_call *call, local_part *parts) {
    const int is_heads = call->scheme == ATTN_MPI_SCHEME_HEADS;
    const int64_t own = call->rows / num_ranks, half = own / 2;
    int count = 1;
    parts[0] =
        (local_part){.first = is_heads ? 0 : own * this_rank, .rows = is_heads ? call->rows : own};
    if (!is_heads && call->placement == ATTN_MPI_PLACEMENT_ZIGZAG) {
        parts[0] = (local_part){.first = half * this_rank, .rows = half};
        parts[1] = (local_part){.first = half * (2 * num_ranks - 1 - this_rank), .rows = half};
        count = 2;
    }
    for (int i = 0; i < count; ++i) {
        local_part *const part = &parts[i];
        part->keys = call->is_causal ? part->first + part->rows : call->rows;
        make_tensors(part->rows, part->keys, is_heads ? num_ranks : 1, call->is_causal,
                     &part->tensors);
        if (attn_tensor_init(&part->offset, &part->first, ATTN_DTYPE_INT64, 0, NULL) != ATTN_OK) {
            fail("attn_tensor_init");
        }
        part->tensors.params.query_offset = &part->offset;
    }
    return count;
}

static void compute_part(attn_context *context, local_part *part, int is_backward) {
    call_tensors *const tensors = &part->tensors;
    const attn_tensor *const views = tensors->views;
    const attn_status status =
        is_backward
            ? attn_sdpa_backward(context, &views[QUERY], &views[KEY], &views[VALUE],
                                 &tensors->params, &views[OUTPUT], &tensors->gradients, NULL, 0)
            : attn_sdpa(context, &views[QUERY], &views[KEY], &views[VALUE], &tensors->params,
                        &views[OUTPUT], NULL, 0);
    if (status != ATTN_OK) {
        fail("a part");
    }
}

/* Multiply-adds of the busiest rank, and pairs of all ranks. */
static void count_work(const measured_call *call, const local_part *parts, int count,
                       double *products, double *pairs) {
    const int64_t heads = call->scheme == ATTN_MPI_SCHEME_HEADS ? HEADS / num_ranks : HEADS;
    double mine = 0;
    for (int i = 0; i < count; ++i) {
        mine += pairs_of(&parts[i], call->is_causal) * (double)heads;
    }
    MPI_Allreduce(&mine, products, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    MPI_Allreduce(&mine, pairs, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    *products *= (call->is_backward ? 5 : 2) * FEATURES;
}

/* The messages of a ring, where nothing is computed: keys, values, and backward their gradients. */
static double seconds_of_messages(const measured_call *call) {
    const int64_t block = call->rows / num_ranks * KEY_HEADS * 2 * FEATURES;
    const int messages = (num_ranks - 1) * (call->is_backward ? 2 : 1) + call->is_backward;
    float *const sent = numbers(block), *const received = numbers(block);
    double least = DBL_MAX;
    for (int repeat = 0; repeat < repeats; ++repeat) {
        const double start = begin();
        for (int i = 0; i < messages; ++i) {
            MPI_Sendrecv(sent, (int)block, MPI_FLOAT, (this_rank + 1) % num_ranks, 0, received,
                         (int)block, MPI_FLOAT, (this_rank + num_ranks - 1) % num_ranks, 0,
                         MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        }
        least = fmin(least, seconds_of_all(start));
    }
    free(sent);
    free(received);
    return least;
}

/* ---- over all ranks ---- */

/* One that calls share, as those of a loop do: new memory costs a fault of each page. */
typedef struct workspace {
    void *data;
    size_t bytes;
} workspace;

static workspace make_workspace(attn_context *context, const call_tensors *tensors,
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
    const size_t bytes = forward > backward ? forward : backward;
    return (workspace){numbers((int64_t)(bytes / sizeof(float)) + 1), bytes};
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

/* Of the least repeats: what the slowest rank takes for the call and without messages; what the
 * rank that waits least waits and looks after messages: others wait for that rank, too. */
typedef struct call_times {
    double seconds, local, waited, progress;
} call_times;

static void repeat_call(attn_context *context, const measured_call *call,
                        const attn_mpi_params *params, call_tensors *tensors,
                        const workspace *memory, call_times *times) {
    double least[2];
    waited_seconds = progress_seconds = 0;
    const double start = begin();
    run_call(context, tensors, params, call->is_backward, memory);
    const double mine[] = {waited_seconds, progress_seconds};
    const double seconds = seconds_of_all(start);
    MPI_Allreduce(mine, least, 2, MPI_DOUBLE, MPI_MIN, MPI_COMM_WORLD);
    if (seconds < times->seconds) {
        times->seconds = seconds;
        times->waited = least[0];
        times->progress = least[1];
    }
}

/* All ranks compute at the same time, so that they share memory and clock as in the call, with
 * which it takes turns, since machines change their pace. */
static call_times time_call(attn_context *context, const measured_call *call,
                            const attn_mpi_params *params, local_part *parts, int count) {
    call_tensors tensors;
    call_times times = {.seconds = DBL_MAX, .local = DBL_MAX};
    make_tensors(call->rows / num_ranks, call->rows / num_ranks, 1, call->is_causal, &tensors);
    const workspace memory = make_workspace(context, &tensors, params);
    /* Output and lse for a backward pass. */
    run_call(context, &tensors, params, 0, &memory);
    for (int i = 0; i < count; ++i) {
        compute_part(context, &parts[i], 0);
    }
    for (int repeat = 0; repeat < repeats; ++repeat) {
        const double start = begin();
        for (int i = 0; i < count; ++i) {
            compute_part(context, &parts[i], call->is_backward);
        }
        times.local = fmin(times.local, seconds_of_all(start));
        repeat_call(context, call, params, &tensors, &memory, &times);
    }
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
    double products, pairs, rate;
    const int count = make_parts(&call, parts);
    const int is_ring = call.scheme == ATTN_MPI_SCHEME_RING;
    params.scheme = call.scheme;
    params.placement = call.placement;
    count_work(&call, parts, count, &products, &pairs);
    const call_times times = time_call(context, &call, &params, parts, count);
    rate = params.products_per_second = products / times.local;
    const double predicted = predict(context, &call, params);
    const double messages = is_ring && num_ranks > 1 ? seconds_of_messages(&call) : 0;
    if (this_rank == 0) {
        printf("call %s %s %s %d %lld %.9g %.9g %.9g %.9g %.9g %.9g %.9g %.9g\n",
               call.is_backward ? "backward" : "forward", is_ring ? "ring" : "heads",
               call.placement == ATTN_MPI_PLACEMENT_ZIGZAG ? "zigzag" : "contiguous",
               (int)call.is_causal, (long long)call.rows, pairs, times.seconds, times.local,
               predicted, rate, is_ring ? times.waited : 0, is_ring ? times.progress : 0, messages);
        (void)fflush(stdout);
    }
    for (int i = 0; i < count; ++i) {
        free_tensors(&parts[i].tensors);
    }
}

int main(int argc, char **argv) {
    enum { CONTIGUOUS = ATTN_MPI_PLACEMENT_CONTIGUOUS, ZIGZAG = ATTN_MPI_PLACEMENT_ZIGZAG };
    static const measured_call calls[] = {
        {0, ATTN_MPI_SCHEME_RING, CONTIGUOUS, 0, 0}, {0, ATTN_MPI_SCHEME_RING, CONTIGUOUS, 1, 0},
        {0, ATTN_MPI_SCHEME_RING, ZIGZAG, 1, 0},     {0, ATTN_MPI_SCHEME_HEADS, CONTIGUOUS, 1, 0},
        {1, ATTN_MPI_SCHEME_RING, CONTIGUOUS, 0, 0}, {1, ATTN_MPI_SCHEME_RING, CONTIGUOUS, 1, 0},
        {1, ATTN_MPI_SCHEME_RING, ZIGZAG, 1, 0},     {1, ATTN_MPI_SCHEME_HEADS, CONTIGUOUS, 1, 0}};
    int level;
    attn_context *context;
    attn_mpi_params params = {.struct_size = sizeof params};
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 1};
    MPI_Init_thread(&argc, &argv, MPI_THREAD_SINGLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &this_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &num_ranks);
    if (argc < 3 || attn_context_create(&config, &context) != ATTN_OK) {
        fail("usage: bench_ranks <repeats> <rows>...");
        return 2;
    }
    repeats = (int)strtol(argv[1], NULL, 10);
    if (num_ranks > 1) {
        const int large = 8 << 20;
        params.latency_seconds = message_seconds(8);
        params.bytes_per_second = large / (message_seconds(large) - params.latency_seconds);
    }
    if (this_rank == 0) {
        printf("heads %d\nkey_heads %d\nfeatures %d\nranks %d\n", HEADS, KEY_HEADS, FEATURES,
               num_ranks);
        printf("latency_seconds %.9g\nbytes_per_second %.9g\n", params.latency_seconds,
               params.bytes_per_second);
    }
    for (int i = 2; i < argc; ++i) {
        for (size_t which = 0; which < sizeof calls / sizeof calls[0]; ++which) {
            measured_call call = calls[which];
            call.rows = strtoll(argv[i], NULL, 10);
            measure_call(context, call, params);
        }
    }
    attn_context_destroy(context);
    MPI_Finalize();
    return 0;
}
