/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_product_kernels.c: products of every set of kernels against sums in long double, at every
 * size around the tiles, in every layout, between forbidden pages; the order of a sum,
 * which no cut may change; and strips.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/tensor.h>

#include "guarded_block.h"
#include "kernel_choice.h"

enum { MOST_ROWS = 26, MOST_COLS = 80, MOST_DEPTH = 40 };

/* Numbers are kept as double beside the memory in the kernels' type. */
typedef struct product_case {
    kernel_choice choice;
    random_state random;
    guarded_block x_block;
    guarded_block y_block;
    guarded_block strips_block;
    guarded_block bias_block;
    attni_product_block block;
    double x[MOST_ROWS][MOST_DEPTH];
    double w[MOST_DEPTH][MOST_COLS];
    double start[MOST_ROWS][MOST_COLS];
} product_case;

static int64_t pick(product_case *item, const int64_t *values, int64_t count) {
    return values[random_between(&item->random, 0, count - 1)];
}

static void open_case(product_case *item, uint64_t seed) {
    item->random = random_seeded(seed);
    guarded_open(&item->x_block);
    guarded_open(&item->y_block);
    guarded_open(&item->strips_block);
    guarded_open(&item->bias_block);
}

static void close_case(product_case *item) {
    guarded_close(&item->x_block);
    guarded_close(&item->y_block);
    guarded_close(&item->strips_block);
    guarded_close(&item->bias_block);
}

/* A matrix in a random layout that fills its block exactly: the address of its element (0, 0). */
static char *place_matrix(product_case *item, guarded_block *block, int64_t rows, int64_t cols,
                          int64_t *row_stride, int64_t *col_stride, bool may_repeat) {
    const int64_t element = real_bytes(item->choice.dtype);
    const int64_t layout = random_between(&item->random, 0, may_repeat ? 5 : 4);
    *row_stride = layout == 1 ? 1 : layout == 2 ? 2 * cols + 1 : layout == 3 ? -(cols + 2) : cols;
    *col_stride = layout == 1 ? rows : layout == 2 ? 2 : layout == 4 ? -1 : 1;
    if (layout == 5) {
        *row_stride = 0;
    }
    const bool is_empty = rows == 0 || cols == 0;
    const int64_t row_reach = is_empty ? 0 : (rows - 1) * *row_stride;
    const int64_t col_reach = is_empty ? 0 : (cols - 1) * *col_stride;
    const int64_t elements = is_empty ? 0 : llabs(row_reach) + llabs(col_reach) + 1;
    const enum guarded_placement placement =
        (enum guarded_placement)random_between(&item->random, 0, GUARDED_NUM_PLACEMENTS - 1);
    char *memory = guarded_place(block, (size_t)(elements * element), placement);
    memset(memory, 0xFF, (size_t)(elements * element));
    const int64_t before = (row_reach < 0 ? -row_reach : 0) + (col_reach < 0 ? -col_reach : 0);
    return memory + before * element;
}

static void place_x(product_case *item) {
    attni_product_block *block = &item->block;
    char *x = place_matrix(item, &item->x_block, block->rows, block->depth, &block->x_row_stride,
                           &block->x_col_stride, true);
    for (int64_t r = 0; r < block->rows; ++r) {
        for (int64_t k = 0; k < block->depth; ++k) {
            const int64_t source = block->x_row_stride == 0 ? 0 : r;
            item->x[r][k] = source < r
                                ? item->x[source][k]
                                : rounded_to(item->choice.dtype, random_real(&item->random, -1, 1));
            row_set(x, r * block->x_row_stride + k * block->x_col_stride, item->choice.dtype,
                    item->x[r][k]);
        }
    }
    block->x = x;
}

static int64_t strip_cols(const product_case *item) {
    return ATTNI_STRIP_BYTES / real_bytes(item->choice.dtype);
}

/* Strips one after the other, or side by side, as columns of a matrix of whole strips are. */
static void place_strips(product_case *item) {
    attni_product_block *block = &item->block;
    const int32_t dtype = item->choice.dtype;
    const int64_t width = strip_cols(item);
    const int64_t num_strips = (block->cols + width - 1) / width;
    const bool is_in_place = random_between(&item->random, 0, 1) == 1;
    block->strip_stride = is_in_place ? width : block->depth * width;
    block->strip_step = is_in_place ? num_strips * width : width;
    char *strips =
        guarded_place(&item->strips_block, (size_t)(num_strips * block->depth * ATTNI_STRIP_BYTES),
                      (enum guarded_placement)random_between(&item->random, 0, 1));
    for (int64_t c = 0; c < num_strips * width; ++c) {
        for (int64_t k = 0; k < block->depth; ++k) {
            const double number =
                c < block->cols ? rounded_to(dtype, random_real(&item->random, -1, 1)) : 0;
            item->w[k][c] = number;
            row_set(strips, c / width * block->strip_stride + k * block->strip_step + c % width,
                    dtype, number);
        }
    }
    block->strips = strips;
}

/* y is NaN unless it is added to. */
static void place_y(product_case *item) {
    attni_product_block *block = &item->block;
    char *y = place_matrix(item, &item->y_block, block->rows, block->cols, &block->y_row_stride,
                           &block->y_col_stride, false);
    for (int64_t r = 0; r < block->rows && block->is_added; ++r) {
        for (int64_t c = 0; c < block->cols; ++c) {
            item->start[r][c] = rounded_to(item->choice.dtype, random_real(&item->random, -1, 1));
            row_set(y, r * block->y_row_stride + c * block->y_col_stride, item->choice.dtype,
                    item->start[r][c]);
        }
    }
    block->y = y;
}

static void place_bias(product_case *item) {
    static const int64_t strides[] = {1, 1, 2, -1, 0};
    attni_product_block *block = &item->block;
    block->bias_stride = pick(item, strides, 5);
    const int64_t element = real_bytes(item->choice.dtype);
    const int64_t reach = block->cols > 0 ? (block->cols - 1) * llabs(block->bias_stride) : 0;
    const int64_t elements = block->cols > 0 ? reach + 1 : 0;
    char *first = guarded_place(
        &item->bias_block, (size_t)(elements * element),
        (enum guarded_placement)random_between(&item->random, 0, GUARDED_NUM_PLACEMENTS - 1));
    first += block->bias_stride < 0 ? reach * element : 0;
    for (int64_t c = 0; c < block->cols; ++c) {
        const double number =
            block->bias_stride == 0 && c > 0
                ? item->start[0][0]
                : rounded_to(item->choice.dtype, random_real(&item->random, -1, 1));
        row_set(first, c * block->bias_stride, item->choice.dtype, number);
        for (int64_t r = 0; r < MOST_ROWS; ++r) {
            item->start[r][c] = number;
        }
    }
    block->bias = first;
}

/* Everything but the choice of kernels and the sizes at random. */
static void make_case(product_case *item, int64_t rows, int64_t cols, int64_t depth) {
    const int64_t kind = random_between(&item->random, 0, 2);
    item->block = (attni_product_block){.rows = rows, .cols = cols, .depth = depth};
    item->block.is_added = kind == 1;
    item->block.factor = random_between(&item->random, 0, 1) == 0 ? 1 : -0.75;
    memset(item->start, 0, sizeof item->start);
    place_x(item);
    place_strips(item);
    place_y(item);
    if (kind == 2) {
        place_bias(item);
    }
}

static double result(const product_case *item, int64_t r, int64_t c) {
    return row_get(item->block.y, r * item->block.y_row_stride + c * item->block.y_col_stride,
                   item->choice.dtype);
}

static void check_case(product_case *item) {
    const attni_product_block *block = &item->block;
    item->choice.product->multiply(block);
    guarded_check(&item->y_block, choice_text(&item->choice));
    guarded_check(&item->x_block, choice_text(&item->choice));
    for (int64_t r = 0; r < block->rows; ++r) {
        for (int64_t c = 0; c < block->cols; ++c) {
            long double sum = (long double)item->start[r][c];
            long double magnitude = fabsl(sum);
            for (int64_t k = 0; k < block->depth; ++k) {
                sum += (long double)item->x[r][k] * (long double)item->w[k][c];
                magnitude += fabsl((long double)item->x[r][k] * (long double)item->w[k][c]);
            }
            const long double bound =
                (long double)(unit_roundoff(item->choice.dtype) * ((double)block->depth + 2)) *
                magnitude;
            const long double exact = (long double)block->factor * sum;
            if (!(fabsl((long double)result(item, r, c) - exact) <= bound)) {
                fail_msg("%s, %d x %d x %d, (%d, %d): expected %.17Lg within %Lg, got %.17g",
                         choice_text(&item->choice), (int)block->rows, (int)block->cols,
                         (int)block->depth, (int)r, (int)c, exact, bound, result(item, r, c));
            }
        }
    }
}

static const int64_t depths[] = {0, 1, 2, 3, 7, 16, 17, MOST_DEPTH};

/* Every number of rows and of columns around the tiles. */
static void product_of_every_size_is_within_its_roundings(void **state) {
    (void)state;
    static product_case item;
    open_case(&item, 501);
    for (int index = 0; choose_kernels(index, &item.choice); ++index) {
        for (int64_t rows = 0; rows <= MOST_ROWS; ++rows) {
            for (int64_t cols = 0; cols <= MOST_COLS - 16; ++cols) {
                make_case(&item, rows, cols, pick(&item, depths, 8));
                check_case(&item);
            }
        }
    }
    close_case(&item);
}

/* ---- order ---- */

/* Two copies of y's bytes. */
static void assert_same_y(const product_case *item, const unsigned char *expected,
                          const char *what) {
    if (memcmp(item->y_block.start, expected, item->y_block.length) != 0) {
        fail_msg("%s, %d x %d x %d: other bits %s", choice_text(&item->choice),
                 (int)item->block.rows, (int)item->block.cols, (int)item->block.depth, what);
    }
}

static const void *moved(const void *data, int64_t elements, const product_case *item) {
    return (const char *)data + elements * real_bytes(item->choice.dtype);
}

static void *moved_y(const product_case *item, int64_t row, int64_t col) {
    const int64_t offset = row * item->block.y_row_stride + col * item->block.y_col_stride;
    return (char *)item->block.y + offset * real_bytes(item->choice.dtype);
}

static void multiply_in_two_rows(const product_case *item, int64_t cut) {
    attni_product_block part = item->block;
    part.rows = cut;
    item->choice.product->multiply(&part);
    part.rows = item->block.rows - cut;
    part.x = moved(part.x, cut * part.x_row_stride, item);
    part.y = moved_y(item, cut, 0);
    item->choice.product->multiply(&part);
}

static void multiply_in_two_depths(const product_case *item, int64_t cut) {
    attni_product_block part = item->block;
    part.depth = cut;
    part.factor = 1;
    item->choice.product->multiply(&part);
    part.depth = item->block.depth - cut;
    part.factor = item->block.factor;
    part.x = moved(part.x, cut * part.x_col_stride, item);
    part.strips = moved(part.strips, cut * part.strip_step, item);
    part.is_added = true;
    item->choice.product->multiply(&part);
}

static void multiply_strip_by_strip(const product_case *item) {
    const int64_t width = strip_cols(item);
    for (int64_t col = 0; col < item->block.cols; col += width) {
        attni_product_block part = item->block;
        part.cols = item->block.cols - col < width ? item->block.cols - col : width;
        part.strips = moved(part.strips, col / width * part.strip_stride, item);
        part.y = moved_y(item, 0, col);
        part.bias = part.bias == NULL ? NULL : moved(part.bias, col * part.bias_stride, item);
        item->choice.product->multiply(&part);
    }
}

/* Whatever y held, it starts from there again. */
static void restore(product_case *item, const unsigned char *before) {
    memcpy(item->y_block.start, before, item->y_block.length);
}

static void cuts_do_not_change_a_bit(void **state) {
    (void)state;
    static product_case item;
    static unsigned char before[GUARDED_BYTES];
    static unsigned char whole[GUARDED_BYTES];
    open_case(&item, 502);
    for (int index = 0; choose_kernels(index, &item.choice); ++index) {
        for (int i = 0; i < 1500; ++i) {
            make_case(&item, random_between(&item.random, 1, MOST_ROWS),
                      random_between(&item.random, 1, MOST_COLS - 8),
                      random_between(&item.random, 1, MOST_DEPTH));
            memcpy(before, item.y_block.start, item.y_block.length);
            item.choice.product->multiply(&item.block);
            memcpy(whole, item.y_block.start, item.y_block.length);
            restore(&item, before);
            multiply_in_two_rows(&item, random_between(&item.random, 0, item.block.rows));
            assert_same_y(&item, whole, "in two blocks of rows");
            restore(&item, before);
            multiply_in_two_depths(&item, random_between(&item.random, 0, item.block.depth));
            assert_same_y(&item, whole, "in two halves of the sums");
            restore(&item, before);
            multiply_strip_by_strip(&item);
            assert_same_y(&item, whole, "strip by strip");
        }
    }
    close_case(&item);
}

/* ---- numbers that are not finite ---- */

/* They reach the elements whose sums they are in, and no others. */
static void nan_and_infinity_stay_in_their_sums(void **state) {
    (void)state;
    static product_case item;
    open_case(&item, 503);
    for (int index = 0; choose_kernels(index, &item.choice); ++index) {
        for (int i = 0; i < 500; ++i) {
            make_case(&item, random_between(&item.random, 1, MOST_ROWS),
                      random_between(&item.random, 1, MOST_COLS - 8),
                      random_between(&item.random, 1, MOST_DEPTH));
            attni_product_block *block = &item.block;
            const int64_t row = random_between(&item.random, 0, block->rows - 1);
            const int64_t col = random_between(&item.random, 0, block->cols - 1);
            const int64_t k = random_between(&item.random, 0, block->depth - 1);
            const int64_t width = strip_cols(&item);
            row_set((char *)(uintptr_t)block->x,
                    row * block->x_row_stride + k * block->x_col_stride, item.choice.dtype,
                    i % 2 == 0 ? (double)NAN : (double)INFINITY);
            row_set((char *)(uintptr_t)block->strips,
                    col / width * block->strip_stride + k * block->strip_step + col % width,
                    item.choice.dtype, (double)NAN);
            item.choice.product->multiply(block);
            for (int64_t r = 0; r < block->rows; ++r) {
                for (int64_t c = 0; c < block->cols; ++c) {
                    const bool is_hit = r == row || block->x_row_stride == 0 || c == col;
                    assert_int_equal(isfinite(result(&item, r, c)) != 0, !is_hit);
                }
            }
        }
    }
    close_case(&item);
}

/* ---- strips ---- */

static void pack_copies_every_layout_and_fills_up_with_zeroes(void **state) {
    (void)state;
    static product_case item;
    open_case(&item, 504);
    for (int index = 0; choose_kernels(index, &item.choice); ++index) {
        const int64_t width = strip_cols(&item);
        for (int i = 0; i < 600; ++i) {
            const int64_t depth = random_between(&item.random, 0, MOST_DEPTH);
            const int64_t cols = i % 2 == 0 ? width : random_between(&item.random, 0, width);
            int64_t k_stride;
            int64_t col_stride;
            char *w = place_matrix(&item, &item.x_block, depth, cols, &k_stride, &col_stride, true);
            for (int64_t k = 0; k < depth; ++k) {
                for (int64_t c = 0; c < cols; ++c) {
                    row_set(w, k * k_stride + c * col_stride, item.choice.dtype,
                            (double)(k_stride == 0 ? c : 100 * k + c) + 1);
                }
            }
            char *strip = guarded_place(&item.strips_block, (size_t)(depth * ATTNI_STRIP_BYTES),
                                        i % 4 < 2 ? GUARDED_AT_START : GUARDED_AT_END);
            item.choice.product->pack(strip, w, k_stride, col_stride, depth, cols);
            guarded_check(&item.strips_block, choice_text(&item.choice));
            for (int64_t k = 0; k < depth; ++k) {
                for (int64_t c = 0; c < width; ++c) {
                    const double number = (double)(k_stride == 0 ? c : 100 * k + c) + 1;
                    assert_true(row_get(strip, k * width + c, item.choice.dtype) ==
                                (c < cols ? number : 0));
                }
            }
        }
    }
    close_case(&item);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(product_of_every_size_is_within_its_roundings),
        cmocka_unit_test(cuts_do_not_change_a_bit),
        cmocka_unit_test(nan_and_infinity_stay_in_their_sums),
        cmocka_unit_test(pack_copies_every_layout_and_fills_up_with_zeroes),
    };
    return cmocka_run_group_tests_name("product_kernels", tests, NULL, NULL);
}
