/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_blocks.c: a mask by blocks is the bool mask that it stands for, beside any other
 * mask: in lanes to the bit, whatever the blocks' size, and elsewhere within the bounds. What a
 * block hides may be NaN, and so may what masks hold where they are not asked.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"
#include "support/strength.h"

enum { SEED = 911 };

/* Rows in lanes over several tiles and chunks, with groups of heads and in pairs of bfloat16; a few
 * rows; float64. */
static const sdpa_sizes all_sizes[] = {
    {ATTN_DTYPE_FLOAT32, 1, 2, 2, 150, 611, 64, 64},
    {ATTN_DTYPE_FLOAT32, 2, 4, 2, 40, 4300, 16, 5},
    {ATTN_DTYPE_BFLOAT16, 1, 4, 2, 70, 300, 33, 32},
    {ATTN_DTYPE_FLOAT16, 1, 2, 1, 70, 300, 20, 48},
    {ATTN_DTYPE_FLOAT32, 2, 2, 2, 3, 4500, 8, 5},
    {ATTN_DTYPE_BFLOAT16, 1, 4, 1, 1, 2300, 16, 16},
    {ATTN_DTYPE_FLOAT64, 2, 2, 1, 34, 121, 8, 9},
};
enum { NUM_SIZES = sizeof all_sizes / sizeof all_sizes[0] };

/* Rows and keys of a block: what panels end at, what crosses them, one and more than all. */
static const int64_t all_blocks[][2] = {{64, 128}, {32, 16}, {48, 100}, {7, 3}, {1, 64}, {999, 1}};
enum { NUM_BLOCKS = sizeof all_blocks / sizeof all_blocks[0] };

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Per batch and head, or for all heads. Most blocks are hidden, whole rows of them among these. */
static attn_tensor *make_blocks(sdpa_setup *setup, const int64_t *lengths, int has_heads) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t shape[] = {s->batch, has_heads ? s->heads : 1, divide_up(s->rows, lengths[0]),
                             divide_up(s->keys, lengths[1])};
    attn_tensor *blocks = pool_input(&setup->pool, ATTN_DTYPE_UINT8, 4, shape, LAYOUT_CONTIGUOUS);
    int64_t index[4] = {0};
    do {
        const int64_t drawn = random_between(&setup->random, 0, 9);
        const int is_hidden = drawn > 3 || (index[2] + index[1]) % 5 == 4;
        oracle_store(blocks, index,
                     is_hidden ? ATTN_BLOCK_HIDDEN
                               : (double)(drawn % 2 == 0 ? ATTN_BLOCK_VISIBLE : ATTN_BLOCK_MASKED));
    } while (oracle_next_index(4, shape, index));
    setup->params.block_mask = blocks;
    setup->params.block_rows = lengths[0];
    setup->params.block_columns = lengths[1];
    return blocks;
}

/* What an additive mask holds for a row and a key that ask it. */
static double asked_element(int64_t row, int64_t key) {
    const int is_shown = (row * 7 + key * 5) % 11 < 8;
    return is_shown ? (double)((row + 3 * key) % 17) / 8 - 1 : -INFINITY;
}

/* The mask beside blocks, NaN where it is not asked; or, of the call without blocks, what both make
 * together, `has_mask` telling whether there is one. */
static void make_mask(sdpa_setup *setup, const attn_tensor *blocks, const int64_t *lengths,
                      int has_mask, int is_twin) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t shape[] = {s->batch, s->heads, s->rows, s->keys};
    const int32_t dtype = s->dtype == ATTN_DTYPE_FLOAT64 ? s->dtype : ATTN_DTYPE_FLOAT32;
    attn_tensor *mask = pool_input(&setup->pool, dtype, 4, shape, LAYOUT_CONTIGUOUS);
    int64_t index[4] = {0};
    do {
        const int64_t own[] = {index[0], blocks->shape[1] == 1 ? 0 : index[1],
                               index[2] / lengths[0], index[3] / lengths[1]};
        const double block = oracle_element(blocks, own);
        const double unasked = !is_twin ? NAN : block == ATTN_BLOCK_HIDDEN ? -INFINITY : 0;
        oracle_store(mask, index,
                     block == ATTN_BLOCK_MASKED && has_mask ? asked_element(index[2], index[3])
                     : block == ATTN_BLOCK_MASKED           ? 0
                                                            : unasked);
    } while (oracle_next_index(4, shape, index));
    setup->params.mask = mask;
    setup->params.mask_kind = ATTN_MASK_ADDITIVE;
}

/* Causality at the end, a window and a softcap, and ALiBi by turns. */
static void set_options(int options, sdpa_setup *setup) {
    const int64_t heads = setup->sizes.heads;
    attn_sdpa_params *params = &setup->params;
    params->enable_gqa = 1;
    params->is_causal = params->align_end = options & 1;
    if (options & 2) {
        params->set |= ATTN_SDPA_SET_WINDOW;
        params->window_left = setup->sizes.keys / 2;
        params->window_right = 9;
        params->softcap = 5;
    }
    if (options & 4) {
        attn_tensor *slopes =
            pool_input(&setup->pool, ATTN_DTYPE_FLOAT32, 1, &heads, LAYOUT_CONTIGUOUS);
        random_fill(slopes, &setup->random, -0.2, 0.5, 0);
        params->alibi_slopes = slopes;
    }
}

/* Keys and values whose blocks are hidden from every row are no numbers. */
static void spoil_hidden(sdpa_setup *setup, const attn_tensor *blocks, int64_t block_columns) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t group = s->heads / s->kv_heads, shape[] = {s->batch, s->kv_heads, s->keys};
    int64_t index[4] = {0};
    do {
        int is_shown = 0;
        for (int64_t i = 0; i < group * blocks->shape[2]; ++i) {
            const int64_t head = blocks->shape[1] == 1 ? 0 : index[1] * group + i % group;
            const int64_t own[] = {index[0], head, i / group, index[2] / block_columns};
            is_shown |= oracle_element(blocks, own) != ATTN_BLOCK_HIDDEN;
        }
        if (!is_shown) {
            oracle_store(setup->key, index, NAN);
            oracle_store(setup->value, index, INFINITY);
        }
    } while (oracle_next_index(3, shape, index));
}

/* Makes the call with blocks and its twin, whose mask says the same. */
static void create(sdpa_setup setups[2], const sdpa_sizes *sizes, int options,
                   const int64_t *lengths) {
    const int has_heads = options % 3 != 0, has_mask = options % 4 != 3;
    for (int i = 0; i < 2; ++i) {
        sdpa_setup *setup = &setups[i];
        sdpa_setup_create(setup, sizes, SEED);
        set_options(options, setup);
        const attn_tensor *blocks = make_blocks(setup, lengths, has_heads);
        if (i == 1 || has_mask) {
            make_mask(setup, blocks, lengths, has_mask, i == 1);
        }
        if (i == 0) {
            spoil_hidden(setup, blocks, lengths[1]);
            continue;
        }
        setup->params.block_mask = NULL;
        setup->params.block_rows = setup->params.block_columns = 0;
    }
}

/* By rows and by products keys that are left out move what is summed together. */
static int are_same_bits(const sdpa_sizes *s, int32_t engine) {
    return engine == ATTN_ENGINE_FUSED && s->heads / s->kv_heads * s->rows > 4;
}

/* Weights ask for all keys as one tile: where bits are compared there are calls without, too. */
static void check(attn_context *context, int32_t engine, const char *kernels,
                  const sdpa_sizes *sizes, int options, const int64_t *lengths) {
    sdpa_setup setups[2];
    create(setups, sizes, options, lengths);
    if (are_same_bits(sizes, engine) && options & 2) {
        setups[0].params.weights = setups[1].params.weights = NULL;
    }
    sdpa_setup_run(context, &setups[0]);
    if (are_same_bits(sizes, engine)) {
        sdpa_setup_run(context, &setups[1]);
        assert_same_bits("output", setups[0].output, setups[1].output);
        assert_same_bits("lse", setups[0].lse, setups[1].lse);
        if (setups[0].params.weights != NULL) {
            assert_same_bits("weights", setups[0].weights, setups[1].weights);
        }
    } else {
        oracle_result expected = sdpa_setup_expect_of(&setups[1], kernels);
        assert_sdpa_equals(&setups[0], &expected);
        oracle_result_destroy(&expected);
    }
    sdpa_setup_destroy(&setups[0]);
    sdpa_setup_destroy(&setups[1]);
}

static void check_engine(int32_t engine, const char *kernels) {
    const attn_context_config config = {.struct_size = sizeof config,
                                        .num_threads = 2,
                                        .engine = engine,
                                        .gemm = ATTN_GEMM_NATIVE,
                                        .kernels = kernels};
    attn_context *context;
    assert_ok(attn_context_create(&config, &context));
    for (int i = 0; i < NUM_SIZES; ++i) {
        const int has_engine =
            engine == ATTN_ENGINE_BLAS ? i % 2 == 0 : all_sizes[i].dtype != ATTN_DTYPE_FLOAT64;
        /* All options of the best kernels; some of the others and, at strength 1, of all. */
        const int is_best = kernels == NULL || kernels == attn_kernels_name(0);
        const int step = is_best && test_strength() > 1 ? 1 : 5;
        for (int options = i % step; options < 8 && has_engine; options += step) {
            check(context, engine, kernels, &all_sizes[i], options,
                  all_blocks[(options + i) % NUM_BLOCKS]);
        }
    }
    attn_context_destroy(context);
}

static void blocks_are_the_mask_that_they_stand_for(void **state) {
    (void)state;
    check_engine(ATTN_ENGINE_BLAS, NULL);
    for (int32_t i = 0; attn_kernels_name(i) != NULL; ++i) {
        check_engine(ATTN_ENGINE_FUSED, attn_kernels_name(i));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_the_mask_that_they_stand_for),
    };
    return cmocka_run_group_tests_name("properties of blocks", tests, NULL, NULL);
}
