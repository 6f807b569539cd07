/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_reads.c: keys and values that no row of a head and batch sees are never read, and those
 * one row must not see never reach it. Hidden positions lie in pages that may not be touched, other
 * ones in each batch, or hold NaN. In both types, by every engine that takes them.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "support/hidden_positions.h"

/* Sizes of a call whose rows see keys [seen_begin, seen_end) only, in the first batch. */
typedef struct extent {
    int64_t features, src, seen_begin, seen_end, tgt;
} extent;

/* One block of keys; several, with values as they are and packed; many for one row, which are split
 * where there is one matrix. */
enum { NUM_EXTENTS = 4, MAX_BATCHES = 3 };
static const extent long_extents[NUM_EXTENTS] = {
    {64, 96, 32, 64, 32},
    {64, 1600, 400, 1200, 150},
    {128, 1600, 400, 1200, 150},
    {64, 9600, 3008, 8000, 1},
};
static const extent short_extents[NUM_EXTENTS] = {
    {64, 96, 32, 64, 32},
    {64, 700, 150, 550, 50},
    {128, 700, 150, 550, 50},
    {64, 1600, 400, 1300, 1},
};

/* Matrices without further axes; batches of heads; of groups of heads. Weights that are stored
 * have ways of their own through the keys. */
typedef struct head_layout {
    int64_t batches, query_heads, key_heads;
    int has_weights;
    const extent *extents;
} head_layout;

static const head_layout layouts[] = {
    {1, 1, 1, 0, long_extents},
    {3, 2, 2, 1, short_extents},
    {3, 6, 2, 0, short_extents},
};
enum { NUM_LAYOUTS = sizeof layouts / sizeof layouts[0] };

/* What a call is given, and what it may read then. */
typedef struct call {
    const head_layout *layout;
    int64_t rows;
    attn_sdpa_params params; /* without tensors */
    int64_t offset, offset_step;
    int has_lengths;
    int64_t length, length_step;
    int has_mask; /* of MASK_COLUMNS, which shows all of them */
    int64_t mask_start, mask_step;
    hidden_shape seen;
} call;

enum { MASK_COLUMNS = 8 };

/* ---- ways to hide what lies before and behind ---- */

/* Each batch sees other keys than the one before, by a number that fits neither pages nor blocks.
 */
static int64_t step_of(const extent *size) {
    return (size->seen_end - size->seen_begin) / 6 | 1;
}

static void set_seen(call *made, int64_t begin, int64_t begin_step, int64_t end, int64_t end_step) {
    made->seen.begin = begin;
    made->seen.begin_step = begin_step;
    made->seen.end = end;
    made->seen.end_step = end_step;
}

/* The window [p - left, p + right] of rows that stand at `offset` and up. */
static void set_window(call *made, int64_t left, int64_t right, int64_t offset, int64_t step) {
    made->params.set |= ATTN_SDPA_SET_WINDOW;
    made->params.window_left = left;
    made->params.window_right = right;
    made->offset = offset;
    made->offset_step = step;
}

static void set_lengths(call *made, int64_t length, int64_t step) {
    made->has_lengths = 1;
    made->length = length;
    made->length_step = step;
}

/* One row at the last key seen, whose window begins at the first. */
static void last_row_sees_its_window(call *made, const extent *size) {
    const int64_t step = -step_of(size);
    made->rows = 1;
    made->params.is_causal = 1;
    set_window(made, size->seen_end - size->seen_begin - 1, -1, size->seen_end - 1, step);
    set_seen(made, size->seen_begin, step, size->seen_end, step);
}

static void rows_see_themselves(call *made, const extent *size) {
    const int64_t step = -step_of(size);
    made->params.is_causal = 1;
    set_window(made, 0, -1, size->seen_begin, step);
    set_seen(made, size->seen_begin, step, size->seen_begin + made->rows, step);
}

static void rows_see_neighbours(call *made, const extent *size) {
    const int64_t step = -step_of(size);
    set_window(made, 1, 2, size->seen_begin + 1, step);
    set_seen(made, size->seen_begin, step, size->seen_begin + made->rows + 3, step);
}

static void rows_see_what_came_before(call *made, const extent *size) {
    const int64_t step = -step_of(size);
    made->params.is_causal = 1;
    made->offset = size->seen_begin;
    made->offset_step = step;
    set_seen(made, 0, 0, size->seen_begin + made->rows, step);
}

/* The begin by the window, the end by length instead of causality. */
static void rows_see_up_to_a_length(call *made, const extent *size) {
    const int64_t step = step_of(size);
    set_window(made, 0, -1, size->seen_begin, step);
    set_lengths(made, size->seen_end, -step);
    set_seen(made, size->seen_begin, step, size->seen_end, -step);
}

/* The last of several batches sees nothing at all. */
static void rows_see_lengths_down_to_0(call *made, const extent *size) {
    const int64_t step = -size->seen_end / (MAX_BATCHES - 1);
    set_lengths(made, size->seen_end, step);
    set_seen(made, 0, 0, size->seen_end, step);
}

/* A mask that shows its columns, and what comes before them. */
static void rows_see_up_to_a_mask(call *made, const extent *size) {
    const int64_t step = -step_of(size);
    made->has_mask = 1;
    made->mask_start = size->seen_end - MASK_COLUMNS;
    made->mask_step = step;
    set_seen(made, 0, 0, size->seen_end, step);
}

/* Each changes a call without options, whose batches may read nothing yet. */
typedef void (*way_of_hiding)(call *made, const extent *size);
static const way_of_hiding ways[] = {
    last_row_sees_its_window,  rows_see_themselves,     rows_see_neighbours,
    rows_see_what_came_before, rows_see_up_to_a_length, rows_see_lengths_down_to_0,
    rows_see_up_to_a_mask,
};
enum { NUM_WAYS = sizeof ways / sizeof ways[0] };

/* ---- tensors ---- */

static void set_number(void *data, int32_t dtype, int64_t i, double number) {
    if (dtype == ATTN_DTYPE_FLOAT32) {
        ((float *)data)[i] = (float)number;
    } else {
        ((double *)data)[i] = number;
    }
}

static double number_at(const void *data, int32_t dtype, int64_t i) {
    return dtype == ATTN_DTYPE_FLOAT32 ? (double)((const float *)data)[i]
                                       : ((const double *)data)[i];
}

/* (batches, heads, rows, cols), without the first two where there is one of each. */
static attn_tensor without_single_axes(const attn_tensor *view) {
    attn_tensor matrix = *view;
    if (view->shape[0] == 1 && view->shape[1] == 1) {
        matrix.rank = 2;
        for (int axis = 0; axis < 2; ++axis) {
            matrix.shape[axis] = view->shape[axis + 2];
            matrix.strides[axis] = view->strides[axis + 2];
        }
    }
    return matrix;
}

/* New memory of zeroes, (batches, query heads, rows, cols). */
static attn_tensor rows_of(const call *made, int64_t cols) {
    const int64_t shape[] = {made->layout->batches, made->layout->query_heads, made->rows, cols};
    const int32_t dtype = made->seen.dtype;
    const size_t count = (size_t)(shape[0] * shape[1] * shape[2] * shape[3]);
    void *data = calloc(count, attn_dtype_size_bytes(dtype));
    assert_non_null(data);
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, dtype, 4, shape), ATTN_OK);
    return without_single_axes(&view);
}

static int64_t count_of(const attn_tensor *rows) {
    int64_t count;
    assert_int_equal(attn_tensor_count(rows, &count), ATTN_OK);
    return count;
}

static void fill(const attn_tensor *rows) {
    for (int64_t i = 0, count = count_of(rows); i < count; ++i) {
        set_number(rows->data, rows->dtype, i, 0.01 * (double)(i % 13));
    }
}

static void assert_finite(const attn_tensor *rows) {
    int64_t finite = 0;
    for (int64_t i = 0, count = count_of(rows); i < count; ++i) {
        finite += isfinite(number_at(rows->data, rows->dtype, i)) != 0;
    }
    assert_int_equal(finite, count_of(rows));
}

/* One number for each batch, in `numbers`. */
static attn_tensor for_batches(int64_t *numbers, const head_layout *layout, int64_t first,
                               int64_t step) {
    for (int64_t batch = 0; batch < layout->batches; ++batch) {
        numbers[batch] = first + batch * step;
    }
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, numbers, ATTN_DTYPE_INT64, layout->batches > 1 ? 1 : 0,
                                      &layout->batches),
                     ATTN_OK);
    return view;
}

/* The hidden tensor as the call gets it: rows forwards or backwards. */
static attn_tensor argument_of(const hidden_positions *hidden, int64_t col_stride) {
    attn_tensor view = hidden->view;
    if (col_stride < 0) {
        view.data =
            (char *)view.data + (view.shape[3] - 1) * (int64_t)attn_dtype_size_bytes(view.dtype);
    }
    view.strides[3] = col_stride;
    return without_single_axes(&view);
}

typedef struct engine_choice {
    int32_t dtype, engine, gemm;
} engine_choice;

/* The fused engine has no float64. */
static const engine_choice engines[] = {
    {ATTN_DTYPE_FLOAT32, ATTN_ENGINE_BLAS, ATTN_GEMM_AUTO},
    {ATTN_DTYPE_FLOAT32, ATTN_ENGINE_BLAS, ATTN_GEMM_NATIVE},
    {ATTN_DTYPE_FLOAT32, ATTN_ENGINE_FUSED, ATTN_GEMM_AUTO},
    {ATTN_DTYPE_FLOAT64, ATTN_ENGINE_BLAS, ATTN_GEMM_AUTO},
    {ATTN_DTYPE_FLOAT64, ATTN_ENGINE_BLAS, ATTN_GEMM_NATIVE},
};
enum { NUM_ENGINES = sizeof engines / sizeof engines[0] };

/* One for each engine and set of kernels, for all tests. */
enum { MAX_CONTEXTS = 64 };
static struct {
    int32_t dtype;
    bool goes_back; /* with the gradients, too: of the engines one, with the first kernels */
    attn_context *context;
} contexts[MAX_CONTEXTS];
static int num_contexts;

static int make_contexts(void **state) {
    (void)state;
    for (int32_t i = 0; attn_kernels_name(i / NUM_ENGINES) != NULL; ++i) {
        const engine_choice *choice = &engines[i % NUM_ENGINES];
        const attn_context_config settings = {.struct_size = sizeof settings,
                                              .engine = choice->engine,
                                              .gemm = choice->gemm,
                                              .kernels = attn_kernels_name(i / NUM_ENGINES)};
        if (num_contexts == MAX_CONTEXTS ||
            attn_context_create(&settings, &contexts[num_contexts].context) != ATTN_OK) {
            return -1;
        }
        contexts[num_contexts].goes_back = i < NUM_ENGINES && choice->gemm == ATTN_GEMM_NATIVE;
        contexts[num_contexts++].dtype = choice->dtype;
    }
    return 0;
}

static int destroy_contexts(void **state) {
    (void)state;
    while (num_contexts > 0) {
        attn_context_destroy(contexts[--num_contexts].context);
    }
    return 0;
}

/* Before the mask scores are of keys that positions hide, too. */
static int is_hidden_by_lengths(const call *made) {
    return made->has_lengths && !made->params.is_causal && made->params.set == 0;
}

/* Numbers, but where a key is hidden after the mask. */
static void assert_hidden_scores(const attn_tensor *scores, int32_t stage) {
    for (int64_t i = 0, count = count_of(scores); i < count; ++i) {
        const double score = number_at(scores->data, scores->dtype, i);
        assert_true(isfinite(score) || (stage == ATTN_SCORE_MASKED && score == -(double)INFINITY));
    }
}

/* The gradients of the same call: finite, and 0 of the keys that are hidden. */
static void go_back(attn_context *context, const call *made, const attn_sdpa_params *params,
                    const attn_tensor *query, const attn_tensor *keys, const attn_tensor *output) {
    const int32_t dtype = made->seen.dtype;
    const int64_t batches = made->seen.batches, heads = made->seen.heads;
    const int64_t shape[] = {batches, heads, made->seen.positions, made->seen.features};
    void *data[2];
    attn_tensor of_keys[2];
    for (int i = 0; i < 2; ++i) {
        data[i] = malloc((size_t)(shape[0] * shape[1] * shape[2] * shape[3]) *
                         attn_dtype_size_bytes(dtype));
        assert_non_null(data[i]);
        attn_tensor view;
        assert_int_equal(attn_tensor_init(&view, data[i], dtype, 4, shape), ATTN_OK);
        of_keys[i] = without_single_axes(&view);
    }
    const attn_tensor of_query = rows_of(made, made->seen.features);
    const attn_sdpa_gradients gradients = {.struct_size = sizeof gradients,
                                           .output = output,
                                           .query = &of_query,
                                           .key = &of_keys[0],
                                           .value = &of_keys[1]};
    assert_int_equal(
        attn_sdpa_backward(context, query, keys, keys, params, output, &gradients, NULL, 0),
        ATTN_OK);
    assert_finite(&of_query);
    const int64_t row = made->seen.features;
    for (int64_t at = 0; at < batches * heads * shape[2]; ++at) {
        const int64_t batch = at / shape[2] / heads, position = at % shape[2];
        const bool is_seen = position >= made->seen.begin + batch * made->seen.begin_step &&
                             position < made->seen.end + batch * made->seen.end_step;
        for (int64_t i = at * row; i < (at + 1) * row; ++i) {
            const double of_key = number_at(data[0], dtype, i);
            const double of_value = number_at(data[1], dtype, i);
            assert_true(is_seen ? isfinite(of_key) && isfinite(of_value)
                                : of_key == 0 && of_value == 0);
        }
    }
    free(of_query.data);
    free(data[0]);
    free(data[1]);
}

/* Attends with rows that see only what is between the pages; a wrong read ends the process. The
 * values are the keys, so that neither may be read elsewhere. */
static void attend(attn_context *context, const call *made, const attn_tensor *keys,
                   bool goes_back) {
    const attn_tensor query = rows_of(made, made->seen.features);
    const attn_tensor output = rows_of(made, made->seen.features);
    attn_tensor lse = rows_of(made, 1);
    --lse.rank;
    const attn_tensor weights = rows_of(made, made->layout->has_weights ? made->seen.positions : 0);
    const attn_tensor scores = rows_of(made, made->layout->has_weights ? made->seen.positions : 0);
    fill(&query);
    int64_t offsets[MAX_BATCHES];
    int64_t lengths[MAX_BATCHES];
    const attn_tensor offset = for_batches(offsets, made->layout, made->offset, made->offset_step);
    const attn_tensor length = for_batches(lengths, made->layout, made->length, made->length_step);
    int64_t starts[MAX_BATCHES];
    const attn_tensor start = for_batches(starts, made->layout, made->mask_start, made->mask_step);
    unsigned char shown[MASK_COLUMNS] = {1, 1, 1, 1, 1, 1, 1, 1};
    attn_tensor mask;
    assert_int_equal(attn_tensor_init(&mask, shown, ATTN_DTYPE_BOOL, 1, (int64_t[]){MASK_COLUMNS}),
                     ATTN_OK);
    attn_sdpa_params params = made->params;
    params.mask = made->has_mask ? &mask : NULL;
    params.mask_kind = made->has_mask ? ATTN_MASK_BOOL_INCLUDE : ATTN_MASK_NONE;
    params.mask_start = made->has_mask ? &start : NULL;
    params.query_offset = &offset;
    params.key_lengths = made->has_lengths ? &length : NULL;
    params.lse = &lse;
    params.weights = made->layout->has_weights ? &weights : NULL;
    params.scores = made->layout->has_weights ? &scores : NULL;
    params.scores_stage = is_hidden_by_lengths(made) ? ATTN_SCORE_SCALED : ATTN_SCORE_MASKED;
    assert_int_equal(attn_sdpa(context, &query, keys, keys, &params, &output, NULL, 0), ATTN_OK);
    assert_finite(&output);
    assert_finite(&weights);
    assert_hidden_scores(&scores, params.scores_stage);
    if (goes_back) {
        go_back(context, made, &params, &query, keys, &output);
    }
    free(lse.data);
    free(query.data);
    free(output.data);
    free(weights.data);
    free(scores.data);
}

static void attend_by_every_engine(const call *made) {
    for (int edge = HIDDEN_BEGIN; edge <= HIDDEN_END; ++edge) {
        const hidden_positions hidden = hidden_positions_map(&made->seen, (enum hidden_edge)edge);
        const attn_tensor forwards = argument_of(&hidden, 1);
        const attn_tensor backwards = argument_of(&hidden, -1);
        for (int i = 0; i < num_contexts; ++i) {
            if (contexts[i].dtype == made->seen.dtype) {
                attend(contexts[i].context, made, &forwards, contexts[i].goes_back);
                attend(contexts[i].context, made, &backwards, contexts[i].goes_back);
            }
        }
        hidden_positions_unmap(&hidden);
    }
}

static void attend_in_all_ways(int32_t dtype, const head_layout *layout, const extent *size) {
    for (int way = 0; way < NUM_WAYS; ++way) {
        call made = {.layout = layout,
                     .rows = size->tgt,
                     .params = {.struct_size = sizeof(attn_sdpa_params)},
                     .seen = {.dtype = dtype,
                              .batches = layout->batches,
                              .heads = layout->key_heads,
                              .positions = size->src,
                              .features = size->features}};
        made.params.enable_gqa = layout->query_heads != layout->key_heads;
        ways[way](&made, size);
        attend_by_every_engine(&made);
    }
}

static void unseen_keys_in_guard_pages_are_not_read(void **state) {
    (void)state;
    static const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64};
    for (int i = 0; i < 2 * NUM_EXTENTS * NUM_LAYOUTS; ++i) {
        const head_layout *layout = &layouts[i / 2 % NUM_LAYOUTS];
        attend_in_all_ways(dtypes[i % 2], layout, &layout->extents[i / 2 / NUM_LAYOUTS]);
    }
}

enum { FEATURES = 64 };

/* Keys or values from first_nan on are NaN: exactly the rows from there on are NaN. */
static void check_causal_rows(attn_context *context, int32_t dtype, int64_t length,
                              int64_t first_nan, int in_keys) {
    const int64_t count = length * FEATURES;
    void *buffers[4]; /* query, key, value, output */
    attn_tensor tensors[4];
    const int64_t shape[] = {length, FEATURES};
    for (int i = 0; i < 4; ++i) {
        buffers[i] = malloc((size_t)count * attn_dtype_size_bytes(dtype));
        assert_non_null(buffers[i]);
        assert_int_equal(attn_tensor_init(&tensors[i], buffers[i], dtype, 2, shape), ATTN_OK);
    }
    for (int64_t i = 0; i < count; ++i) {
        const int is_nan = i / FEATURES >= first_nan;
        set_number(buffers[0], dtype, i, 0.01 * (double)(i % 11));
        set_number(buffers[1], dtype, i, is_nan && in_keys ? NAN : 0.01 * (double)(i % 13));
        set_number(buffers[2], dtype, i, is_nan && !in_keys ? NAN : 1);
    }
    const attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1};
    assert_int_equal(
        attn_sdpa(context, &tensors[0], &tensors[1], &tensors[2], &params, &tensors[3], NULL, 0),
        ATTN_OK);
    for (int64_t i = 0; i < count; ++i) {
        assert_int_equal(isnan(number_at(buffers[3], dtype, i)) != 0, i / FEATURES >= first_nan);
    }
    for (int i = 0; i < 4; ++i) {
        free(buffers[i]);
    }
}

static void causal_rows_before_a_nan_stay_finite(void **state) {
    (void)state;
    enum { LENGTH = 400 };
    const int64_t first_nan[] = {0, 1, 7, 31, 32, 63, 64, 65, 130, 255, 256, LENGTH - 1};
    for (int i = 0; i < num_contexts; ++i) {
        for (size_t which = 0; which < sizeof first_nan / sizeof first_nan[0]; ++which) {
            check_causal_rows(contexts[i].context, contexts[i].dtype, LENGTH, first_nan[which], 0);
            check_causal_rows(contexts[i].context, contexts[i].dtype, LENGTH, first_nan[which], 1);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unseen_keys_in_guard_pages_are_not_read),
        cmocka_unit_test(causal_rows_before_a_nan_stay_finite),
    };
    return cmocka_run_group_tests(tests, make_contexts, destroy_contexts);
}
