/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_case.h: one reference case: a .safetensors file with inputs, options and expected results,
 * as README.md describes them.
 */
#ifndef GOLDEN_CASE_H
#define GOLDEN_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attention/attention.h>

#include "safetensors_read.h"

typedef struct golden_block golden_block;

/* An open case. Memory taken through it lives until golden_case_close. */
typedef struct golden_case {
    const char *name; /* the file's name without its ending */
    safetensors_file *file;
    golden_block *blocks;
    double score_magnitude; /* what golden_bound.h calls s; negative until the first run of the case
                               has measured it */
    double output_magnitude; /* v or w of golden_bound.h */
} golden_case;

/* What a case expects of one output. */
typedef struct golden_expected {
    int32_t rank;
    int64_t shape[ATTN_MAX_RANK];
    int64_t count;
    const double *values; /* contiguous */
    double tolerance;     /* largest absolute error allowed in float32 */
    double torch_error; /* what PyTorch's own float32 reached; negative if the case does not say */
} golden_expected;

/* Opens `path`. On failure returns false with one line in `error`; nothing is left open. `name`
 * must outlive the case. */
bool golden_case_open(golden_case *golden, const char *path, const char *name, char *error,
                      size_t error_bytes);

void golden_case_close(golden_case *golden);

/* `bytes` of zeroed memory at malloc's alignment; ends the program if there is none. */
void *golden_take(golden_case *golden, size_t bytes);

/* The option's text, "" if the case has none of that name. */
const char *golden_option(const golden_case *golden, const char *key);

/* Whether the option is "1". */
bool golden_flag(const golden_case *golden, const char *key);

/* The option as a number; 0 if absent. */
int64_t golden_number(const golden_case *golden, const char *key);

/*
 * A view of the input `name`: the file's own memory at whatever alignment it has, or NAME.storage
 * seen through the shape, strides and offset of the metadata. With dtype ATTN_DTYPE_FLOAT64 float32
 * values are converted, which is exact; with 0 they stay as stored. A dtype the library has no
 * number for appears as zeroes of int64: only cases that expect a refusal hold one. False if the
 * case has no such input or its description is out of bounds.
 */
bool golden_input(golden_case *golden, const char *name, int32_t dtype, attn_tensor *view);

/* Whether the case has the input `name` with floating-point values. */
bool golden_has_float_input(const golden_case *golden, const char *name);

/* The expected values of `name`, from NAME.f64 or else NAME itself. False if the case has neither.
 */
bool golden_expected_values(golden_case *golden, const char *name, golden_expected *expected);

/* Elements of a view, and the value of element `flat`, counted in C order. */
int64_t golden_count(const attn_tensor *view);
double golden_value(const attn_tensor *view, int64_t flat);

#endif
