/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_placement.c: a mask that begins at some key, and a table of distances, give the
 * bits of the mask and the bias that they stand for, written out; in lanes, by rows, by products,
 * and in the scores output.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"
#include "support/strength.h"

enum { BATCH = 2, SEED = 557 };

/* Rows in lanes over several tiles, with a group of heads; a few rows over keys that are split; so
 * few rows that they are one; float64. */
static const sdpa_sizes all_sizes[] = {
    {ATTN_DTYPE_FLOAT32, BATCH, 4, 2, 53, 611, 64, 64},
    {ATTN_DTYPE_FLOAT32, BATCH, 2, 2, 3, 4500, 8, 5},
    {ATTN_DTYPE_FLOAT32, BATCH, 1, 1, 1, 70, 16, 16},
    {ATTN_DTYPE_BFLOAT16, BATCH, 2, 1, 40, 300, 32, 32},
    {ATTN_DTYPE_FLOAT64, BATCH, 2, 1, 34, 121, 8, 9},
};
enum { NUM_SIZES = sizeof all_sizes / sizeof all_sizes[0] };

/* Two calls that must have the same bits. */
typedef struct twins {
    sdpa_setup setups[2];
} twins;

static attn_tensor *add_scores(sdpa_setup *setup) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t shape[] = {s->batch, s->heads, s->rows, s->keys};
    const int32_t dtype = s->dtype == ATTN_DTYPE_FLOAT64 ? s->dtype : ATTN_DTYPE_FLOAT32;
    attn_tensor *scores = pool_output(&setup->pool, dtype, 4, shape, LAYOUT_CONTIGUOUS);
    setup->params.scores = scores;
    setup->params.scores_stage = ATTN_SCORE_MASKED;
    return scores;
}

/* Causality at the end, a window, ALiBi and a softcap, by turns; with and without weights, which
 * decide whether a mask is looked at. */
static void set_options(int options, sdpa_setup *setup) {
    attn_sdpa_params *params = &setup->params;
    params->is_causal = params->align_end = options & 1;
    if (options & 2) {
        params->set |= ATTN_SDPA_SET_WINDOW;
        params->window_left = setup->sizes.keys / 2;
        params->window_right = 9;
        params->softcap = 5;
    }
    if (options & 4) {
        const int64_t heads = setup->sizes.heads;
        attn_tensor *slopes =
            pool_input(&setup->pool, ATTN_DTYPE_FLOAT32, 1, &heads, LAYOUT_CONTIGUOUS);
        random_fill(slopes, &setup->random, -0.2, 0.5, 0);
        params->alibi_slopes = slopes;
        params->weights = NULL;
    }
}

static void create(twins *made, const sdpa_sizes *sizes, int options) {
    for (int i = 0; i < 2; ++i) {
        sdpa_setup_create(&made->setups[i], sizes, SEED);
        set_options(options, &made->setups[i]);
    }
}

static void compare(attn_context *context, twins *made) {
    attn_tensor *scores[2];
    for (int i = 0; i < 2; ++i) {
        scores[i] = add_scores(&made->setups[i]);
        sdpa_setup_run(context, &made->setups[i]);
    }
    const sdpa_setup *a = &made->setups[0], *b = &made->setups[1];
    assert_same_bits("output", a->output, b->output);
    assert_same_bits("lse", a->lse, b->lse);
    assert_same_bits("weights", a->weights, b->weights);
    assert_same_bits("scores", scores[0], scores[1]);
    sdpa_setup_destroy(&made->setups[0]);
    sdpa_setup_destroy(&made->setups[1]);
}

/* A mask of `columns` of one row in two: hidden ones by turns, and numbers where it is additive. */
static attn_tensor *make_mask(sdpa_setup *setup, int32_t kind, int64_t columns) {
    const int64_t shape[] = {setup->sizes.rows, columns};
    const int is_additive = kind == ATTN_MASK_ADDITIVE;
    attn_tensor *mask = pool_input(&setup->pool, is_additive ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_BOOL,
                                   2, shape, LAYOUT_CONTIGUOUS);
    int64_t index[2] = {0, 0};
    do {
        const int is_hidden = (index[0] * 7 + index[1] * 5) % 11 < 4;
        const double number = (double)((index[0] + 3 * index[1]) % 17) / 8 - 1;
        oracle_store(mask, index,
                     is_additive ? (is_hidden ? -INFINITY : number)
                                 : is_hidden == (kind == ATTN_MASK_BOOL_EXCLUDE));
    } while (oracle_next_index(2, shape, index));
    setup->params.mask_kind = kind;
    return mask;
}

/* The mask over all keys: before `starts` it shows, behind its columns it hides. One for a batch.
 */
static attn_tensor *write_out(sdpa_setup *setup, const attn_tensor *mask, const int64_t *starts) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t shape[] = {s->batch, 1, s->rows, s->keys};
    const int32_t kind = setup->params.mask_kind;
    attn_tensor *full = pool_input(&setup->pool, mask->dtype, 4, shape, LAYOUT_CONTIGUOUS);
    int64_t index[4] = {0, 0, 0, 0};
    do {
        const int64_t own[] = {index[2], index[3] - starts[index[0]]};
        const double shown = kind == ATTN_MASK_BOOL_INCLUDE;
        const double hidden = kind == ATTN_MASK_ADDITIVE ? -INFINITY : 1 - shown;
        const int is_behind = own[1] >= mask->shape[1];
        oracle_store(full, index,
                     own[1] < 0  ? shown
                     : is_behind ? hidden
                                 : oracle_element(mask, own));
    } while (oracle_next_index(4, shape, index));
    return full;
}

static attn_tensor *batch_numbers(sdpa_setup *setup, const int64_t *numbers) {
    const int64_t batch = BATCH;
    attn_tensor *tensor = pool_input(&setup->pool, ATTN_DTYPE_INT32, 1, &batch, LAYOUT_CONTIGUOUS);
    for (int64_t b = 0; b < BATCH; ++b) {
        oracle_store_integer(tensor, &b, numbers[b]);
    }
    return tensor;
}

/* A tree of drafts at the end of each sequence: its mask ends with the last key there is. */
static void check_at_the_end(attn_context *context, const sdpa_sizes *sizes, int options,
                             int32_t kind) {
    twins made;
    const int64_t columns = sizes->keys / 3, lengths[BATCH] = {sizes->keys, sizes->keys - 9};
    const int64_t starts[BATCH] = {lengths[0] - columns, lengths[1] - columns};
    create(&made, sizes, options);
    for (int i = 0; i < 2; ++i) {
        sdpa_setup *setup = &made.setups[i];
        const attn_tensor *mask = make_mask(setup, kind, columns);
        setup->params.key_lengths = batch_numbers(setup, lengths);
        setup->params.mask = i == 0 ? mask : write_out(setup, mask, starts);
        setup->params.mask_start = i == 0 ? batch_numbers(setup, starts) : NULL;
    }
    compare(context, &made);
}

/* A short mask is one that is written out, over as many keys as it has columns. */
static void check_at_the_beginning(attn_context *context, const sdpa_sizes *sizes, int options,
                                   int32_t kind) {
    twins made;
    const int64_t columns = sizes->keys / 2, starts[BATCH] = {0, -3};
    const int64_t lengths[BATCH] = {columns, columns - 3};
    create(&made, sizes, options & ~1); /* the end is another for the twin */
    for (int i = 0; i < 2; ++i) {
        sdpa_setup *setup = &made.setups[i];
        const attn_tensor *mask = make_mask(setup, kind, columns);
        setup->params.mask = i == 0 ? mask : write_out(setup, mask, starts);
        setup->params.mask_start = i == 0 ? batch_numbers(setup, starts) : NULL;
        setup->params.key_lengths = i == 0 ? NULL : batch_numbers(setup, lengths);
    }
    compare(context, &made);
}

/* A bias with the table's number for each distance, and nothing of it in masks of other kinds. */
static attn_tensor *expand_table(sdpa_setup *setup, const attn_tensor *table) {
    const sdpa_sizes *s = &setup->sizes;
    const int64_t shape[] = {s->heads, s->rows, s->keys}, reach = table->shape[1] / 2;
    const int64_t first = setup->params.align_end ? s->keys - s->rows : 0;
    attn_tensor *bias = pool_input(&setup->pool, table->dtype, 3, shape, LAYOUT_CONTIGUOUS);
    int64_t index[3] = {0, 0, 0};
    do {
        const int64_t distance = index[2] - index[1] - first;
        const int64_t clipped = distance < -reach ? -reach : distance > reach ? reach : distance;
        const int64_t own[] = {table->shape[0] == 1 ? 0 : index[0], reach + clipped};
        oracle_store(bias, index, oracle_element(table, own));
    } while (oracle_next_index(3, shape, index));
    return bias;
}

static void check_table(attn_context *context, const sdpa_sizes *sizes, int options, int64_t reach,
                        int64_t heads) {
    twins made;
    create(&made, sizes, options);
    for (int i = 0; i < 2; ++i) {
        sdpa_setup *setup = &made.setups[i];
        const int64_t shape[] = {heads, 2 * reach + 1};
        attn_tensor *table = pool_input(&setup->pool, sizes->dtype, 2, shape, LAYOUT_CONTIGUOUS);
        random_fill(table, &setup->random, -2, 2, 0);
        setup->params.position_bias = i == 0 ? table : NULL;
        setup->params.bias = i == 0 ? NULL : expand_table(setup, table);
        if (options & 1) {
            setup->params.mask = make_mask(setup, ATTN_MASK_BOOL_INCLUDE, sizes->keys);
        }
    }
    compare(context, &made);
}

static void check_all(attn_context *context, const sdpa_sizes *sizes) {
    static const int32_t kinds[] = {ATTN_MASK_ADDITIVE, ATTN_MASK_BOOL_INCLUDE,
                                    ATTN_MASK_BOOL_EXCLUDE};
    /* Every third has each of the three options and none. */
    for (int options = 0; options < 8; options += test_strength() == 1 ? 3 : 1) {
        check_at_the_end(context, sizes, options, kinds[options % 3]);
        check_at_the_beginning(context, sizes, options, kinds[(options + 1) % 3]);
        check_table(context, sizes, options, options % 2 == 0 ? 3 : 2 * sizes->keys,
                    options % 4 < 2 ? sizes->heads : 1);
        check_table(context, sizes, options, sizes->rows / 2, sizes->heads);
    }
}

static void placed_masks_and_tables_are_what_they_stand_for(void **state) {
    (void)state;
    for (int32_t engine = ATTN_ENGINE_BLAS; engine <= ATTN_ENGINE_FUSED; ++engine) {
        const attn_context_config config = {.struct_size = sizeof config,
                                            .num_threads = 2,
                                            .engine = engine,
                                            .gemm = ATTN_GEMM_NATIVE};
        attn_context *context;
        assert_ok(attn_context_create(&config, &context));
        for (int i = 0; i < NUM_SIZES; ++i) {
            if (engine != ATTN_ENGINE_FUSED || all_sizes[i].dtype != ATTN_DTYPE_FLOAT64) {
                check_all(context, &all_sizes[i]);
            }
        }
        attn_context_destroy(context);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placed_masks_and_tables_are_what_they_stand_for),
    };
    return cmocka_run_group_tests_name("properties of placement", tests, NULL, NULL);
}
