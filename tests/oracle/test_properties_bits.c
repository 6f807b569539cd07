/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_properties_bits.c: what must not change a single bit of a result: the number of threads, who
 * runs them, the workspace, which of the arguments are one object, and calling again. All with the
 * library's own matrix product.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "property_setup.h"
#include "support/oracle_tensor.h"

/* Long enough that the library shares the work out. */
static const sdpa_sizes sizes_of_type[] = {
    {ATTN_DTYPE_FLOAT32, 1, 2, 1, 620, 640, 8, 6},
    {ATTN_DTYPE_FLOAT64, 2, 1, 1, 600, 610, 5, 9},
};
enum { NUM_SIZES = 2 };

static int32_t run_backwards(void *state, int64_t count, void (*task)(void *data, int64_t index),
                             void *data) {
    ++*(int *)state;
    while (count-- > 0) {
        task(data, count);
    }
    return 0;
}

/* Contexts whose results may not differ. The last one runs tasks in a function of its own and
 * counts its calls. */
enum { NUM_CONTEXTS = 5 };
static int num_backward_runs;

static void create_contexts(attn_context **contexts) {
    const int32_t threads[] = {1, 2, 3, 7};
    num_backward_runs = 0;
    for (int c = 0; c < 4; ++c) {
        contexts[c] = native_context(threads[c]);
    }
    const attn_context_config params = {.struct_size = sizeof params,
                                        .gemm = ATTN_GEMM_NATIVE,
                                        .parallel_for = run_backwards,
                                        .parallel_for_state = &num_backward_runs};
    assert_ok(attn_context_create(&params, &contexts[4]));
}

/* Fails if the tests' calls were too small to be shared out. */
static void destroy_contexts(attn_context **contexts) {
    assert_true(num_backward_runs > 0);
    for (int c = 0; c < NUM_CONTEXTS; ++c) {
        attn_context_destroy(contexts[c]);
    }
}

/* Causal, with a mask, a sink and an averaged row of weights: every output a call can have. */
static void add_options(sdpa_setup *setup) {
    attn_tensor *mask =
        pool_input(&setup->pool, ATTN_DTYPE_BOOL, 2,
                   (const int64_t[]){setup->sizes.rows, setup->sizes.keys}, LAYOUT_CONTIGUOUS);
    attn_tensor *sinks =
        pool_input(&setup->pool, setup->sizes.dtype, 1, &setup->sizes.heads, LAYOUT_CONTIGUOUS);
    random_fill_bool(mask, &setup->random, 0.3);
    random_fill(sinks, &setup->random, -1, 1, 0);
    setup->params.is_causal = 1;
    setup->params.mask = mask;
    setup->params.mask_kind = ATTN_MASK_BOOL_INCLUDE;
    setup->params.sinks = sinks;
}

/* The three outputs as copies. */
typedef struct kept_outputs {
    const attn_tensor *output, *lse, *weights;
} kept_outputs;

static kept_outputs keep_outputs(sdpa_setup *setup) {
    return (kept_outputs){copied(&setup->pool, setup->output), copied(&setup->pool, setup->lse),
                          copied(&setup->pool, setup->weights)};
}

static void assert_kept(const sdpa_setup *setup, const kept_outputs *kept) {
    assert_same_bits("output", setup->output, kept->output);
    assert_same_bits("lse", setup->lse, kept->lse);
    assert_same_bits("weights", setup->weights, kept->weights);
}

static void sdpa_bits_do_not_depend_on_threads(void **state) {
    (void)state;
    attn_context *contexts[NUM_CONTEXTS];
    create_contexts(contexts);
    for (int c = 0; c < NUM_SIZES; ++c) {
        sdpa_setup setup;
        sdpa_setup_create(&setup, &sizes_of_type[c], 127);
        add_options(&setup);
        sdpa_setup_run(contexts[0], &setup);
        oracle_result expected = sdpa_setup_expect(&setup);
        assert_sdpa_equals(&setup, &expected);
        oracle_result_destroy(&expected);
        const kept_outputs kept = keep_outputs(&setup);
        for (int k = 0; k < NUM_CONTEXTS; ++k) {
            sdpa_setup_run(contexts[k], &setup);
            assert_kept(&setup, &kept);
        }
        sdpa_setup_destroy(&setup);
    }
    destroy_contexts(contexts);
}

static void averaged_weights_bits_do_not_depend_on_threads(void **state) {
    (void)state;
    attn_context *contexts[NUM_CONTEXTS];
    create_contexts(contexts);
    for (int c = 0; c < NUM_SIZES; ++c) {
        const sdpa_sizes *s = &sizes_of_type[c];
        sdpa_setup setup;
        sdpa_setup_create(&setup, s, 131);
        add_options(&setup);
        setup.weights =
            pool_output(&setup.pool, s->dtype, 3, (const int64_t[]){s->batch, s->rows, s->keys},
                        LAYOUT_CONTIGUOUS);
        setup.params.weights = setup.weights;
        sdpa_setup_run(contexts[0], &setup);
        const kept_outputs kept = keep_outputs(&setup);
        for (int k = 1; k < NUM_CONTEXTS; ++k) {
            sdpa_setup_run(contexts[k], &setup);
            assert_kept(&setup, &kept);
        }
        sdpa_setup_destroy(&setup);
    }
    destroy_contexts(contexts);
}

static void mha_bits_do_not_depend_on_threads(void **state) {
    (void)state;
    const int32_t dtypes[] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64};
    attn_context *contexts[NUM_CONTEXTS];
    create_contexts(contexts);
    for (int d = 0; d < 2; ++d) {
        const attn_mha_config config = {.struct_size = sizeof config,
                                        .embed_dim = 12,
                                        .num_heads = 2,
                                        .dtype = dtypes[d],
                                        .add_zero_attn = 1};
        mha_setup setup;
        mha_setup_create(&setup, &config, 2, 260, 540, 137);
        mha_setup_run(contexts[0], &setup);
        const attn_tensor *output = copied(&setup.pool, setup.output),
                          *weights = copied(&setup.pool, setup.weights);
        for (int k = 1; k < NUM_CONTEXTS; ++k) {
            mha_setup_run(contexts[k], &setup);
            assert_same_bits("output", setup.output, output);
            assert_same_bits("weights", setup.weights, weights);
        }
        mha_setup_destroy(&setup);
    }
    destroy_contexts(contexts);
}

/* Layers whose projections are shared out, or a single row read through wide weights. */
static const attn_mha_config wide_configs[] = {
    {.struct_size = sizeof(attn_mha_config), .embed_dim = 72, .num_heads = 3, .batch_first = 1},
    {.struct_size = sizeof(attn_mha_config),
     .embed_dim = 100,
     .num_heads = 4,
     .num_kv_heads = 2,
     .kdim = 40,
     .vdim = 33,
     .dtype = ATTN_DTYPE_FLOAT64},
    {.struct_size = sizeof(attn_mha_config), .embed_dim = 520, .num_heads = 8, .add_bias_kv = 1},
};
static const int64_t wide_rows[] = {150, 130, 1};
enum { NUM_WIDE = 3 };

static void projected_bits_do_not_depend_on_threads(void **state) {
    (void)state;
    attn_context *contexts[NUM_CONTEXTS];
    create_contexts(contexts);
    for (int w = 0; w < NUM_WIDE; ++w) {
        mha_setup setup;
        mha_setup_create(&setup, &wide_configs[w], 2, wide_rows[w], 3, 163);
        mha_setup_run(contexts[0], &setup);
        const attn_tensor *output = copied(&setup.pool, setup.output);
        for (int k = 1; k < NUM_CONTEXTS; ++k) {
            mha_setup_run(contexts[k], &setup);
            assert_same_bits("output", setup.output, output);
        }
        mha_setup_destroy(&setup);
    }
    destroy_contexts(contexts);
}

/* Copied weights are kept in another order than bound ones are read in. */
static void mha_bits_do_not_depend_on_whose_the_parameters_are(void **state) {
    (void)state;
    attn_context *context = native_context(2);
    for (int w = 0; w < NUM_WIDE; ++w) {
        mha_setup setup;
        mha_setup_create(&setup, &wide_configs[w], 2, wide_rows[w], 5, 167);
        mha_setup_run(context, &setup);
        const attn_tensor *output = copied(&setup.pool, setup.output);
        for (int p = 0; p < setup.num_parameters; ++p) {
            assert_ok(attn_mha_bind_parameter(setup.layer, setup.parameters[p].name,
                                              &setup.parameters[p].values));
            mha_setup_run(context, &setup);
            assert_same_bits(setup.parameters[p].name, setup.output, output);
        }
        mha_setup_destroy(&setup);
    }
    attn_context_destroy(context);
}

/* A row of a long call is that row alone: no sum depends on how many others there are. */
static void projected_bits_do_not_depend_on_other_rows(void **state) {
    (void)state;
    attn_context *context = native_context(1);
    mha_setup setup;
    mha_setup_create(&setup, &wide_configs[0], 1, 1, 7, 169);
    setup.attention.weights = NULL;
    mha_setup_run(context, &setup);
    const attn_tensor *output = copied(&setup.pool, setup.output);
    const int64_t shape[] = {40, 1, wide_configs[0].embed_dim};
    attn_tensor *many = pool_output(&setup.pool, ATTN_DTYPE_FLOAT32, 3, shape, LAYOUT_CONTIGUOUS);
    attn_tensor inputs[] = {*setup.query, *setup.key, *setup.value};
    for (int i = 0; i < 3; ++i) {
        inputs[i].shape[0] = shape[0];
        inputs[i].strides[0] = 0;
    }
    assert_ok(attn_mha_forward(context, setup.layer, &inputs[0], &inputs[1], &inputs[2],
                               &setup.params, many, NULL, 0));
    attn_tensor repeated = *output;
    repeated.shape[0] = shape[0];
    repeated.strides[0] = 0;
    assert_same_bits("output", many, &repeated);
    mha_setup_destroy(&setup);
    attn_context_destroy(context);
}

/* A float32 forward of a context without settings calls no BLAS. */
static void default_float32_mha_is_the_native_one(void **state) {
    (void)state;
    attn_context *context = native_context(2);
    mha_setup setup;
    mha_setup_create(&setup, &wide_configs[0], 2, wide_rows[0], 90, 173);
    mha_setup_run(context, &setup);
    const attn_tensor *output = copied(&setup.pool, setup.output),
                      *weights = copied(&setup.pool, setup.weights);
    mha_setup_run(NULL, &setup);
    assert_same_bits("output", setup.output, output);
    assert_same_bits("weights", setup.weights, weights);
    mha_setup_destroy(&setup);
    attn_context_destroy(context);
}

static void softmax_bits_do_not_depend_on_threads(void **state) {
    (void)state;
    const int64_t shape[] = {700, 311};
    attn_context *contexts[NUM_CONTEXTS];
    create_contexts(contexts);
    random_state random = random_seeded(139);
    tensor_pool pool = {0};
    attn_tensor *input = pool_input(&pool, ATTN_DTYPE_FLOAT32, 2, shape, LAYOUT_CONTIGUOUS);
    attn_tensor *first = pool_output(&pool, ATTN_DTYPE_FLOAT32, 2, shape, LAYOUT_CONTIGUOUS);
    attn_tensor *output = pool_output(&pool, ATTN_DTYPE_FLOAT32, 2, shape, LAYOUT_TRANSPOSED);
    random_fill(input, &random, -5, 5, 0);
    assert_ok(attn_softmax(contexts[0], input, NULL, first, NULL, 0));
    for (int k = 0; k < NUM_CONTEXTS; ++k) {
        assert_ok(attn_softmax(contexts[k], input, NULL, output, NULL, 0));
        assert_same_bits("output", output, first);
    }
    pool_destroy(&pool);
    destroy_contexts(contexts);
}

/* A workspace at any address gives the bits of a call without one. */
static void sdpa_bits_do_not_depend_on_the_workspace(void **state) {
    (void)state;
    attn_context *context = native_context(2);
    sdpa_setup setup;
    sdpa_setup_create(&setup, &sizes_of_type[0], 149);
    add_options(&setup);
    sdpa_setup_run(context, &setup);
    const kept_outputs kept = keep_outputs(&setup);
    size_t bytes;
    assert_ok(attn_sdpa_workspace_bytes(context, setup.query, setup.key, setup.value, &setup.params,
                                        setup.output, &bytes));
    unsigned char *memory = oracle_allocate((int64_t)bytes + 64, 1);
    for (size_t shift = 0; shift < 64; shift += 7) {
        assert_ok(attn_sdpa(context, setup.query, setup.key, setup.value, &setup.params,
                            setup.output, memory + shift, bytes));
        assert_kept(&setup, &kept);
    }
    free(memory);
    sdpa_setup_destroy(&setup);
    attn_context_destroy(context);
}

/* sdpa(x, x, x) is sdpa of three copies of x. */
static void sdpa_bits_do_not_depend_on_which_arguments_are_one_tensor(void **state) {
    (void)state;
    attn_context *context = native_context(1);
    const sdpa_sizes sizes = {ATTN_DTYPE_FLOAT32, 2, 3, 3, 40, 40, 16, 16};
    sdpa_setup setup;
    sdpa_setup_create(&setup, &sizes, 151);
    attn_tensor *x = setup.query;
    setup.key = copied(&setup.pool, x);
    setup.value = copied(&setup.pool, x);
    sdpa_setup_run(context, &setup);
    const kept_outputs kept = keep_outputs(&setup);
    setup.value = setup.key;
    sdpa_setup_run(context, &setup);
    assert_kept(&setup, &kept);
    setup.key = setup.value = x;
    sdpa_setup_run(context, &setup);
    assert_kept(&setup, &kept);
    sdpa_setup_destroy(&setup);
    attn_context_destroy(context);
}

static void mha_bits_do_not_depend_on_which_arguments_are_one_tensor(void **state) {
    (void)state;
    attn_context *context = native_context(2);
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = 32, .num_heads = 4, .batch_first = 1};
    mha_setup setup;
    mha_setup_create(&setup, &config, 3, 29, 29, 157);
    attn_tensor *x = setup.query;
    setup.key = copied(&setup.pool, x);
    setup.value = copied(&setup.pool, x);
    mha_setup_run(context, &setup);
    const attn_tensor *output = copied(&setup.pool, setup.output),
                      *weights = copied(&setup.pool, setup.weights);
    setup.value = setup.key;
    mha_setup_run(context, &setup);
    assert_same_bits("output with key = value", setup.output, output);
    assert_same_bits("weights with key = value", setup.weights, weights);
    setup.key = setup.value = x;
    mha_setup_run(context, &setup);
    assert_same_bits("output with query = key = value", setup.output, output);
    assert_same_bits("weights with query = key = value", setup.weights, weights);
    mha_setup_destroy(&setup);
    attn_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sdpa_bits_do_not_depend_on_threads),
        cmocka_unit_test(averaged_weights_bits_do_not_depend_on_threads),
        cmocka_unit_test(mha_bits_do_not_depend_on_threads),
        cmocka_unit_test(projected_bits_do_not_depend_on_threads),
        cmocka_unit_test(mha_bits_do_not_depend_on_whose_the_parameters_are),
        cmocka_unit_test(projected_bits_do_not_depend_on_other_rows),
        cmocka_unit_test(default_float32_mha_is_the_native_one),
        cmocka_unit_test(softmax_bits_do_not_depend_on_threads),
        cmocka_unit_test(sdpa_bits_do_not_depend_on_the_workspace),
        cmocka_unit_test(sdpa_bits_do_not_depend_on_which_arguments_are_one_tensor),
        cmocka_unit_test(mha_bits_do_not_depend_on_which_arguments_are_one_tensor),
    };
    return cmocka_run_group_tests_name("properties of bits", tests, NULL, NULL);
}
