/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_hidden_tiles.c: what a mask hides whole is not computed. The kernels count: a mask that says
 * what an option says has as many scores computed as the option, or as few as its structure allows,
 * and heads that share it have it looked at once.
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

#include "context/context.h"

enum { DIM = 64, DOCUMENTS = 5, WINDOW = 100, PADDING = 333, TILE = 256, PANEL = 48 };

/* ---- kernels that count ---- */

static const attni_kernel_set *right;
static attni_kernel_set kernels;
static attni_tile_kernels tiles;
static attni_lane_kernels lanes;
static attni_mask_kernels masks;
static attni_stream_kernels streams;
static int64_t num_scores; /* lanes without a row included */
static int64_t num_edited;
static int64_t num_looks;

static void score(float *tile, int32_t vectors, const float *panel, int64_t head_dim,
                  const float *keys, int64_t key_stride, int64_t num_keys, float *max,
                  attni_ahead *ahead) {
    num_scores += num_keys * vectors * right->tiles->lanes;
    right->tiles->score(tile, vectors, panel, head_dim, keys, key_stride, num_keys, max, ahead);
}

static void hide(float *tile, int32_t vectors, int64_t num_keys, const unsigned char *const *rows,
                 bool hidden_if, float excluded) {
    num_edited += num_keys * vectors * right->tiles->lanes;
    right->lanes->hide(tile, vectors, num_keys, rows, hidden_if, excluded);
}

static void add_bias(float *tile, int32_t vectors, int64_t num_keys, const float *const *rows,
                     bool is_added, float excluded) {
    num_edited += num_keys * vectors * right->tiles->lanes;
    right->lanes->add_bias(tile, vectors, num_keys, rows, is_added, excluded);
}

static attni_mask_sight look_at_flags(const unsigned char *const *rows, int32_t num_rows,
                                      int64_t num_keys, bool hidden_if) {
    ++num_looks;
    return right->masks->look_at_flags(rows, num_rows, num_keys, hidden_if);
}

static void stream_score(float *tile, int64_t tile_stride, int32_t num_rows, const float *queries,
                         int64_t head_dim, const attni_stream_rows *keys, int64_t num_keys) {
    num_scores += num_keys * num_rows;
    right->streams[ATTNI_STORED_FLOAT32]->score(tile, tile_stride, num_rows, queries, head_dim,
                                                keys, num_keys);
}

const attni_kernel_set *__wrap_attni_context_kernels(const attn_context *context);
const attni_kernel_set *__wrap_attni_context_kernels(const attn_context *context) {
    (void)context;
    return &kernels;
}

static void count_in(const attni_kernel_set *set) {
    right = set;
    tiles = *set->tiles;
    lanes = *set->lanes;
    masks = *set->masks;
    streams = *set->streams[ATTNI_STORED_FLOAT32];
    kernels = *set;
    tiles.score = score;
    lanes.hide = hide;
    lanes.add_bias = add_bias;
    masks.look_at_flags = look_at_flags;
    streams.score = stream_score;
    kernels.tiles = &tiles;
    kernels.lanes = &lanes;
    kernels.masks = &masks;
    kernels.streams[ATTNI_STORED_FLOAT32] = &streams;
}

/* ---- calls ---- */

typedef bool (*visibility)(int64_t row, int64_t key);

static bool sees_earlier(int64_t row, int64_t key) {
    return key <= row;
}

static bool sees_near(int64_t row, int64_t key) {
    return key <= row && key >= row - WINDOW;
}

static bool sees_few(int64_t row, int64_t key) {
    (void)row;
    return key < PADDING;
}

static bool sees_nothing(int64_t row, int64_t key) {
    (void)row, (void)key;
    return false;
}

/* A document and what was before all of them, as far from it as that is: holes between. */
static bool sees_document_and_start(int64_t row, int64_t key) {
    return key < TILE || row / 500 == key / 500;
}

/* (1, heads, rows, DIM), of zeros; the mask (rows, keys) is shared, or (1, heads, rows, keys). */
typedef struct call {
    attn_tensor query, key, value, output, mask;
    attn_sdpa_params params;
} call;

static attn_tensor zeros(int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view;
    int64_t count = 1;
    for (int32_t axis = 0; axis < rank; ++axis) {
        count *= shape[axis];
    }
    void *data = calloc((size_t)count, attn_dtype_size_bytes(dtype));
    assert_non_null(data);
    assert_int_equal(attn_tensor_init(&view, data, dtype, rank, shape), ATTN_OK);
    return view;
}

static void fill_mask(call *made, int64_t matrices, int64_t rows, int64_t keys, int32_t kind,
                      visibility sees) {
    for (int64_t i = 0; i < matrices * rows * keys; ++i) {
        const bool is_seen = sees(i / keys % rows, i % keys);
        if (kind == ATTN_MASK_ADDITIVE) {
            ((float *)made->mask.data)[i] = is_seen ? 0 : -INFINITY;
        } else {
            ((unsigned char *)made->mask.data)[i] = is_seen == (kind == ATTN_MASK_BOOL_INCLUDE);
        }
    }
}

static call make_call(int64_t heads, int64_t rows, int64_t keys) {
    return (call){
        .query = zeros(ATTN_DTYPE_FLOAT32, 4, (int64_t[]){1, heads, rows, DIM}),
        .key = zeros(ATTN_DTYPE_FLOAT32, 4, (int64_t[]){1, heads, keys, DIM}),
        .value = zeros(ATTN_DTYPE_FLOAT32, 4, (int64_t[]){1, heads, keys, DIM}),
        .output = zeros(ATTN_DTYPE_FLOAT32, 4, (int64_t[]){1, heads, rows, DIM}),
        .params = {.struct_size = sizeof(attn_sdpa_params)},
    };
}

static void give_mask(call *made, int32_t kind, bool is_shared, visibility sees) {
    const int64_t heads = made->query.shape[1];
    const int64_t rows = made->query.shape[2];
    const int64_t keys = made->key.shape[2];
    const int32_t dtype = kind == ATTN_MASK_ADDITIVE ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_BOOL;
    free(made->mask.data);
    made->mask = is_shared ? zeros(dtype, 2, (int64_t[]){rows, keys})
                           : zeros(dtype, 4, (int64_t[]){1, heads, rows, keys});
    fill_mask(made, is_shared ? 1 : heads, rows, keys, kind, sees);
    made->params.mask = &made->mask;
    made->params.mask_kind = kind;
}

static void free_call(call *made) {
    free(made->query.data);
    free(made->key.data);
    free(made->value.data);
    free(made->output.data);
    free(made->mask.data);
}

/* Runs a call on one thread, which is the one that counts. */
static void run(const call *made) {
    const attn_context_config config = {
        .struct_size = sizeof config, .num_threads = 1, .engine = ATTN_ENGINE_FUSED};
    attn_context *context;
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    num_scores = num_edited = num_looks = 0;
    assert_int_equal(attn_sdpa(context, &made->query, &made->key, &made->value, &made->params,
                               &made->output, NULL, 0),
                     ATTN_OK);
    attn_context_destroy(context);
}

static void for_every_set(void (*check)(void)) {
    const attni_kernel_set *set;
    for (int32_t index = 0; (set = attni_kernel_set_at(index)) != NULL; ++index) {
        count_in(set);
        check();
    }
}

/* ---- as few scores as the option ---- */

/* The option's scores, then those of a mask of every kind, shared and not, that says the same. */
static void check_same_scores(call *with_option, call *with_mask, visibility sees) {
    run(with_option);
    const int64_t expected = num_scores;
    assert_true(expected > 0);
    for (int32_t kind = ATTN_MASK_ADDITIVE; kind <= ATTN_MASK_BOOL_EXCLUDE; ++kind) {
        for (int is_shared = 0; is_shared < 2; ++is_shared) {
            give_mask(with_mask, kind, is_shared, sees);
            run(with_mask);
            if (num_scores != expected) {
                fail_msg("%s, mask kind %d, %s: expected %lld scores, got %lld", right->name,
                         (int)kind, is_shared ? "shared" : "of each head", (long long)expected,
                         (long long)num_scores);
            }
        }
    }
}

static void check_option(int64_t rows, int64_t keys, bool is_causal, bool has_window,
                         const attn_tensor *lengths, visibility sees) {
    call with_option = make_call(3, rows, keys);
    call with_mask = make_call(3, rows, keys);
    with_option.params.is_causal = is_causal;
    with_option.params.key_lengths = lengths;
    if (has_window) {
        with_option.params.set = ATTN_SDPA_SET_WINDOW;
        with_option.params.window_left = WINDOW;
    }
    check_same_scores(&with_option, &with_mask, sees);
    free_call(&with_option);
    free_call(&with_mask);
}

static void check_options(void) {
    attn_tensor lengths = zeros(ATTN_DTYPE_INT64, 1, (int64_t[]){1});
    *(int64_t *)lengths.data = PADDING;
    check_option(1000, 1000, true, false, NULL, sees_earlier);
    check_option(70, 700, true, false, NULL, sees_earlier);
    check_option(1000, 1000, false, true, NULL, sees_near);
    check_option(2500, 2500, false, true, NULL, sees_near);
    check_option(100, 1000, false, false, &lengths, sees_few);
    check_option(1, 3000, false, false, &lengths, sees_few);
    check_option(3, 3000, false, false, &lengths, sees_few);
    free(lengths.data);
}

static void masks_have_as_many_scores_as_options(void **state) {
    (void)state;
    for_every_set(check_options);
}

/* ---- holes, and nothing ---- */

/* Of every panel: the keys of each document and those of the first tile, and no tile between. */
static void check_holes(void) {
    enum { ROWS = DOCUMENTS * 500 };
    call made = make_call(2, ROWS, ROWS);
    give_mask(&made, ATTN_MASK_BOOL_INCLUDE, true, sees_document_and_start);
    run(&made);
    const int64_t most = (int64_t)2 * (ROWS + DOCUMENTS * PANEL + PANEL) * (500 + 3 * TILE);
    assert_in_range(num_scores, 2 * (int64_t)ROWS * 500, most);
    give_mask(&made, ATTN_MASK_BOOL_INCLUDE, true, sees_nothing);
    run(&made);
    assert_int_equal(num_scores, 0);
    free_call(&made);
}

static void tiles_between_others_are_left_out(void **state) {
    (void)state;
    for_every_set(check_holes);
}

/* ---- edits and looks ---- */

/* Only where the diagonal crosses a panel's keys is there anything to edit. */
static void check_edits(void) {
    enum { ROWS = 1000 };
    call made = make_call(2, ROWS, ROWS);
    for (int32_t kind = ATTN_MASK_ADDITIVE; kind <= ATTN_MASK_BOOL_EXCLUDE; ++kind) {
        give_mask(&made, kind, true, sees_earlier);
        run(&made);
        assert_in_range(num_edited, 1, (int64_t)2 * (ROWS + PANEL) * PANEL);
    }
    free_call(&made);
}

static void what_a_mask_shows_whole_is_not_edited(void **state) {
    (void)state;
    for_every_set(check_edits);
}

static void check_looks(void) {
    call several = make_call(8, 1000, 1000);
    give_mask(&several, ATTN_MASK_BOOL_INCLUDE, true, sees_near);
    run(&several);
    const int64_t shared = num_looks;
    give_mask(&several, ATTN_MASK_BOOL_INCLUDE, false, sees_near);
    run(&several);
    assert_true(shared > 0);
    assert_int_equal(num_looks, 8 * shared);
    free_call(&several);
}

static void heads_that_share_a_mask_have_it_looked_at_once(void **state) {
    (void)state;
    for_every_set(check_looks);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_have_as_many_scores_as_options),
        cmocka_unit_test(tiles_between_others_are_left_out),
        cmocka_unit_test(what_a_mask_shows_whole_is_not_edited),
        cmocka_unit_test(heads_that_share_a_mask_have_it_looked_at_once),
    };
    return cmocka_run_group_tests_name("hidden tiles", tests, NULL, NULL);
}
