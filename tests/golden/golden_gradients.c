/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_gradients.c: runs the backward part of the cases of scaled dot-product attention.
 */
#include "golden_gradients.h"

#include <math.h>

#include "golden_bound.h"

/* The gradients that PyTorch has computed, and what they are of. */
enum { OF_QUERY, OF_KEY, OF_VALUE, OF_MASK, NUM_GRADIENTS };
static const char *const names[NUM_GRADIENTS] = {"grad.q", "grad.k", "grad.v", "grad.attn_mask"};

typedef struct wanted_gradients {
    golden_expected expected[NUM_GRADIENTS];
    golden_output outputs[NUM_GRADIENTS];
    bool has[NUM_GRADIENTS];
} wanted_gradients;

/* golden_bound.h derives it. */
static double bound_of(const golden_case *golden, const golden_setting *setting,
                       const sdpa_call *call, const attn_tensor *given, const attn_tensor *gradient,
                       int which) {
    const int64_t features = call->query.shape[call->query.rank - 1];
    const int64_t keys = call->key.shape[call->key.rank - 2];
    const int64_t value_dim = call->value.shape[call->value.rank - 1];
    const int64_t rows = golden_count(given) / value_dim;
    const int64_t elements = golden_count(gradient);
    const double scale = call->params.set & ATTN_SDPA_SET_SCALE ? fabs(call->params.scale)
                                                                : 1 / sqrt((double)features);
    const double change = 2 * golden_row_sum(given) * golden_magnitude(&call->value);
    int64_t adding = 1;
    double magnitude = 0;
    switch (which) {
    case OF_QUERY:
        magnitude = change * scale * golden_magnitude(&call->key);
        break;
    case OF_KEY:
        adding = rows * keys * features / elements;
        magnitude = change * scale * (double)adding * golden_magnitude(&call->query);
        break;
    case OF_VALUE:
        adding = rows * keys * value_dim / elements;
        magnitude = (double)adding * golden_magnitude(given);
        break;
    default:
        adding = rows * keys / elements;
        magnitude = change * (double)adding;
        break;
    }
    return golden_rounding_bound(setting->dtype, features + keys + value_dim + adding + 16,
                                 golden->score_magnitude, magnitude);
}

/* Places for what the case expects; false if one cannot be made, or if there is nothing to compare. */
static bool make_outputs(golden_case *golden, const golden_setting *setting, const sdpa_call *call,
                         const attn_tensor *given, wanted_gradients *wanted) {
    for (int which = 0; which < NUM_GRADIENTS; ++which) {
        golden_expected *expected = &wanted->expected[which];
        golden_output *output = &wanted->outputs[which];
        wanted->has[which] = golden_expected_values(golden, names[which], expected);
        if (!wanted->has[which] && which != OF_MASK) {
            return false;
        }
        if (wanted->has[which]) {
            if (!golden_output_make(golden, setting, names[which], expected->rank, expected->shape,
                                    output)) {
                return false;
            }
            output->bound = bound_of(golden, setting, call, given, &output->view, which);
        }
    }
    return true;
}

void golden_run_gradients(golden_case *golden, const golden_setting *setting, const sdpa_call *call,
                          const attn_tensor *output, golden_report *report) {
    attn_tensor given;
    wanted_gradients wanted;
    const int32_t dtype = setting->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : 0;
    if (!golden_input(golden, "grad_out", dtype, &given) ||
        !make_outputs(golden, setting, call, &given, &wanted)) {
        golden_fail(report, setting, "grad_out or an expected gradient is missing");
        return;
    }
    const attn_sdpa_gradients gradients = {
        .struct_size = sizeof gradients,
        .output = &given,
        .query = &wanted.outputs[OF_QUERY].view,
        .key = &wanted.outputs[OF_KEY].view,
        .value = &wanted.outputs[OF_VALUE].view,
        .mask = wanted.has[OF_MASK] ? &wanted.outputs[OF_MASK].view : NULL,
    };
    report->backward_calls += 1;
    const attn_status status =
        attn_sdpa_backward(setting->context, &call->query, &call->key, &call->value, &call->params,
                           output, &gradients, NULL, 0);
    if (status != ATTN_OK) {
        golden_fail(report, setting, "attn_sdpa_backward: %s (%s)", attn_status_name(status),
                    attn_last_error());
        return;
    }
    for (int which = 0; which < NUM_GRADIENTS; ++which) {
        if (wanted.has[which]) {
            golden_output_compare(report, setting, &wanted.outputs[which], &wanted.expected[which]);
        }
    }
}
