/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_timing.c: warm-up, batches, rounds.
 */
#include "bench_timing.h"

#include <stdlib.h>
#include <time.h>

#include "blas_threads.h"
#include "program_exit.h"

static const double TIMING_SECONDS = 20e-6; /* the least that the clock measures well */
static const double WARM_UP_SECONDS = 0.05; /* for threads, caches and the CPU's clock */
static const double LONG_CALL_SECONDS =
    0.1; /* what other data is in the caches no longer matters */

static double now_seconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Seconds of one call, the mean of `count`; negative after an error line. */
static double time_calls(bench_call *call, int64_t count) {
    const double begin = now_seconds();
    for (int64_t i = 0; i < count; i++) {
        const attn_status status = bench_call_run(call);
        if (status != ATTN_OK) {
            (void)program_fail_library("run", status);
            return -1.0;
        }
    }
    return (now_seconds() - begin) / (double)count;
}

/* Runs for a while and finds the calls of one timing by doubling. *seconds: of one call. */
static int warm_up(bench_call *call, bench_times *times, double *seconds) {
    blas_threads_set(call->blas_threads);
    const double begin = now_seconds();
    times->calls = 1;
    *seconds = time_calls(call, 1);
    while (*seconds >= 0.0 && (now_seconds() - begin < WARM_UP_SECONDS ||
                               *seconds * (double)times->calls < TIMING_SECONDS)) {
        if (*seconds * (double)times->calls < TIMING_SECONDS) {
            times->calls *= 2;
        }
        *seconds = time_calls(call, times->calls);
    }
    return *seconds >= 0.0 ? EXIT_DONE : EXIT_COMPUTATION;
}

static int reserve(bench_times *times, int64_t count, int64_t *capacity) {
    if (count < *capacity) {
        return EXIT_DONE;
    }
    const int64_t larger = *capacity == 0 ? 1024 : 2 * *capacity;
    double *seconds = realloc(times->seconds, (size_t)larger * sizeof *seconds);
    if (seconds == NULL) {
        return program_fail(EXIT_COMPUTATION, "timings: no memory");
    }
    times->seconds = seconds;
    *capacity = larger;
    return EXIT_DONE;
}

static int time_once(bench_call *call, bench_times *times, int warms, int64_t *capacity) {
    /* BLAS has one number of threads for all contestants. */
    blas_threads_set(call->blas_threads);
    if (reserve(times, times->count, capacity) != EXIT_DONE ||
        (warms && time_calls(call, 1) < 0.0)) {
        return EXIT_COMPUTATION;
    }
    const double seconds = time_calls(call, times->calls);
    times->seconds[times->count] = seconds;
    times->count++;
    return seconds >= 0.0 ? EXIT_DONE : EXIT_COMPUTATION;
}

int bench_time(bench_call *calls, int contestants, int64_t repeats, double seconds,
               bench_times *times) {
    int64_t capacities[OPTION_TEXTS_MAX + 1] = {0};
    int warms[OPTION_TEXTS_MAX + 1] = {0};
    int exit_code = EXIT_DONE;
    for (int i = 0; i < contestants; i++) {
        double call_seconds = 0.0;
        times[i] = (bench_times){0};
        exit_code =
            exit_code == EXIT_DONE ? warm_up(&calls[i], &times[i], &call_seconds) : exit_code;
        warms[i] = contestants > 1 && call_seconds < LONG_CALL_SECONDS;
    }
    const double stop = now_seconds() + seconds * contestants;
    for (int64_t round = 0; exit_code == EXIT_DONE && (round < repeats || now_seconds() < stop);
         round++) {
        for (int i = 0; i < contestants && exit_code == EXIT_DONE; i++) {
            const int turn = (int)((round + i) % contestants);
            exit_code = time_once(&calls[turn], &times[turn], warms[turn], &capacities[turn]);
        }
    }
    return exit_code;
}

void bench_times_free(bench_times *times) {
    free(times->seconds);
    *times = (bench_times){0};
}

static int compare_numbers(const void *a, const void *b) {
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_quantile(double *values, int64_t count, double quantile) {
    qsort(values, (size_t)count, sizeof *values, compare_numbers);
    const double place = quantile * (double)(count - 1);
    const int64_t below = (int64_t)place;
    const int64_t above = below + 1 < count ? below + 1 : below;
    return values[below] + (place - (double)below) * (values[above] - values[below]);
}
