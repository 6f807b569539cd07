/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_parameters.c: a layer's parameters by their names: which exist, copying in and out, binding,
 * fresh values.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/checked_size.h"
#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "context/context.h"
#include "gemm/strips.h"
#include "multihead/mha_layer.h"
#include "multihead/random_numbers.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

/* A name and the neighbouring slots it stands for, stacked along their rows. */
typedef struct parameter {
    const char *name;
    int32_t first_slot;
    int32_t num_slots;
    int32_t leading_ones; /* axes of length 1 before the slot's own, as PyTorch stores bias_k and
                             bias_v */
    enum { LISTED_ALWAYS, LISTED_IF_PACKED, LISTED_IF_SEPARATE, LISTED_NEVER } listed;
} parameter;

/* In state_dict order; those never listed are accepted beside them, for weights that are stored
 * separately. */
static const parameter parameters[] = {
    {"in_proj_weight", ATTNI_Q_WEIGHT, 3, 0, LISTED_IF_PACKED},
    {"q_proj_weight", ATTNI_Q_WEIGHT, 1, 0, LISTED_IF_SEPARATE},
    {"k_proj_weight", ATTNI_K_WEIGHT, 1, 0, LISTED_IF_SEPARATE},
    {"v_proj_weight", ATTNI_V_WEIGHT, 1, 0, LISTED_IF_SEPARATE},
    {"in_proj_bias", ATTNI_Q_BIAS, 3, 0, LISTED_ALWAYS},
    {"bias_k", ATTNI_BIAS_K, 1, 2, LISTED_ALWAYS},
    {"bias_v", ATTNI_BIAS_V, 1, 2, LISTED_ALWAYS},
    {"out_proj.weight", ATTNI_O_WEIGHT, 1, 0, LISTED_ALWAYS},
    {"out_proj.bias", ATTNI_O_BIAS, 1, 0, LISTED_ALWAYS},
    {"q_norm.weight", ATTNI_Q_NORM, 1, 0, LISTED_ALWAYS},
    {"k_norm.weight", ATTNI_K_NORM, 1, 0, LISTED_ALWAYS},
    {"q_proj_bias", ATTNI_Q_BIAS, 1, 0, LISTED_NEVER},
    {"k_proj_bias", ATTNI_K_BIAS, 1, 0, LISTED_NEVER},
    {"v_proj_bias", ATTNI_V_BIAS, 1, 0, LISTED_NEVER},
};

enum { NUM_PARAMETERS = sizeof parameters / sizeof parameters[0] };

static bool layer_has(const attn_mha *layer, const parameter *which) {
    const bool has_slots = layer->slots[which->first_slot].view.rank > 0;
    return has_slots && (which->listed != LISTED_IF_PACKED || layer->is_packed);
}

static bool is_listed(const attn_mha *layer, const parameter *which) {
    return layer_has(layer, which) && which->listed != LISTED_NEVER &&
           (which->listed != LISTED_IF_SEPARATE || !layer->is_packed);
}

static bool covers(const attn_mha *layer, const parameter *which, int32_t slot) {
    return slot >= which->first_slot && slot < which->first_slot + which->num_slots &&
           (which->listed != LISTED_IF_PACKED || layer->is_packed);
}

/* Some parameter covers each slot. */
const char *attni_mha_slot_name(const attn_mha *layer, int32_t slot) {
    const parameter *which = parameters;
    while (!covers(layer, which, slot)) {
        ++which;
    }
    return which->name;
}

/* The contiguous shape of a parameter; its data is NULL. */
static attn_tensor shape_of(const attn_mha *layer, const parameter *which) {
    const attn_tensor *first = &layer->slots[which->first_slot].view;
    attn_tensor shape = {.dtype = layer->parameter_dtype,
                         .rank = which->leading_ones + first->rank};
    int64_t rows = 0;
    for (int32_t i = 0; i < which->num_slots; ++i) {
        rows += layer->slots[which->first_slot + i].view.shape[0];
    }
    const int64_t row_elements = first->rank > 1 ? first->shape[1] : 1;
    for (int32_t axis = 0; axis < which->leading_ones; ++axis) {
        shape.shape[axis] = 1;
        shape.strides[axis] = rows * row_elements;
    }
    shape.shape[which->leading_ones] = rows;
    shape.strides[which->leading_ones] = row_elements;
    if (first->rank > 1) {
        shape.shape[which->leading_ones + 1] = row_elements;
        shape.strides[which->leading_ones + 1] = 1;
    }
    return shape;
}

/* The part of a caller's tensor that belongs to the i-th slot of a parameter, in the slot's own
 * rank. */
static attn_tensor part_of(const attn_mha *layer, const parameter *which, const attn_tensor *values,
                           int32_t i) {
    const attn_tensor *slot = &layer->slots[which->first_slot + i].view;
    attn_tensor part = {.data = values->data, .dtype = values->dtype, .rank = slot->rank};
    for (int32_t axis = 0; axis < slot->rank; ++axis) {
        part.shape[axis] = slot->shape[axis];
        part.strides[axis] = attni_stride(values, which->leading_ones + axis);
    }
    int64_t first_row = 0;
    for (int32_t before = 0; before < i; ++before) {
        first_row += layer->slots[which->first_slot + before].view.shape[0];
    }
    part.data = attni_advance(values->data, first_row * part.strides[0] *
                                                (int64_t)attn_dtype_size_bytes(values->dtype));
    return part;
}

static attn_status fail_unknown(const attn_mha *layer, const char *name) {
    char list[256] = "";
    size_t length = 0;
    for (int32_t i = 0; i < NUM_PARAMETERS; ++i) {
        if (is_listed(layer, &parameters[i])) {
            const int written = snprintf(list + length, sizeof list - length, "%s%s",
                                         length > 0 ? ", " : "", parameters[i].name);
            length +=
                written > 0 ? (size_t)written : 0; /* all names together are shorter than list */
        }
    }
    return attni_fail(ATTN_ERROR_PARAMETER,
                      "name: expected one of this layer's parameters (%s), got \"%.64s\"", list,
                      name);
}

static attn_status find(const attn_mha *layer, const char *name, const parameter **found) {
    if (layer == NULL || name == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "%s: expected a %s, got NULL",
                          layer == NULL ? "layer" : "name",
                          layer == NULL ? "layer" : "parameter's name");
    }
    for (int32_t i = 0; i < NUM_PARAMETERS; ++i) {
        if (strcmp(parameters[i].name, name) == 0 && layer_has(layer, &parameters[i])) {
            *found = &parameters[i];
            return ATTN_OK;
        }
    }
    return fail_unknown(layer, name);
}

/* A caller's tensor for a parameter: valid, and of exactly its shape. */
static attn_status check_values(const attn_mha *layer, const parameter *which,
                                const attn_tensor *values) {
    ATTNI_TRY(attni_check_tensor(which->name, values, ATTNI_DATA_REQUIRED));
    ATTNI_TRY(attni_check_float(which->name, values));
    const attn_tensor shape = shape_of(layer, which);
    attni_axis axes[ATTN_MAX_RANK];
    for (int32_t axis = 0; axis < shape.rank; ++axis) {
        axes[axis] = (attni_axis){NULL, shape.shape[axis]};
    }
    return attni_check_shape(which->name, values, axes, shape.rank);
}

static attn_status check_layer_dtype(const attn_mha *layer, const parameter *which,
                                     const attn_tensor *values) {
    return attni_check_dtype(which->name, values, layer->parameter_dtype);
}

/* Filling up the last strip may be what no longer fits. */
static attn_status fail_too_large(const attn_mha *layer, int32_t slot, int64_t rows, int64_t cols) {
    return attni_fail(ATTN_ERROR_OVERFLOW,
                      "%s: expected at most 2^63 - 1 bytes in strips of %lld rows, got %lld rows "
                      "of %lld %s",
                      attni_mha_slot_name(layer, slot),
                      (long long)attni_strip_cols(layer->parameter_dtype), (long long)rows,
                      (long long)cols, attni_dtype_name(layer->parameter_dtype));
}

attn_status attni_mha_allocate_slot(const attn_mha *layer, int32_t slot, attni_mha_slot *fresh) {
    const attn_tensor *old = &layer->slots[slot].view;
    *fresh = (attni_mha_slot){.view = *old, .in_strips = old->rank > 1};
    const int64_t cols = old->rank > 1 ? old->shape[1] : 1;
    const int64_t rows =
        old->rank > 1 ? attni_strips_round_up(old->dtype, old->shape[0]) : old->shape[0];
    fresh->view.strides[0] = cols;
    fresh->view.strides[1] = 1;
    int64_t bytes;
    if (!attni_multiply(rows, cols, &bytes) ||
        !attni_multiply(bytes, (int64_t)attn_dtype_size_bytes(old->dtype), &bytes)) {
        return fail_too_large(layer, slot, rows, cols);
    }
    fresh->owned_bytes = (size_t)bytes;
    fresh->owned = attni_allocate(&layer->allocator, fresh->owned_bytes);
    fresh->view.data = fresh->owned;
    if (fresh->owned == NULL) {
        return attni_fail(ATTN_ERROR_MEMORY, "%s: allocation of %zu bytes failed",
                          attni_mha_slot_name(layer, slot), fresh->owned_bytes);
    }
    return ATTN_OK;
}

void attni_mha_free_slot(const attn_mha *layer, attni_mha_slot *slot) {
    attni_deallocate(&layer->allocator, slot->owned, slot->owned_bytes);
    slot->owned = NULL;
}

/* Puts fresh slots in place of slots [first, first + count). */
static void replace_slots(attn_mha *layer, int32_t first, int32_t count,
                          const attni_mha_slot *fresh) {
    for (int32_t i = 0; i < count; ++i) {
        attni_mha_free_slot(layer, &layer->slots[first + i]);
        layer->slots[first + i] = fresh[i];
    }
}

/* Memory for slots [first, first + count) that the layer has; all or none. */
static attn_status allocate_slots(const attn_mha *layer, int32_t first, int32_t count,
                                  attni_mha_slot *fresh) {
    attn_status status = ATTN_OK;
    int32_t made = 0;
    for (; made < count && status == ATTN_OK; ++made) {
        fresh[made] = (attni_mha_slot){0};
        if (layer->slots[first + made].view.rank > 0) {
            status = attni_mha_allocate_slot(layer, first + made, &fresh[made]);
        }
    }
    while (status != ATTN_OK && made > 0) {
        attni_mha_free_slot(layer, &fresh[--made]);
    }
    return status;
}

attn_status attn_mha_load_parameter(attn_context *context, attn_mha *layer, const char *name,
                                    const attn_tensor *values, const attn_mha_load_params *params) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    attn_mha_load_params known;
    ATTNI_TRY(attni_struct_read("params", params,
                                ATTNI_BYTES_THROUGH(attn_mha_load_params, struct_size),
                                sizeof known, &known));
    ATTNI_TRY(attni_context_resolve(context, &context));
    const parameter *which;
    ATTNI_TRY(find(layer, name, &which));
    ATTNI_TRY(check_values(layer, which, values));
    attni_mha_slot fresh[ATTNI_NUM_SLOTS];
    ATTNI_TRY(allocate_slots(layer, which->first_slot, which->num_slots, fresh));
    for (int32_t i = 0; i < which->num_slots; ++i) {
        const attn_tensor part = part_of(layer, which, values, i);
        if (fresh[i].in_strips) {
            attni_strips_pack(fresh[i].owned, layer->parameter_dtype, &part);
        } else {
            attni_copy_tensor(&fresh[i].view, &part);
        }
    }
    replace_slots(layer, which->first_slot, which->num_slots, fresh);
    return ATTN_OK;
}

attn_status attn_mha_bind_parameter(attn_mha *layer, const char *name, const attn_tensor *values) {
    attni_error_clear();
    const parameter *which;
    ATTNI_TRY(find(layer, name, &which));
    ATTNI_TRY(check_values(layer, which, values));
    ATTNI_TRY(check_layer_dtype(layer, which, values));
    attni_mha_slot bound[ATTNI_NUM_SLOTS];
    for (int32_t i = 0; i < which->num_slots; ++i) {
        bound[i] = (attni_mha_slot){.view = part_of(layer, which, values, i)};
    }
    replace_slots(layer, which->first_slot, which->num_slots, bound);
    return ATTN_OK;
}

attn_status attn_mha_read_parameter(attn_context *context, const attn_mha *layer, const char *name,
                                    const attn_tensor *values) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    const parameter *which;
    ATTNI_TRY(find(layer, name, &which));
    ATTNI_TRY(check_values(layer, which, values));
    ATTNI_TRY(check_layer_dtype(layer, which, values));
    ATTNI_TRY(attni_check_writable(which->name, values));
    for (int32_t i = 0; i < which->num_slots; ++i) {
        const attn_tensor *slot = &layer->slots[which->first_slot + i].view;
        if (slot->data == NULL) {
            return attni_fail(ATTN_ERROR_PARAMETER,
                              "%s: expected a parameter that has been loaded or bound, got none",
                              which->name);
        }
        ATTNI_TRY(attni_check_disjoint(which->name, values, "the layer's own memory", slot));
    }
    for (int32_t i = 0; i < which->num_slots; ++i) {
        const attn_tensor part = part_of(layer, which, values, i);
        const attni_mha_slot *slot = &layer->slots[which->first_slot + i];
        if (slot->in_strips) {
            attni_strips_unpack(&part, layer->parameter_dtype, slot->owned);
        } else {
            attni_copy_tensor(&part, &slot->view);
        }
    }
    return ATTN_OK;
}

attn_status attn_mha_parameter_count(const attn_mha *layer, int64_t *count) {
    attni_error_clear();
    if (layer == NULL || count == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "%s: expected a pointer, got NULL",
                          layer == NULL ? "layer" : "count");
    }
    *count = 0;
    for (int32_t i = 0; i < NUM_PARAMETERS; ++i) {
        *count += is_listed(layer, &parameters[i]);
    }
    return ATTN_OK;
}

/* NULL past the last. */
static const parameter *listed_at(const attn_mha *layer, int64_t index) {
    for (int32_t i = 0; i < NUM_PARAMETERS; ++i) {
        if (is_listed(layer, &parameters[i]) && index-- == 0) {
            return &parameters[i];
        }
    }
    return NULL;
}

void attni_mha_divide(const attn_mha *layer, int64_t index, const attn_tensor *values,
                      attn_tensor parts[ATTNI_NUM_SLOTS]) {
    const parameter *which = listed_at(layer, index);
    for (int32_t i = 0; i < which->num_slots; ++i) {
        parts[which->first_slot + i] = part_of(layer, which, values, i);
    }
}

const char *attni_mha_listed_parameter(const attn_mha *layer, int64_t index, attn_tensor *shape) {
    const parameter *which = listed_at(layer, index);
    if (which == NULL) {
        return NULL;
    }
    *shape = shape_of(layer, which);
    return which->name;
}

attn_status attn_mha_parameter_describe(const attn_mha *layer, int64_t index, const char **name,
                                        attn_tensor *shape) {
    attni_error_clear();
    if (layer == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "layer: expected a layer, got NULL");
    }
    attn_tensor own;
    const char *found = attni_mha_listed_parameter(layer, index, &own);
    if (found == NULL) {
        int64_t count = 0;
        ATTNI_TRY(attn_mha_parameter_count(layer, &count));
        return attni_fail(ATTN_ERROR_VALUE, "index: expected 0 to %lld, got %lld",
                          (long long)(count - 1), (long long)index);
    }
    if (name != NULL) {
        *name = found;
    }
    if (shape != NULL) {
        *shape = own;
    }
    return ATTN_OK;
}

/* How PyTorch draws each parameter; `limit` is the bound or the standard deviation. */
static void fill_slot(const attn_mha *layer, int32_t slot, attni_random *random,
                      const attni_mha_slot *fresh) {
    const attn_tensor *view = &fresh->view;
    const int64_t rows = view->shape[0];
    const int64_t cols = view->rank > 1 ? view->shape[1] : 1;
    int64_t fan_out = rows;
    if (layer->is_packed && slot <= ATTNI_V_WEIGHT) {
        fan_out = 0;
        for (int32_t i = ATTNI_Q_WEIGHT; i <= ATTNI_V_WEIGHT; ++i) {
            fan_out += layer->slots[i].view.shape[0];
        }
    }
    for (int64_t i = 0; i < rows * cols; ++i) {
        double value = 0;
        if (slot <= ATTNI_V_WEIGHT) {
            value = sqrt(6.0 / (double)(fan_out + cols)) * attni_random_symmetric(random);
        } else if (slot == ATTNI_O_WEIGHT) {
            value = 1 / sqrt((double)cols) * attni_random_symmetric(random);
        } else if (slot == ATTNI_BIAS_K || slot == ATTNI_BIAS_V) {
            value = sqrt(2.0 / (double)(rows + rows)) * attni_random_normal(random);
        } else if (slot == ATTNI_Q_NORM || slot == ATTNI_K_NORM) {
            value = 1 - layer->qk_norm_weight_offset;
        }
        const int64_t offset =
            fresh->in_strips ? attni_strips_offset(view->dtype, cols, i % cols, i / cols) : i;
        attni_write_real(view->data, offset, view->dtype, value);
    }
}

attn_status attn_mha_init_parameters(attn_context *context, attn_mha *layer,
                                     const attn_mha_init_params *params) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    attn_mha_init_params known;
    ATTNI_TRY(attni_struct_read("params", params, ATTNI_BYTES_THROUGH(attn_mha_init_params, seed),
                                sizeof known, &known));
    ATTNI_TRY(attni_context_resolve(context, &context));
    if (layer == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "layer: expected a layer, got NULL");
    }
    attni_mha_slot fresh[ATTNI_NUM_SLOTS];
    ATTNI_TRY(allocate_slots(layer, 0, ATTNI_NUM_SLOTS, fresh));
    for (int32_t slot = 0; slot < ATTNI_NUM_SLOTS; ++slot) {
        attni_random random = attni_random_stream(known.seed, (uint64_t)slot);
        if (fresh[slot].owned != NULL) {
            memset(fresh[slot].owned, 0, fresh[slot].owned_bytes);
            fill_slot(layer, slot, &random, &fresh[slot]);
        }
    }
    replace_slots(layer, 0, ATTNI_NUM_SLOTS, fresh);
    return ATTN_OK;
}
