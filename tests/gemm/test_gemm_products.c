/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_gemm_products.c: products of integers must be exact, in every combination of layouts, sizes,
 * types, backends and numbers; products of reals must be within their roundings.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/context.h>
#include <attention/tensor.h>

#include "placed_matrix.h"
#include "support/strength.h"

static const int64_t sizes[] = {0, 1, 2, 5, 17, 66};
static const int64_t batches[] = {0, 1, 3};
static const double alphas[] = {1, 2, -0.5};

enum { NUM_SIZES = sizeof sizes / sizeof sizes[0] };

static void check_integers(const attni_gemm_call *call, gemm_layouts layouts,
                           random_state *random) {
    gemm_case item = gemm_case_make(call, layouts, random);
    char *expected = gemm_case_expected(&item);
    gemm_case_run(&item, INT32_MAX);
    gemm_case_assert(&item, expected);
    free(expected);
    gemm_case_free(&item);
}

/* Backend, type and beta number `choice` of 8; the rest at random. */
static attni_gemm_call make_call(int choice, random_state *random) {
    const bool is_added = (choice & 4) != 0; /* and then has no factor */
    return (attni_gemm_call){
        .backend = choice & 1 ? ATTN_GEMM_BLAS : ATTN_GEMM_NATIVE,
        .dtype = choice & 2 ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_FLOAT64,
        .beta = is_added ? 1 : 0,
        .batch = batches[random_between(random, 0, 2)],
        .rows = sizes[random_between(random, 0, NUM_SIZES - 1)],
        .cols = sizes[random_between(random, 0, NUM_SIZES - 1)],
        .inner = sizes[random_between(random, 0, NUM_SIZES - 1)],
        .alpha = is_added ? 1 : alphas[random_between(random, 0, 2)],
    };
}

static gemm_layouts random_layouts(random_state *random) {
    return (gemm_layouts){(enum matrix_layout)random_between(random, 0, NUM_LAYOUTS - 1),
                          (enum matrix_layout)random_between(random, 0, NUM_LAYOUTS - 1),
                          (enum matrix_layout)random_between(random, 0, NUM_OUTPUT_LAYOUTS - 1)};
}

/* Every triple of layouts with every backend, type and beta: 10,368 products. */
static void product_of_integers_in_every_layout_is_exact(void **state) {
    (void)state;
    random_state random = random_seeded(121);
    for (int index = 0; index < NUM_LAYOUTS * NUM_LAYOUTS * NUM_OUTPUT_LAYOUTS; ++index) {
        const gemm_layouts layouts = {(enum matrix_layout)(index % NUM_LAYOUTS),
                                      (enum matrix_layout)(index / NUM_LAYOUTS % NUM_LAYOUTS),
                                      (enum matrix_layout)(index / NUM_LAYOUTS / NUM_LAYOUTS)};
        for (int choice = 0; choice < 8; ++choice) {
            attni_gemm_call call = make_call(choice, &random);
            /* Empty products are the next test's. */
            call.batch = call.batch == 0 ? 2 : call.batch;
            call.rows = call.rows == 0 ? 3 : call.rows;
            call.cols = call.cols == 0 ? 4 : call.cols;
            call.inner = call.inner == 0 ? 6 : call.inner;
            check_integers(&call, layouts, &random);
        }
    }
}

/* Every triple of sizes with every batch, backend, type and beta: 5,184 products. */
static void product_of_integers_of_every_size_is_exact(void **state) {
    (void)state;
    random_state random = random_seeded(122);
    for (int index = 0; index < NUM_SIZES * NUM_SIZES * NUM_SIZES * 3; ++index) {
        for (int choice = 0; choice < 8; ++choice) {
            attni_gemm_call call = make_call(choice, &random);
            call.rows = sizes[index % NUM_SIZES];
            call.cols = sizes[index / NUM_SIZES % NUM_SIZES];
            call.inner = sizes[index / NUM_SIZES / NUM_SIZES % NUM_SIZES];
            call.batch = batches[index / NUM_SIZES / NUM_SIZES / NUM_SIZES];
            check_integers(&call, random_layouts(&random), &random);
        }
    }
}

/* Sizes just around the native product's blocks, with every set of kernels. */
static void product_of_integers_around_the_blocks_is_exact(void **state) {
    (void)state;
    static const int64_t around[] = {63, 64, 65, 97, 129};
    static const int64_t inner[] = {255, 256, 257, 513};
    random_state random = random_seeded(123);
    const attni_kernel_set *set;
    for (int32_t k = 0; (set = attni_kernel_set_at(k)) != NULL; ++k) {
        for (int i = 0; i < 5 * 5; ++i) {
            attni_gemm_call call = make_call(2 * (i % 4), &random);
            call.batch = 1;
            call.rows = around[i % 5];
            call.cols = around[i / 5];
            call.inner = inner[random_between(&random, 0, 3)];
            call.kernels = attni_product_kernels_of(set, call.dtype);
            check_integers(&call, random_layouts(&random), &random);
        }
    }
}

/* ---- reals ---- */

static void assert_reals(const gemm_case *item) {
    const attni_gemm_call *call = &item->call;
    const double unit = call->dtype == ATTN_DTYPE_FLOAT32 ? 0x1p-24 : 0x1p-53;
    for (int64_t r = 0; r < call->rows; ++r) {
        for (int64_t c = 0; c < call->cols; ++c) {
            long double sum = 0;
            long double magnitude = 0;
            for (int64_t k = 0; k < call->inner; ++k) {
                const long double term = (long double)matrix_get(&item->a, 0, r, k) *
                                         (long double)matrix_get(&item->b, 0, k, c);
                sum += term;
                magnitude += fabsl(term);
            }
            const long double bound = (long double)(unit * ((double)call->inner + 2)) *
                                      fabsl((long double)call->alpha) * magnitude;
            const double actual = matrix_get(&item->c, 0, r, c);
            if (!(fabsl((long double)actual - (long double)call->alpha * sum) <= bound)) {
                fail_msg("%s: (%lld, %lld): expected %.17Lg within %Lg, got %.17g",
                         gemm_case_text(item), (long long)r, (long long)c,
                         (long double)call->alpha * sum, bound, actual);
            }
        }
    }
}

static void product_of_reals_is_within_its_roundings(void **state) {
    (void)state;
    random_state random = random_seeded(124);
    for (int i = 0; i < test_repeats(600); ++i) {
        attni_gemm_call call = make_call(i % 4, &random);
        call.batch = 1;
        call.alpha = 0.3;
        gemm_case item = gemm_case_make(&call, random_layouts(&random), &random);
        matrix_fill_reals(&item.a, &random);
        matrix_fill_reals(&item.b, &random);
        gemm_case_run(&item, INT32_MAX);
        assert_reals(&item);
        gemm_case_free(&item);
    }
}

/* Whichever matrix it is: BLAS must not see an address that is no multiple of the element's size.
 */
static void product_of_unaligned_reals_is_the_native_one(void **state) {
    (void)state;
    for (int unaligned = 0; unaligned < 3; ++unaligned) {
        for (int32_t dtype = ATTN_DTYPE_FLOAT32; dtype <= ATTN_DTYPE_FLOAT64; ++dtype) {
            const attni_gemm_call call = {.backend = ATTN_GEMM_BLAS,
                                          .dtype = dtype,
                                          .batch = 1,
                                          .rows = 30,
                                          .cols = 40,
                                          .inner = 500,
                                          .alpha = 0.3};
            const gemm_layouts layouts = {unaligned == 0 ? UNALIGNED : ROW_MAJOR,
                                          unaligned == 1 ? UNALIGNED : ROW_MAJOR,
                                          unaligned == 2 ? UNALIGNED : ROW_MAJOR};
            random_state random = random_seeded(125);
            gemm_case item = gemm_case_make(&call, layouts, &random);
            matrix_fill_reals(&item.a, &random);
            matrix_fill_reals(&item.b, &random);
            gemm_case_run(&item, INT32_MAX);
            char *by_blas = malloc(item.c.bytes);
            assert_non_null(by_blas);
            memcpy(by_blas, item.c.memory, item.c.bytes);
            attni_gemm_native(&item.call);
            gemm_case_assert(&item, by_blas);
            free(by_blas);
            gemm_case_free(&item);
        }
    }
}

/* ---- scratch ---- */

static size_t scratch_of(attni_gemm_call call) {
    attni_layout layout = {0};
    assert_int_equal(attni_gemm_add_scratch(&call, &layout), 0);
    return layout.bytes;
}

static void scratch_is_only_for_what_blas_cannot_read(void **state) {
    (void)state;
    attni_gemm_call call = {.backend = ATTN_GEMM_BLAS,
                            .dtype = ATTN_DTYPE_FLOAT64,
                            .batch = 9,
                            .rows = 10,
                            .cols = 20,
                            .inner = 30};
    const attni_matrix right_a = {NULL, 300, 30, 1};
    const attni_matrix right_b = {NULL, 600, 1, 30};
    const attni_matrix right_c = {NULL, 200, 1, 10};
    const attni_matrix wrong = {NULL, 0, 100, 2};
    call.a = right_a;
    call.b = right_b;
    call.c = right_c;
    assert_int_equal(scratch_of(call), 0);
    call.a = wrong;
    assert_int_equal(scratch_of(call), 10 * 30 * 8 + 32);
    call.b = wrong;
    assert_int_equal(scratch_of(call), 10 * 30 * 8 + 32 + 30 * 20 * 8);
    call.c = wrong;
    assert_int_equal(scratch_of(call), 10 * 30 * 8 + 32 + 30 * 20 * 8 + 10 * 20 * 8);
    call.backend = ATTN_GEMM_NATIVE;
    assert_int_equal(scratch_of(call), 0);
}

static void scratch_does_not_depend_on_addresses(void **state) {
    (void)state;
    static char memory[64];
    for (int shift = 0; shift < 8; ++shift) {
        const attni_matrix wrong = {memory + shift, 0, 100, 2};
        const attni_gemm_call call = {.backend = ATTN_GEMM_BLAS,
                                      .dtype = ATTN_DTYPE_FLOAT32,
                                      .batch = 1,
                                      .rows = 4,
                                      .cols = 4,
                                      .inner = 4,
                                      .a = wrong,
                                      .b = wrong,
                                      .c = wrong};
        assert_int_equal(scratch_of(call), 3 * 64);
    }
}

static void scratch_too_large_is_an_overflow(void **state) {
    (void)state;
    const int64_t huge = INT64_C(1) << 31;
    const attni_matrix wrong = {NULL, 0, 4 * huge, 2};
    const attni_gemm_call call = {.backend = ATTN_GEMM_BLAS,
                                  .dtype = ATTN_DTYPE_FLOAT64,
                                  .batch = 1,
                                  .rows = huge,
                                  .cols = huge,
                                  .inner = huge,
                                  .a = wrong,
                                  .b = wrong,
                                  .c = wrong};
    attni_layout layout = {0};
    attni_gemm_add_scratch(&call, &layout);
    size_t bytes;
    assert_int_equal(attni_layout_bytes(&layout, &bytes), ATTN_ERROR_OVERFLOW);
}

static void check_of_a_working_backend_is_ok(void **state) {
    (void)state;
    assert_int_equal(attni_gemm_check(ATTN_GEMM_NATIVE), ATTN_OK);
    assert_int_equal(attni_gemm_check(ATTN_GEMM_BLAS), ATTN_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(product_of_integers_in_every_layout_is_exact),
        cmocka_unit_test(product_of_integers_of_every_size_is_exact),
        cmocka_unit_test(product_of_integers_around_the_blocks_is_exact),
        cmocka_unit_test(product_of_reals_is_within_its_roundings),
        cmocka_unit_test(product_of_unaligned_reals_is_the_native_one),
        cmocka_unit_test(scratch_is_only_for_what_blas_cannot_read),
        cmocka_unit_test(scratch_does_not_depend_on_addresses),
        cmocka_unit_test(scratch_too_large_is_an_overflow),
        cmocka_unit_test(check_of_a_working_backend_is_ok),
    };
    return cmocka_run_group_tests_name("gemm_products", tests, NULL, NULL);
}
