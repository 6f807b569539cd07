/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_gemm_limits.c: products cut into pieces, as those beyond BLAS's int are; tiny limits make
 * tiny products large.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <attention/context.h>
#include <attention/tensor.h>

#include "blas_library/blas_library.h"
#include "placed_matrix.h"

static const int64_t limits[] = {1, 2, 3, 7};
static const int64_t sizes[] = {0, 1, 2, 3, 5, 7, 8, 15};

enum { NUM_SIZES = sizeof sizes / sizeof sizes[0] };

/* Every triple of layouts and every limit: 5,184 products, each with exactly the scratch memory of
 * the limit. */
static void product_in_pieces_is_the_whole_product(void **state) {
    (void)state;
    random_state random = random_seeded(131);
    for (int index = 0; index < NUM_LAYOUTS * NUM_LAYOUTS * NUM_OUTPUT_LAYOUTS * 4; ++index) {
        const int triple = index / 4;
        const gemm_layouts layouts = {(enum matrix_layout)(triple % NUM_LAYOUTS),
                                      (enum matrix_layout)(triple / NUM_LAYOUTS % NUM_LAYOUTS),
                                      (enum matrix_layout)(triple / NUM_LAYOUTS / NUM_LAYOUTS)};
        /* Pieces are added to one another; what stands in for BLAS does that without a factor. */
        const bool is_added = random_between(&random, 0, 1) == 1;
        const attni_gemm_call call = {
            .backend = ATTN_GEMM_BLAS,
            .dtype = random_between(&random, 0, 1) == 0 ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_FLOAT64,
            .batch = random_between(&random, 1, 2),
            .rows = sizes[random_between(&random, 0, NUM_SIZES - 1)],
            .cols = sizes[random_between(&random, 0, NUM_SIZES - 1)],
            .inner = sizes[random_between(&random, 0, NUM_SIZES - 1)],
            .alpha = is_added || !attni_blas_present() ? 1 : 2,
            .beta = is_added ? 1 : 0,
        };
        gemm_case item = gemm_case_make(&call, layouts, &random);
        char *expected = gemm_case_expected(&item);
        gemm_case_run(&item, limits[index % 4]);
        gemm_case_assert(&item, expected);
        free(expected);
        gemm_case_free(&item);
    }
}

static void scratch_of_pieces_is_that_of_one_piece(void **state) {
    (void)state;
    const attni_matrix wrong = {NULL, 0, 300, 2};
    const attni_gemm_call call = {.backend = ATTN_GEMM_BLAS,
                                  .dtype = ATTN_DTYPE_FLOAT64,
                                  .batch = 5,
                                  .rows = 100,
                                  .cols = 100,
                                  .inner = 100,
                                  .a = wrong,
                                  .b = wrong,
                                  .c = wrong};
    attni_layout layout = {0};
    attni_gemm_add_scratch_limited(&call, 8, &layout);
    assert_int_equal(layout.bytes, 3 * 8 * 8 * 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(product_in_pieces_is_the_whole_product),
        cmocka_unit_test(scratch_of_pieces_is_that_of_one_piece),
    };
    return cmocka_run_group_tests_name("gemm_limits", tests, NULL, NULL);
}
