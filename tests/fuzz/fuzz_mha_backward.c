/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_mha_backward.c: attn_mha_backward. Every execution computes: the layer, every option of the
 * forward call, what is given and what is wanted are drawn from the input, and all gradients are
 * compared with the float64 oracle, as are the bits of the forward call that leaves what it saved.
 */
#include "fuzz_cases.h"
#include "mha_backward_case.h"
#include "mha_case.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static factor_set set;
    fuzz_bytes bytes = {data, size};
    factor_case chosen;
    call_outcome outcome = {0};
    if (set.count == 0) {
        set = mha_backward_factor_set();
    }
    const uint64_t seed = fuzz_word(&bytes);
    if (!fuzz_choose(&bytes, &set, &chosen)) {
        return -1;
    }
    if (mha_backward_case_run(&set, &chosen, seed, FREE_TINY, &outcome) != 0) {
        fuzz_fail(&set, &chosen, seed, outcome.message);
    }
    fuzz_count("mha_backward", 1);
    return 0;
}
