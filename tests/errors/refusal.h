/* SPDX-License-Identifier: BSD-3-Clause
 *
 * refusal.h: what the error suites share. A suite is a table: each entry changes one thing of a
 * valid call, and says which status and which line of detail the library must answer with. The
 * suites' fixtures hold the valid call and its views by number.
 */
#ifndef TESTS_ERRORS_REFUSAL_H
#define TESTS_ERRORS_REFUSAL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { REFUSAL_CANARY = 0xa5, REFUSAL_MAX_TESTS = 192 };

/* Fills memory an output is expected in, so that a write shows. */
void refusal_fill(void *memory, size_t bytes);

/* Fails the test unless every byte is still what refusal_fill left. */
void refusal_assert_untouched(const char *what, const void *memory, size_t bytes);

/* Fails the test unless `status` is `expected` and the detail is `line`, or begins with it where it
 * ends in "...". */
void refusal_assert(const char *call, attn_status status, attn_status expected, const char *line);

/* The details of a struct_size that is too small and of a newer struct with an option at byte `at`;
 * valid until the next of these calls. */
const char *refusal_size_line(const char *name, size_t known_bytes, uint64_t given);
const char *refusal_newer_line(const char *name, size_t known_bytes, size_t at);

/* Whether the line is about this argument. */
bool refusal_line_names(const char *line, const char *argument);

/* Fails the test, with the detail, unless `status` is ATTN_OK and the detail is empty. */
void refusal_assert_ok(const char *call, attn_status status);

/* Numbers in [-1.25, 1.25] that look mixed; `seed` keeps two arrays apart. */
void refusal_numbers(float *values, int64_t count, int seed);

/* Fails the test unless |actual - expected| <= 1e-5 everywhere. */
void refusal_assert_close(const char *name, const float *actual, const double *expected,
                          int64_t count);

/* Contiguous float32 view of float memory, and the like for other types; ends the test if the
 * library refuses. */
attn_tensor refusal_view(void *data, int32_t dtype, int32_t rank, const int64_t *shape);

/* What is wrong with a view. */
typedef enum refusal_fault {
    REFUSAL_NO_FAULT = 0,
    REFUSAL_NO_TENSOR, /* the argument is NULL; the fixture's business */
    REFUSAL_NO_DATA,
    REFUSAL_DTYPE,  /* value: the dtype it claims */
    REFUSAL_RANK,   /* value: the rank; leading axes are dropped, or added with length 1 */
    REFUSAL_LENGTH, /* axis, value: its length */
    REFUSAL_STRIDE, /* axis, value: its stride */
    REFUSAL_MEMORY, /* other, value: its data lies `value` bytes past the start of view `other`'s */
    REFUSAL_ELEMENT, /* axis: which element of contiguous int64 ones; value: what it becomes */
    REFUSAL_BYTE     /* the same of bytes */
} refusal_fault;

typedef struct refusal_spoil {
    refusal_fault fault;
    int tensor; /* the fixture's number of the view */
    int32_t axis;
    int other;
    int64_t value;
} refusal_spoil;

/* Does it to views[spoil->tensor]; nothing for the first two faults. */
void refusal_spoil_view(attn_tensor *views, const refusal_spoil *spoil);

/* The tests of one program. */
typedef struct refusal_suite {
    struct CMUnitTest tests[REFUSAL_MAX_TESTS];
    size_t count;
} refusal_suite;

/* Adds a test that finds `entry` in *state. */
void refusal_suite_add(refusal_suite *suite, const char *name, CMUnitTestFunction run,
                       const void *entry);

int refusal_suite_run(const refusal_suite *suite, const char *name);

#endif
