/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_reader.h: reads a case file, as README.md describes it.
 */
#ifndef INTEROP_CASE_READER_H
#define INTEROP_CASE_READER_H

#include <stddef.h>
#include <stdint.h>

#include <attention/tensor.h>

enum { CASE_MAX_RECORDS = 40, CASE_NAME_BYTES = 64, CASE_TEXT_BYTES = 256 };

typedef struct case_option {
    char name[CASE_NAME_BYTES];
    char value[CASE_TEXT_BYTES];
} case_option;

typedef struct case_tensor {
    char name[CASE_NAME_BYTES];
    double tolerance; /* of an expected result */
    attn_tensor view;
} case_tensor;

typedef struct interop_case {
    unsigned char *bytes;
    char call[CASE_NAME_BYTES];
    case_option options[CASE_MAX_RECORDS];
    case_tensor tensors[CASE_MAX_RECORDS];
    case_tensor expected[CASE_MAX_RECORDS];
    int num_options, num_tensors, num_expected;
    int32_t error_code; /* 0: the call succeeds */
    char error_text[CASE_TEXT_BYTES];
} interop_case;

/* 0, or -1 with the reason in `error`. */
int case_read(interop_case *made, const char *path, char *error, size_t error_bytes);
void case_destroy(interop_case *made);

/* NULL if the case has none of that name. */
const char *case_text(const interop_case *made, const char *option);
const attn_tensor *case_view(const interop_case *made, const char *tensor);

/* ATTN_DTYPE_INVALID for a name that is none of a case's. */
int32_t case_dtype(const char *name);

/* `absent` if the case has no such option. */
int64_t case_number(const interop_case *made, const char *option, int64_t absent);
double case_real(const interop_case *made, const char *option, double absent);

#endif
