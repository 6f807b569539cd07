/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_shared_context.c: many threads share one context and one layer, and a forked child computes
 * too. With the native product every result must have the bits of a call made alone; BLAS, whose
 * sums may be ordered by its own threads, must agree to rounding.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/attention.h>

enum { EMBED = 32, HEADS = 4, LONGEST = 300, CALLERS = 8, CALLS = 24, SIZES = 4 };

/* Large enough to use the context's threads, and too small for that. */
static const int64_t lengths[SIZES] = {1, 7, 96, LONGEST};

/* One forward of self-attention over the first `length` positions of a fixed input. */
static attn_status attend(attn_context *context, const attn_mha *layer, int64_t length,
                          float *out) {
    float *input = malloc((size_t)length * EMBED * sizeof *input);
    if (input == NULL) {
        return ATTN_ERROR_MEMORY;
    }
    for (int64_t i = 0; i < length * EMBED; ++i) {
        input[i] = sinf(0.37F * (float)i);
    }
    attn_tensor x;
    attn_tensor y;
    const int64_t shape[] = {length, EMBED};
    const attn_sdpa_params attention = {.struct_size = sizeof attention, .is_causal = length > 50};
    const attn_mha_params params = {.struct_size = sizeof params, .attention = &attention};
    attn_status status = attn_tensor_init(&x, input, ATTN_DTYPE_FLOAT32, 2, shape);
    status = status != ATTN_OK ? status : attn_tensor_init(&y, out, ATTN_DTYPE_FLOAT32, 2, shape);
    status = status != ATTN_OK ? status
                               : attn_mha_forward(context, layer, &x, &x, &x, &params, &y, NULL, 0);
    free(input);
    return status;
}

/* What all callers share, and what each call must give. */
typedef struct shared {
    attn_context *context;
    attn_mha *layer;
    float expected[SIZES][LONGEST * EMBED];
    float tolerance;
} shared;

static int count_differences(const shared *with, int size, const float *out) {
    int differences = 0;
    for (int64_t i = 0; i < lengths[size] * EMBED; ++i) {
        differences += !(fabsf(out[i] - with->expected[size][i]) <= with->tolerance);
    }
    return differences;
}

static void *call_many_times(void *data) {
    const shared *with = data;
    float *out = malloc(LONGEST * EMBED * sizeof *out);
    intptr_t differences = out == NULL;
    for (int call = 0; out != NULL && call < CALLS; ++call) {
        const int size = call % SIZES;
        if (attend(with->context, with->layer, lengths[size], out) != ATTN_OK) {
            ++differences;
            continue;
        }
        differences += count_differences(with, size, out);
    }
    free(out);
    return (void *)differences; /* NOLINT: a count, not an address */
}

static shared *share(int32_t gemm, int32_t num_threads) {
    shared *with = calloc(1, sizeof *with);
    assert_non_null(with);
    const attn_context_config settings = {
        .struct_size = sizeof settings, .num_threads = num_threads, .gemm = gemm};
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = EMBED, .num_heads = HEADS};
    const attn_status made = attn_context_create(&settings, &with->context);
    if (made == ATTN_ERROR_UNSUPPORTED) {
        free(with);
        return NULL;
    }
    assert_int_equal(made, ATTN_OK);
    assert_int_equal(attn_mha_create(with->context, &config, &with->layer), ATTN_OK);
    assert_int_equal(attn_mha_init_parameters(NULL, with->layer, NULL), ATTN_OK);
    with->tolerance = gemm == ATTN_GEMM_NATIVE ? 0 : 1e-5F;
    for (int size = 0; size < SIZES; ++size) {
        assert_int_equal(attend(with->context, with->layer, lengths[size], with->expected[size]),
                         ATTN_OK);
    }
    return with;
}

static void release_shared(shared *with) {
    attn_mha_destroy(with->layer);
    attn_context_destroy(with->context);
    free(with);
}

static const int32_t products[] = {ATTN_GEMM_NATIVE, ATTN_GEMM_BLAS};

static void concurrent_callers_get_what_a_lone_caller_gets(void **state) {
    (void)state;
    for (int which = 0; which < 2; ++which) {
        shared *with = share(products[which], 3);
        if (with == NULL) {
            printf("left out: %s\n", attn_last_error());
            continue;
        }
        pthread_t callers[CALLERS];
        for (int i = 0; i < CALLERS; ++i) {
            assert_int_equal(pthread_create(&callers[i], NULL, call_many_times, with), 0);
        }
        intptr_t differences = 0;
        for (int i = 0; i < CALLERS; ++i) {
            void *result;
            assert_int_equal(pthread_join(callers[i], &result), 0);
            differences += (intptr_t)result;
        }
        printf("%s product: %d callers, %d calls each, %d differences\n",
               which == 0 ? "native" : "BLAS", CALLERS, CALLS, (int)differences);
        assert_int_equal(differences, 0);
        release_shared(with);
    }
}

static void forked_child_computes_while_its_parent_has_threads(void **state) {
    (void)state;
    shared *with = share(ATTN_GEMM_NATIVE, 3);
    assert_non_null(with);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(100);
        const intptr_t differences = (intptr_t)call_many_times(with);
        attn_mha_destroy(with->layer);
        attn_context_destroy(with->context);
        _exit(differences == 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal((intptr_t)call_many_times(with), 0);
    release_shared(with);
}

static void contexts_come_and_go_while_others_compute(void **state) {
    (void)state;
    shared *with = share(ATTN_GEMM_NATIVE, 2);
    assert_non_null(with);
    pthread_t caller;
    assert_int_equal(pthread_create(&caller, NULL, call_many_times, with), 0);
    float *out = malloc(LONGEST * EMBED * sizeof *out);
    assert_non_null(out);
    for (int i = 0; i < 20; ++i) {
        const attn_context_config settings = {
            .struct_size = sizeof settings, .num_threads = 2, .gemm = ATTN_GEMM_NATIVE};
        attn_context *other;
        assert_int_equal(attn_context_create(&settings, &other), ATTN_OK);
        assert_int_equal(attend(other, with->layer, LONGEST, out), ATTN_OK);
        assert_int_equal(count_differences(with, SIZES - 1, out), 0);
        attn_context_destroy(other);
    }
    void *result;
    assert_int_equal(pthread_join(caller, &result), 0);
    assert_int_equal((intptr_t)result, 0);
    free(out);
    release_shared(with);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(concurrent_callers_get_what_a_lone_caller_gets),
        cmocka_unit_test(forked_child_computes_while_its_parent_has_threads),
        cmocka_unit_test(contexts_come_and_go_while_others_compute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
