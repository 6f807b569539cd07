/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_selftest_integers.c: the self-test finds kernels of quantised keys and values, and of the
 * backward pass, that are wrong, one member of their tables at a time; with the right ones it finds
 * nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <attention/attention.h>

#include "context/context.h"
#include "kernels/kernel_select.h"
#include "selftest/planted_faults.h"

static const attni_kernel_set *right;
static int is_double; /* of the gradients at fault */

/* ---- kernels with a fault: they do what the right ones do and then spoil a number ---- */

#define SPOIL_DEQUANTIZED(kind)                                                      \
    static void spoil_##kind(float *to, const void *from, int64_t stride, int64_t n, \
                             attni_value_numbers numbers) {                          \
        right->quantized->kind(to, from, stride, n, numbers);                        \
        to[n - 1] += n > 0 ? 1.0F : 0.0F;                                            \
    }

SPOIL_DEQUANTIZED(int8)
SPOIL_DEQUANTIZED(uint8)
SPOIL_DEQUANTIZED(int4x2)
SPOIL_DEQUANTIZED(uint4x2)
SPOIL_DEQUANTIZED(q8_0)
SPOIL_DEQUANTIZED(q4_0)

static void score_int8(float *tile, int64_t tile_stride, int32_t num_rows, const float *queries,
                       int64_t head_dim, const attni_stream_rows *keys, int64_t num_keys) {
    right->int8_streams->score(tile, tile_stride, num_rows, queries, head_dim, keys, num_keys);
    tile[num_keys - 1] += 1;
}

static void exponentiate_int8(float *tile, int64_t tile_stride, int32_t num_rows, int64_t num_keys,
                              attni_panel_state *state) {
    right->int8_streams->exponentiate(tile, tile_stride, num_rows, num_keys, state);
    tile[0] += 1;
}

static void weigh_int8(float *sums, int64_t sum_stride, const float *rescale, const float *tile,
                       int64_t tile_stride, int32_t num_rows, const attni_stream_rows *values,
                       int64_t num_keys, int64_t value_dim) {
    right->int8_streams->weigh(sums, sum_stride, rescale, tile, tile_stride, num_rows, values,
                               num_keys, value_dim);
    sums[value_dim - 1] += 1;
}

static const attni_gradient_kernels *right_gradients(void) {
    return is_double ? right->gradients_float64 : right->gradients_float32;
}

static void spoil_last(void *row, int64_t n) {
    if (n > 0 && is_double) {
        ((double *)row)[n - 1] += 1;
    } else if (n > 0) {
        ((float *)row)[n - 1] += 1;
    }
}

static void gradient_softmax(void *scores, void *gradient, int64_t n, double lse, double mean,
                             double factor) {
    right_gradients()->softmax(scores, gradient, n, lse, mean, factor);
    spoil_last(gradient, n);
}

static void gradient_sigmoid(void *scores, void *gradient, int64_t n, double factor) {
    right_gradients()->sigmoid(scores, gradient, n, factor);
    spoil_last(scores, n);
}

static void gradient_linear(void *scores, void *gradient, int64_t n, double factor) {
    right_gradients()->linear(scores, gradient, n, factor);
    spoil_last(gradient, n);
}

static void gradient_softcap(void *gradient, const void *capped, int64_t n, double cap) {
    right_gradients()->softcap(gradient, capped, n, cap);
    spoil_last(gradient, n);
}

static void gradient_add(void *to, const void *from, int64_t n) {
    right_gradients()->add(to, from, n);
    spoil_last(to, n);
}

static double gradient_dot(const void *a, const void *b, int64_t n) {
    return right_gradients()->dot(a, b, n) + 1;
}

static double gradient_sum(const void *row, int64_t n) {
    return right_gradients()->sum(row, n) + 1;
}

static bool gradient_is_finite(const void *row, int64_t n) {
    (void)row, (void)n;
    return true;
}

/* ---- what is found ---- */

static attni_kernel_set kernels;
static attni_quantized_kernels quantized;
static attni_stream_kernels int8_streams;
static attni_gradient_kernels gradients;

static void make_kernels_right(void) {
    quantized = *right->quantized;
    int8_streams = *right->int8_streams;
    gradients = *right_gradients();
    kernels = *right;
    kernels.quantized = &quantized;
    kernels.int8_streams = &int8_streams;
    *(is_double ? &kernels.gradients_float64 : &kernels.gradients_float32) = &gradients;
}

const attni_kernel_set *__wrap_attni_context_kernels(const attn_context *context);
const attni_kernel_set *__wrap_attni_context_kernels(const attn_context *context) {
    (void)context;
    return &kernels;
}

/* The first check that failed. */
typedef struct first_failure {
    const char *check;
    char detail[512];
} first_failure;

static void note_first(void *state, const char *check, attn_status status, const char *detail) {
    first_failure *first = state;
    if (status != ATTN_OK && first->check == NULL) {
        first->check = check;
        (void)snprintf(first->detail, sizeof first->detail, "%s", detail);
    }
}

/* `check` NULL: nothing is found; else by that check, whose detail begins with `text`. */
static void assert_finds(const char *fault, const char *check, const char *text) {
    const attn_context_config config = {
        .struct_size = sizeof config, .num_threads = 2, .gemm = ATTN_GEMM_NATIVE};
    attn_context *context;
    first_failure first = {0};
    assert_int_equal(attn_context_create(&config, &context), ATTN_OK);
    const attn_selftest_params params = {
        .struct_size = sizeof params, .visit = note_first, .visit_state = &first};
    const attn_status status = attn_selftest(context, &params);
    attn_context_destroy(context);
    assert_int_equal(status, check == NULL ? ATTN_OK : ATTN_ERROR_SELFTEST);
    const char *found = first.check == NULL ? "" : first.check;
    if (strcmp(found, check == NULL ? "" : check) != 0 ||
        strncmp(first.detail, text, strlen(text)) != 0) {
        fail_msg("%s: expected \"%s\" to find \"%s\", got \"%s\": %s", fault,
                 check == NULL ? "nothing" : check, text, found, first.detail);
    }
}

#define FAULT(member, function, check, text)    \
    do {                                        \
        if (fault_is_tried(check)) {            \
            make_kernels_right();               \
            (member) = (function);              \
            assert_finds(#member, check, text); \
        }                                       \
    } while (0)

static void faults_of_quantised_kernels_are_found(void **state) {
    (void)state;
    static const char caches[] = "quantised caches";
    right = attni_kernel_set_find(NULL);
    make_kernels_right();
    assert_finds("nothing", NULL, "");
    FAULT(int8_streams.score, score_int8, caches, "attention over int8 as it is stored: ");
    FAULT(int8_streams.weigh, weigh_int8, caches, "attention over int8 as it is stored: ");
    FAULT(int8_streams.exponentiate, exponentiate_int8, caches,
          "attention over int8 as it is stored, softmax: ");
    FAULT(quantized.int8, spoil_int8, caches, "attention over int8: ");
    FAULT(quantized.uint8, spoil_uint8, caches, "attention over uint8: ");
    FAULT(quantized.int4x2, spoil_int4x2, caches, "attention over int4x2: ");
    FAULT(quantized.uint4x2, spoil_uint4x2, caches, "attention over uint4x2: ");
    FAULT(quantized.q8_0, spoil_q8_0, caches, "attention over q8_0: ");
    FAULT(quantized.q4_0, spoil_q4_0, caches, "attention over q4_0: ");
}

static void find_faults_of_gradients(const char *check) {
    static const char softmax[] = "gradients with softmax, ";
    static const char linear[] = "gradients with linear weights, ";
    FAULT(gradients.linear, gradient_linear, check, linear);
    FAULT(gradients.add, gradient_add, check, linear);
    FAULT(gradients.softmax, gradient_softmax, check, softmax);
    FAULT(gradients.dot, gradient_dot, check, softmax);
    FAULT(gradients.sum, gradient_sum, check, "gradients with ");
    FAULT(gradients.sigmoid, gradient_sigmoid, check, "gradients with sigmoid, ");
    FAULT(gradients.softcap, gradient_softcap, check, "gradients with softcap, ");
    FAULT(gradients.is_finite, gradient_is_finite, check, "gradients beside a hidden NaN, ");
}

static void faults_of_gradients_are_found(void **state) {
    (void)state;
    static const char *const checks[] = {"gradients, float32", "gradients, float64"};
    right = attni_kernel_set_find(NULL);
    for (is_double = 0; is_double < 2; ++is_double) {
        find_faults_of_gradients(checks[is_double]);
    }
    is_double = 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_of_quantised_kernels_are_found),
        cmocka_unit_test(faults_of_gradients_are_found),
    };
    return cmocka_run_group_tests_name("the self-test of integers", tests, NULL, NULL);
}
