/* SPDX-License-Identifier: BSD-3-Clause
 *
 * golden_sdpa.c: runs the cases of scaled dot-product attention.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "golden_bound.h"
#include "golden_gradients.h"
#include "golden_run.h"

static void read_options(const golden_case *golden, sdpa_call *call) {
    attn_sdpa_params *params = &call->params;
    *params = (attn_sdpa_params){.struct_size = sizeof *params,
                                 .is_causal = golden_flag(golden, "is_causal"),
                                 .enable_gqa = golden_flag(golden, "enable_gqa")};
    const char *scale = golden_option(golden, "scale");
    if (*scale != '\0' && strcmp(scale, "none") != 0) {
        params->set |= ATTN_SDPA_SET_SCALE;
        params->scale = strtod(scale, NULL);
    }
}

static bool read_call(golden_case *golden, const golden_setting *setting, sdpa_call *call) {
    const int32_t dtype = setting->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : 0;
    if (!golden_input(golden, "q", dtype, &call->query) ||
        !golden_input(golden, "k", dtype, &call->key) ||
        !golden_input(golden, "v", dtype, &call->value)) {
        return false;
    }
    read_options(golden, call);
    if (golden_input(golden, "attn_mask", setting->stored_float_masks ? 0 : dtype, &call->mask)) {
        call->params.mask = &call->mask;
        call->params.mask_kind =
            call->mask.dtype == ATTN_DTYPE_BOOL ? ATTN_MASK_BOOL_INCLUDE : ATTN_MASK_ADDITIVE;
    }
    return true;
}

/* Magnitudes do not depend on the setting, so they are measured once. */
static void measure(golden_case *golden, const sdpa_call *call) {
    const int64_t features = call->query.shape[call->query.rank - 1];
    const double standard = features > 0 ? 1 / sqrt((double)features) : 0;
    const double scale =
        call->params.set & ATTN_SDPA_SET_SCALE ? fabs(call->params.scale) : standard;
    const bool adds = call->params.mask_kind == ATTN_MASK_ADDITIVE;
    golden->score_magnitude = scale * golden_row_norm(&call->query) * golden_row_norm(&call->key) +
                              (adds ? golden_magnitude(&call->mask) : 0);
    golden->output_magnitude = golden_magnitude(&call->value);
}

static double bound_of(golden_case *golden, const sdpa_call *call, int32_t dtype) {
    if (golden->score_magnitude < 0) {
        measure(golden, call);
    }
    const int64_t features = call->query.shape[call->query.rank - 1];
    const int64_t keys = call->key.shape[call->key.rank - 2];
    return golden_rounding_bound(dtype, features + keys + 16, golden->score_magnitude,
                                 golden->output_magnitude);
}

/* The lse of the forward call, for the backward one: output's shape without its last axis. */
static bool take_lse(golden_case *golden, const golden_output *output, attn_tensor *lse) {
    void *data = golden_take(golden, (size_t)golden_count(&output->view) *
                                         attn_dtype_size_bytes(output->view.dtype));
    return attn_tensor_init(lse, data, output->view.dtype, output->view.rank - 1,
                            output->view.shape) == ATTN_OK;
}

static void run_expecting_values(golden_case *golden, const golden_setting *setting,
                                 const sdpa_call *given, golden_report *report) {
    golden_expected expected;
    golden_output output;
    attn_tensor lse;
    sdpa_call with_lse = *given;
    const sdpa_call *call = &with_lse;
    if (!golden_expected_values(golden, "out", &expected) ||
        !golden_output_make(golden, setting, "out", expected.rank, expected.shape, &output)) {
        golden_fail(report, setting, "the case has no expected out");
        return;
    }
    const bool has_gradients = golden_flag(golden, "grads");
    if (has_gradients) {
        if (!take_lse(golden, &output, &lse)) {
            golden_fail(report, setting, "no lse could be made");
            return;
        }
        with_lse.params.lse = &lse;
    }
    output.bound = bound_of(golden, call, setting->dtype);
    report->forward_calls += 1;
    const attn_status status = attn_sdpa(setting->context, &call->query, &call->key, &call->value,
                                         &call->params, &output.view, NULL, 0);
    if (status != ATTN_OK) {
        golden_fail(report, setting, "attn_sdpa: %s (%s)", attn_status_name(status),
                    attn_last_error());
        return;
    }
    golden_output_compare(report, setting, &output, &expected);
    if (has_gradients) {
        golden_run_gradients(golden, setting, call, &output.view, report);
    }
}

/* A call to be refused gets an output that would be right if the inputs were: query's shape with
 * value's last axis. */
static void run_expecting_error(golden_case *golden, const golden_setting *setting,
                                const sdpa_call *call, golden_report *report) {
    int64_t shape[ATTN_MAX_RANK];
    memcpy(shape, call->query.shape, sizeof shape);
    shape[call->query.rank - 1] = call->value.shape[call->value.rank - 1];
    golden_output output;
    if (!golden_output_make(golden, setting, "out", call->query.rank, shape, &output)) {
        golden_fail(report, setting, "no output could be made for a call to be refused");
        return;
    }
    report->refused_calls += 1;
    attn_status status = attn_sdpa(setting->context, &call->query, &call->key, &call->value,
                                   &call->params, &output.view, NULL, 0);
    golden_check_refusal(report, golden, setting, status, "attn_sdpa");
    golden_output_check_untouched(report, setting, &output);
    size_t bytes;
    status = attn_sdpa_workspace_bytes(setting->context, &call->query, &call->key, &call->value,
                                       &call->params, &output.view, &bytes);
    golden_check_refusal(report, golden, setting, status, "attn_sdpa_workspace_bytes");
}

void golden_run_sdpa(golden_case *golden, const golden_setting *setting, golden_report *report) {
    sdpa_call call;
    if (!read_call(golden, setting, &call)) {
        golden_fail(report, setting, "q, k or v is missing or its description is out of bounds");
        return;
    }
    if (strcmp(golden_option(golden, "expect"), "error") == 0) {
        run_expecting_error(golden, setting, &call, report);
    } else {
        run_expecting_values(golden, setting, &call, report);
    }
}
