/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_gemm_nan.c: a NaN of A or B reaches C though what it meets is 0, in small matrices of every
 * shape and layout, whatever the BLAS: the one that is here, and one that loses it. Linked so that
 * what the library believes of its BLAS, and its calls of it, come by this file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include <attention/context.h>
#include <attention/tensor.h>

#include "blas_library/blas_library.h"
#include "gemm/gemm.h"
#include "kernels/kernel_select.h"
#include "tensor/element.h"

enum { MOST = 4, ROOM = MOST * MOST };

/* ---- a BLAS that takes 0 times NaN for 0 ---- */

static bool loses_nan;
static int64_t calls_of_loser;

bool __real_attni_blas_may_lose_nan(void);
bool __wrap_attni_blas_may_lose_nan(void);
bool __wrap_attni_blas_may_lose_nan(void) {
    return loses_nan || __real_attni_blas_may_lose_nan();
}

bool __real_attni_gemm_blas_is_usable(void);
bool __wrap_attni_gemm_blas_is_usable(void);
bool __wrap_attni_gemm_blas_is_usable(void) {
    return loses_nan || __real_attni_gemm_blas_is_usable();
}

static void lose_nan(const attni_matrix *matrix, int64_t rows, int64_t cols, int32_t dtype) {
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t col = 0; col < cols; ++col) {
            const int64_t at = row * matrix->row_stride + col * matrix->col_stride;
            if (isnan(attni_read_real(matrix->data, at, dtype))) {
                attni_write_real(matrix->data, at, dtype, 0);
            }
        }
    }
}

void __real_attni_gemm_blas(const attni_gemm_call *call);
void __wrap_attni_gemm_blas(const attni_gemm_call *call);
void __wrap_attni_gemm_blas(const attni_gemm_call *call) {
    if (!loses_nan) {
        __real_attni_gemm_blas(call);
        return;
    }
    attni_gemm_call one = *call;
    one.batch = 1;
    attni_gemm_native(&one);
    lose_nan(&one.c, one.rows, one.cols, one.dtype);
    ++calls_of_loser;
}

/* ---- products ---- */

/* By rows, or by columns with transposed. */
static attni_matrix dense(char *data, int64_t rows, int64_t cols, int transposed) {
    return (attni_matrix){
        .data = data, .row_stride = transposed ? 1 : cols, .col_stride = transposed ? rows : 1};
}

static void fill(char *data, int32_t dtype, double number) {
    for (int64_t i = 0; i < ROOM; ++i) {
        attni_write_real(data, i, dtype, number);
    }
}

/* The NaN is the first element of A or of B, so that it meets every column, or every row. */
static void assert_arrives(attni_gemm_call *call, int layout, int in_a, double odd) {
    double a[ROOM], b[ROOM], c[ROOM];
    char *const data[] = {(char *)a, (char *)b, (char *)c};
    fill(data[0], call->dtype, in_a ? 1 : 0);
    fill(data[1], call->dtype, in_a ? 0 : 1);
    fill(data[2], call->dtype, 7);
    attni_write_real(data[in_a ? 0 : 1], 0, call->dtype, odd);
    call->a = dense(data[0], call->rows, call->inner, layout & 1);
    call->b = dense(data[1], call->inner, call->cols, layout & 2);
    call->c = dense(data[2], call->rows, call->cols, layout & 4);
    attni_gemm_run(call, NULL);
    for (int64_t row = 0; row < call->rows; ++row) {
        for (int64_t col = 0; col < call->cols; ++col) {
            const double got = attni_read_real(
                data[2], row * call->c.row_stride + col * call->c.col_stride, call->dtype);
            const int meets = in_a ? row == 0 : col == 0;
            if (meets && !isfinite(odd) ? !isnan(got) : got != 0) {
                fail_msg("%d x %d x %d, layout %d, %g in %s: got %g at (%d, %d)", (int)call->rows,
                         (int)call->cols, (int)call->inner, layout, odd, in_a ? "A" : "B", got,
                         (int)row, (int)col);
            }
        }
    }
}

/* The next of the choices that *rest numbers, one of `count`. */
static int choose(int64_t *rest, int count) {
    const int choice = (int)(*rest % count);
    *rest /= count;
    return choice;
}

/* Products of every shape with `odd` among ones, the rest zeros. */
static void try_all(double odd, int32_t last_backend) {
    const int32_t backends[] = {ATTN_GEMM_NATIVE, last_backend};
    for (int64_t at = 0; at < 2 * 2 * 8 * 2 * MOST * MOST * MOST; ++at) {
        int64_t rest = at;
        const int32_t dtype = choose(&rest, 2) ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_FLOAT64;
        const int in_a = choose(&rest, 2);
        const int layout = choose(&rest, 8);
        const int32_t backend = backends[choose(&rest, 2)];
        const int rows = 1 + choose(&rest, MOST);
        const int cols = 1 + choose(&rest, MOST);
        const int inner = 1 + choose(&rest, MOST);
        attni_gemm_call call = {
            .backend = backend,
            .dtype = dtype,
            .batch = 1,
            .rows = rows,
            .cols = cols,
            .inner = inner,
            .alpha = 1,
            .kernels = attni_product_kernels_of(attni_kernel_set_find(NULL), dtype),
        };
        /* What is believed lost are float64 products; those of float32 are OpenBLAS's or nobody's. */
        if (!loses_nan || dtype == ATTN_DTYPE_FLOAT64) {
            assert_arrives(&call, layout, in_a, odd);
        }
    }
}

static void nan_times_zero_is_nan(void **state) {
    (void)state;
    const int32_t last = attni_blas_present() ? ATTN_GEMM_BLAS : ATTN_GEMM_NATIVE;
    try_all(NAN, last);
    try_all(INFINITY, last);
}

static void nan_is_not_left_to_a_blas_that_loses_it(void **state) {
    (void)state;
    loses_nan = true;
    calls_of_loser = 0;
    try_all(NAN, ATTN_GEMM_BLAS);
    try_all(-INFINITY, ATTN_GEMM_BLAS);
    assert_int_equal(calls_of_loser, 0);
    try_all(1, ATTN_GEMM_BLAS);
    assert_int_equal(calls_of_loser, 2 * 8 * MOST * MOST * MOST);
    loses_nan = false;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nan_times_zero_is_nan),
                                       cmocka_unit_test(nan_is_not_left_to_a_blas_that_loses_it)};
    return cmocka_run_group_tests_name("NaN in products", tests, NULL, NULL);
}
