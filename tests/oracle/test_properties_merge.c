/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_merge.c: attention over keys that are cut into parts and merged is attention over
 * all of them: every normalizer and type, with options that depend on positions, lengths, masks and
 * sinks, within the bounds that the parts' own and the merge's add up to.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/half_numbers.h"
#include "support/oracle_merge.h"
#include "support/oracle_tensor.h"

enum { BATCH = 2, MOST_PARTS = 5 };

/* Bits of a case's options. */
enum {
    CAUSAL = 1,
    WINDOW = 2,
    SLOPES = 4,
    LENGTHS = 8,
    MASK_AND_BIAS = 16,
    SOFTCAP = 32,
    SINKS = 64,
    NUM_OPTIONS = 128
};

/* Where a sink counts: in one of the parts, or in the merge. */
enum sink_place { SINK_IN_FIRST, SINK_IN_LAST, SINK_IN_MERGE, NUM_SINK_PLACES };

typedef struct cut_case {
    sdpa_sizes sizes;
    int options;
    int32_t normalizer;
    int64_t num_parts;
    int64_t cuts[MOST_PARTS + 1]; /* part i has keys cuts[i] to cuts[i + 1] - 1 */
    enum sink_place sink_place;
    int parts_are_scores; /* the parts' outputs have the score type, not query's */
} cut_case;

/* A part's call. */
typedef struct part {
    attn_tensor key, value, mask, bias;
    attn_tensor *output, *lse;
    attn_sdpa_params params;
} part;

static int32_t score_type(int32_t dtype) {
    return dtype == ATTN_DTYPE_FLOAT64 ? ATTN_DTYPE_FLOAT64 : ATTN_DTYPE_FLOAT32;
}

/* The whole's key lengths and offsets differ from sequence to sequence. */
static attn_tensor *indices(tensor_pool *pool, int64_t first, int64_t second) {
    const int64_t batch = BATCH, values[BATCH] = {first, second};
    attn_tensor *tensor = pool_input(pool, ATTN_DTYPE_INT64, 1, &batch, LAYOUT_CONTIGUOUS);
    for (int64_t b = 0; b < BATCH; ++b) {
        oracle_store_integer(tensor, &b, values[b]);
    }
    return tensor;
}

static void set_options(const cut_case *cut, sdpa_setup *setup) {
    const sdpa_sizes *s = &setup->sizes;
    attn_sdpa_params *params = &setup->params;
    tensor_pool *pool = &setup->pool;
    params->weights = NULL;
    params->normalizer = cut->normalizer;
    params->lse = cut->normalizer == ATTN_NORMALIZER_SOFTMAX ? setup->lse : NULL;
    params->is_causal = cut->options & CAUSAL;
    params->query_offset = indices(pool, s->keys - s->rows, 3);
    params->softcap = cut->options & SOFTCAP ? 2.5 : 0;
    if (cut->options & WINDOW) {
        params->set |= ATTN_SDPA_SET_WINDOW;
        params->window_left = 9;
        params->window_right = 4;
    }
    if (cut->options & SLOPES) {
        attn_tensor *slopes = pool_input(pool, ATTN_DTYPE_FLOAT32, 1, &s->heads, LAYOUT_CONTIGUOUS);
        random_fill(slopes, &setup->random, 0, 0.2, 0);
        params->alibi_slopes = slopes;
    }
    if (cut->options & LENGTHS) {
        params->key_lengths = indices(pool, s->keys - 2, s->keys / 2);
    }
    if (cut->options & MASK_AND_BIAS) {
        const int64_t shape[] = {s->rows, s->keys};
        attn_tensor *mask = pool_input(pool, ATTN_DTYPE_BOOL, 2, shape, LAYOUT_CONTIGUOUS);
        attn_tensor *bias = pool_input(pool, ATTN_DTYPE_FLOAT32, 1, &s->keys, LAYOUT_CONTIGUOUS);
        random_fill_bool(mask, &setup->random, 0.6);
        random_fill(bias, &setup->random, -2, 2, 0);
        params->mask = mask;
        params->mask_kind = ATTN_MASK_BOOL_EXCLUDE;
        params->bias = bias;
    }
    if (cut->options & SINKS) {
        attn_tensor *sinks = pool_input(pool, s->dtype, 1, &s->heads, LAYOUT_CONTIGUOUS);
        random_fill(sinks, &setup->random, -1, 2, 0);
        params->sinks = sinks;
    }
}

/* Keys from `first` to `end` of an axis. */
static attn_tensor slice_of(const attn_tensor *tensor, int32_t axis, int64_t first, int64_t end) {
    attn_tensor slice;
    assert_ok(attn_tensor_slice(tensor, axis, first, end - first, 1, &slice));
    return slice;
}

/* The whole's numbers minus what a part leaves out, at least `lowest` and at most `highest`. */
static attn_tensor *moved(tensor_pool *pool, const attn_tensor *whole, int64_t by, int64_t lowest,
                          int64_t highest) {
    int64_t values[BATCH];
    for (int64_t b = 0; b < BATCH; ++b) {
        const int64_t value = oracle_integer(whole, &b) - by;
        values[b] = value < lowest ? lowest : value > highest ? highest : value;
    }
    return indices(pool, values[0], values[1]);
}

static int part_has_sink(const cut_case *cut, int64_t number) {
    return (cut->sink_place == SINK_IN_FIRST && number == 0) ||
           (cut->sink_place == SINK_IN_LAST && number == cut->num_parts - 1);
}

static void make_part(const cut_case *cut, sdpa_setup *setup, int64_t number, part *made) {
    const attn_sdpa_params *whole = &setup->params;
    const int64_t first = cut->cuts[number], end = cut->cuts[number + 1];
    const int32_t scores = score_type(cut->sizes.dtype);
    made->key = slice_of(setup->key, -2, first, end);
    made->value = slice_of(setup->value, -2, first, end);
    made->output = pool_output(&setup->pool, cut->parts_are_scores ? scores : cut->sizes.dtype, 4,
                               setup->output->shape, LAYOUT_CONTIGUOUS);
    made->lse = pool_output(&setup->pool, scores, 3, setup->lse->shape, LAYOUT_CONTIGUOUS);
    made->params = *whole;
    made->params.lse = whole->lse != NULL ? made->lse : NULL;
    made->params.sinks = part_has_sink(cut, number) ? whole->sinks : NULL;
    made->params.query_offset =
        moved(&setup->pool, whole->query_offset, first, INT64_MIN, INT64_MAX);
    if (whole->key_lengths != NULL) {
        made->params.key_lengths = moved(&setup->pool, whole->key_lengths, first, 0, end - first);
    }
    if (whole->mask != NULL) {
        made->mask = slice_of(whole->mask, -1, first, end);
        made->bias = slice_of(whole->bias, -1, first, end);
        made->params.mask = &made->mask;
        made->params.bias = &made->bias;
    }
}

/* What `by` holds moves to `array`. */
static void replace_array(oracle_array *array, oracle_array *by) {
    oracle_array_destroy(array);
    *array = *by;
    *by = (oracle_array){0};
}

/* A part's exact results, with the errors that its call and its storing may make. */
static void expect_part(const sdpa_setup *setup, const part *made, oracle_parts *parts,
                        int64_t number) {
    const double weight_unit =
        oracle_weight_unit(attn_kernels_name(0), setup->query, &made->key, &made->value);
    oracle_result result =
        oracle_sdpa(setup->query, &made->key, &made->value, &made->params, weight_unit);
    replace_array(&parts->outputs[number], &result.output);
    replace_array(&parts->lses[number], &result.lse);
    const int32_t dtype = made->output->dtype;
    for (int64_t i = 0; half_is(dtype) && i < parts->outputs[number].count; ++i) {
        const double reach =
            fabs(parts->outputs[number].value[i]) + parts->outputs[number].error[i];
        parts->outputs[number].error[i] += half_step(dtype, reach);
    }
    oracle_result_destroy(&result);
}

/* The merged results and the whole call's may be as far apart as both are from the exact ones. */
static void compare_with_whole(const char *name, const attn_tensor *merged,
                               const attn_tensor *whole, const oracle_array *merge_bound,
                               const oracle_array *whole_bound) {
    oracle_array expected = {merge_bound->count, oracle_expand(whole, whole->rank, whole->shape),
                             oracle_allocate(merge_bound->count, sizeof(double))};
    for (int64_t i = 0; i < expected.count; ++i) {
        expected.error[i] = merge_bound->error[i] + whole_bound->error[i];
        if (half_is(whole->dtype) && isfinite(expected.value[i])) {
            expected.error[i] +=
                half_step(whole->dtype, fabs(whole_bound->value[i]) + whole_bound->error[i]);
        }
    }
    assert_close(name, merged, &expected);
    oracle_array_destroy(&expected);
}

static void check_cut(attn_context *context, const cut_case *cut, uint64_t seed) {
    sdpa_setup setup;
    part made[MOST_PARTS];
    attn_tensor outputs[MOST_PARTS], lses[MOST_PARTS];
    sdpa_setup_create(&setup, &cut->sizes, seed);
    set_options(cut, &setup);
    attn_tensor *output =
        pool_output(&setup.pool, cut->sizes.dtype, 4, setup.output->shape, LAYOUT_CONTIGUOUS);
    attn_tensor *lse =
        pool_output(&setup.pool, setup.lse->dtype, 3, setup.lse->shape, LAYOUT_CONTIGUOUS);
    const int is_softmax = cut->normalizer == ATTN_NORMALIZER_SOFTMAX;
    sdpa_setup_run(context, &setup);
    for (int64_t i = 0; i < cut->num_parts; ++i) {
        make_part(cut, &setup, i, &made[i]);
        assert_ok(attn_sdpa(context, setup.query, &made[i].key, &made[i].value, &made[i].params,
                            made[i].output, NULL, 0));
        outputs[i] = *made[i].output;
        lses[i] = *made[i].lse;
    }
    const attn_tensor *sinks = cut->sink_place == SINK_IN_MERGE ? setup.params.sinks : NULL;
    const attn_merge_params params = {.struct_size = sizeof params, .sinks = sinks};
    assert_ok(attn_sdpa_merge(context, cut->num_parts, outputs, is_softmax ? lses : NULL, &params,
                              output, is_softmax ? lse : NULL));
    oracle_parts parts =
        oracle_parts_create(cut->num_parts, outputs, is_softmax ? lses : NULL, sinks);
    for (int64_t i = 0; i < cut->num_parts; ++i) {
        expect_part(&setup, &made[i], &parts, i);
    }
    oracle_merge_result merged = oracle_merge(&parts);
    oracle_result whole = sdpa_setup_expect(&setup);
    compare_with_whole("output", output, setup.output, &merged.output, &whole.output);
    if (is_softmax) {
        compare_with_whole("lse", lse, setup.lse, &merged.lse, &whole.lse);
    }
    oracle_merge_result_destroy(&merged);
    oracle_parts_destroy(&parts);
    oracle_result_destroy(&whole);
    sdpa_setup_destroy(&setup);
}

/* Cuts anywhere: a part may be empty, or have all keys. */
static void draw_cuts(random_state *random, cut_case *cut) {
    cut->num_parts = random_between(random, 1, MOST_PARTS);
    cut->cuts[0] = 0;
    for (int64_t i = 1; i < cut->num_parts; ++i) {
        cut->cuts[i] = random_between(random, cut->cuts[i - 1], cut->sizes.keys);
    }
    cut->cuts[cut->num_parts] = cut->sizes.keys;
}

/* Rows in lanes and a few rows; heads that share keys. */
static const sdpa_sizes all_sizes[] = {
    {ATTN_DTYPE_FLOAT32, BATCH, 4, 2, 13, 31, 8, 7},
    {ATTN_DTYPE_FLOAT32, BATCH, 3, 3, 1, 70, 16, 16},
    {ATTN_DTYPE_BFLOAT16, BATCH, 2, 2, 13, 31, 8, 7},
    {ATTN_DTYPE_FLOAT16, BATCH, 4, 2, 2, 40, 8, 9},
    {ATTN_DTYPE_FLOAT64, BATCH, 2, 1, 13, 31, 8, 7},
};
enum { NUM_SIZES = sizeof all_sizes / sizeof all_sizes[0] };

static void keys_in_parts_merged_are_one_call(void **state) {
    (void)state;
    random_state random = random_seeded(613);
    attn_context *context = native_context(2);
    for (int options = 0; options < NUM_OPTIONS; ++options) {
        for (int32_t normalizer = 0; normalizer <= ATTN_NORMALIZER_LINEAR; ++normalizer) {
            const int has_sinks = (options & SINKS) != 0;
            if (normalizer != ATTN_NORMALIZER_SOFTMAX && has_sinks) {
                continue;
            }
            cut_case cut = {.sizes = all_sizes[(options + normalizer) % NUM_SIZES],
                            .options = options,
                            .normalizer = normalizer,
                            .parts_are_scores = (int)random_between(&random, 0, 1)};
            const int64_t place = random_between(&random, 0, NUM_SINK_PLACES - 1);
            cut.sink_place = (enum sink_place)place;
            draw_cuts(&random, &cut);
            check_cut(context, &cut, random_bits(&random));
        }
    }
    attn_context_destroy(context);
}

/* Merged two at a time, in place, as a ring does it; each step's errors go into the next one. */
static void ring_in_place_is_one_call(void **state) {
    (void)state;
    enum { RANKS = 4 };
    cut_case cut = {.sizes = {ATTN_DTYPE_FLOAT32, BATCH, 2, 2, 9, 40, 8, 8},
                    .options = CAUSAL | SLOPES | SINKS,
                    .num_parts = RANKS,
                    .cuts = {0, 10, 20, 30, 40}};
    sdpa_setup setup;
    part made[RANKS];
    sdpa_setup_create(&setup, &cut.sizes, 617);
    set_options(&cut, &setup);
    sdpa_setup_run(NULL, &setup);
    oracle_merge_result merged = {{0}, {0}};
    for (int64_t rank = 0; rank < RANKS; ++rank) {
        make_part(&cut, &setup, rank, &made[rank]);
        assert_ok(attn_sdpa(NULL, setup.query, &made[rank].key, &made[rank].value,
                            &made[rank].params, made[rank].output, NULL, 0));
        const attn_tensor outputs[] = {*made[0].output, *made[rank].output};
        const attn_tensor lses[] = {*made[0].lse, *made[rank].lse};
        const int64_t count = rank == 0 ? 1 : 2;
        assert_ok(attn_sdpa_merge(NULL, count, outputs, lses, NULL, &outputs[0], &lses[0]));
        oracle_parts parts = oracle_parts_create(count, outputs, lses, NULL);
        if (rank > 0) {
            replace_array(&parts.outputs[0], &merged.output);
            replace_array(&parts.lses[0], &merged.lse);
        }
        expect_part(&setup, &made[rank], &parts, count - 1);
        merged = oracle_merge(&parts);
        oracle_parts_destroy(&parts);
    }
    oracle_result whole = sdpa_setup_expect(&setup);
    compare_with_whole("output", made[0].output, setup.output, &merged.output, &whole.output);
    compare_with_whole("lse", made[0].lse, setup.lse, &merged.lse, &whole.lse);
    oracle_merge_result_destroy(&merged);
    oracle_result_destroy(&whole);
    sdpa_setup_destroy(&setup);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_in_parts_merged_are_one_call),
        cmocka_unit_test(ring_in_place_is_one_call),
    };
    return cmocka_run_group_tests_name("properties of merging", tests, NULL, NULL);
}
