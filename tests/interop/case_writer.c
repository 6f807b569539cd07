/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_writer.c: records of a case file.
 */
#include "case_writer.h"

#include <stdarg.h>

#include <attention/attention.h>

#include "support/oracle_tensor.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "case files are little-endian");

const char *case_dtype_name(int32_t dtype) {
    static const char *const names[] = {
        [ATTN_DTYPE_INVALID] = "invalid", [ATTN_DTYPE_FLOAT32] = "float32",
        [ATTN_DTYPE_FLOAT64] = "float64", [ATTN_DTYPE_BOOL] = "bool",
        [ATTN_DTYPE_INT64] = "int64",     [ATTN_DTYPE_BFLOAT16] = "bfloat16",
        [ATTN_DTYPE_FLOAT16] = "float16", [ATTN_DTYPE_INT32] = "int32",
        [ATTN_DTYPE_INT8] = "int8",       [ATTN_DTYPE_UINT8] = "uint8"};
    return names[dtype];
}

void case_write_line(FILE *file, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fputc('\n', file);
}

static void write_shape(FILE *file, int32_t dtype, int32_t rank, const int64_t *shape) {
    fprintf(file, "%s %d", case_dtype_name(dtype), rank);
    for (int32_t axis = 0; axis < rank; ++axis) {
        fprintf(file, " %lld", (long long)shape[axis]);
    }
    fputc('\n', file);
}

void case_write_tensor(FILE *file, const char *name, const attn_tensor *view) {
    int64_t index[ATTN_MAX_RANK] = {0};
    const size_t bytes = attn_dtype_size_bytes(view->dtype);
    fprintf(file, "tensor %s ", name);
    write_shape(file, view->dtype, view->rank, view->shape);
    if (oracle_count(view->rank, view->shape) == 0) {
        return;
    }
    do {
        fwrite(oracle_address(view, index), 1, bytes, file);
    } while (oracle_next_index(view->rank, view->shape, index));
}

void case_write_expected(FILE *file, const char *name, double tolerance, int32_t rank,
                         const int64_t *shape, const double *values) {
    fprintf(file, "expect %s %.3e ", name, tolerance);
    write_shape(file, ATTN_DTYPE_FLOAT64, rank, shape);
    fwrite(values, sizeof *values, (size_t)oracle_count(rank, shape), file);
}
