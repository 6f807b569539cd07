/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_mha_ragged.c: a layer whose new rows are those of sequences of different lengths has the bits
 * of one call for each sequence, in the cache and in all outputs, prompts and tokens side by side;
 * test_mha_cache.c says what those calls have.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mha_cache_program.h"
#include "property_setup.h"
#include "support/oracle_tensor.h"

enum { NUM_STEPS = 4, ROWS_BEFORE = 2, ROWS_BEHIND = 1 };

/* New rows of each sequence. */
typedef struct ragged_step {
    int64_t rows[CACHE_MOST_BATCH];
    int only_reads;
} ragged_step;

static const ragged_step steps[NUM_STEPS] = {
    {.rows = {7, 1, 1}},                 /* a prompt beside two tokens */
    {.rows = {1, 1, 1}},                 /* tokens */
    {.rows = {0, 4, 2}},                 /* two prompts, of a sequence that waits nothing */
    {.rows = {2, 0, 3}, .only_reads = 1} /* as a decoder reads an encoder's keys */
};

/* The tensors of a step, which are those of all sequences. */
typedef struct ragged_call {
    mha_cache_case *built;
    const ragged_step *step;
    int64_t first[CACHE_MOST_BATCH + 1]; /* row of each sequence, and behind the last */
    int64_t total;
    tensor_pool pool;
    attn_tensor *starts, *query, *key, *value, *output;
    attn_tensor *padding, *mask, *offset, *positions, *lse, *weights, *scores;
    attn_dropout dropout;
} ragged_call;

/* ---- a step of all sequences ---- */

static attn_tensor *add_rows(ragged_call *call) {
    mha_cache_case *built = call->built;
    const int64_t shape[] = {call->total, built->config.embed_dim};
    attn_tensor *rows = pool_input(&call->pool, built->dtype, 2, shape, LAYOUT_PACKED);
    int64_t index[2] = {0, 0};
    random_fill(rows, &built->random, -1, 1, 0.25);
    do {
        if (index[0] < call->first[0] || index[0] >= call->first[built->batch]) {
            oracle_store(rows, index, NAN);
        }
    } while (oracle_next_index(2, shape, index));
    return rows;
}

static attn_tensor *add_integers(ragged_call *call, int64_t count, int64_t lowest,
                                 int64_t highest) {
    attn_tensor *numbers = pool_input(&call->pool, ATTN_DTYPE_INT64, 1, &count, LAYOUT_CONTIGUOUS);
    random_fill_integers(numbers, &call->built->random, lowest, highest);
    return numbers;
}

static void add_starts(ragged_call *call) {
    mha_cache_case *built = call->built;
    call->first[0] = ROWS_BEFORE;
    for (int64_t b = 0; b < built->batch; ++b) {
        const int64_t rows = call->step->rows[b];
        const int64_t length = mha_cache_length(built, b) + (call->step->only_reads ? 0 : rows);
        call->first[b + 1] = call->first[b] + rows;
        oracle_store_integer(built->lengths, &b, length);
    }
    call->total = call->first[built->batch] + ROWS_BEHIND;
    call->starts = add_integers(call, built->batch + 1, 0, 1);
    for (int64_t b = 0; b <= built->batch; ++b) {
        oracle_store_integer(call->starts, &b, call->first[b]);
    }
}

static void add_padding(ragged_call *call) {
    const int64_t shape[] = {call->built->batch, CACHE_ROOM};
    if (cache_level(call->built, CACHE_PADDING) == 0) {
        return;
    }
    call->padding = pool_input(&call->pool, ATTN_DTYPE_BOOL, 2, shape, LAYOUT_CONTIGUOUS);
    for (int64_t i = 0; i < shape[0] * shape[1]; ++i) {
        const int64_t index[] = {i / CACHE_ROOM, i % CACHE_ROOM};
        oracle_store(call->padding, index, (index[0] + index[1]) % 5 == 3);
    }
}

static void add_outputs(ragged_call *call) {
    mha_cache_case *built = call->built;
    const int64_t columns = CACHE_ROOM + built->config.add_bias_kv + built->config.add_zero_attn;
    const int64_t rows[] = {call->total, built->config.embed_dim};
    const int64_t shape[] = {built->heads, call->total, columns};
    const int32_t dtype = built->score_dtype;
    call->output = pool_output(&call->pool, dtype, 2, rows, LAYOUT_PACKED);
    if (cache_level(built, CACHE_OUTPUTS) == OUTPUTS_NONE) {
        return;
    }
    call->lse = pool_output(&call->pool, dtype, 2, shape, LAYOUT_CONTIGUOUS);
    call->weights = pool_output(&call->pool, dtype, 3, shape, LAYOUT_CONTIGUOUS);
    call->scores = pool_output(&call->pool, dtype, 3, shape, LAYOUT_CONTIGUOUS);
}

static void add_options(ragged_call *call) {
    mha_cache_case *built = call->built;
    const int64_t mask[] = {call->total, CACHE_ROOM};
    if (cache_level(built, CACHE_OPTIONS) == OPTIONS_MASK) {
        call->mask = pool_input(&call->pool, built->score_dtype, 2, mask, LAYOUT_CONTIGUOUS);
        random_fill(call->mask, &built->random, -2, 2, 0);
    } else if (cache_level(built, CACHE_OPTIONS) == OPTIONS_OFFSET) {
        call->offset = add_integers(call, built->batch, 1, 6);
        call->dropout =
            (attn_dropout){.struct_size = sizeof call->dropout, .probability = 0.25, .seed = 7};
    }
    if (cache_level(built, CACHE_ROPE) == ROPE_POSITIONS) {
        call->positions = add_integers(call, call->total, 0, 1000);
    }
}

static void build_step(ragged_call *call, mha_cache_case *built, const ragged_step *step) {
    *call = (ragged_call){.built = built, .step = step};
    snprintf(built->step_name, sizeof built->step_name, "number %d", (int)(step - steps));
    add_starts(call);
    call->query = add_rows(call);
    if (!step->only_reads) {
        call->key = add_rows(call);
        call->value = add_rows(call);
    }
    add_padding(call);
    add_options(call);
    add_outputs(call);
}

static void run_together(ragged_call *call, attn_context *context) {
    mha_cache_case *built = call->built;
    attn_sdpa_params attention = mha_cache_options(call->built);
    attn_rope_params rope = mha_cache_rope(built);
    attn_mha_params params = {.struct_size = sizeof params,
                              .key_padding_mask = call->padding,
                              .key_padding_mask_kind =
                                  call->padding != NULL ? ATTN_MASK_BOOL_EXCLUDE : 0,
                              .attention = &attention,
                              .cache = &built->by_layer.kv,
                              .rope = cache_level(built, CACHE_ROPE) == ROPE_NONE ? NULL : &rope};
    attention.query_starts = call->starts;
    attention.mask = call->mask;
    attention.query_offset = call->offset;
    attention.lse = call->lse;
    attention.weights = call->weights;
    attention.scores = call->scores;
    attention.dropout = &call->dropout;
    call->dropout.struct_size = sizeof call->dropout;
    rope.positions = call->positions;
    mha_cache_forward(built, context, call->query, call->key, call->value, &params, call->output,
                      &call->pool);
}

/* ---- a call for each sequence ---- */

/* `count` of an axis, from `first` on. */
static attn_tensor part_of(const attn_tensor *tensor, int32_t axis, int64_t first, int64_t count) {
    attn_tensor view = *tensor;
    int64_t index[4] = {0};
    index[axis] = first;
    view.shape[axis] = count;
    if (tensor->data != NULL && count > 0) {
        view.data = oracle_address(tensor, index);
    }
    return view;
}

/* The rows of a sequence of a tensor of all, behind a batch axis of length 1. */
static attn_tensor rows_of(const ragged_call *call, const attn_tensor *tensor, int32_t row_axis,
                           int64_t sequence) {
    attn_tensor view = part_of(tensor, row_axis, call->first[sequence], call->step->rows[sequence]);
    memmove(view.shape + 1, view.shape, 3 * sizeof *view.shape);
    memmove(view.strides + 1, view.strides, 3 * sizeof *view.strides);
    view.rank += 1;
    view.shape[0] = 1;
    view.strides[0] = 0;
    return view;
}

/* Views of what one sequence has of the cache. */
typedef struct cache_part {
    attn_tensor views[8];
    int count;
    attn_kv kv;
} cache_part;

static void cut(cache_part *part, const attn_tensor **tensor, int64_t first, int64_t count) {
    if (*tensor != NULL) {
        part->views[part->count] = part_of(*tensor, 0, first, count);
        *tensor = &part->views[part->count++];
    }
}

static void cut_cache(const ragged_call *call, int64_t sequence, cache_part *part) {
    attn_kv *kv = &part->kv;
    *part = (cache_part){.kv = call->built->by_calls.kv};
    cut(part, &kv->lengths, sequence, 1);
    cut(part, &kv->starts, sequence, 2);
    cut(part, &kv->page_starts, sequence, 2);
    if (kv->page_table != NULL && kv->page_table->rank == 2) {
        cut(part, &kv->page_table, sequence, 1);
    }
    if (cache_level(call->built, CACHE_PLACE) == PLACE_OWN) {
        const attn_tensor **const own[] = {&kv->key,         &kv->value,    &kv->key_scale,
                                           &kv->value_scale, &kv->key_zero, &kv->value_zero};
        for (int i = 0; i < 6; ++i) {
            cut(part, own[i], sequence, 1);
        }
    }
}

static void assert_same(const ragged_call *call, const char *name, const attn_tensor *all,
                        int32_t row_axis, int64_t sequence, const attn_tensor *expected) {
    char message[300];
    if (all == NULL) {
        return;
    }
    const attn_tensor actual = rows_of(call, all, row_axis, sequence);
    if (compare_same_bits(name, &actual, expected, message, sizeof message) != 0) {
        mha_cache_fail(call->built, message);
    }
}

/* A dense output of one sequence; NULL where all have none. */
static attn_tensor *like_rows(const ragged_call *call, tensor_pool *pool, const attn_tensor *all,
                              int32_t row_axis, int64_t sequence) {
    if (all == NULL) {
        return NULL;
    }
    const attn_tensor rows = rows_of(call, all, row_axis, sequence);
    return pool_output(pool, all->dtype, rows.rank, rows.shape, LAYOUT_CONTIGUOUS);
}

static void run_alone(ragged_call *call, attn_context *context, int64_t sequence) {
    mha_cache_case *built = call->built;
    const int reads = call->step->only_reads;
    attn_sdpa_params attention = mha_cache_options(call->built);
    attn_rope_params rope = mha_cache_rope(built);
    attn_tensor views[7];
    tensor_pool pool = {.count = 0};
    cache_part cache;
    attn_dropout dropout = call->dropout;
    if (call->step->rows[sequence] == 0) {
        return;
    }
    cut_cache(call, sequence, &cache);
    attn_mha_params params = {.struct_size = sizeof params,
                              .attention = &attention,
                              .cache = &cache.kv,
                              .rope = cache_level(built, CACHE_ROPE) == ROPE_NONE ? NULL : &rope};
    dropout.batch = sequence;
    attention.dropout = &dropout;
    views[0] = rows_of(call, call->query, 0, sequence);
    for (int i = 1; i < 3 && !reads; ++i) {
        views[i] = rows_of(call, i == 1 ? call->key : call->value, 0, sequence);
    }
    if (call->mask != NULL) {
        views[3] = part_of(call->mask, 0, call->first[sequence], call->step->rows[sequence]);
        attention.mask = &views[3];
    }
    if (call->offset != NULL) {
        views[4] = part_of(call->offset, 0, sequence, 1);
        attention.query_offset = &views[4];
    }
    if (call->positions != NULL) {
        views[5] = rows_of(call, call->positions, 0, sequence);
        rope.positions = &views[5];
    }
    if (call->padding != NULL) {
        views[6] = part_of(call->padding, 0, sequence, 1);
        params.key_padding_mask = &views[6];
        params.key_padding_mask_kind = ATTN_MASK_BOOL_EXCLUDE;
    }
    attn_tensor *output = like_rows(call, &pool, call->output, 0, sequence);
    attention.lse = like_rows(call, &pool, call->lse, 1, sequence);
    attention.weights = like_rows(call, &pool, call->weights, 1, sequence);
    attention.scores = like_rows(call, &pool, call->scores, 1, sequence);
    assert_ok(attn_mha_forward(context, built->layer, &views[0], reads ? NULL : &views[1],
                               reads ? NULL : &views[2], &params, output, NULL, 0));
    assert_same(call, "output", call->output, 0, sequence, output);
    assert_same(call, "lse", call->lse, 1, sequence, attention.lse);
    assert_same(call, "weights", call->weights, 1, sequence, attention.weights);
    assert_same(call, "scores", call->scores, 1, sequence, attention.scores);
    pool_destroy(&pool);
}

/* ---- what else must hold ---- */

/* Rows of no sequence are out_proj.bias, which is 0 in these layers. */
static void assert_other_rows(const ragged_call *call) {
    int64_t index[2] = {0, 0};
    do {
        const int is_of_none =
            index[0] < call->first[0] || index[0] >= call->first[call->built->batch];
        if (is_of_none && oracle_element(call->output, index) != 0) {
            mha_cache_fail(call->built, "a row of no sequence is not out_proj.bias");
        }
    } while (oracle_next_index(2, call->output->shape, index));
}

/* ---- cases ---- */

static void ragged_rows_have_the_bits_of_each_alone(attn_context *context, attn_context *alone,
                                                    const factor_case *level, uint64_t seed) {
    static mha_cache_case built;
    factor_case chosen = *level;
    chosen.level[CACHE_FORM] = FORM_RAGGED;
    mha_cache_case_build(&built, alone, &chosen, seed);
    for (int i = 0; i < NUM_STEPS; ++i) {
        static ragged_call call;
        build_step(&call, &built, &steps[i]);
        run_together(&call, context);
        for (int64_t b = 0; b < built.batch; ++b) {
            run_alone(&call, alone, b);
        }
        mha_cache_assert_same_caches(&built);
        assert_other_rows(&call);
        pool_destroy(&call.pool);
    }
    mha_cache_case_destroy(&built);
}

int main(int argc, char **argv) {
    return mha_cache_main(argc, argv, "mha_ragged", ragged_rows_have_the_bits_of_each_alone);
}
