/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_commands.c: a measurement from its command line to its lines of JSON.
 */
#include "bench_commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench_call.h"
#include "bench_record.h"
#include "bench_timing.h"
#include "limits_probe.h"
#include "machine_limits.h"
#include "program_exit.h"

/* The contestants: that of the command line, then those of --versus. */
typedef struct bench_contest {
    int count;
    char *versus_words[OPTION_TEXTS_MAX + 1]; /* own copies, which the options point into */
    bench_call calls[OPTION_TEXTS_MAX + 1];
    bench_times times[OPTION_TEXTS_MAX + 1];
    machine_limits limits[OPTION_TEXTS_MAX + 1];
} bench_contest;

/* The most memory this process ever had in use. getrusage also counts what the program that started
 * this one used before it became this one, so Linux is asked first. */
static double peak_memory_bytes(void) {
    static const char peak_label[] = "VmHWM:";
    char line[256];
    long long kibibytes = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, peak_label, sizeof peak_label - 1) == 0) {
            kibibytes = strtoll(line + sizeof peak_label - 1, NULL, 10);
            break;
        }
    }
    if (status != NULL) {
        (void)fclose(status);
    }
    struct rusage usage;
    if (kibibytes == 0 && getrusage(RUSAGE_SELF, &usage) == 0) {
        kibibytes = usage.ru_maxrss;
    }
    return 1024.0 * (double)kibibytes;
}

/* Contestant `index` is made from a copy of the command line's options. */
static int make_contestant(bench_contest *contest, int index, const bench_options *options) {
    bench_options own = *options;
    int exit_code = EXIT_DONE;
    if (index > 0) {
        contest->versus_words[index] = strdup(options->versus.items[index - 1]);
        if (contest->versus_words[index] == NULL) {
            return program_fail(EXIT_COMPUTATION, "--versus: no memory");
        }
        exit_code = bench_options_parse_versus(&own, contest->versus_words[index]);
    }
    exit_code = exit_code == EXIT_DONE ? bench_options_complete(&own) : exit_code;
    if (exit_code == EXIT_DONE) {
        exit_code = bench_call_make(&contest->calls[index], &own);
        contest->count = index + 1;
    }
    return exit_code;
}

/* Contestants with the first one's number of threads share its limits. */
static void raise_limits(bench_contest *contest, const limits_probe *probe) {
    const int first_threads = contest->calls[0].info.num_threads;
    for (int i = 0; i < contest->count; i++) {
        const int threads = contest->calls[i].info.num_threads;
        if (i > 0 && threads == first_threads) {
            contest->limits[i] = contest->limits[0];
        } else {
            limits_probe_raise(probe, threads, &contest->limits[i]);
        }
    }
}

/* The quartiles of the first contestant's time over that of contestant `index`, round by round. */
static int compare_rounds(const bench_contest *contest, int index, double *quartiles) {
    const bench_times *times = &contest->times[index];
    double *ratios = malloc((size_t)times->count * sizeof *ratios);
    if (ratios == NULL) {
        return program_fail(EXIT_COMPUTATION, "--versus: no memory");
    }
    for (int64_t round = 0; round < times->count; round++) {
        ratios[round] = contest->times[0].seconds[round] / times->seconds[round];
    }
    for (int i = 0; i < 3; i++) {
        quartiles[i] = bench_quantile(ratios, times->count, 0.25 * (i + 1));
    }
    free(ratios);
    return EXIT_DONE;
}

static int print_contestants(bench_contest *contest, const bench_options *options,
                             double peak_rss_bytes) {
    bench_record records[OPTION_TEXTS_MAX + 1];
    int exit_code = EXIT_DONE;
    /* Ratios first: quantiles sort the times, and rounds are lost. */
    for (int i = 0; i < contest->count && exit_code == EXIT_DONE; i++) {
        records[i] = (bench_record){.call = &contest->calls[i],
                                    .calls_per_timing = contest->times[i].calls,
                                    .repeats = contest->times[i].count,
                                    .peak_rss_bytes = peak_rss_bytes,
                                    .limits = contest->limits[i]};
        if (i > 0) {
            records[i].versus = options->versus.items[i - 1];
            exit_code = compare_rounds(contest, i, records[i].speedup);
        }
    }
    for (int i = 0; i < contest->count && exit_code == EXIT_DONE; i++) {
        bench_times *times = &contest->times[i];
        records[i].median_seconds = bench_quantile(times->seconds, times->count, 0.5);
        records[i].min_seconds = times->seconds[0];
        exit_code = bench_record_print(&records[i]);
    }
    return exit_code;
}

static int run_contest(bench_contest *contest, const bench_options *options) {
    limits_probe probe = {0};
    double peak_rss_bytes = 0.0;
    int exit_code = options->skips_limits ? EXIT_DONE : limits_probe_start(&probe);
    for (int i = 0; i <= options->versus.count && exit_code == EXIT_DONE; i++) {
        exit_code = make_contestant(contest, i, options);
    }
    if (exit_code == EXIT_DONE) {
        raise_limits(contest, &probe);
        exit_code = bench_time(contest->calls, contest->count, options->repeats.value,
                               options->seconds.value, contest->times);
        peak_rss_bytes = peak_memory_bytes();
        raise_limits(contest, &probe);
    }
    limits_probe_stop(&probe);
    return exit_code == EXIT_DONE ? print_contestants(contest, options, peak_rss_bytes) : exit_code;
}

int bench_measure(const bench_options *options) {
    bench_contest *contest = calloc(1, sizeof *contest);
    if (contest == NULL) {
        return program_fail(EXIT_COMPUTATION, "contestants: no memory");
    }
    const int exit_code = run_contest(contest, options);
    for (int i = 0; i <= OPTION_TEXTS_MAX; i++) {
        bench_call_free(&contest->calls[i]);
        bench_times_free(&contest->times[i]);
        free(contest->versus_words[i]);
    }
    free(contest);
    return exit_code;
}

static int measure_function(int function, int count, char *const *arguments) {
    bench_options options = bench_options_default(function);
    const int exit_code = bench_options_parse(&options, 0, count, arguments);
    return exit_code == EXIT_DONE ? bench_measure(&options) : exit_code;
}

int bench_command_sdpa(int count, char *const *arguments) {
    return measure_function(BENCH_SDPA, count, arguments);
}

int bench_command_mha(int count, char *const *arguments) {
    return measure_function(BENCH_MHA, count, arguments);
}

int bench_command_limits(int count, char *const *arguments) {
    option_integer threads = {0, 1};
    option_number seconds = {0, 1.0};
    const option_spec table[] = {
        {"--threads", OPTION_INTEGER, &threads, 1, 1024, NULL},
        {"--seconds", OPTION_NUMBER, &seconds, 0, 0, NULL},
    };
    if (options_parse(table, 2, count, arguments, NULL, NULL) != EXIT_DONE) {
        return EXIT_USAGE;
    }
    if (!(seconds.value >= 0.0 && seconds.value <= 3600.0)) {
        return program_fail(EXIT_USAGE, "--seconds: expected a number from 0 to 3600, got %g",
                            seconds.value);
    }
    const int num_threads = (int)threads.value;
    const machine_limits limits = {attn_limit_fma_flops(num_threads, seconds.value / 2.0),
                                   attn_limit_read_bytes(num_threads, seconds.value / 2.0)};
    return bench_limits_print(num_threads, &limits);
}
