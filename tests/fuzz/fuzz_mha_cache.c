/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_mha_cache.c: a step of a layer with a cache. One thing about it is odd: a view of the cache
 * or the rotation, a number that says where rows are, a struct's size. Then the call is refused and
 * has written nothing, or it writes nothing but what belongs to an output.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz_memory.h"
#include "mha_cache_case.h"
#include "support/oracle_tensor.h"

/* Copies of what the layer's cache and rotation point to, which may be spoiled. */
typedef struct spoiled_step {
    attn_kv cache;
    attn_rope_params rope;
    attn_mha_params params;
    attn_tensor views[15];
    int count;
} spoiled_step;

static void own(spoiled_step *spoiled, const attn_tensor **view) {
    if (*view != NULL) {
        spoiled->views[spoiled->count] = **view;
        *view = &spoiled->views[spoiled->count++];
    }
}

static void copy_step(const mha_cache_case *built, spoiled_step *spoiled) {
    *spoiled =
        (spoiled_step){.cache = built->by_layer.kv, .rope = built->rope, .params = built->params};
    const attn_tensor **views[] = {
        &spoiled->cache.key,         &spoiled->cache.value,      &spoiled->cache.page_table,
        &spoiled->cache.page_starts, &spoiled->cache.starts,     &spoiled->cache.lengths,
        &spoiled->cache.key_scale,   &spoiled->cache.key_zero,   &spoiled->cache.value_scale,
        &spoiled->cache.value_zero,  &spoiled->rope.frequencies, &spoiled->rope.cos,
        &spoiled->rope.sin,          &spoiled->rope.positions,   &spoiled->rope.lengths};
    for (size_t i = 0; i < sizeof views / sizeof views[0]; ++i) {
        own(spoiled, views[i]);
    }
    spoiled->params.cache = &spoiled->cache;
    spoiled->params.rope = built->params.rope != NULL ? &spoiled->rope : NULL;
}

static attn_status ask(const mha_cache_case *built, const attn_mha_params *params) {
    size_t bytes;
    attn_mha_report report = {.struct_size = sizeof report};
    const attn_status status = attn_mha_workspace_bytes(
        NULL, built->layer, built->query, built->key, built->value, params, built->output, &bytes);
    if (attn_mha_explain(NULL, built->layer, built->query, built->key, built->value, params,
                         built->output, &report) != status ||
        (status == ATTN_OK) != (attn_last_error()[0] == '\0')) {
        abort();
    }
    return status;
}

/* Only what was not refused without data may be found in them. */
static void compute(const fuzz_input *input, mha_cache_case *built, const attn_mha_params *params,
                    attn_status asked) {
    char message[200];
    pool_begin(&built->pool);
    pool_begin(&built->step_pool);
    const attn_status status = attn_mha_forward(NULL, built->layer, built->query, built->key,
                                                built->value, params, built->output, NULL, 0);
    const int is_wrong =
        asked != ATTN_OK ? status == ATTN_OK : status != ATTN_OK && status != ATTN_ERROR_VALUE;
    const int is_touched =
        status == ATTN_OK ? pool_check(&built->pool, message, sizeof message) ||
                                pool_check(&built->step_pool, message, sizeof message)
                          : pool_check_untouched(&built->pool, message, sizeof message) ||
                                pool_check_untouched(&built->step_pool, message, sizeof message);
    if (is_wrong || is_touched) {
        fuzz_fail(input->set, &input->chosen, input->seed,
                  is_touched ? message : attn_status_name(status));
    }
}

/* A view that the call accepts may say that its elements are elsewhere: then nobody reads them. */
static void spoil_view(fuzz_input *input, mha_cache_case *built) {
    spoiled_step spoiled;
    copy_step(built, &spoiled);
    fuzz_spoil_view(&input->bytes, &spoiled.views[fuzz_byte(&input->bytes) % spoiled.count]);
    const attn_status asked = ask(built, &spoiled.params);
    if (asked != ATTN_OK) {
        compute(input, built, &spoiled.params, asked);
    }
}

static void spoil_size(fuzz_input *input, mha_cache_case *built) {
    spoiled_step spoiled;
    copy_step(built, &spoiled);
    if (fuzz_byte(&input->bytes) % 2 != 0) {
        spoiled.cache.struct_size = fuzz_byte(&input->bytes) % (sizeof spoiled.cache + 1);
    } else {
        spoiled.rope.struct_size = fuzz_byte(&input->bytes) % (sizeof spoiled.rope + 1);
    }
    compute(input, built, &spoiled.params, ask(built, &spoiled.params));
}

/* Lengths are writable; they are as they were for the next step. */
static void spoil_length(fuzz_input *input, mha_cache_case *built) {
    const int64_t batch = fuzz_byte(&input->bytes) % built->batch;
    const int64_t before = mha_cache_length(built, batch);
    oracle_store_integer(built->lengths, &batch, fuzz_odd_number(&input->bytes));
    compute(input, built, &built->params, ask(built, &built->params));
    oracle_store_integer(built->lengths, &batch, before);
}

/* One of the two alone, or of another number of rows. */
static void spoil_rows(fuzz_input *input, mha_cache_case *built) {
    const attn_tensor *const key = built->key, *const value = built->value;
    attn_tensor view;
    if (fuzz_byte(&input->bytes) % 2 != 0 || key == NULL) {
        built->key = NULL;
    } else {
        view = *key;
        fuzz_spoil_view(&input->bytes, &view);
        built->key = &view;
    }
    const attn_status asked = ask(built, &built->params);
    if (asked != ATTN_OK) {
        compute(input, built, &built->params, asked);
    }
    built->key = (attn_tensor *)(uintptr_t)key;
    built->value = (attn_tensor *)(uintptr_t)value;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static factor_set set;
    static mha_cache_case built;
    fuzz_input input = {.bytes = {data, size}, .set = &set};
    if (set.count == 0) {
        set = mha_cache_factor_set();
    }
    input.seed = fuzz_word(&input.bytes);
    if (!fuzz_choose(&input.bytes, &set, &input.chosen)) {
        return -1;
    }
    mha_cache_case_build(&built, NULL, &input.chosen, input.seed);
    for (int i = 0; i < NUM_CACHE_STEPS; ++i) {
        void (*const ways[])(fuzz_input *, mha_cache_case *) = {spoil_view, spoil_size,
                                                                spoil_length, spoil_rows};
        mha_cache_step_build(&built, cache_steps[i]);
        ways[fuzz_byte(&input.bytes) % 4](&input, &built);
        compute(&input, &built, &built.params, ask(&built, &built.params));
        mha_cache_step_destroy(&built);
    }
    mha_cache_case_destroy(&built);
    fuzz_count("mha_cache", 1);
    return 0;
}
