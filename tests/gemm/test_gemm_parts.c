/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_gemm_parts.c: native products cut into parts: each element is in one part, and no cut, copy
 * in strips, backward order or number of threads changes a bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/context.h>

#include "gemm/strips.h"
#include "placed_matrix.h"
#include "support/strength.h"

/* Below, at and above the blocks of rows, of terms and of columns. */
static const int64_t rows_of[] = {1, 2, 5, 95, 96, 97, 200, 1153};
static const int64_t cols_of[] = {1, 15, 16, 64, 65, 130, 200};
static const int64_t inner_of[] = {0, 1, 70, 256, 257, 520};

static attni_gemm_call random_call(random_state *random) {
    const bool has_bias = random_between(random, 0, 1) == 1;
    return (attni_gemm_call){
        .backend = ATTN_GEMM_NATIVE,
        .dtype = random_between(random, 0, 1) == 1 ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_FLOAT64,
        .batch = random_between(random, 1, 3),
        .rows = rows_of[random_between(random, 0, 7)],
        .cols = cols_of[random_between(random, 0, 6)],
        .inner = inner_of[random_between(random, 0, 5)],
        .alpha = has_bias ? 1 : 0.3,
    };
}

/* A product of reals, its B in strips as well, with or without a bias. */
typedef struct part_case {
    gemm_case item;
    char *strips;
    char *bias;
} part_case;

static part_case make_case(random_state *random) {
    const attni_gemm_call call = random_call(random);
    const gemm_layouts layouts = {
        (enum matrix_layout)random_between(random, 0, NUM_LAYOUTS - 1),
        /* strips are the same for all batches */
        REPEATED_BATCH, (enum matrix_layout)random_between(random, 0, NUM_OUTPUT_LAYOUTS - 1)};
    part_case made = {.item = gemm_case_make(&call, layouts, random)};
    matrix_fill_reals(&made.item.a, random);
    matrix_fill_reals(&made.item.b, random);
    const int64_t element = (int64_t)attn_dtype_size_bytes(call.dtype);
    const attni_matrix *b = &made.item.b.view;
    const attn_tensor matrix = {.data = b->data,
                                .dtype = call.dtype,
                                .rank = 2,
                                .shape = {call.cols, call.inner},
                                .strides = {b->col_stride, b->row_stride}};
    made.strips = aligned_alloc(
        64, (size_t)((attni_strips_round_up(call.dtype, call.cols) * call.inner + 16) * element) /
                64 * 64);
    assert_non_null(made.strips);
    if (call.inner > 0) {
        attni_strips_pack(made.strips, call.dtype, &matrix);
    }
    made.bias = calloc((size_t)call.cols, (size_t)element);
    assert_non_null(made.bias);
    for (int64_t c = 0; c < call.cols; ++c) {
        if (call.dtype == ATTN_DTYPE_FLOAT32) {
            ((float *)(void *)made.bias)[c] = (float)random_real(random, -1, 1);
        } else {
            ((double *)(void *)made.bias)[c] = random_real(random, -1, 1);
        }
    }
    made.item.call.bias = call.alpha == 1 ? made.bias : NULL;
    made.item.call.bias_stride = 1;
    return made;
}

static void free_case(part_case *made) {
    gemm_case_free(&made->item);
    free(made->strips);
    free(made->bias);
}

/* All of C's memory after the product was computed another way must be `expected`; then C is made
 * NaN again. */
static void assert_bits(part_case *made, const char *expected, const char *what) {
    if (memcmp(made->item.c.memory, expected, made->item.c.bytes) != 0) {
        fail_msg("%s: other bits %s", gemm_case_text(&made->item), what);
    }
}

static void run_parts_backwards(const attni_gemm_call *call) {
    const attni_gemm_grid grid = attni_gemm_cut(call);
    for (int64_t index = grid.num_parts - 1; index >= 0; --index) {
        const attni_gemm_part part = attni_gemm_part_of(call, &grid, index);
        attni_gemm_native_part(call, &part);
    }
}

enum { NUM_CONTEXTS = 4 };

static void create_contexts(attn_context **contexts) {
    static const int32_t num_threads[NUM_CONTEXTS] = {1, 2, 3, 7};
    for (int i = 0; i < NUM_CONTEXTS; ++i) {
        const attn_context_config params = {.struct_size = sizeof params,
                                            .num_threads = num_threads[i]};
        assert_int_equal(attn_context_create(&params, &contexts[i]), ATTN_OK);
    }
}

static void bits_do_not_depend_on_cuts_strips_or_threads(void **state) {
    (void)state;
    attn_context *contexts[NUM_CONTEXTS];
    create_contexts(contexts);
    random_state random = random_seeded(611);
    for (int i = 0; i < test_repeats(250); ++i) {
        part_case made = make_case(&random);
        gemm_case *item = &made.item;
        char *blank = malloc(item->c.bytes);
        char *expected = malloc(item->c.bytes);
        assert_true(blank != NULL && expected != NULL);
        memcpy(blank, item->c.memory, item->c.bytes);
        attni_gemm_native(&item->call);
        memcpy(expected, item->c.memory, item->c.bytes);
        for (int way = 0; way < 2 * (1 + NUM_CONTEXTS); ++way) {
            attni_gemm_call call = item->call;
            const int64_t bytes = attni_gemm_strips_bytes(&call);
            char *memory = bytes > 0 ? malloc((size_t)bytes) : NULL;
            /* Strips are of B itself, without a factor, which comes at the end all the same. */
            call.strips = way % 2 == 1 ? made.strips : NULL;
            call.strips_memory = way % 4 == 2 ? memory : NULL;
            memcpy(item->c.memory, blank, item->c.bytes);
            if (way < 2) {
                run_parts_backwards(&call);
            } else {
                assert_int_equal(attni_gemm_native_together(contexts[way / 2 - 1], &call, 1),
                                 ATTN_OK);
            }
            assert_bits(&made, expected, way % 2 == 1 ? "from strips" : "from B");
            free(memory);
        }
        free(blank);
        free(expected);
        free_case(&made);
    }
    for (int i = 0; i < NUM_CONTEXTS; ++i) {
        attn_context_destroy(contexts[i]);
    }
}

static void products_together_are_the_products_alone(void **state) {
    (void)state;
    attn_context *contexts[NUM_CONTEXTS];
    create_contexts(contexts);
    random_state random = random_seeded(612);
    for (int i = 0; i < 60; ++i) {
        part_case made[3];
        char *expected[3];
        attni_gemm_call calls[3];
        for (int k = 0; k < 3; ++k) {
            made[k] = make_case(&random);
            calls[k] = made[k].item.call;
            attni_gemm_native(&calls[k]);
            expected[k] = malloc(made[k].item.c.bytes);
            assert_non_null(expected[k]);
            memcpy(expected[k], made[k].item.c.memory, made[k].item.c.bytes);
        }
        assert_int_equal(attni_gemm_native_together(contexts[i % NUM_CONTEXTS], calls, 3), ATTN_OK);
        for (int k = 0; k < 3; ++k) {
            assert_bits(&made[k], expected[k], "together");
            free(expected[k]);
            free_case(&made[k]);
        }
    }
    for (int i = 0; i < NUM_CONTEXTS; ++i) {
        attn_context_destroy(contexts[i]);
    }
}

/* The number of parts in which an element is. */
static void every_element_is_in_one_part(void **state) {
    (void)state;
    static unsigned char parts_of[3][1200][200];
    random_state random = random_seeded(613);
    for (int i = 0; i < 100; ++i) {
        attni_gemm_call call = random_call(&random);
        call.strips = i % 2 == 0 ? (const char *)parts_of : NULL;
        const attni_gemm_grid grid = attni_gemm_cut(&call);
        memset(parts_of, 0, sizeof parts_of);
        for (int64_t index = 0; index < grid.num_parts; ++index) {
            const attni_gemm_part part = attni_gemm_part_of(&call, &grid, index);
            assert_int_equal(part.col % attni_strip_cols(call.dtype), 0);
            assert_true(part.rows > 0 && part.cols > 0);
            for (int64_t r = part.row; r < part.row + part.rows; ++r) {
                for (int64_t c = part.col; c < part.col + part.cols; ++c) {
                    ++parts_of[part.batch][r][c];
                }
            }
        }
        for (int64_t n = 0; n < 3; ++n) {
            for (int64_t r = 0; r < 1200; ++r) {
                for (int64_t c = 0; c < 200; ++c) {
                    const bool exists = n < call.batch && r < call.rows && c < call.cols;
                    assert_int_equal(parts_of[n][r][c], exists ? 1 : 0);
                }
            }
        }
    }
}

static void empty_products_have_no_parts(void **state) {
    (void)state;
    for (int which = 0; which < 3; ++which) {
        const attni_gemm_call call = {.backend = ATTN_GEMM_NATIVE,
                                      .dtype = ATTN_DTYPE_FLOAT32,
                                      .batch = which != 0,
                                      .rows = which != 1,
                                      .cols = which != 2,
                                      .inner = 5};
        assert_int_equal(attni_gemm_cut(&call).num_parts, 0);
        attni_gemm_native(&call);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_cuts_strips_or_threads),
        cmocka_unit_test(products_together_are_the_products_alone),
        cmocka_unit_test(every_element_is_in_one_part),
        cmocka_unit_test(empty_products_have_no_parts),
    };
    return cmocka_run_group_tests_name("gemm_parts", tests, NULL, NULL);
}
