/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_gemm_threads.c: many threads at once multiply integers of various shapes through the one
 * entry; every element must be exact.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <attention/context.h>
#include <attention/tensor.h>

#include "gemm/gemm.h"

enum { NUM_THREADS = 8, NUM_CALLS = 600, MOST = 72 };

static _Atomic int64_t num_mismatches;
static _Atomic int64_t num_products;

/* What one thread works with; float32 data uses the lower half of each array. */
struct worker {
    uint64_t random;
    double a[MOST * MOST];
    double b[MOST * MOST];
    double c[MOST * MOST];
};

static int64_t next_number(struct worker *worker, int64_t choices) {
    worker->random = worker->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int64_t)((worker->random >> 33) % (uint64_t)choices);
}

static void set_number(double *data, int64_t i, bool is_single, double value) {
    if (is_single) {
        ((float *)data)[i] = (float)value;
    } else {
        data[i] = value;
    }
}

static double get_number(const double *data, int64_t i, bool is_single) {
    return is_single ? (double)((const float *)data)[i] : data[i];
}

/* A = rows x inner, dense; B dense, or the transpose of a dense matrix. */
static void multiply_once(struct worker *worker) {
    const bool is_single = next_number(worker, 2) == 0;
    const bool transposed = next_number(worker, 2) == 0;
    const int64_t rows = 1 + next_number(worker, MOST);
    const int64_t cols = 1 + next_number(worker, MOST);
    const int64_t inner = 1 + next_number(worker, MOST);
    for (int64_t i = 0; i < MOST * MOST; ++i) {
        set_number(worker->a, i, is_single, (double)(next_number(worker, 9) - 4));
        set_number(worker->b, i, is_single, (double)(next_number(worker, 9) - 4));
    }
    const attni_matrix b_rows = {(char *)worker->b, 0, cols, 1};
    const attni_matrix b_columns = {(char *)worker->b, 0, 1, inner};
    attni_gemm_call call = {.backend = ATTN_GEMM_BLAS,
                            .dtype = is_single ? ATTN_DTYPE_FLOAT32 : ATTN_DTYPE_FLOAT64,
                            .batch = 1,
                            .rows = rows,
                            .cols = cols,
                            .inner = inner,
                            .alpha = 1,
                            .a = {(char *)worker->a, 0, inner, 1},
                            .b = transposed ? b_columns : b_rows,
                            .c = {(char *)worker->c, 0, cols, 1}};
    call.kernels = attni_product_kernels_of(attni_kernel_set_at(0), call.dtype);
    attni_gemm_run(&call, NULL);
    for (int64_t i = 0; i < rows * cols; ++i) {
        double expected = 0;
        for (int64_t k = 0; k < inner; ++k) {
            const int64_t b_index = transposed ? i % cols * inner + k : k * cols + i % cols;
            expected += get_number(worker->a, i / cols * inner + k, is_single) *
                        get_number(worker->b, b_index, is_single);
        }
        if (get_number(worker->c, i, is_single) != expected) {
            atomic_fetch_add(&num_mismatches, 1);
        }
    }
    atomic_fetch_add(&num_products, 1);
}

static void *multiply_many(void *data) {
    for (int i = 0; i < NUM_CALLS; ++i) {
        multiply_once(data);
    }
    return NULL;
}

static void product_in_many_threads_is_exact(void **state) {
    (void)state;
    struct worker *workers = calloc(NUM_THREADS, sizeof *workers);
    pthread_t threads[NUM_THREADS];
    assert_non_null(workers);
    for (int i = 0; i < NUM_THREADS; ++i) {
        workers[i].random = (uint64_t)i * UINT64_C(0x9E3779B97F4A7C15) + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, multiply_many, &workers[i]), 0);
    }
    for (int i = 0; i < NUM_THREADS; ++i) {
        pthread_join(threads[i], NULL);
    }
    free(workers);
    print_message("%lld products in %d threads, %lld wrong elements\n",
                  (long long)atomic_load(&num_products), NUM_THREADS,
                  (long long)atomic_load(&num_mismatches));
    assert_int_equal(atomic_load(&num_products), NUM_THREADS * NUM_CALLS);
    assert_int_equal(atomic_load(&num_mismatches), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(product_in_many_threads_is_exact),
    };
    return cmocka_run_group_tests_name("gemm_threads", tests, NULL, NULL);
}
