/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mha_cache_step.c: one call of a layer with a cache: its inputs, outputs and options.
 */
#include <stdio.h>
#include <string.h>

#include "mha_cache_case.h"
#include "support/oracle_tensor.h"

static int is_batched(const mha_cache_case *built) {
    return cache_level(built, CACHE_FORM) != FORM_UNBATCHED;
}

/* (N, rows, E) in the case's form. */
static attn_tensor *add_sequence(mha_cache_case *built, int64_t rows, int is_output) {
    const int64_t embed_dim = built->config.embed_dim;
    const int64_t shapes[][3] = {[FORM_BATCH_FIRST] = {built->batch, rows, embed_dim},
                                 [FORM_SEQUENCE_FIRST] = {rows, built->batch, embed_dim},
                                 [FORM_UNBATCHED] = {rows, embed_dim}};
    const int64_t *shape = shapes[cache_level(built, CACHE_FORM)];
    const int32_t rank = is_batched(built) ? 3 : 2;
    if (is_output) {
        return pool_output(&built->step_pool, built->score_dtype, rank, shape, LAYOUT_PACKED);
    }
    attn_tensor *tensor = pool_input(&built->step_pool, built->dtype, rank, shape, LAYOUT_PACKED);
    random_fill(tensor, &built->random, -1, 1, 0.25);
    return tensor;
}

static void count_rows(mha_cache_case *built) {
    for (int64_t b = 0; b < built->batch; ++b) {
        oracle_store_integer(built->lengths, &b, mha_cache_length(built, b) + built->step.keys);
    }
}

/* Some row of each sequence that was appended before, or is new, is padding. */
static void add_padding(mha_cache_case *built) {
    const int64_t shape[] = {built->batch, CACHE_ROOM};
    const int32_t skipped = !is_batched(built);
    if (cache_level(built, CACHE_PADDING) == 0) {
        return;
    }
    built->padding = pool_input(&built->step_pool, ATTN_DTYPE_BOOL, 2 - skipped, shape + skipped,
                                LAYOUT_CONTIGUOUS);
    for (int64_t i = 0; i < built->batch * CACHE_ROOM; ++i) {
        const int64_t index[] = {i / CACHE_ROOM, i % CACHE_ROOM};
        oracle_store(built->padding, index + skipped, i % 5 == 3);
    }
}

/* Rows of query or key, which are as many. */
static void add_positions(mha_cache_case *built) {
    const int64_t rows = built->step.queries;
    const int is_one = built->step.keys != rows && !built->step.only_reads;
    const int64_t shape[] = {built->batch, is_one ? 1 : rows};
    const int32_t skipped = !is_batched(built);
    built->positions = pool_input(&built->step_pool, ATTN_DTYPE_INT32, 2 - skipped, shape + skipped,
                                  LAYOUT_CONTIGUOUS);
    random_fill_integers(built->positions, &built->random, 0, 1000);
}

static void set_rope(mha_cache_case *built) {
    const int level = cache_level(built, CACHE_ROPE);
    built->rope = mha_cache_rope(built);
    if (level == ROPE_POSITIONS) {
        add_positions(built);
        built->rope.positions = built->positions;
    }
    built->params.rope = level == ROPE_NONE ? NULL : &built->rope;
}

static void set_options(mha_cache_case *built) {
    const int level = cache_level(built, CACHE_OPTIONS);
    const int64_t mask[] = {built->batch, 1, built->step.queries, CACHE_ROOM};
    const int64_t batch[] = {built->batch};
    built->attention = mha_cache_options(built);
    if (level == OPTIONS_MASK) {
        built->mask = pool_input(&built->step_pool, built->score_dtype, 4, mask, LAYOUT_CONTIGUOUS);
        random_fill(built->mask, &built->random, -2, 2, 0);
        built->attention.mask = built->mask;
    } else if (level == OPTIONS_OFFSET) {
        built->offset = pool_input(&built->step_pool, ATTN_DTYPE_INT64, is_batched(built), batch,
                                   LAYOUT_CONTIGUOUS);
        random_fill_integers(built->offset, &built->random, 1, 6);
        built->attention.query_offset = built->offset;
    }
}

static void add_outputs(mha_cache_case *built) {
    const int32_t skipped = !is_batched(built);
    const int64_t columns = CACHE_ROOM + built->config.add_bias_kv + built->config.add_zero_attn;
    const int64_t shape[] = {built->batch, built->heads, built->step.queries, columns};
    built->output = add_sequence(built, built->step.queries, 1);
    if (cache_level(built, CACHE_OUTPUTS) == OUTPUTS_NONE) {
        return;
    }
    const int32_t dtype = built->score_dtype;
    built->lse =
        pool_output(&built->step_pool, dtype, 3 - skipped, shape + skipped, LAYOUT_CONTIGUOUS);
    built->weights =
        pool_output(&built->step_pool, dtype, 4 - skipped, shape + skipped, LAYOUT_CONTIGUOUS);
    built->scores =
        pool_output(&built->step_pool, dtype, 4 - skipped, shape + skipped, LAYOUT_CONTIGUOUS);
    built->attention.lse = built->lse;
    built->attention.weights = built->weights;
    built->attention.scores = built->scores;
}

void mha_cache_step_build(mha_cache_case *built, cache_step step) {
    memset(&built->step_pool, 0, sizeof built->step_pool);
    built->step = step;
    snprintf(built->step_name, sizeof built->step_name, "%lld queries and %lld keys",
             (long long)step.queries, (long long)step.keys);
    built->padding = built->mask = built->offset = built->positions = NULL;
    built->lse = built->weights = built->scores = built->key = built->value = NULL;
    built->params = (attn_mha_params){.struct_size = sizeof built->params,
                                      .attention = &built->attention,
                                      .cache = &built->by_layer.kv};
    count_rows(built);
    built->query = add_sequence(built, step.queries, 0);
    if (!step.only_reads) {
        built->key = add_sequence(built, step.keys, 0);
        built->value = add_sequence(built, step.keys, 0);
    }
    set_options(built);
    set_rope(built);
    add_padding(built);
    if (built->padding != NULL) {
        built->params.key_padding_mask = built->padding;
        built->params.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    }
    add_outputs(built);
}

void mha_cache_step_destroy(mha_cache_case *built) {
    pool_destroy(&built->step_pool);
}
