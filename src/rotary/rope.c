/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rope.c: the public rotation by position: check, run.
 */
#include <attention/rope.h>

#include "base/float_traps.h"
#include "rotary/rope_check.h"
#include "rotary/rope_run.h"

attn_status attn_rope(attn_context *context, const attn_tensor *input,
                      const attn_rope_params *params, const attn_tensor *output) {
    ATTNI_NO_FLOAT_TRAPS;
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    attn_rope_params known;
    ATTNI_TRY(attni_rope_read_params("params", params, &known));
    const attni_rope_request request = {
        .input = input,
        .output = output,
        .params = &known,
        .names = &attni_rope_own_names,
        .tensor_data = ATTNI_DATA_REQUIRED,
        .option_data = ATTNI_DATA_REQUIRED,
    };
    attni_rope_problem problem;
    ATTNI_TRY(attni_rope_check(&request, &problem));
    return attni_rope_run(context, &problem);
}
