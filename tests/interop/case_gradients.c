/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_gradients.c: the gradients of a case as the structs of the interface, and the calls.
 */
#include "case_gradients.h"

#include <stdio.h>

/* More than any layer has. */
enum { MAX_PARAMETERS = 16 };

int case_has_gradients(const interop_case *made) {
    return case_view(made, "gradient.output") != NULL ||
           case_view(made, "gradient.attn_output") != NULL;
}

attn_status case_sdpa_backward(const interop_case *made, const attn_sdpa_params *params,
                               const attn_tensor *output, case_results *room) {
    const attn_sdpa_gradients gradients = {
        .struct_size = sizeof gradients,
        .output = case_view(made, "gradient.output"),
        .query = case_results_expected(made, room, "gradient.query"),
        .key = case_results_expected(made, room, "gradient.key"),
        .value = case_results_expected(made, room, "gradient.value"),
        .mask = case_results_expected(made, room, "gradient.attn_mask"),
    };
    return attn_sdpa_backward(NULL, case_view(made, "query"), case_view(made, "key"),
                              case_view(made, "value"), params, output, &gradients, NULL, 0);
}

/* Room for the gradients of parameters that the case expects, in the layer's order; the others have
 * no data. Returns how many parameters there are, or -1. */
static int64_t make_parameters(const interop_case *made, const attn_mha *layer,
                               attn_tensor *parameters, case_results *room) {
    int64_t count = 0;
    if (attn_mha_parameter_count(layer, &count) != ATTN_OK || count > MAX_PARAMETERS) {
        return -1;
    }
    for (int64_t i = 0; i < count; ++i) {
        char expected[CASE_NAME_BYTES];
        const char *name = NULL;
        if (attn_mha_parameter_describe(layer, i, &name, &parameters[i]) != ATTN_OK) {
            return -1;
        }
        snprintf(expected, sizeof expected, "gradient.parameter.%s", name);
        const attn_tensor *gradient = case_results_expected(made, room, expected);
        if (gradient != NULL) {
            parameters[i] = *gradient;
        }
    }
    return count;
}

attn_status case_mha_backward(const interop_case *made, const attn_mha *layer,
                              const attn_mha_params *params, case_results *room) {
    attn_tensor parameters[MAX_PARAMETERS];
    const int64_t num_parameters = make_parameters(made, layer, parameters, room);
    const attn_sdpa_gradients attention = {
        .struct_size = sizeof attention,
        .weights = case_view(made, "gradient.attn_weights"),
        .mask = case_results_expected(made, room, "gradient.attn_mask"),
    };
    const attn_mha_gradients gradients = {
        .struct_size = sizeof gradients,
        .output = case_view(made, "gradient.attn_output"),
        .query = case_results_expected(made, room, "gradient.query"),
        .key = case_results_expected(made, room, "gradient.key"),
        .value = case_results_expected(made, room, "gradient.value"),
        .parameters = parameters,
        .num_parameters = num_parameters,
        .attention = &attention,
    };
    return attn_mha_backward(NULL, layer, case_view(made, "query"), case_view(made, "key"),
                             case_view(made, "value"), params, &gradients, NULL, 0);
}
