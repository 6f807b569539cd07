/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_program.h: a test that many ranks run together: the first to fail says so and ends all.
 */
#ifndef TESTS_MPI_RANKS_PROGRAM_H
#define TESTS_MPI_RANKS_PROGRAM_H

#include <attention/mpi.h>

/* Starts MPI at this level. A test that would wait for ever is ended after two minutes. */
void ranks_begin(int *argc, char ***argv, int level);
int ranks_end(const char *what);

int ranks_rank(void);
int ranks_count(void);

/* A view of this memory. */
attn_tensor ranks_view(void *data, int32_t dtype, int32_t rank, const int64_t *shape);

/* One line of what fails; never returns. */
void ranks_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4), noreturn));

#define RANKS_ASSERT(condition, ...)                     \
    do {                                                 \
        if (!(condition)) {                              \
            ranks_fail(__FILE__, __LINE__, __VA_ARGS__); \
        }                                                \
    } while (0)

/* The status, and a detail that begins so. */
#define RANKS_ASSERT_STATUS(call, expected, beginning) \
    ranks_assert_status(__FILE__, __LINE__, #call, call, expected, beginning)
void ranks_assert_status(const char *file, int line, const char *call, attn_status status,
                         attn_status expected, const char *beginning);

#endif
