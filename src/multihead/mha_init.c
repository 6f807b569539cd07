/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_init.c: fresh values for a layer's parameters.
 */
#include <math.h>
#include <string.h>

#include "base/float_traps.h"
#include "base/versioned_struct.h"
#include "context/context.h"
#include "gemm/quantized_strips.h"
#include "gemm/strips.h"
#include "multihead/mha_layer.h"
#include "multihead/random_numbers.h"
#include "tensor/element.h"

/* A slot's numbers in the order of their rows, and where they are drawn from. */
typedef struct drawing {
    const attn_mha *layer;
    int32_t slot;
    int64_t rows;
    int64_t cols;
    int64_t fan_out; /* rows of the matrix that PyTorch stores */
    attni_random random;
} drawing;

static drawing start_drawing(const attn_mha *layer, int32_t slot, uint64_t seed) {
    const attn_tensor *view = &layer->slots[slot].view;
    drawing d = {
        .layer = layer,
        .slot = slot,
        .rows = view->shape[0],
        .cols = view->rank > 1 ? view->shape[1] : 1,
        .fan_out = view->shape[0],
        .random = attni_random_stream(seed, (uint64_t)slot),
    };
    if (layer->is_packed && slot <= ATTNI_V_WEIGHT) {
        d.fan_out = 0;
        for (int32_t i = ATTNI_Q_WEIGHT; i <= ATTNI_V_WEIGHT; ++i) {
            d.fan_out += layer->slots[i].view.shape[0];
        }
    }
    return d;
}

/* The next number, as PyTorch draws it: the factor is the bound or the standard deviation. */
static double draw(drawing *d) {
    switch (d->slot) {
    case ATTNI_Q_WEIGHT:
    case ATTNI_K_WEIGHT:
    case ATTNI_V_WEIGHT:
        return sqrt(6.0 / (double)(d->fan_out + d->cols)) * attni_random_symmetric(&d->random);
    case ATTNI_O_WEIGHT:
        return 1 / sqrt((double)d->cols) * attni_random_symmetric(&d->random);
    case ATTNI_BIAS_K:
    case ATTNI_BIAS_V:
        return sqrt(2.0 / (double)(d->rows + d->rows)) * attni_random_normal(&d->random);
    case ATTNI_Q_NORM:
    case ATTNI_K_NORM:
        return 1 - d->layer->qk_norm_weight_offset;
    default:
        return 0;
    }
}

static void fill_slot(drawing *d, const attni_mha_slot *fresh) {
    const attn_tensor *view = &fresh->view;
    for (int64_t i = 0; i < d->rows * d->cols; ++i) {
        const int64_t offset =
            fresh->in_strips ? attni_strips_offset(view->dtype, d->cols, i % d->cols, i / d->cols)
                             : i;
        attni_write_real(view->data, offset, view->dtype, draw(d));
    }
}

/* A row is drawn twice, for its scale and for its elements. */
static void fill_quantized_slot(drawing *d, const attni_mha_slot *fresh) {
    char *elements = fresh->owned;
    for (int64_t row = 0; row < d->rows; ++row) {
        drawing again = *d;
        attni_column_range range = {0};
        for (int64_t k = 0; k < d->cols; ++k) {
            attni_column_show(&range, (float)draw(d));
        }
        fresh->scales[row] = attni_column_scale(&range);
        for (int64_t k = 0; k < d->cols; ++k) {
            elements[attni_strips_offset(fresh->view.dtype, d->cols, k, row)] =
                (char)attni_column_element((float)draw(&again), fresh->scales[row]);
        }
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
    ATTNI_TRY(attni_mha_allocate_slots(layer, 0, ATTNI_NUM_SLOTS, fresh));
    for (int32_t slot = 0; slot < ATTNI_NUM_SLOTS; ++slot) {
        if (fresh[slot].owned != NULL) {
            drawing d = start_drawing(layer, slot, known.seed);
            memset(fresh[slot].owned, 0, fresh[slot].owned_bytes);
            (fresh[slot].scales != NULL ? fill_quantized_slot : fill_slot)(&d, &fresh[slot]);
        }
    }
    attni_mha_replace_slots(layer, 0, ATTNI_NUM_SLOTS, fresh);
    return ATTN_OK;
}
