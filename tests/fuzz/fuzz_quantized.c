/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_quantized.c: attn_sdpa over caches of integers with scales. Half of the executions compute:
 * the bits are those of contiguous caches, and few keys are compared with the float64 oracle of the
 * numbers that elements mean. In the others one thing about the cache is spoiled: a view (what is
 * then refused without data must be refused with it), or numbers that tell where sequences are (a
 * call is then computed or refused). What is refused must leave all as it is.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz_memory.h"
#include "quantized_case.h"
#include "support/oracle_sdpa.h"

enum { COMPUTES = 128 };

/* The tensors of a cache; those that it does not have are zeroed. */
enum { KEY, VALUE, KEY_SCALE, VALUE_SCALE, KEY_ZERO, VALUE_ZERO, LENGTHS, PAGE_TABLE, VIEWS };

typedef struct spoiled_cache {
    attn_tensor views[VIEWS];
    attn_kv kv;
} spoiled_cache;

static void copy_cache(const attn_kv *kv, spoiled_cache *spoiled) {
    const attn_tensor **const fields[VIEWS] = {&spoiled->kv.key,       &spoiled->kv.value,
                                               &spoiled->kv.key_scale, &spoiled->kv.value_scale,
                                               &spoiled->kv.key_zero,  &spoiled->kv.value_zero,
                                               &spoiled->kv.lengths,   &spoiled->kv.page_table};
    *spoiled = (spoiled_cache){.kv = *kv};
    for (int i = 0; i < VIEWS; ++i) {
        if (*fields[i] != NULL) {
            spoiled->views[i] = **fields[i];
            *fields[i] = &spoiled->views[i];
        }
    }
}

/* Any set of kernels, with either engine, on one thread or two: made once. */
static attn_context *context_of(const quantized_case *built, uint64_t seed) {
    enum { MOST_SETS = 8 };
    static attn_context *contexts[MOST_SETS][2][2];
    int32_t num_sets = 0;
    while (attn_kernels_name(num_sets) != NULL && num_sets < MOST_SETS) {
        ++num_sets;
    }
    const int32_t set = (int32_t)(seed % (uint64_t)num_sets);
    const int by_blas = quantized_level(built, QUANTIZED_ENGINE) == 2;
    const int threads = (int)(seed >> 32) & 1;
    attn_context **context = &contexts[set][by_blas][threads];
    const attn_context_config config = {.struct_size = sizeof config,
                                        .num_threads = 1 + threads,
                                        .engine = by_blas ? ATTN_ENGINE_BLAS : ATTN_ENGINE_FUSED,
                                        .gemm = ATTN_GEMM_NATIVE,
                                        .kernels = attn_kernels_name(set)};
    if (*context == NULL && attn_context_create(&config, context) != ATTN_OK) {
        abort();
    }
    return *context;
}

static attn_status attend(const fuzz_input *input, quantized_case *built, const attn_kv *kv) {
    attn_sdpa_params params = built->quantized.params;
    params.kv = kv;
    pool_begin(&built->pool);
    return attn_sdpa(context_of(built, input->seed), built->query, NULL, NULL, &params,
                     built->quantized.output, NULL, 0);
}

/* ---- valid calls ---- */

/* The float64 oracle takes long for many keys. */
static int is_small(const quantized_case *built) {
    const int64_t *shape = built->quantized.output->shape;
    return shape[1] * shape[2] * built->room < 256;
}

static int differs_from_oracle(const fuzz_input *input, const quantized_case *built, char *message,
                               size_t bytes) {
    compare_stats stats = {0};
    const quantized_call *numbers = &built->numbers;
    attn_context_info info = {.struct_size = sizeof info};
    if (attn_context_describe(context_of(built, input->seed), &info) != ATTN_OK) {
        abort();
    }
    oracle_result expected =
        oracle_sdpa(built->query, numbers->key, numbers->value, &numbers->params,
                    oracle_weight_unit(info.kernels, built->query, numbers->key, numbers->value));
    const int differs =
        compare_tensor("output", built->quantized.output, &expected.output, &stats, message, bytes);
    oracle_result_destroy(&expected);
    return differs;
}

/* The bits of a contiguous cache, and the oracle's numbers. */
static void compute(const fuzz_input *input, quantized_case *built) {
    char message[400];
    quantized_call *plain = &built->plain;
    if (attend(input, built, &built->kv) != ATTN_OK ||
        attn_sdpa(context_of(built, input->seed), built->query, NULL, NULL, &plain->params,
                  plain->output, NULL, 0) != ATTN_OK) {
        fuzz_fail(input->set, &input->chosen, input->seed, attn_last_error());
    }
    if (pool_check(&built->pool, message, sizeof message) ||
        compare_same_bits("output", built->quantized.output, plain->output, message,
                          sizeof message) ||
        (is_small(built) && differs_from_oracle(input, built, message, sizeof message))) {
        fuzz_fail(input->set, &input->chosen, input->seed, message);
    }
}

/* ---- spoiled ones ---- */

static void take_data(spoiled_cache *cache) {
    for (int i = 0; i < VIEWS; ++i) {
        cache->views[i].data = NULL;
    }
}

static attn_status ask_about(const fuzz_input *input, const quantized_case *built,
                             const attn_kv *kv) {
    size_t bytes;
    attn_sdpa_params params = built->quantized.params;
    params.kv = kv;
    const attn_status status =
        attn_sdpa_workspace_bytes(context_of(built, input->seed), built->query, NULL, NULL, &params,
                                  built->quantized.output, &bytes);
    if ((status == ATTN_OK) != (attn_last_error()[0] == '\0')) {
        abort();
    }
    return status;
}

/* A view that is odd may be valid and lead anywhere: with data only what is refused without. A plan
 * that overflows is made once lengths were read. */
static void spoil_view(fuzz_input *input, quantized_case *built) {
    spoiled_cache spoiled, bare;
    copy_cache(&built->kv, &spoiled);
    attn_tensor *view = &spoiled.views[fuzz_byte(&input->bytes) % VIEWS];
    if (view->dtype == ATTN_DTYPE_INVALID) {
        return;
    }
    fuzz_spoil_view(&input->bytes, view);
    copy_cache(&spoiled.kv, &bare);
    take_data(&bare);
    const attn_status asked = ask_about(input, built, &bare.kv);
    if (asked != ATTN_OK && asked != ATTN_ERROR_OVERFLOW) {
        fuzz_check_refused(input, &built->pool, asked, attend(input, built, &spoiled.kv));
    }
}

/* A tensor of the cache that is not there, or one that may not be: keys' scales for values. */
static void spoil_fields(fuzz_input *input, quantized_case *built) {
    spoiled_cache spoiled, bare;
    copy_cache(&built->kv, &spoiled);
    const attn_tensor **const fields[] = {&spoiled.kv.key_scale, &spoiled.kv.value_scale,
                                          &spoiled.kv.key_zero,  &spoiled.kv.value_zero,
                                          &spoiled.kv.key,       &spoiled.kv.value};
    const attn_tensor **field = fields[fuzz_byte(&input->bytes) % 6];
    *field = *field != NULL ? NULL : spoiled.kv.key_scale;
    copy_cache(&spoiled.kv, &bare);
    take_data(&bare);
    const attn_status asked = ask_about(input, built, &bare.kv);
    const attn_status attended = attend(input, built, &spoiled.kv);
    if (attended != ATTN_OK || asked != ATTN_OK) {
        fuzz_check_refused(input, &built->pool, asked, attended);
    }
}

static void spoil_numbers(fuzz_input *input, quantized_case *built) {
    const attn_tensor *const tensors[] = {built->lengths, built->page_table};
    for (int times = 1 + fuzz_byte(&input->bytes) % 3; times > 0; --times) {
        const attn_tensor *numbers = tensors[fuzz_byte(&input->bytes) % 2];
        int64_t index[ATTN_MAX_RANK] = {0};
        int steps = fuzz_byte(&input->bytes);
        const int64_t number = fuzz_odd_number(&input->bytes);
        if (numbers == NULL) {
            continue;
        }
        while (steps-- > 0) {
            oracle_next_index(numbers->rank, numbers->shape, index);
        }
        oracle_store_integer(numbers, index, number);
    }
    const attn_status status = attend(input, built, &built->kv);
    if (status != ATTN_OK) {
        fuzz_check_refused(input, &built->pool, status, status);
    }
}

static void spoil(fuzz_input *input, quantized_case *built) {
    static void (*const ways[])(fuzz_input *, quantized_case *) = {spoil_view, spoil_view,
                                                                   spoil_fields, spoil_numbers};
    ways[fuzz_byte(&input->bytes) % (sizeof ways / sizeof ways[0])](input, built);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static factor_set set;
    static quantized_case built;
    fuzz_input input = {.bytes = {data, size}, .set = &set};
    if (set.count == 0) {
        set = quantized_factor_set(0);
    }
    const int computes = fuzz_byte(&input.bytes) < COMPUTES;
    input.seed = fuzz_word(&input.bytes);
    if (!fuzz_choose(&input.bytes, &set, &input.chosen)) {
        return -1;
    }
    quantized_case_build(&built, &input.chosen, input.seed);
    if (computes) {
        compute(&input, &built);
    } else {
        spoil(&input, &built);
    }
    quantized_case_destroy(&built);
    fuzz_count("quantized", computes);
    return 0;
}
