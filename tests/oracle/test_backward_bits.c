/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_backward_bits.c: the gradients of a sequence have the bits that they have alone: in a batch
 * of any size and capacity, one behind the other with sequences of other lengths, and by any number
 * of threads. Rows of no sequence and keys past a length are NaN, and their gradients stay as they
 * are, or are 0.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"
#include "support/strength.h"

enum { MOST_SEQUENCES = 4, NUM_SEEDS = 24, NUM_THREADS = 4 };
static const int32_t threads_of[NUM_THREADS] = {1, 2, 3, 7};

/* What a call computes with and what it writes. */
typedef struct call_tensors {
    attn_tensor *query, *key, *value, *output, *lse, *given;
    attn_tensor *of_query, *of_key, *of_value;
} call_tensors;

typedef struct setting {
    random_state random;
    tensor_pool pool;
    int32_t dtype;
    int is_ragged;
    int64_t sequences, heads, key_heads, features, value_features;
    int64_t rows[MOST_SEQUENCES], keys[MOST_SEQUENCES];
    int64_t first_row[MOST_SEQUENCES + 1], first_key[MOST_SEQUENCES + 1];
    int64_t all_rows, all_keys; /* of a tensor: of all sequences, or of each */
    attn_sdpa_params options;
    call_tensors together;
    attn_tensor *query_starts, *key_starts, *lengths;
} setting;

/* ---- tensors ---- */

static attn_tensor *filled(setting *of, int64_t batch, int64_t heads, int64_t rows, int64_t cols,
                           int32_t dtype, double fill) {
    const int64_t shape[] = {batch, heads, rows, cols};
    const int is_alone = batch == 0;
    attn_tensor *tensor =
        pool_output(&of->pool, dtype, is_alone ? 3 : 4, shape + is_alone, LAYOUT_CONTIGUOUS);
    random_fill(tensor, &of->random, fill, fill, 0);
    return tensor;
}

static int32_t score_type(const setting *of) {
    return of->dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
}

/* batch 0: without that axis. */
static call_tensors tensors_of(setting *of, int64_t batch, int64_t rows, int64_t keys) {
    call_tensors made = {
        .query = filled(of, batch, of->heads, rows, of->features, of->dtype, NAN),
        .key = filled(of, batch, of->key_heads, keys, of->features, of->dtype, NAN),
        .value = filled(of, batch, of->key_heads, keys, of->value_features, of->dtype, NAN),
        .output = filled(of, batch, of->heads, rows, of->value_features, of->dtype, 7),
        .lse = filled(of, batch, of->heads, rows, 1, score_type(of), 7),
        .given = filled(of, batch, of->heads, rows, of->value_features, of->dtype, NAN),
        .of_query = filled(of, batch, of->heads, rows, of->features, of->dtype, 7),
        .of_key = filled(of, batch, of->key_heads, keys, of->features, of->dtype, 7),
        .of_value = filled(of, batch, of->key_heads, keys, of->value_features, of->dtype, 7),
    };
    made.lse->rank -= 1;
    return made;
}

/* A sequence's rows of a tensor of all, as (1, heads, rows, columns). */
static attn_tensor part_of(const setting *of, const attn_tensor *all, int64_t sequence, int is_key,
                           int64_t rows) {
    const int64_t first = is_key ? of->first_key[sequence] : of->first_row[sequence];
    const int32_t head_axis = of->is_ragged ? 0 : 1;
    int64_t index[ATTN_MAX_RANK] = {0};
    attn_tensor part = {.dtype = all->dtype, .rank = 4};
    part.shape[0] = 1;
    part.shape[1] = all->shape[head_axis];
    part.shape[2] = rows;
    part.shape[3] = all->rank > head_axis + 2 ? all->shape[head_axis + 2] : 1;
    part.strides[1] = all->strides[head_axis];
    part.strides[2] = all->strides[head_axis + 1];
    part.strides[3] = 1;
    index[0] = of->is_ragged ? 0 : sequence;
    index[head_axis + 1] = of->is_ragged ? first : 0;
    part.data = oracle_address(all, index);
    return part;
}

static void copy_tensor(const attn_tensor *to, const attn_tensor *from) {
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        oracle_store(to, index, oracle_element(from, index));
    } while (oracle_next_index(to->rank, to->shape, index));
}

static void fill_part(setting *of, const attn_tensor *all, int64_t sequence, int is_key) {
    const attn_tensor part =
        part_of(of, all, sequence, is_key, is_key ? of->keys[sequence] : of->rows[sequence]);
    random_fill(&part, &of->random, -1, 1, 0);
}

/* ---- a setting ---- */

static void choose_options(setting *of) {
    attn_sdpa_params *options = &of->options;
    options->struct_size = sizeof *options;
    options->enable_gqa = 1;
    options->is_causal = (int32_t)random_between(&of->random, 0, 1);
    options->align_end = (int32_t)random_between(&of->random, 0, 1);
    options->softcap = random_between(&of->random, 0, 2) == 0 ? 2 : 0;
    if (random_between(&of->random, 0, 2) == 0) {
        options->set = ATTN_SDPA_SET_WINDOW;
        options->window_left = random_between(&of->random, 0, 60);
        options->window_right = random_between(&of->random, -1, 5);
    }
    options->normalizer = (int32_t)random_between(&of->random, 0, 4);
    options->normalizer = options->normalizer > 2 ? 0 : options->normalizer;
    if (random_between(&of->random, 0, 1)) {
        attn_tensor *slopes =
            pool_output(&of->pool, ATTN_DTYPE_FLOAT32, 1, &of->heads, LAYOUT_CONTIGUOUS);
        random_fill(slopes, &of->random, 0, 0.1, 0);
        options->alibi_slopes = slopes;
    }
}

/* Rows of no sequence stand before the first and behind the last. */
static void choose_lengths(setting *of) {
    const int64_t same = random_between(&of->random, 1, 150);
    of->first_row[0] = of->is_ragged ? 2 : 0;
    of->first_key[0] = of->is_ragged ? 3 : 0;
    of->all_keys = 0;
    for (int64_t s = 0; s < of->sequences; ++s) {
        of->rows[s] = of->is_ragged ? random_between(&of->random, 0, 150) : same;
        of->keys[s] = random_between(&of->random, 0, 320);
        of->first_row[s + 1] = of->first_row[s] + of->rows[s];
        of->first_key[s + 1] = of->first_key[s] + of->keys[s];
        of->all_keys = of->keys[s] > of->all_keys ? of->keys[s] : of->all_keys;
    }
    of->all_rows = of->is_ragged ? of->first_row[of->sequences] + 2 : same;
    of->all_keys = of->is_ragged ? of->first_key[of->sequences] + 3 : of->all_keys + 5;
}

static attn_tensor *indices(setting *of, const int64_t *values, int64_t count) {
    attn_tensor *tensor = pool_output(&of->pool, ATTN_DTYPE_INT64, 1, &count, LAYOUT_CONTIGUOUS);
    for (int64_t i = 0; i < count; ++i) {
        oracle_store_integer(tensor, &i, values[i]);
    }
    return tensor;
}

static void create(setting *of, uint64_t seed, int is_ragged) {
    static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64, ATTN_DTYPE_BFLOAT16};
    static const int64_t heads[][2] = {{1, 1}, {3, 3}, {4, 2}, {6, 1}};
    *of = (setting){.random = random_seeded(seed), .is_ragged = is_ragged};
    const int64_t *chosen = heads[random_between(&of->random, 0, 3)];
    of->dtype = dtypes[random_between(&of->random, 0, 2)];
    of->heads = chosen[0];
    of->key_heads = chosen[1];
    of->sequences = random_between(&of->random, 1, MOST_SEQUENCES);
    of->features = random_between(&of->random, 1, 70);
    of->value_features = random_between(&of->random, 1, 70);
    choose_options(of);
    choose_lengths(of);
    of->together = tensors_of(of, is_ragged ? 0 : of->sequences, of->all_rows, of->all_keys);
    for (int64_t s = 0; s < of->sequences; ++s) {
        fill_part(of, of->together.query, s, 0);
        fill_part(of, of->together.given, s, 0);
        fill_part(of, of->together.key, s, 1);
        fill_part(of, of->together.value, s, 1);
    }
    of->query_starts = indices(of, of->first_row, of->sequences + 1);
    of->key_starts = indices(of, of->first_key, of->sequences + 1);
    of->lengths = indices(of, of->keys, of->sequences);
}

/* ---- calls ---- */

static void run(attn_context *context, const call_tensors *with, const attn_sdpa_params *options,
                const attn_tensor *key, const attn_tensor *value) {
    attn_sdpa_params params = *options;
    params.lse = params.normalizer == ATTN_NORMALIZER_SOFTMAX ? with->lse : NULL;
    const attn_sdpa_gradients gradients = {.struct_size = sizeof gradients,
                                           .output = with->given,
                                           .query = with->of_query,
                                           .key = with->of_key,
                                           .value = with->of_value};
    assert_ok(attn_sdpa(context, with->query, key, value, &params, with->output, NULL, 0));
    assert_ok(attn_sdpa_backward(context, with->query, key, value, &params, with->output,
                                 &gradients, NULL, 0));
}

static void run_together(const setting *of, int32_t threads) {
    const call_tensors *with = &of->together;
    attn_context *context = native_context(threads);
    attn_sdpa_params options = of->options;
    const attn_kv kv = {
        .struct_size = sizeof kv, .key = with->key, .value = with->value, .starts = of->key_starts};
    if (of->is_ragged) {
        options.query_starts = of->query_starts;
        options.kv = &kv;
        run(context, with, &options, NULL, NULL);
    } else {
        options.key_lengths = of->lengths;
        run(context, with, &options, with->key, with->value);
    }
    attn_context_destroy(context);
}

static void compare_part(const setting *of, const char *name, const attn_tensor *all,
                         const attn_tensor *alone, int64_t sequence, int is_key) {
    const attn_tensor part = part_of(of, all, sequence, is_key, alone->shape[2]);
    if (oracle_count(alone->rank, alone->shape) > 0) {
        assert_same_bits(name, &part, alone);
    }
}

/* The same by itself, with exactly its rows and keys. */
static void compare_sequence(setting *of, int64_t sequence) {
    setting alone = {.random = random_seeded(1),
                     .dtype = of->dtype,
                     .heads = of->heads,
                     .key_heads = of->key_heads,
                     .features = of->features,
                     .value_features = of->value_features};
    const call_tensors with = tensors_of(&alone, 1, of->rows[sequence], of->keys[sequence]);
    const attn_tensor *const to[] = {with.query, with.given, with.key, with.value};
    const attn_tensor *const from[] = {of->together.query, of->together.given, of->together.key,
                                       of->together.value};
    for (int i = 0; i < 4; ++i) {
        const attn_tensor part = part_of(of, from[i], sequence, i > 1, to[i]->shape[2]);
        if (oracle_count(4, part.shape) > 0) {
            copy_tensor(to[i], &part);
        }
    }
    attn_context *context = native_context(1);
    run(context, &with, &of->options, with.key, with.value);
    compare_part(of, "gradients.query", of->together.of_query, with.of_query, sequence, 0);
    compare_part(of, "gradients.key", of->together.of_key, with.of_key, sequence, 1);
    compare_part(of, "gradients.value", of->together.of_value, with.of_value, sequence, 1);
    attn_context_destroy(context);
    pool_destroy(&alone.pool);
}

/* Rows outside all sequences hold what they held; keys past a length have gradients of 0. */
static void check_outside(const setting *of, const attn_tensor *all, int is_key) {
    int64_t index[ATTN_MAX_RANK] = {0};
    const int32_t row_axis = all->rank - 2;
    do {
        const int64_t row = index[row_axis];
        const int64_t *first = is_key ? of->first_key : of->first_row;
        const int is_outside = of->is_ragged ? row < first[0] || row >= first[of->sequences]
                                             : is_key && row >= of->keys[index[0]];
        if (is_outside) {
            assert_true(oracle_element(all, index) == (of->is_ragged ? 7 : 0));
        }
    } while (oracle_next_index(all->rank, all->shape, index));
}

static void compare_all(uint64_t seed, int is_ragged) {
    setting of;
    create(&of, seed, is_ragged);
    for (int t = 0; t < NUM_THREADS; ++t) {
        run_together(&of, threads_of[t]);
        for (int64_t s = 0; s < of.sequences; ++s) {
            compare_sequence(&of, s);
        }
        check_outside(&of, of.together.of_query, 0);
        check_outside(&of, of.together.of_key, 1);
        check_outside(&of, of.together.of_value, 1);
    }
    pool_destroy(&of.pool);
}

static void a_sequence_of_a_batch_has_its_own_bits(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= (uint64_t)test_repeats(NUM_SEEDS); ++seed) {
        compare_all(seed, 0);
    }
}

static void a_sequence_behind_others_has_its_own_bits(void **state) {
    (void)state;
    for (uint64_t seed = 101; seed <= 100 + (uint64_t)test_repeats(NUM_SEEDS); ++seed) {
        compare_all(seed, 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_of_a_batch_has_its_own_bits),
        cmocka_unit_test(a_sequence_behind_others_has_its_own_bits),
    };
    return cmocka_run_group_tests_name("backward bits", tests, NULL, NULL);
}
