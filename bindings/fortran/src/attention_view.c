/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attention_view.c: a Fortran array, of any type and rank, contiguous or a section, as a view. The
 * one thing that needs C: Fortran's descriptors are C structs (ISO_Fortran_binding.h).
 */
#include <ISO_Fortran_binding.h>
#include <attention/attention.h>

static int32_t dtype_of(CFI_type_t type) {
    switch (type) {
    case CFI_type_float:
        return ATTN_DTYPE_FLOAT32;
    case CFI_type_double:
        return ATTN_DTYPE_FLOAT64;
    case CFI_type_Bool:
        return ATTN_DTYPE_BOOL;
    case CFI_type_int64_t:
        return ATTN_DTYPE_INT64;
    case CFI_type_int32_t:
        return ATTN_DTYPE_INT32;
    case CFI_type_int8_t:
        return ATTN_DTYPE_INT8;
    default:
        return ATTN_DTYPE_INVALID;
    }
}

/* Fortran's first index is the fastest, C's the last: the axes are reversed, no element moves. An
 * array the library has no type for becomes a view of none, which a call then refuses. */
void attention_view(const CFI_cdesc_t *array, attn_tensor *view) {
    *view = (attn_tensor){.data = array->base_addr, .dtype = dtype_of(array->type)};
    view->rank = array->rank;
    for (int32_t axis = 0; axis < view->rank && axis < ATTN_MAX_RANK; ++axis) {
        const CFI_dim_t *dim = &array->dim[view->rank - 1 - axis];
        view->shape[axis] = dim->extent;
        view->strides[axis] = dim->sm / (CFI_index_t)array->elem_len;
    }
}
