/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor_check.h: the rules a view must follow, and the messages when it does not. Every check
 * names the argument.
 */
#ifndef ATTNI_TENSOR_TENSOR_CHECK_H
#define ATTNI_TENSOR_TENSOR_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attention/tensor.h>

#include "base/error.h"

/* A named axis of an expected shape, for messages such as (N=2, S=7). */
typedef struct attni_axis {
    const char *name; /* or NULL */
    int64_t length;   /* ATTNI_ANY_LENGTH: whatever is found */
} attni_axis;

enum { ATTNI_ANY_LENGTH = -1 };

/* An argument and its name; tensor is NULL if it is absent. */
typedef struct attni_argument {
    const char *name;
    const attn_tensor *tensor;
} attni_argument;

/* Text long enough for any shape: 8 axes of 20 digits. */
enum { ATTNI_SHAPE_TEXT_BYTES = 200 };

/* Whether a check may look at the data pointer: queries of sizes may leave it NULL. */
typedef enum attni_data_rule { ATTNI_DATA_IGNORED, ATTNI_DATA_REQUIRED } attni_data_rule;

/* Writes a shape as "(2, 7, 12)" into `text` of ATTNI_SHAPE_TEXT_BYTES and returns it. */
const char *attni_shape_text(char *text, int32_t rank, const int64_t *shape);

const char *attni_dtype_name(int32_t dtype);

/* Whether a cache may hold it as integers with scales. */
bool attni_is_quantized(int32_t dtype);

/* What sums of a type are kept in: float64 for float64, else float32. */
int32_t attni_score_dtype(int32_t dtype);

/* Says that `name` has the wrong dtype: ATTN_ERROR_DTYPE, or ATTN_ERROR_UNSUPPORTED for one that a
 * later version may compute with. */
attn_status attni_fail_dtype(const char *name, int32_t dtype, const char *expected);

/* A valid view: not NULL, known dtype, rank 0..8, lengths >= 0, extents that fit the address space,
 * data unless empty or ignored. */
attn_status attni_check_tensor(const char *name, const attn_tensor *tensor,
                               attni_data_rule data_rule);

/* rank, shape and strides alone; of attn_tensor's fields the dtype must be valid already. */
attn_status attni_check_extent(const char *name, const attn_tensor *tensor);

/* Gives a view the strides of contiguous memory. Where they do not fit int64_t they are some that
 * attni_check_extent refuses. */
void attni_make_contiguous(attn_tensor *view);

attn_status attni_check_rank(const char *name, const attn_tensor *tensor, int32_t lowest,
                             int32_t highest);

attn_status attni_check_dtype(const char *name, const attn_tensor *tensor, int32_t expected);

/* int64 or int32. */
attn_status attni_check_index(const char *name, const attn_tensor *tensor);

/* float32, float64, bfloat16 or float16. */
attn_status attni_check_float(const char *name, const attn_tensor *tensor);

/* The same, or int8: what becomes an int8 weight. */
attn_status attni_check_weight(const char *name, const attn_tensor *tensor);

/* float32, float64, bfloat16, float16 or a quantised one: what a cache may hold. */
attn_status attni_check_cached(const char *name, const attn_tensor *tensor);

/* float32, bfloat16 or float16. */
attn_status attni_check_narrow_float(const char *name, const attn_tensor *tensor);

/* One of two types, which may be the same. */
attn_status attni_check_either(const char *name, const attn_tensor *tensor, int32_t first,
                               int32_t second);

/* `dtype` or float32: what options that accompany scores may have. */
attn_status attni_check_float_option(const char *name, const attn_tensor *tensor, int32_t dtype);

/* A type that may be stored beside a query of `dtype`: any but float64, or float64 alone. */
attn_status attni_check_beside(const char *name, const attn_tensor *tensor, int32_t dtype);

/* `dtype` or its score type: what results may be stored in. */
attn_status attni_check_result(const char *name, const attn_tensor *tensor, int32_t dtype);

/* The shape axes[0..count). */
attn_status attni_check_shape(const char *name, const attn_tensor *tensor, const attni_axis *axes,
                              int32_t count);

/* The tensor's strides when its shape is broadcast to axes[0..count), aligned at the last axis: 0
 * where it repeats. */
attn_status attni_broadcast_strides(const char *name, const attn_tensor *tensor,
                                    const attni_axis *axes, int32_t count, int64_t *strides);

/* Every element of a tensor of indices is within lowest..highest; `label` stands before the highest
 * in messages, such as "S=". Reads the data. */
attn_status attni_check_indices(const char *name, const attn_tensor *indices, const char *label,
                                int64_t lowest, int64_t highest);

/* Every element is a length: 0 to S, which is `highest`. Reads the data. */
attn_status attni_check_lengths(const char *name, const attn_tensor *lengths, int64_t highest);

/* An output may not write an element twice. Accepts every view whose axes nest (sorted by stride,
 * each steps over all smaller ones). */
attn_status attni_check_writable(const char *name, const attn_tensor *tensor);

/* An output may not share memory with another tensor; either may be NULL (absent) or empty. */
attn_status attni_check_disjoint(const char *output_name, const attn_tensor *output,
                                 const char *other_name, const attn_tensor *other);

/* Whether two views of one shape are of the same elements, each at the same place of both. */
bool attni_is_same_view(const attn_tensor *a, const attn_tensor *b);

/* The bytes of a workspace that a call needs may not share memory with any of its tensors. */
attn_status attni_check_workspace_apart(const void *workspace, size_t needed_bytes,
                                        const attni_argument *tensors, int32_t count);

/* No output may share memory with an input or another output. */
attn_status attni_check_outputs(const attni_argument *outputs, int32_t num_outputs,
                                const attni_argument *inputs, int32_t num_inputs);

#endif
