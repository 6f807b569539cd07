/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_sdpa_reads.c: keys and values that no row sees are never read, and those one row must not
 * see never reach it. Hidden positions lie in pages that may not be read, or hold NaN.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { FEATURES = 64, SRC = 96, SEEN_BEGIN = 32, SEEN_END = 64, TGT = 32 };

/* (SRC, FEATURES) float32 with rows [SEEN_BEGIN, SEEN_END) between pages that may not be touched.
 * The pages hold whole rows. */
typedef struct guarded {
    char *base;
    size_t page;
    attn_tensor rows;
} guarded;

static guarded guard(int64_t col_stride) {
    guarded made = {.page = (size_t)sysconf(_SC_PAGESIZE)};
    const size_t seen_bytes = (SEEN_END - SEEN_BEGIN) * FEATURES * sizeof(float);
    assert_int_equal(seen_bytes % made.page, 0);
    made.base = mmap(NULL, seen_bytes + 2 * made.page, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(made.base != MAP_FAILED);
    float *seen = (float *)(void *)(made.base + made.page);
    for (size_t i = 0; i < seen_bytes / sizeof(float); ++i) {
        seen[i] = (float)(i % 7) - 3;
    }
    assert_int_equal(mprotect(made.base, made.page, PROT_NONE), 0);
    assert_int_equal(mprotect(made.base + made.page + seen_bytes, made.page, PROT_NONE), 0);
    float *first_row = seen - SEEN_BEGIN * FEATURES;
    if (col_stride < 0) {
        first_row += FEATURES - 1;
    }
    const int64_t shape[] = {SRC, FEATURES};
    const int64_t strides[] = {FEATURES, col_stride};
    assert_int_equal(
        attn_tensor_init_strided(&made.rows, first_row, ATTN_DTYPE_FLOAT32, 2, shape, strides),
        ATTN_OK);
    return made;
}

static void release(guarded *made) {
    munmap(made->base, (SEEN_END - SEEN_BEGIN) * FEATURES * sizeof(float) + 2 * made->page);
}

/* Attends with rows that see only [SEEN_BEGIN, SEEN_END); a wrong read ends the process. */
static void attend(attn_context *context, const attn_sdpa_params *params, int64_t tgt,
                   int64_t col_stride) {
    guarded key = guard(col_stride);
    guarded value = guard(col_stride);
    float q[TGT * FEATURES];
    float out[TGT * FEATURES];
    for (int i = 0; i < TGT * FEATURES; ++i) {
        q[i] = 0.01F * (float)(i % 13);
    }
    attn_tensor query;
    attn_tensor output;
    const int64_t shape[] = {tgt, FEATURES};
    assert_int_equal(attn_tensor_init(&query, q, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&output, out, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    assert_int_equal(attn_sdpa(context, &query, &key.rows, &value.rows, params, &output, NULL, 0),
                     ATTN_OK);
    for (int64_t i = 0; i < tgt * FEATURES; ++i) {
        assert_true(isfinite(out[i]));
    }
    release(&key);
    release(&value);
}

static void unseen_keys_in_guard_pages_are_not_read(void **state) {
    (void)state;
    for (int32_t gemm = ATTN_GEMM_DEFAULT; gemm <= ATTN_GEMM_NATIVE; gemm += ATTN_GEMM_NATIVE) {
        const attn_context_params settings = {.struct_size = sizeof settings, .gemm = gemm};
        attn_context *context;
        assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
        for (int64_t col_stride = -1; col_stride <= 1; col_stride += 2) {
            /* One row at SEEN_END - 1 whose window begins at SEEN_BEGIN. */
            int64_t last = SEEN_END - 1;
            attn_tensor offset;
            assert_int_equal(attn_tensor_init(&offset, &last, ATTN_DTYPE_INT64, 0, NULL), ATTN_OK);
            attn_sdpa_params params = {.struct_size = sizeof params,
                                       .flags = ATTN_SDPA_SET_WINDOW,
                                       .window_left = SEEN_END - SEEN_BEGIN - 1,
                                       .window_right = -1,
                                       .is_causal = 1,
                                       .query_offset = &offset};
            attend(context, &params, 1, col_stride);
            /* Rows at SEEN_BEGIN, SEEN_BEGIN + 1, ... that see themselves and what is before, but
             * no earlier than SEEN_BEGIN. */
            int64_t first = SEEN_BEGIN;
            assert_int_equal(attn_tensor_init(&offset, &first, ATTN_DTYPE_INT64, 0, NULL), ATTN_OK);
            params.window_left = 0;
            attend(context, &params, TGT, col_stride);
            /* The end by length instead of causality. */
            int64_t length = SEEN_END;
            attn_tensor lengths;
            assert_int_equal(attn_tensor_init(&lengths, &length, ATTN_DTYPE_INT64, 0, NULL),
                             ATTN_OK);
            params.is_causal = 0;
            params.key_lengths = &lengths;
            attend(context, &params, TGT, col_stride);
        }
        attn_context_destroy(context);
    }
}

/* Row i sees keys up to i; the value of key j is NaN from some j on: exactly the rows from j on are
 * NaN. */
static void causal_rows_before_a_nan_value_stay_finite(void **state) {
    (void)state;
    enum { LENGTH = 200 };
    float *x = malloc(LENGTH * FEATURES * sizeof *x);
    float *v = malloc(LENGTH * FEATURES * sizeof *v);
    float *out = malloc(LENGTH * FEATURES * sizeof *out);
    assert_true(x != NULL && v != NULL && out != NULL);
    const int64_t shape[] = {LENGTH, FEATURES};
    attn_tensor query;
    attn_tensor value;
    attn_tensor output;
    assert_int_equal(attn_tensor_init(&query, x, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&value, v, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    assert_int_equal(attn_tensor_init(&output, out, ATTN_DTYPE_FLOAT32, 2, shape), ATTN_OK);
    const attn_sdpa_params params = {.struct_size = sizeof params, .is_causal = 1};
    const int64_t first_nan[] = {0, 1, 31, 32, 63, 64, 65, 130, LENGTH - 1};
    for (size_t which = 0; which < sizeof first_nan / sizeof first_nan[0]; ++which) {
        for (int64_t i = 0; i < LENGTH * FEATURES; ++i) {
            x[i] = 0.01F * (float)(i % 11);
            v[i] = i / FEATURES >= first_nan[which] ? NAN : 1;
        }
        assert_int_equal(attn_sdpa(NULL, &query, &query, &value, &params, &output, NULL, 0),
                         ATTN_OK);
        for (int64_t i = 0; i < LENGTH * FEATURES; ++i) {
            assert_int_equal(isnan(out[i]) != 0, i / FEATURES >= first_nan[which]);
        }
    }
    free(x);
    free(v);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unseen_keys_in_guard_pages_are_not_read),
        cmocka_unit_test(causal_rows_before_a_nan_value_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
