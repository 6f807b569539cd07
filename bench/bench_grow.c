/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bench_grow.c: growth curves: the same measurement for one length after the other, each in a
 * process of its own, so that the peak of memory is its own too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench_commands.h"
#include "program_exit.h"

/* Progress is for eyes: a line that the next one overwrites. */
static void show_progress(const bench_options *options, int index) {
    if (isatty(2)) {
        (void)fprintf(stderr, "\rattn-bench: length %lld (%d of %d)\033[K",
                      (long long)options->lengths.items[index], index + 1, options->lengths.count);
    }
}

static void clear_progress(void) {
    if (isatty(2)) {
        (void)fputs("\r\033[K", stderr);
    }
}

/* Queries and keys grow together; with --queries only keys do, as in decoding. A layer attends to
 * its query, unless --queries makes that impossible. */
static void set_length(bench_options *options, int64_t length) {
    if (options->queries.given) {
        options->keys = (option_integer){1, length};
    } else {
        options->queries.value = length;
    }
}

static int measure_in_child(const bench_options *options, int64_t length) {
    int status = 0;
    (void)fflush(stdout);
    const pid_t child = fork();
    if (child < 0) {
        return program_fail(EXIT_COMPUTATION, "length %lld: %s", (long long)length,
                            strerror(errno));
    }
    if (child == 0) {
        bench_options own = *options;
        set_length(&own, length);
        const int exit_code = bench_measure(&own);
        _exit(fflush(stdout) == 0 ? exit_code : EXIT_COMPUTATION);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
        return program_fail(EXIT_COMPUTATION, "length %lld: ended by signal %d", (long long)length,
                            WTERMSIG(status));
    }
    return WEXITSTATUS(status);
}

static int parse_grow(int count, char *const *arguments, bench_options *options) {
    const int is_sdpa = count > 0 && strcmp(arguments[0], "sdpa") == 0;
    if (!is_sdpa && (count == 0 || strcmp(arguments[0], "mha") != 0)) {
        return program_fail(EXIT_USAGE, "grow: expected sdpa or mha after it, got '%s'",
                            count == 0 ? "" : arguments[0]);
    }
    *options = bench_options_default(is_sdpa ? BENCH_SDPA : BENCH_MHA);
    int exit_code = bench_options_parse(options, 1, count - 1, arguments + 1);
    exit_code = exit_code == EXIT_DONE ? bench_options_read_lengths(options) : exit_code;
    if (exit_code == EXIT_DONE && options->keys.given) {
        exit_code = program_fail(EXIT_USAGE, "--keys: expected --lengths alone to set it");
    }
    return exit_code;
}

int bench_command_grow(int count, char *const *arguments) {
    bench_options options = bench_options_default(BENCH_SDPA);
    int exit_code = parse_grow(count, arguments, &options);
    for (int i = 0; i < options.lengths.count && exit_code == EXIT_DONE; i++) {
        show_progress(&options, i);
        exit_code = measure_in_child(&options, options.lengths.items[i]);
        clear_progress();
    }
    return exit_code;
}
