/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_writer.h: writes the records of a case file; README.md describes them.
 */
#ifndef INTEROP_CASE_WRITER_H
#define INTEROP_CASE_WRITER_H

#include <stdint.h>
#include <stdio.h>

#include <attention/tensor.h>

/* As a case spells it. */
const char *case_dtype_name(int32_t dtype);

/* A line of text; the newline is added. */
void case_write_line(FILE *file, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `tensor NAME ...` and its elements in C order, whatever the view's strides. */
void case_write_tensor(FILE *file, const char *name, const attn_tensor *view);

/* `expect NAME TOLERANCE float64 ...` and the values, contiguous. */
void case_write_expected(FILE *file, const char *name, double tolerance, int32_t rank,
                         const int64_t *shape, const double *values);

#endif
