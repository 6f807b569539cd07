/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor.h: the one way in which memory is handed to the library: a view that owns nothing.
 *
 * A view says where an element lies:
 *
 *     address(i0, i1, ...) = data + (i0 * strides[0] + i1 * strides[1] + ...) * element size
 *
 * Strides count elements, not bytes, and may have any sign: a transposed, sliced, reversed or
 * broadcast array is a view, never a copy. A stride of 0 repeats an element along the axis; only
 * inputs may do that. `data` is the address of element (0, 0, ...), at any alignment.
 *
 * The struct is frozen: it never grows, so it may be embedded, copied and put in arrays. It is
 * close to DLPack's DLTensor on purpose. Only the first `rank` entries of shape and strides are
 * read. `data` may be NULL when a length in `shape` is 0.
 *
 * A view is plain data: any number of threads may read one; the functions here touch only their
 * arguments.
 */
#ifndef ATTENTION_TENSOR_H
#define ATTENTION_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include <attention/export.h>
#include <attention/status.h>

ATTN_BEGIN_DECLS

/* Limits of a view. */
enum attn_tensor_constants {
    ATTN_MAX_RANK = 8 /* axes of a view at most */
};

/*
 * Element types. A zeroed dtype is invalid on purpose. An element is a whole number of bytes,
 * always: packed types hold several values in one element, and the last axis and its stride then
 * count elements: 64 values of ATTN_DTYPE_INT4X2 are an axis of 32. Views of all of these may be
 * made. INT8 and what follows hold integers, which are numbers beside a scale; they are read and
 * written as keys and values of a cache, see kv.h. FLOAT8_* is refused with ATTN_ERROR_UNSUPPORTED,
 * as are numbers that this version does not know.
 */
enum attn_dtype {
    ATTN_DTYPE_INVALID = 0,
    ATTN_DTYPE_FLOAT32 = 1,
    ATTN_DTYPE_FLOAT64 = 2,
    ATTN_DTYPE_BOOL = 3, /* one byte: 0 is false, anything else true */
    ATTN_DTYPE_INT64 = 4,
    ATTN_DTYPE_BFLOAT16 = 5, /* the upper half of a float32 */
    ATTN_DTYPE_FLOAT16 = 6,  /* IEEE 754's binary16 */
    ATTN_DTYPE_INT32 = 7,
    ATTN_DTYPE_INT8 = 8,
    ATTN_DTYPE_UINT8 = 9,
    ATTN_DTYPE_FLOAT8_E4M3 = 10,
    ATTN_DTYPE_FLOAT8_E5M2 = 11,
    ATTN_DTYPE_INT4X2 = 12, /* two values of 4 bits, two's complement, the first in the low half */
    ATTN_DTYPE_Q8_0 = 13,   /* ggml's block of 32 values, 34 bytes: a float16 scale, then 32 int8 */
    ATTN_DTYPE_Q4_0 = 14,   /* likewise, 18 bytes: 16 bytes b, value i is the low half of b[i] - 8,
                               value 16 + i the high half - 8 */
    ATTN_DTYPE_UINT4X2 = 15 /* as INT4X2, without sign */
};

/* A view of memory that somebody else owns. */
typedef struct attn_tensor {
    void *data;    /* element (0, ..., 0); outputs are written through it, inputs never */
    int32_t dtype; /* enum attn_dtype */
    int32_t rank;  /* 0 to ATTN_MAX_RANK; rank 0 is a single element */
    int64_t shape[ATTN_MAX_RANK];   /* length of each axis, 0 and up */
    int64_t strides[ATTN_MAX_RANK]; /* elements from one index of the axis to the next */
} attn_tensor;

/* Bytes of one element of a dtype, 4 of ATTN_DTYPE_FLOAT32; 0 for a number that is none. Never
 * fails. Since 0.1. */
ATTN_API size_t attn_dtype_size_bytes(int32_t dtype);

/* Values in one element of a dtype: 2 of ATTN_DTYPE_INT4X2 and ATTN_DTYPE_UINT4X2, 32 of
 * ATTN_DTYPE_Q8_0 and ATTN_DTYPE_Q4_0, 1 of the others; 0 for a number that is none. Never fails.
 * Since 0.1. */
ATTN_API int32_t attn_dtype_values(int32_t dtype);

/*
 * Describes contiguous memory, last axis fastest (C order).
 *
 * tensor   written; need not be initialised
 * data     kept as it is, may be NULL
 * shape    `rank` lengths; may be NULL when rank is 0
 *
 *     float x[2][3];
 *     int64_t shape[] = {2, 3};
 *     status = attn_tensor_init(&tensor, x, ATTN_DTYPE_FLOAT32, 2, shape);
 *
 * Errors: ATTN_ERROR_NULL tensor or shape; ATTN_ERROR_DTYPE a dtype of 0 or below;
 * ATTN_ERROR_UNSUPPORTED one that this version does not know; ATTN_ERROR_VALUE rank outside 0..8 or
 * a negative length; ATTN_ERROR_OVERFLOW the tensor's bytes exceed INT64_MAX. On an error `tensor`
 * is untouched. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_tensor_init(attn_tensor *tensor, void *data,
                                                      int32_t dtype, int32_t rank,
                                                      const int64_t *shape);

/*
 * Describes memory of any layout. As attn_tensor_init, with `rank` strides in elements. Errors: as
 * attn_tensor_init; ATTN_ERROR_OVERFLOW also when the distance between two elements exceeds
 * INT64_MAX bytes. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_tensor_init_strided(attn_tensor *tensor, void *data,
                                                              int32_t dtype, int32_t rank,
                                                              const int64_t *shape,
                                                              const int64_t *strides);

/*
 * The number of elements, the product of the shape, into *count (1 for rank 0). Errors:
 * ATTN_ERROR_NULL; ATTN_ERROR_VALUE, ATTN_ERROR_DTYPE, ATTN_ERROR_UNSUPPORTED, ATTN_ERROR_OVERFLOW
 * for an invalid view. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_tensor_count(const attn_tensor *tensor, int64_t *count);

/*
 * 1 if the elements lie densely in C order (axes of length 1 and empty views do not matter), else
 * 0, also for NULL. Never fails. Since 0.1.
 */
ATTN_API int32_t attn_tensor_is_contiguous(const attn_tensor *tensor);

/*
 * The functions below make a new view of the same elements; nothing is copied, and `view` may be
 * `tensor` itself. Axes are counted from 0; negative ones from the end (-1 is the last). Each fails
 * with ATTN_ERROR_NULL for a NULL tensor or view, ATTN_ERROR_VALUE for an axis the tensor does not
 * have or a position outside it, and leaves `view` untouched then.
 */

/* Swaps two axes. Example: (L, N, E) with axes 0 and 1 becomes (N, L, E), which is how
 * sequence-first data is read. Since 0.1. */
ATTN_API ATTN_MUST_CHECK attn_status attn_tensor_transpose(const attn_tensor *tensor,
                                                           int32_t axis_a, int32_t axis_b,
                                                           attn_tensor *view);

/*
 * Keeps `length` positions of an axis: start, start + step, ... ; step may be negative (reversal)
 * but not 0. Example: a packed (N, L, 3 * E) buffer's keys are attn_tensor_slice(&qkv, -1, E, E, 1,
 * &key). With length 0 any start is accepted. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_tensor_slice(const attn_tensor *tensor, int32_t axis,
                                                       int64_t start, int64_t length, int64_t step,
                                                       attn_tensor *view);

/*
 * Keeps position `index`, 0 to the axis's length - 1, and drops the axis: the result's rank is one
 * less. Example: with axis -3, head `index` of (N, H, L, E) as (N, L, E). Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_tensor_select(const attn_tensor *tensor, int32_t axis,
                                                        int64_t index, attn_tensor *view);

/*
 * (..., L, num_heads * head_dim) -> (..., num_heads, L, head_dim): head h is features h * head_dim
 * to (h + 1) * head_dim - 1, as in torch.nn.MultiheadAttention. Errors: ATTN_ERROR_SHAPE rank below
 * 2 or already 8, or the last axis is no multiple of num_heads; ATTN_ERROR_VALUE num_heads below 1.
 * Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_tensor_split_heads(const attn_tensor *tensor,
                                                             int64_t num_heads, attn_tensor *view);

/*
 * (..., num_heads, L, head_dim) -> (..., L, num_heads * head_dim), the inverse of
 * attn_tensor_split_heads. Errors: ATTN_ERROR_SHAPE rank below 3; ATTN_ERROR_VALUE the heads do not
 * lie head_dim features apart, so that no view exists and a copy would be needed. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_tensor_merge_heads(const attn_tensor *tensor,
                                                             attn_tensor *view);

ATTN_END_DECLS

#endif
