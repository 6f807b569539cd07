/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gemm_blas.c: the one file that calls BLAS. It admits no more callers at once than the library
 * found at run time can take.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <attention/tensor.h>

#include "base/blas_library.h"
#include "base/process_once.h"
#include "gemm/gemm.h"

#define JOIN_WORDS(prefix, name, suffix) prefix##name##suffix
#define BLAS_SYMBOL_EXPANDED(prefix, name, suffix) JOIN_WORDS(prefix, name, suffix)
#define BLAS_SYMBOL(name) BLAS_SYMBOL_EXPANDED(ATTNI_BLAS_PREFIX, name, ATTNI_BLAS_SUFFIX)

/* CBLAS's own values. They are declared here, not taken from cblas.h, because BLAS packages
 * disagree on where that header is and vendored builds rename the functions in it. */
enum { CBLAS_ROW_MAJOR = 101, CBLAS_NO_TRANSPOSE = 111, CBLAS_TRANSPOSE = 112 };

void BLAS_SYMBOL(cblas_sgemm)(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                              float alpha, const float *a, int lda, const float *b, int ldb,
                              float beta, float *c, int ldc);
void BLAS_SYMBOL(cblas_dgemm)(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                              double alpha, const double *a, int lda, const double *b, int ldb,
                              double beta, double *c, int ldc);

/* The gate: how many callers are inside BLAS, and those that wait because it is full. */
static atomic_int gate_inside;
static atomic_int gate_waiting;
static attni_process_once gate_once;
static pthread_mutex_t gate_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_left = PTHREAD_COND_INITIALIZER;

static bool try_enter(int most) {
    int inside = atomic_load(&gate_inside);
    while (inside < most) {
        if (atomic_compare_exchange_weak(&gate_inside, &inside, inside + 1)) {
            return true;
        }
    }
    return false;
}

/* A forked child must not wait for its parent's callers. */
static void open_gate(void) {
    pthread_mutex_init(&gate_mutex, NULL);
    pthread_cond_init(&gate_left, NULL);
    atomic_store(&gate_waiting, 0);
    atomic_store(&gate_inside, 0);
}

static void enter(void) {
    const int most = attni_blas_max_callers();
    attni_once_per_process(&gate_once, open_gate);
    while (!try_enter(most)) {
        pthread_mutex_lock(&gate_mutex);
        /* Counted as waiting before the last look, so that whoever leaves after it wakes this one.
         */
        atomic_fetch_add(&gate_waiting, 1);
        while (atomic_load(&gate_inside) >= most) {
            pthread_cond_wait(&gate_left, &gate_mutex);
        }
        atomic_fetch_sub(&gate_waiting, 1);
        pthread_mutex_unlock(&gate_mutex);
    }
}

static void leave(void) {
    atomic_fetch_sub(&gate_inside, 1);
    if (atomic_load(&gate_waiting) > 0) {
        pthread_mutex_lock(&gate_mutex);
        pthread_cond_signal(&gate_left);
        pthread_mutex_unlock(&gate_mutex);
    }
}

void attni_gemm_blas(const attni_gemm_call *call) {
    const attni_blas_layout a = attni_blas_layout_of(&call->a, call->rows, call->inner);
    const attni_blas_layout b = attni_blas_layout_of(&call->b, call->inner, call->cols);
    const attni_blas_layout c = attni_blas_layout_of(&call->c, call->rows, call->cols);
    const int transpose_a = a.transposed ? CBLAS_TRANSPOSE : CBLAS_NO_TRANSPOSE;
    const int transpose_b = b.transposed ? CBLAS_TRANSPOSE : CBLAS_NO_TRANSPOSE;
    const int m = (int)call->rows;
    const int n = (int)call->cols;
    const int k = (int)call->inner;
    enter();
    if (call->dtype == ATTN_DTYPE_FLOAT32) {
        BLAS_SYMBOL(cblas_sgemm)
        (CBLAS_ROW_MAJOR, transpose_a, transpose_b, m, n, k, (float)call->alpha,
         (const float *)(const void *)call->a.data, a.leading_dimension,
         (const float *)(const void *)call->b.data, b.leading_dimension, (float)call->beta,
         (float *)(void *)call->c.data, c.leading_dimension);
    } else {
        BLAS_SYMBOL(cblas_dgemm)
        (CBLAS_ROW_MAJOR, transpose_a, transpose_b, m, n, k, call->alpha,
         (const double *)(const void *)call->a.data, a.leading_dimension,
         (const double *)(const void *)call->b.data, b.leading_dimension, call->beta,
         (double *)(void *)call->c.data, c.leading_dimension);
    }
    leave();
}
