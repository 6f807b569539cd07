/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_mha.c: attn_mha_forward, as fuzz_sdpa.c.
 */
#include <stdlib.h>

#include "fuzz_cases.h"
#include "mha_case.h"

enum { COMPUTES = 128, MOST_SPOILED = 3 };

static void spoil_config(fuzz_bytes *bytes, attn_mha_config *config) {
    int64_t *sizes[] = {&config->embed_dim, &config->num_heads,     &config->kdim,
                        &config->vdim,      &config->qdim,          &config->num_kv_heads,
                        &config->head_dim,  &config->value_head_dim};
    int32_t *numbers[] = {&config->dtype,         &config->bias,        &config->add_bias_kv,
                          &config->add_zero_attn, &config->batch_first, &config->reserved};
    const int what = fuzz_byte(bytes) % 15;
    if (what < 8) {
        *sizes[what] = fuzz_odd_number(bytes);
    } else if (what < 14) {
        *numbers[what - 8] = (int32_t)fuzz_odd_number(bytes);
    } else {
        config->struct_size = fuzz_word(bytes) % (sizeof *config + 1);
    }
}

/* A layer of a spoiled description: refused, or sizes whose parameters somebody could give. */
static void describe_layer(const attn_mha_config *config) {
    attn_mha *layer;
    int64_t count = 0;
    const attn_status status = attn_mha_create(NULL, config, &layer);
    if ((status == ATTN_OK) != (attn_last_error()[0] == '\0') || (status != ATTN_OK && layer)) {
        abort();
    }
    if (status == ATTN_OK && attn_mha_parameter_count(layer, &count) != ATTN_OK) {
        abort();
    }
    for (int64_t i = 0; i < count; ++i) {
        const char *name;
        attn_tensor shape;
        if (attn_mha_parameter_describe(layer, i, &name, &shape) != ATTN_OK) {
            abort();
        }
    }
    attn_mha_destroy(layer);
}

static void spoil_and_ask(fuzz_bytes *bytes, const factor_set *set, const factor_case *chosen,
                          uint64_t seed) {
    mha_call call;
    call_outcome outcome = {0};
    mha_case_build(chosen, seed, FREE_TINY, &call);
    attn_mha *layer = mha_call_layer(&call, &outcome);
    if (layer == NULL) {
        fuzz_fail(set, chosen, seed, outcome.message);
    }
    attn_tensor views[] = {*call.query, *call.key, *call.value, *call.output};
    attn_mha_params params = call.params;
    attn_mha_config config = call.config;
    const int times = 1 + fuzz_byte(bytes) % MOST_SPOILED;
    for (int i = 0; i < times; ++i) {
        const int what = fuzz_byte(bytes) % 8;
        if (what < 4) {
            fuzz_spoil_view(bytes, &views[what]);
        } else if (what == 4) {
            params.attn_mask_kind = (int32_t)fuzz_odd_number(bytes);
        } else if (what == 5) {
            params.key_padding_mask_kind = (int32_t)fuzz_odd_number(bytes);
        } else {
            spoil_config(bytes, &config);
        }
    }
    size_t needed;
    const attn_status status = attn_mha_workspace_bytes(NULL, layer, &views[0], &views[1],
                                                        &views[2], &params, &views[3], &needed);
    if ((status == ATTN_OK) != (attn_last_error()[0] == '\0')) {
        abort();
    }
    describe_layer(&config);
    attn_mha_destroy(layer);
    mha_call_destroy(&call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static factor_set set;
    fuzz_bytes bytes = {data, size};
    factor_case chosen = {{0}};
    if (set.count == 0) {
        set = mha_factor_set();
    }
    const int computes = fuzz_byte(&bytes) < COMPUTES;
    const uint64_t seed = fuzz_word(&bytes);
    if (!fuzz_choose(&bytes, &set, &chosen)) {
        return -1;
    }
    if (computes) {
        call_outcome outcome = {0};
        if (mha_case_run(&set, &chosen, seed, FREE_TINY, &outcome) != 0) {
            fuzz_fail(&set, &chosen, seed, outcome.message);
        }
    } else {
        spoil_and_ask(&bytes, &set, &chosen, seed);
    }
    fuzz_count("mha", computes);
    return 0;
}
