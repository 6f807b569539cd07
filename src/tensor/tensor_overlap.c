/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tensor_overlap.c: whether views share memory.
 *
 * The exact question is hard for arbitrary strides, so the answers are safe ones: "disjoint" is
 * only said when it is certain. Two arguments settle what callers really do: the address ranges do
 * not meet, or the views are interleaved slices of one buffer, such as the query, key and value
 * columns of a packed projection.
 */
#include "base/checked_size.h"
#include "tensor/element.h"
#include "tensor/tensor_check.h"

/* Bytes a view covers: [low, high). */
typedef struct byte_range {
    uintptr_t low;
    uintptr_t high;
} byte_range;

static bool has_elements(const attn_tensor *tensor) {
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        if (tensor->shape[axis] == 0) {
            return false;
        }
    }
    return true;
}

static int64_t stride_bytes(const attn_tensor *tensor, int32_t axis) {
    return attni_stride(tensor, axis) * (int64_t)attn_dtype_size_bytes(tensor->dtype);
}

/* The range of the axes whose stride is no multiple of `pitch`; of all of them if pitch is 0. */
static byte_range range_within(const attn_tensor *tensor, int64_t pitch) {
    byte_range range = {(uintptr_t)tensor->data, (uintptr_t)tensor->data};
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        const int64_t step = stride_bytes(tensor, axis);
        if (pitch != 0 && step % pitch == 0) {
            continue;
        }
        const uintptr_t span = (uintptr_t)((step < 0 ? -step : step) * (tensor->shape[axis] - 1));
        range.low -= step < 0 ? span : 0;
        range.high += step < 0 ? 0 : span;
    }
    range.high += attn_dtype_size_bytes(tensor->dtype);
    return range;
}

/* Both views repeat with `pitch` and within one period lie beside each other. */
static bool disjoint_modulo(const attn_tensor *a, const attn_tensor *b, int64_t pitch) {
    const byte_range in_a = range_within(a, pitch);
    const byte_range in_b = range_within(b, pitch);
    const uintptr_t period = (uintptr_t)pitch;
    const uintptr_t width_a = in_a.high - in_a.low;
    const uintptr_t width_b = in_b.high - in_b.low;
    /* Distance from the start of a's piece to the start of b's, going up, within one period. */
    const uintptr_t gap = (in_b.low % period + period - in_a.low % period) % period;
    return gap >= width_a && gap + width_b <= period;
}

static bool disjoint(const attn_tensor *a, const attn_tensor *b) {
    const byte_range all_a = range_within(a, 0);
    const byte_range all_b = range_within(b, 0);
    if (all_a.high <= all_b.low || all_b.high <= all_a.low) {
        return true;
    }
    for (int32_t axis = 0; axis < a->rank; ++axis) {
        const int64_t step = stride_bytes(a, axis);
        const int64_t pitch = step < 0 ? -step : step;
        if (a->shape[axis] > 1 && pitch > 0 && disjoint_modulo(a, b, pitch)) {
            return true;
        }
    }
    return false;
}

attn_status attni_check_disjoint(const char *output_name, const attn_tensor *output,
                                 const char *other_name, const attn_tensor *other) {
    if (output == NULL || other == NULL || output->data == NULL || other->data == NULL ||
        !has_elements(output) || !has_elements(other) || disjoint(output, other)) {
        return ATTN_OK;
    }
    return attni_fail(ATTN_ERROR_OVERLAP,
                      "%s: expected memory of its own, got memory that overlaps %s", output_name,
                      other_name);
}

bool attni_is_same_view(const attn_tensor *a, const attn_tensor *b) {
    bool same = a->data == b->data && a->dtype == b->dtype;
    for (int32_t axis = 0; same && axis < a->rank; ++axis) {
        same = attni_stride(a, axis) == attni_stride(b, axis);
    }
    return same;
}

attn_status attni_check_writable(const char *name, const attn_tensor *tensor) {
    if (!has_elements(tensor)) {
        return ATTN_OK;
    }
    /* Repeatedly take the smallest stride not yet seen: it must step over everything the smaller
     * ones reach. */
    bool seen[ATTN_MAX_RANK] = {false};
    int64_t reach = 1;
    for (int32_t round = 0; round < tensor->rank; ++round) {
        int32_t smallest = -1;
        int64_t smallest_step = 0;
        for (int32_t axis = 0; axis < tensor->rank; ++axis) {
            const int64_t stride = attni_stride(tensor, axis);
            const int64_t step = stride < 0 ? -stride : stride;
            if (!seen[axis] && tensor->shape[axis] > 1 && (smallest < 0 || step < smallest_step)) {
                smallest = axis;
                smallest_step = step;
            }
        }
        if (smallest < 0) {
            break;
        }
        if (smallest_step < reach) {
            return attni_fail(
                ATTN_ERROR_OVERLAP,
                "%s: expected strides that give every element its own memory, got %lld on axis %d",
                name, (long long)tensor->strides[smallest], (int)smallest);
        }
        seen[smallest] = true;
        reach += smallest_step * (tensor->shape[smallest] - 1);
    }
    return ATTN_OK;
}

attn_status attni_check_workspace_apart(const void *workspace, size_t needed_bytes,
                                        const attni_argument *tensors, int32_t count) {
    const attn_tensor block = {.data = (void *)(uintptr_t)workspace,
                               .dtype = ATTN_DTYPE_BOOL,
                               .rank = 1,
                               .shape = {(int64_t)needed_bytes},
                               .strides = {1}};
    for (int32_t i = 0; i < count; ++i) {
        ATTNI_TRY(attni_check_disjoint("workspace", &block, tensors[i].name, tensors[i].tensor));
    }
    return ATTN_OK;
}

attn_status attni_check_outputs(const attni_argument *outputs, int32_t num_outputs,
                                const attni_argument *inputs, int32_t num_inputs) {
    for (int32_t i = 0; i < num_outputs; ++i) {
        for (int32_t j = 0; j < num_inputs; ++j) {
            ATTNI_TRY(attni_check_disjoint(outputs[i].name, outputs[i].tensor, inputs[j].name,
                                           inputs[j].tensor));
        }
        for (int32_t j = 0; j < i; ++j) {
            ATTNI_TRY(attni_check_disjoint(outputs[i].name, outputs[i].tensor, outputs[j].name,
                                           outputs[j].tensor));
        }
    }
    return ATTN_OK;
}
