/* SPDX-License-Identifier: BSD-3-Clause
 *
 * layout.c: what layout.f90 prints, by the C headers: where the last field of each struct lies, and
 * its size. Fields in between have the same order and types, or these would differ.
 */
#include <attention/attention.h>
#include <stdio.h>

#define PRINT(type, last) printf(#type " %zu %zu\n", offsetof(type, last), sizeof(type))

int main(void) {
    PRINT(attn_tensor, strides);
    PRINT(attn_context_params, allocator_state);
    PRINT(attn_sdpa_params, report);
    PRINT(attn_mha_config, reserved);
    PRINT(attn_mha_params, attention);
    printf("constants %d %d %d %d %d %d %d\n", ATTN_MAX_RANK, ATTN_DTYPE_INT64,
           ATTN_MASK_BOOL_EXCLUDE, ATTN_NORMALIZER_NONE, ATTN_SDPA_ENABLE_GQA, ATTN_ON, ATTN_OFF);
    return 0;
}
