/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_parameters.c: a layer's parameters by their names: which exist, copying in and out, binding.
 */
#include <stdio.h>
#include <string.h>

#include "base/checked_size.h"
#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "context/context.h"
#include "gemm/quantized_strips.h"
#include "gemm/strips.h"
#include "multihead/mha_layer.h"
#include "tensor/element.h"
#include "tensor/strided_copy.h"

/* A name and the neighbouring slots it stands for, stacked along their rows. */
typedef struct parameter {
    const char *name;
    int32_t first_slot;
    int32_t num_slots;
    int32_t leading_ones; /* axes of length 1 before the slot's own, as PyTorch stores bias_k and
                             bias_v */
    enum {
        LISTED_ALWAYS,
        LISTED_IF_PACKED, /* and else there is none */
        LISTED_IF_SEPARATE,
        LISTED_NEVER,
        UNLISTED_IF_PACKED /* likewise */
    } listed;
    bool is_scale; /* the scales of the rows of slots of int8 */
} parameter;

/* In state_dict order; those never listed are accepted beside them, for weights that are stored
 * separately; scales can only be read. */
static const parameter parameters[] = {
    {"in_proj_weight", ATTNI_Q_WEIGHT, 3, 0, LISTED_IF_PACKED, false},
    {"q_proj_weight", ATTNI_Q_WEIGHT, 1, 0, LISTED_IF_SEPARATE, false},
    {"k_proj_weight", ATTNI_K_WEIGHT, 1, 0, LISTED_IF_SEPARATE, false},
    {"v_proj_weight", ATTNI_V_WEIGHT, 1, 0, LISTED_IF_SEPARATE, false},
    {"in_proj_bias", ATTNI_Q_BIAS, 3, 0, LISTED_ALWAYS, false},
    {"bias_k", ATTNI_BIAS_K, 1, 2, LISTED_ALWAYS, false},
    {"bias_v", ATTNI_BIAS_V, 1, 2, LISTED_ALWAYS, false},
    {"out_proj.weight", ATTNI_O_WEIGHT, 1, 0, LISTED_ALWAYS, false},
    {"out_proj.bias", ATTNI_O_BIAS, 1, 0, LISTED_ALWAYS, false},
    {"q_norm.weight", ATTNI_Q_NORM, 1, 0, LISTED_ALWAYS, false},
    {"k_norm.weight", ATTNI_K_NORM, 1, 0, LISTED_ALWAYS, false},
    {"q_proj_bias", ATTNI_Q_BIAS, 1, 0, LISTED_NEVER, false},
    {"k_proj_bias", ATTNI_K_BIAS, 1, 0, LISTED_NEVER, false},
    {"v_proj_bias", ATTNI_V_BIAS, 1, 0, LISTED_NEVER, false},
    {"in_proj_weight.scale", ATTNI_Q_WEIGHT, 3, 0, UNLISTED_IF_PACKED, true},
    {"q_proj_weight.scale", ATTNI_Q_WEIGHT, 1, 0, LISTED_NEVER, true},
    {"k_proj_weight.scale", ATTNI_K_WEIGHT, 1, 0, LISTED_NEVER, true},
    {"v_proj_weight.scale", ATTNI_V_WEIGHT, 1, 0, LISTED_NEVER, true},
    {"out_proj.weight.scale", ATTNI_O_WEIGHT, 1, 0, LISTED_NEVER, true},
};

enum { NUM_PARAMETERS = sizeof parameters / sizeof parameters[0] };

static bool fits_packing(const attn_mha *layer, const parameter *which) {
    return layer->is_packed ||
           (which->listed != LISTED_IF_PACKED && which->listed != UNLISTED_IF_PACKED);
}

static bool layer_has(const attn_mha *layer, const parameter *which) {
    const attn_tensor *first = &layer->slots[which->first_slot].view;
    const bool has_slots = first->rank > 0 && (!which->is_scale || first->dtype == ATTN_DTYPE_INT8);
    return has_slots && fits_packing(layer, which);
}

static bool is_listed(const attn_mha *layer, const parameter *which) {
    return layer_has(layer, which) && which->listed < LISTED_NEVER &&
           (which->listed != LISTED_IF_SEPARATE || !layer->is_packed);
}

static bool covers(const attn_mha *layer, const parameter *which, int32_t slot) {
    return slot >= which->first_slot && slot < which->first_slot + which->num_slots &&
           fits_packing(layer, which);
}

/* Some parameter covers each slot. */
const char *attni_mha_slot_name(const attn_mha *layer, int32_t slot) {
    const parameter *which = parameters;
    while (!covers(layer, which, slot)) {
        ++which;
    }
    return which->name;
}

/* What a parameter is of its i-th slot. */
static attn_tensor view_of(const attn_mha *layer, const parameter *which, int32_t i) {
    const attni_mha_slot *slot = &layer->slots[which->first_slot + i];
    return which->is_scale ? (attn_tensor){.data = slot->scales,
                                           .dtype = ATTN_DTYPE_FLOAT32,
                                           .rank = 1,
                                           .shape = {slot->view.shape[0]},
                                           .strides = {1}}
                           : slot->view;
}

static bool is_int8(const attn_mha *layer, const parameter *which) {
    return view_of(layer, which, 0).dtype == ATTN_DTYPE_INT8;
}

/* The contiguous shape of a parameter, int8 as the float32 that it means; its data is NULL. */
static attn_tensor shape_of(const attn_mha *layer, const parameter *which) {
    const attn_tensor first = view_of(layer, which, 0);
    attn_tensor shape = {.dtype = is_int8(layer, which) ? ATTN_DTYPE_FLOAT32 : first.dtype,
                         .rank = which->leading_ones + first.rank};
    int64_t rows = 0;
    for (int32_t i = 0; i < which->num_slots; ++i) {
        rows += layer->slots[which->first_slot + i].view.shape[0];
    }
    const int64_t row_elements = first.rank > 1 ? first.shape[1] : 1;
    for (int32_t axis = 0; axis < which->leading_ones; ++axis) {
        shape.shape[axis] = 1;
        shape.strides[axis] = rows * row_elements;
    }
    shape.shape[which->leading_ones] = rows;
    shape.strides[which->leading_ones] = row_elements;
    if (first.rank > 1) {
        shape.shape[which->leading_ones + 1] = row_elements;
        shape.strides[which->leading_ones + 1] = 1;
    }
    return shape;
}

/* The part of a caller's tensor that belongs to the i-th slot of a parameter, in the slot's own
 * rank. */
static attn_tensor part_of(const attn_mha *layer, const parameter *which, const attn_tensor *values,
                           int32_t i) {
    const attn_tensor slot = view_of(layer, which, i);
    attn_tensor part = {.data = values->data, .dtype = values->dtype, .rank = slot.rank};
    for (int32_t axis = 0; axis < slot.rank; ++axis) {
        part.shape[axis] = slot.shape[axis];
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

static attn_status check_shape(const char *name, const attn_tensor *values,
                               const attn_tensor *shape) {
    attni_axis axes[ATTN_MAX_RANK];
    for (int32_t axis = 0; axis < shape->rank; ++axis) {
        axes[axis] = (attni_axis){NULL, shape->shape[axis]};
    }
    return attni_check_shape(name, values, axes, shape->rank);
}

/* A caller's tensor for a parameter: valid, and of exactly its shape. */
static attn_status check_values(const attn_mha *layer, const parameter *which,
                                const attn_tensor *values) {
    ATTNI_TRY(attni_check_tensor(which->name, values, ATTNI_DATA_REQUIRED));
    ATTNI_TRY(is_int8(layer, which) ? attni_check_weight(which->name, values)
                                    : attni_check_float(which->name, values));
    const attn_tensor shape = shape_of(layer, which);
    return check_shape(which->name, values, &shape);
}

/* Of the parameter's own type, or int8 as it is stored. */
static attn_status check_layer_dtype(const attn_mha *layer, const parameter *which,
                                     const attn_tensor *values) {
    const int32_t dtype = shape_of(layer, which).dtype;
    return attni_check_either(which->name, values, dtype,
                              is_int8(layer, which) ? ATTN_DTYPE_INT8 : dtype);
}

/* The scales of int8 values, one for each row: (rows) or (rows, 1). */
static attn_status check_scale(const attn_mha *layer, const parameter *which,
                               const attn_tensor *values, const attn_tensor *scale) {
    const bool is_wanted = values->dtype == ATTN_DTYPE_INT8;
    if (is_wanted && scale == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "scale: expected the scales of int8 values, got NULL");
    }
    if (!is_wanted && scale != NULL) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "scale: expected NULL beside values of %s, got a tensor",
                          attni_dtype_name(values->dtype));
    }
    if (!is_wanted) {
        return ATTN_OK;
    }
    ATTNI_TRY(attni_check_tensor("scale", scale, ATTNI_DATA_REQUIRED));
    ATTNI_TRY(attni_check_float("scale", scale));
    attn_tensor shape = shape_of(layer, which);
    shape.rank = scale->rank == 2 ? 2 : 1;
    shape.shape[1] = 1;
    return check_shape("scale", scale, &shape);
}

static attn_status check_is_no_scale(const parameter *which) {
    return !which->is_scale
               ? ATTN_OK
               : attni_fail(ATTN_ERROR_PARAMETER,
                            "%s: expected to be read only; scales are loaded beside their weight",
                            which->name);
}

static void load_int8(const attni_mha_slot *fresh, const attn_tensor *part,
                      const attn_tensor *scale, int64_t first_row) {
    attni_strips_pack(fresh->owned, ATTN_DTYPE_INT8, part);
    const int64_t stride = attni_stride(scale, 0);
    for (int64_t row = 0; row < part->shape[0]; ++row) {
        fresh->scales[row] =
            (float)attni_read_real(scale->data, (first_row + row) * stride, scale->dtype);
    }
}

/* Values into fresh slots of a parameter. */
static void load_slots(const attn_mha *layer, const parameter *which, const attn_tensor *values,
                       const attn_tensor *scale, const attni_mha_slot *fresh) {
    int64_t first_row = 0;
    for (int32_t i = 0; i < which->num_slots; ++i) {
        const attn_tensor part = part_of(layer, which, values, i);
        if (values->dtype == ATTN_DTYPE_INT8) {
            load_int8(&fresh[i], &part, scale, first_row);
        } else if (fresh[i].scales != NULL) {
            attni_strips_quantize(fresh[i].owned, fresh[i].scales, &part);
        } else if (fresh[i].in_strips) {
            attni_strips_pack(fresh[i].owned, layer->parameter_dtype, &part);
        } else {
            attni_copy_tensor(&fresh[i].view, &part);
        }
        first_row += part.shape[0];
    }
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
    ATTNI_TRY(check_is_no_scale(which));
    ATTNI_TRY(check_values(layer, which, values));
    ATTNI_TRY(check_scale(layer, which, values, known.scale));
    attni_mha_slot fresh[ATTNI_NUM_SLOTS];
    ATTNI_TRY(attni_mha_allocate_slots(layer, which->first_slot, which->num_slots, fresh));
    load_slots(layer, which, values, known.scale, fresh);
    attni_mha_replace_slots(layer, which->first_slot, which->num_slots, fresh);
    return ATTN_OK;
}

attn_status attn_mha_bind_parameter(attn_mha *layer, const char *name, const attn_tensor *values) {
    attni_error_clear();
    const parameter *which;
    ATTNI_TRY(find(layer, name, &which));
    ATTNI_TRY(check_is_no_scale(which));
    ATTNI_TRY(check_values(layer, which, values));
    if (is_int8(layer, which)) {
        return attni_fail(ATTN_ERROR_UNSUPPORTED,
                          "%s: expected attn_mha_load_parameter: weights of int8 are not bound",
                          which->name);
    }
    ATTNI_TRY(check_layer_dtype(layer, which, values));
    attni_mha_slot bound[ATTNI_NUM_SLOTS];
    for (int32_t i = 0; i < which->num_slots; ++i) {
        bound[i] = (attni_mha_slot){.view = part_of(layer, which, values, i)};
    }
    attni_mha_replace_slots(layer, which->first_slot, which->num_slots, bound);
    return ATTN_OK;
}

static void read_slot(const attni_mha_slot *slot, const attn_tensor *part) {
    if (slot->scales != NULL && part->dtype != ATTN_DTYPE_INT8) {
        attni_strips_dequantize(part, slot->owned, slot->scales);
    } else if (slot->in_strips) {
        attni_strips_unpack(part, slot->view.dtype, slot->owned);
    } else {
        attni_copy_tensor(part, &slot->view);
    }
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
        const attn_tensor slot = view_of(layer, which, i);
        if (slot.data == NULL) {
            return attni_fail(ATTN_ERROR_PARAMETER,
                              "%s: expected a parameter that has been loaded or bound, got none",
                              which->name);
        }
        ATTNI_TRY(attni_check_disjoint(which->name, values, "the layer's own memory", &slot));
    }
    for (int32_t i = 0; i < which->num_slots; ++i) {
        const attn_tensor part = part_of(layer, which, values, i);
        const attn_tensor scales = view_of(layer, which, i);
        if (which->is_scale) {
            attni_copy_tensor(&part, &scales);
        } else {
            read_slot(&layer->slots[which->first_slot + i], &part);
        }
    }
    return ATTN_OK;
}

int64_t attni_mha_count_listed(const attn_mha *layer) {
    int64_t count = 0;
    for (int32_t i = 0; i < NUM_PARAMETERS; ++i) {
        count += is_listed(layer, &parameters[i]);
    }
    return count;
}

attn_status attn_mha_parameter_count(const attn_mha *layer, int64_t *count) {
    attni_error_clear();
    if (layer == NULL || count == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "%s: expected a pointer, got NULL",
                          layer == NULL ? "layer" : "count");
    }
    *count = attni_mha_count_listed(layer);
    return ATTN_OK;
}

/* NULL before the first and past the last. */
static const parameter *listed_at(const attn_mha *layer, int64_t index) {
    for (int32_t i = 0; i < NUM_PARAMETERS && index >= 0; ++i) {
        if (is_listed(layer, &parameters[i]) && index-- == 0) {
            return &parameters[i];
        }
    }
    return NULL;
}

void attni_mha_divide(const attn_mha *layer, int64_t index, const attn_tensor *values,
                      attn_tensor parts[ATTNI_NUM_SLOTS]) {
    const parameter *which = listed_at(layer, index);
    for (int32_t i = 0; which != NULL && i < which->num_slots; ++i) {
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
        return attni_fail(ATTN_ERROR_VALUE, "index: expected 0 to %lld, got %lld",
                          (long long)(attni_mha_count_listed(layer) - 1), (long long)index);
    }
    if (name != NULL) {
        *name = found;
    }
    if (shape != NULL) {
        *shape = own;
    }
    return ATTN_OK;
}
