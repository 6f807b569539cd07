/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mask.c: what the mask kinds mean.
 */
#include "softmax/mask.h"

#include <math.h>

#include <attention/softmax.h>

#include "base/checked_size.h"
#include "base/option_check.h"
#include "kernels/tile_kernels.h"
#include "tensor/element.h"

attn_status attni_mask_check_kind(const char *name, const attn_tensor *mask, int32_t kind,
                                  int32_t score_dtype) {
    ATTNI_TRY(
        attni_check_choice(name, "_kind", kind, ATTN_MASK_BOOL_EXCLUDE, "enum attn_mask_kind"));
    if (mask == NULL) {
        return kind == ATTN_MASK_NONE
                   ? ATTN_OK
                   : attni_fail(ATTN_ERROR_VALUE,
                                "%s_kind: expected ATTN_MASK_NONE without a mask, got %d", name,
                                (int)kind);
    }
    if (kind == ATTN_MASK_NONE) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%s_kind: expected ATTN_MASK_ADDITIVE, ATTN_MASK_BOOL_INCLUDE or "
                          "ATTN_MASK_BOOL_EXCLUDE with a mask, got 0",
                          name);
    }
    if (kind == ATTN_MASK_ADDITIVE) {
        return attni_check_float_option(name, mask, score_dtype);
    }
    return attni_check_dtype(name, mask, ATTN_DTYPE_BOOL);
}

attn_status attni_mask_check(const char *name, const attn_tensor *mask, int32_t kind,
                             int32_t score_dtype, const attni_axis *axes, int32_t axis_count,
                             attni_data_rule data_rule, attni_mask *canonical) {
    *canonical = (attni_mask){.kind = ATTN_MASK_NONE};
    if (mask != NULL) {
        ATTNI_TRY(attni_check_tensor(name, mask, data_rule));
    }
    ATTNI_TRY(attni_mask_check_kind(name, mask, kind, score_dtype));
    if (mask != NULL) {
        ATTNI_TRY(attni_check_rank(name, mask, 1, ATTN_MAX_RANK));
        ATTNI_TRY(attni_broadcast_strides(name, mask, axes, axis_count, canonical->strides));
        canonical->data = mask->data;
        canonical->kind = kind;
        canonical->dtype = mask->dtype;
    }
    return ATTN_OK;
}

static const char *element_at(const attni_mask *mask, int64_t offset) {
    return attni_advance((char *)(uintptr_t)mask->data,
                         offset * (int64_t)attn_dtype_size_bytes(mask->dtype));
}

static void hide(const attni_mask *mask, int64_t offset, int64_t stride,
                 const attni_row_kernels *kernels, void *row, int64_t n, double excluded) {
    kernels->hide(row, n, (const unsigned char *)element_at(mask, offset), stride,
                  mask->kind == ATTN_MASK_BOOL_EXCLUDE, excluded);
}

void attni_mask_apply(const attni_mask *mask, int64_t offset, int64_t stride,
                      const attni_row_kernels *kernels, void *row, int64_t n, double excluded) {
    if (mask->kind == ATTN_MASK_ADDITIVE) {
        kernels->add_bias(row, n, element_at(mask, offset), stride, mask->dtype, excluded);
    } else {
        hide(mask, offset, stride, kernels, row, n, excluded);
    }
}

void attni_mask_exclude(const attni_mask *mask, int64_t offset, int64_t stride,
                        const attni_row_kernels *kernels, void *row, int64_t n, double excluded) {
    if (mask->kind == ATTN_MASK_ADDITIVE) {
        kernels->exclude(row, n, element_at(mask, offset), stride, mask->dtype, excluded);
    } else {
        hide(mask, offset, stride, kernels, row, n, excluded);
    }
}

bool attni_mask_may_restore(const attni_mask *mask) {
    return mask->kind == ATTN_MASK_ADDITIVE;
}

bool attni_mask_is_narrow(const attni_mask *mask) {
    return mask->kind == ATTN_MASK_ADDITIVE && mask->dtype != ATTN_DTYPE_FLOAT32 &&
           mask->dtype != ATTN_DTYPE_FLOAT64;
}

static void rows_of_biases(const char *const *rows, int32_t num_rows, const float **biases) {
    for (int32_t r = 0; r < num_rows; ++r) {
        biases[r] = (const float *)(const void *)rows[r];
    }
}

static void rows_of_flags(const char *const *rows, int32_t num_rows, const unsigned char **flags) {
    for (int32_t r = 0; r < num_rows; ++r) {
        flags[r] = (const unsigned char *)rows[r];
    }
}

void attni_mask_apply_rows(const attni_mask *mask, const char *const *rows,
                           const attni_mask_tile *tile) {
    if (mask->kind == ATTN_MASK_ADDITIVE) {
        const float *biases[ATTNI_PANEL_LANES];
        rows_of_biases(rows, tile->width, biases);
        tile->kernels->add_bias(tile->scores, tile->vectors, tile->num_keys, biases, tile->is_added,
                                tile->excluded);
    } else {
        const unsigned char *flags[ATTNI_PANEL_LANES];
        rows_of_flags(rows, tile->width, flags);
        tile->kernels->hide(tile->scores, tile->vectors, tile->num_keys, flags,
                            mask->kind == ATTN_MASK_BOOL_EXCLUDE, tile->excluded);
    }
}

attni_mask_sight attni_mask_look(const attni_mask *mask, const attni_mask_kernels *kernels,
                                 const char *const *rows, int32_t num_rows, int64_t num_keys) {
    if (mask->kind == ATTN_MASK_ADDITIVE) {
        const float *biases[ATTNI_PANEL_LANES];
        rows_of_biases(rows, num_rows, biases);
        return kernels->look_at_biases(biases, num_rows, num_keys);
    }
    const unsigned char *flags[ATTNI_PANEL_LANES];
    rows_of_flags(rows, num_rows, flags);
    return kernels->look_at_flags(flags, num_rows, num_keys, mask->kind == ATTN_MASK_BOOL_EXCLUDE);
}

/* Narrow masks are looked at as float32, some keys at a time. */
enum { WIDENED_KEYS = 256 };

static int64_t first_shown_narrow(const attni_mask *mask, const attni_kernel_set *kernels,
                                  const char *row, int64_t stride, int64_t num_keys) {
    const attni_storage_kernels *storage = attni_storage_kernels_of(kernels, mask->dtype);
    const int64_t bytes = stride * (int64_t)attn_dtype_size_bytes(mask->dtype);
    float biases[WIDENED_KEYS];
    for (int64_t begin = 0; begin < num_keys; begin += WIDENED_KEYS) {
        const int64_t count = attni_min(WIDENED_KEYS, num_keys - begin);
        storage->widen(biases, row + begin * bytes, stride, count);
        const int64_t shown = kernels->masks->first_shown_bias(biases, 1, count);
        if (shown < count) {
            return begin + shown;
        }
    }
    return num_keys;
}

static int64_t past_shown_narrow(const attni_mask *mask, const attni_kernel_set *kernels,
                                 const char *row, int64_t stride, int64_t num_keys) {
    const attni_storage_kernels *storage = attni_storage_kernels_of(kernels, mask->dtype);
    const int64_t bytes = stride * (int64_t)attn_dtype_size_bytes(mask->dtype);
    float biases[WIDENED_KEYS];
    for (int64_t end = num_keys; end > 0; end -= WIDENED_KEYS) {
        const int64_t begin = attni_max(end - WIDENED_KEYS, 0);
        storage->widen(biases, row + begin * bytes, stride, end - begin);
        const int64_t past = kernels->masks->past_shown_biases(biases, 1, end - begin);
        if (past > 0) {
            return begin + past;
        }
    }
    return 0;
}

int64_t attni_mask_first_shown(const attni_mask *mask, const attni_kernel_set *kernels,
                               const char *row, int64_t stride, int64_t num_keys) {
    if (attni_mask_is_narrow(mask)) {
        return first_shown_narrow(mask, kernels, row, stride, num_keys);
    }
    return mask->kind == ATTN_MASK_ADDITIVE
               ? kernels->masks->first_shown_bias((const float *)(const void *)row, stride,
                                                  num_keys)
               : kernels->masks->first_shown_flag((const unsigned char *)row, stride, num_keys,
                                                  mask->kind == ATTN_MASK_BOOL_EXCLUDE);
}

int64_t attni_mask_past_shown(const attni_mask *mask, const attni_kernel_set *kernels,
                              const char *row, int64_t stride, int64_t num_keys) {
    if (attni_mask_is_narrow(mask)) {
        return past_shown_narrow(mask, kernels, row, stride, num_keys);
    }
    return mask->kind == ATTN_MASK_ADDITIVE
               ? kernels->masks->past_shown_biases((const float *)(const void *)row, stride,
                                                   num_keys)
               : kernels->masks->past_shown_flags((const unsigned char *)row, stride, num_keys,
                                                  mask->kind == ATTN_MASK_BOOL_EXCLUDE);
}

void attni_mask_apply_keys(const attni_mask *mask, const char *first, int64_t stride,
                           const attni_mask_tile *tile) {
    if (mask->kind == ATTN_MASK_ADDITIVE) {
        tile->kernels->add_key_bias(tile->scores, tile->vectors, tile->num_keys,
                                    (const float *)(const void *)first, stride, tile->is_added,
                                    tile->excluded);
    } else {
        tile->kernels->hide_keys(tile->scores, tile->vectors, tile->num_keys,
                                 (const unsigned char *)first, stride,
                                 mask->kind == ATTN_MASK_BOOL_EXCLUDE, tile->excluded);
    }
}

bool attni_mask_shifts(const attni_mask *mask, const char *element) {
    if (mask->kind != ATTN_MASK_ADDITIVE) {
        return false;
    }
    const double bias = attni_read_real(element, 0, mask->dtype);
    return bias != 0 && bias != -(double)INFINITY;
}

bool attni_mask_excludes(const attni_mask *mask, int64_t offset) {
    const char *element = element_at(mask, offset);
    if (mask->kind != ATTN_MASK_ADDITIVE) {
        return (*element != 0) == (mask->kind == ATTN_MASK_BOOL_EXCLUDE);
    }
    return attni_read_real(mask->data, offset, mask->dtype) == -(double)INFINITY;
}
