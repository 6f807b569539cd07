/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_softmax_reads.c: positions of a row at or past its length are never read, of the input and
 * of a mask alike: they lie in pages that may not be touched, other ones in each row.
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

enum { MAX_ROWS = 300 };

/* Row r has the length first_length + r * length_step of cols. */
typedef struct extent {
    int64_t rows, cols, first_length, length_step;
} extent;

/* Shorter than a vector; down to empty rows; tails of every kind; more rows than pieces of work;
 * rows of several pieces. */
static const extent extents[] = {
    {2, 1, 0, 1},       {6, 7, 6, -1},         {5, 64, 64, -16},
    {6, 1000, 37, 159}, {MAX_ROWS, 310, 1, 1}, {3, 40000, 35001, -17500},
};
enum { NUM_EXTENTS = sizeof extents / sizeof extents[0] };

/* How the positions of a row follow each other in memory. */
enum direction { FORWARDS, BACKWARDS, SPREAD, NUM_DIRECTIONS };
enum { SPREAD_STRIDE = 3 };

typedef struct call {
    const extent *size;
    int32_t dtype;
    enum direction direction;
    enum hidden_edge edge;
    int32_t mask_kind, mask_dtype;
    int32_t index_dtype; /* of the lengths */
    int64_t output_stride;
} call;

static hidden_shape shape_of(const call *made, int32_t dtype) {
    const extent *size = made->size;
    hidden_shape shape = {.dtype = dtype,
                          .batches = size->rows,
                          .heads = 1,
                          .positions = size->cols,
                          .features = made->direction == SPREAD ? SPREAD_STRIDE : 1,
                          .end = size->first_length,
                          .end_step = size->length_step};
    if (made->direction == BACKWARDS) {
        shape.begin = size->cols - size->first_length;
        shape.begin_step = -size->length_step;
        shape.end = size->cols;
        shape.end_step = 0;
    }
    return shape;
}

/* (rows, cols); of positions that are spread the last feature, so that the end is where pages end.
 */
static attn_tensor argument_of(const hidden_positions *hidden, enum direction direction) {
    const attn_tensor *all = &hidden->view;
    const int64_t cols = all->shape[2];
    const int64_t first = direction == BACKWARDS ? cols - 1
                          : direction == SPREAD  ? SPREAD_STRIDE - 1
                                                 : 0;
    return (attn_tensor){
        .data = (char *)all->data + first * (int64_t)attn_dtype_size_bytes(all->dtype),
        .dtype = all->dtype,
        .rank = 2,
        .shape = {all->shape[0], cols},
        .strides = {all->strides[0], direction == BACKWARDS ? -1 : all->strides[2]},
    };
}

static double number_at(const attn_tensor *view, int64_t row, int64_t col) {
    const int64_t i = row * view->strides[0] + col * view->strides[1];
    return view->dtype == ATTN_DTYPE_FLOAT32 ? (double)((const float *)view->data)[i]
                                             : ((const double *)view->data)[i];
}

/* New memory: (rows, cols) that are `stride` apart. */
static attn_tensor output_of(const call *made, int64_t cols, int64_t stride) {
    const int64_t rows = made->size->rows;
    const int64_t shape[] = {rows, cols};
    const int64_t strides[] = {cols * stride, stride};
    void *data = calloc((size_t)(rows * cols * stride), attn_dtype_size_bytes(made->dtype));
    assert_non_null(data);
    attn_tensor view;
    assert_int_equal(attn_tensor_init_strided(&view, data, made->dtype, 2, shape, strides),
                     ATTN_OK);
    return view;
}

/* What is hidden weighs 0, the rest 1 together; nothing where the mask hides what the length does
 * not. */
static void check_rows(const call *made, const attn_tensor *output, const attn_tensor *lse) {
    const extent *size = made->size;
    for (int64_t row = 0; row < size->rows; ++row) {
        const int64_t length = size->first_length + row * size->length_step;
        double sum = 0;
        double hidden = 0;
        for (int64_t col = 0; col < size->cols; ++col) {
            *(col < length ? &sum : &hidden) += fabs(number_at(output, row, col));
        }
        const int is_empty = number_at(lse, row, 0) == -(double)INFINITY;
        assert_true(hidden == 0);
        assert_true(is_empty ? sum == 0 : fabs(sum - 1) < 1e-3);
        assert_true(length > 0 || is_empty);
        assert_true(length == 0 || made->mask_kind > ATTN_MASK_ADDITIVE || !is_empty);
    }
}

/* A wrong read ends the process. */
static void normalize(attn_context *context, const call *made) {
    const hidden_shape input_shape = shape_of(made, made->dtype);
    const hidden_shape mask_shape = shape_of(made, made->mask_dtype);
    const hidden_positions inputs = hidden_positions_map(&input_shape, made->edge);
    const hidden_positions masks = hidden_positions_map(&mask_shape, made->edge);
    const attn_tensor input = argument_of(&inputs, made->direction);
    const attn_tensor mask = argument_of(&masks, made->direction);
    const attn_tensor output = output_of(made, made->size->cols, made->output_stride);
    const attn_tensor sums = output_of(made, 1, 1);
    attn_tensor lse = sums;
    lse.rank = 1;
    int64_t numbers[MAX_ROWS];
    int32_t narrow[MAX_ROWS];
    for (int64_t row = 0; row < made->size->rows; ++row) {
        numbers[row] = made->size->first_length + row * made->size->length_step;
        narrow[row] = (int32_t)numbers[row];
    }
    const bool is_narrow = made->index_dtype == ATTN_DTYPE_INT32;
    attn_tensor lengths;
    assert_int_equal(attn_tensor_init(&lengths, is_narrow ? (void *)narrow : (void *)numbers,
                                      made->index_dtype, 1, &made->size->rows),
                     ATTN_OK);
    const attn_softmax_params params = {.struct_size = sizeof params,
                                        .mask_kind = made->mask_kind,
                                        .mask = made->mask_kind != ATTN_MASK_NONE ? &mask : NULL,
                                        .lengths = &lengths,
                                        .lse = &lse};
    assert_int_equal(attn_softmax(context, &input, &params, &output, NULL, 0), ATTN_OK);
    check_rows(made, &output, &sums);
    free(output.data);
    free(sums.data);
    hidden_positions_unmap(&inputs);
    hidden_positions_unmap(&masks);
}

static void normalize_with_every_mask(attn_context *context, call made) {
    const struct {
        int32_t kind, dtype;
    } masks[] = {{ATTN_MASK_NONE, made.dtype},
                 {ATTN_MASK_ADDITIVE, made.dtype},
                 {ATTN_MASK_ADDITIVE, ATTN_DTYPE_FLOAT32},
                 {ATTN_MASK_BOOL_INCLUDE, ATTN_DTYPE_BOOL},
                 {ATTN_MASK_BOOL_EXCLUDE, ATTN_DTYPE_BOOL}};
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; ++i) {
        made.mask_kind = masks[i].kind;
        made.mask_dtype = masks[i].dtype;
        for (made.output_stride = 1; made.output_stride <= 2; ++made.output_stride) {
            made.index_dtype = made.output_stride == 1 ? ATTN_DTYPE_INT64 : ATTN_DTYPE_INT32;
            normalize(context, &made);
        }
    }
}

static void normalize_in_every_layout(attn_context *context, int32_t dtype) {
    for (int i = 0; i < NUM_EXTENTS * NUM_DIRECTIONS; ++i) {
        call made = {.size = &extents[i / NUM_DIRECTIONS],
                     .dtype = dtype,
                     .direction = (enum direction)(i % NUM_DIRECTIONS)};
        made.edge = HIDDEN_BEGIN;
        normalize_with_every_mask(context, made);
        made.edge = HIDDEN_END;
        normalize_with_every_mask(context, made);
    }
}

static void positions_past_lengths_in_guard_pages_are_not_read(void **state) {
    (void)state;
    for (int32_t kernels = 0; attn_kernels_name(kernels) != NULL; ++kernels) {
        const attn_context_config settings = {.struct_size = sizeof settings,
                                              .kernels = attn_kernels_name(kernels)};
        attn_context *context;
        assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
        normalize_in_every_layout(context, ATTN_DTYPE_FLOAT32);
        normalize_in_every_layout(context, ATTN_DTYPE_FLOAT64);
        attn_context_destroy(context);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(positions_past_lengths_in_guard_pages_are_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
