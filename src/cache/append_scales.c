/* SPDX-License-Identifier: BSD-3-Clause
 *
 * append_scales.c: a scale that is written must be its row's own, and a zero goes with its scale.
 */
#include "cache/append_scales.h"

static bool is_of_rows(const attn_tensor *numbers, const attn_tensor *of) {
    return numbers != NULL && numbers->shape[of->rank - 2] == of->shape[of->rank - 2];
}

bool attni_append_writes(const attn_kv *kv, int32_t which) {
    switch (which) {
    case ATTNI_KV_KEY:
    case ATTNI_KV_VALUE:
        return true;
    case ATTNI_KV_KEY_SCALE:
        return is_of_rows(kv->key_scale, kv->key);
    case ATTNI_KV_VALUE_SCALE:
        return is_of_rows(kv->value_scale, kv->value);
    case ATTNI_KV_KEY_ZERO:
        return is_of_rows(kv->key_zero, kv->key);
    case ATTNI_KV_VALUE_ZERO:
        return is_of_rows(kv->value_zero, kv->value);
    default:
        return false;
    }
}

/* Rows of heads, sequences or pages that shared a scale would each write it. */
static attn_status check_own(const char *name, const attn_tensor *scale, const char *of_name,
                             const attn_tensor *of) {
    for (int32_t axis = 0; axis < of->rank - 1; ++axis) {
        if (scale->shape[axis] != of->shape[axis]) {
            char text[ATTNI_SHAPE_TEXT_BYTES];
            return attni_fail(ATTN_ERROR_SHAPE,
                              "%s: expected %lld (as %s) on axis %d, since new rows write it, got "
                              "%s",
                              name, (long long)of->shape[axis], of_name, (int)axis,
                              attni_shape_text(text, scale->rank, scale->shape));
        }
    }
    return ATTN_OK;
}

static attn_status check_zero(const char *name, const attn_tensor *zero, const char *scale_name,
                              const attn_tensor *scale, bool is_written) {
    if (!is_written) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%s: expected fewer rows than are stored, since %s is read, not written",
                          name, scale_name);
    }
    for (int32_t axis = 0; axis < scale->rank; ++axis) {
        if (zero->shape[axis] != scale->shape[axis]) {
            char expected[ATTNI_SHAPE_TEXT_BYTES], got[ATTNI_SHAPE_TEXT_BYTES];
            return attni_fail(ATTN_ERROR_SHAPE,
                              "%s: expected shape %s, as %s, which new rows write, got %s", name,
                              attni_shape_text(expected, scale->rank, scale->shape), scale_name,
                              attni_shape_text(got, zero->rank, zero->shape));
        }
    }
    return ATTN_OK;
}

attn_status attni_check_scales(const attni_input_views *inputs, int32_t which,
                               attni_new_rows *part) {
    const attn_tensor *cached = inputs->given[which];
    const attn_tensor *scale = inputs->scales[which], *zero = inputs->zeros[which];
    const bool is_key = which == ATTNI_KEY;
    const char *const *names = inputs->kv_names->of;
    const char *scale_name = names[is_key ? ATTNI_KV_KEY_SCALE : ATTNI_KV_VALUE_SCALE];
    if (cached->dtype == ATTN_DTYPE_Q4_0) {
        return attni_fail(ATTN_ERROR_UNSUPPORTED,
                          "%s: expected a dtype that rows can be stored in, got q4_0, which this "
                          "version only reads",
                          inputs->names[which]);
    }
    part->writes_scale = is_of_rows(scale, cached);
    if (part->writes_scale) {
        ATTNI_TRY(check_own(scale_name, scale, inputs->names[which], cached));
    }
    if (zero != NULL && (part->writes_scale || is_of_rows(zero, cached))) {
        return check_zero(names[is_key ? ATTNI_KV_KEY_ZERO : ATTNI_KV_VALUE_ZERO], zero, scale_name,
                          scale, part->writes_scale);
    }
    return ATTN_OK;
}
