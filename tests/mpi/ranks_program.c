/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_program.c: starts, ends and fails a program of many ranks.
 */
#include "ranks_program.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int this_rank, num_ranks;

/* After which a program that hangs is ended, unless ATTENTION_RANKS_SECONDS says another number. */
enum { MOST_SECONDS = 120 };

static unsigned most_seconds(void) {
    const char *const text = getenv("ATTENTION_RANKS_SECONDS");
    const long seconds = text != NULL ? strtol(text, NULL, 10) : 0;
    return seconds > 0 ? (unsigned)seconds : MOST_SECONDS;
}

void ranks_begin(int *argc, char ***argv, int level) {
    int given;
    alarm(most_seconds());
    MPI_Init_thread(argc, argv, level, &given);
    MPI_Comm_rank(MPI_COMM_WORLD, &this_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &num_ranks);
    RANKS_ASSERT(given >= level, "MPI_Init_thread gave level %d", given);
}

int ranks_end(const char *what) {
    MPI_Barrier(MPI_COMM_WORLD);
    if (this_rank == 0) {
        printf("%s: passed on %d ranks\n", what, num_ranks);
    }
    MPI_Finalize();
    return 0;
}

int ranks_rank(void) {
    return this_rank;
}

int ranks_count(void) {
    return num_ranks;
}

void ranks_fail(const char *file, int line, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "rank %d of %d, %s:%d: %s\n", this_rank, num_ranks, file, line, text);
    fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, 1);
    _exit(1);
}

void ranks_assert_status(const char *file, int line, const char *call, attn_status status,
                         attn_status expected, const char *beginning) {
    const char *const detail = attn_last_error();
    if (status != expected || strncmp(detail, beginning, strlen(beginning)) != 0) {
        ranks_fail(file, line, "%s: expected %s, \"%s...\", got %s, \"%s\"", call,
                   attn_mpi_status_name(expected), beginning, attn_mpi_status_name(status), detail);
    }
}

attn_tensor ranks_view(void *data, int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view;
    RANKS_ASSERT(attn_tensor_init(&view, data, dtype, rank, shape) == ATTN_OK, "%s",
                 attn_last_error());
    return view;
}
