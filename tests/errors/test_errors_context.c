/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_context.c: what making and describing a context says of settings it refuses, the
 * environment of the default context included.
 */
#include <stdlib.h>
#include <string.h>

#include "counting_allocator.h"
#include "sdpa_fixture.h"
#include "rope_fixture.h"
#include "softmax_fixture.h"

/* Fails the test unless the context computes the right numbers. */
static void assert_usable(attn_context *context) {
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, context);
    refusal_assert_ok("attn_sdpa", sdpa_fixture_run(&fixture));
    sdpa_fixture_assert_values(&fixture);
}

static void *allocate(void *state, size_t bytes, size_t alignment) {
    (void)state;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void deallocate(void *state, void *memory, size_t bytes, size_t alignment) {
    (void)state;
    (void)bytes;
    (void)alignment;
    free(memory);
}

static int32_t inline_for(void *state, int64_t count, attn_task_fn task, void *data) {
    (void)state;
    for (int64_t index = 0; index < count; ++index) {
        task(data, index);
    }
    return 0;
}

/* allocator_state is the last field of a struct that the first release reads. */
enum { RELEASE_0_1 = offsetof(attn_context_config, allocator_state) + sizeof(void *) };

typedef struct context_refusal {
    const char *name;
    attn_context_config params; /* struct_size 0: today's */
    attn_status status;
    const char *line;
} context_refusal;

static const context_refusal refused[] = {
    {.name = "num_threads_negative_is_refused",
     .params = {.num_threads = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "num_threads: expected 0 to 1024, got -1"},
    {.name = "num_threads_1025_is_refused",
     .params = {.num_threads = 1025},
     .status = ATTN_ERROR_VALUE,
     .line = "num_threads: expected 0 to 1024, got 1025"},
    {.name = "num_threads_highest_is_refused",
     .params = {.num_threads = INT32_MAX},
     .status = ATTN_ERROR_VALUE,
     .line = "num_threads: expected 0 to 1024, got 2147483647"},
    {.name = "engine_unknown_is_refused",
     .params = {.engine = 3},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "engine: expected a value of enum attn_engine, 0 to 2 in this version, got 3"},
    {.name = "engine_negative_is_refused",
     .params = {.engine = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "engine: expected a value of enum attn_engine, 0 to 2 in this version, got -1"},
    {.name = "gemm_unknown_is_refused",
     .params = {.gemm = 3},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "gemm: expected a value of enum attn_gemm, 0 to 2 in this version, got 3"},
    {.name = "gemm_negative_is_refused",
     .params = {.gemm = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "gemm: expected a value of enum attn_gemm, 0 to 2 in this version, got -1"},
    {.name = "width_negative_is_refused",
     .params = {.parallel_for_width = -1, .parallel_for = inline_for},
     .status = ATTN_ERROR_VALUE,
     .line = "parallel_for_width: expected 0 to 1024, got -1"},
    {.name = "width_1025_is_refused",
     .params = {.parallel_for_width = 1025, .parallel_for = inline_for},
     .status = ATTN_ERROR_VALUE,
     .line = "parallel_for_width: expected 0 to 1024, got 1025"},
    {.name = "width_without_parallel_for_is_refused",
     .params = {.parallel_for_width = 1},
     .status = ATTN_ERROR_VALUE,
     .line = "parallel_for_width: expected 0 without parallel_for, got 1"},
    {.name = "num_threads_beside_parallel_for_is_refused",
     .params = {.num_threads = 1, .parallel_for = inline_for},
     .status = ATTN_ERROR_VALUE,
     .line = "num_threads: expected 0 beside parallel_for, whose width is parallel_for_width, got "
             "1"},
    {.name = "num_threads_beside_parallel_for_and_its_width_is_refused",
     .params = {.num_threads = 2, .parallel_for_width = 2, .parallel_for = inline_for},
     .status = ATTN_ERROR_VALUE,
     .line = "num_threads: expected 0 beside parallel_for, whose width is parallel_for_width, got "
             "2"},
    {.name = "kernels_unknown_is_refused",
     .params = {.kernels = "abacus"},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "kernels: expected kernels that this build and CPU have (the best are \"..."},
    {.name = "kernels_empty_is_refused",
     .params = {.kernels = ""},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "kernels: expected kernels that this build and CPU have (the best are \"..."},
    {.name = "kernels_of_two_lines_is_refused",
     .params = {.kernels = "avx2\navx512"},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "kernels: expected kernels that this build and CPU have (the best are \"..."},
    {.name = "allocate_alone_is_refused",
     .params = {.allocate = allocate},
     .status = ATTN_ERROR_VALUE,
     .line = "deallocate: expected allocate and deallocate together, got only the other"},
    {.name = "deallocate_alone_is_refused",
     .params = {.deallocate = deallocate},
     .status = ATTN_ERROR_VALUE,
     .line = "allocate: expected allocate and deallocate together, got only the other"},
    {.name = "float32_weights_negative_is_refused",
     .params = {.float32_weights = -1},
     .status = ATTN_ERROR_VALUE,
     .line = "float32_weights: expected 0 or 1, got -1"},
    {.name = "float32_weights_of_a_later_version_is_refused",
     .params = {.float32_weights = 2},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "float32_weights: expected 0 or 1, got 2"},
    {.name = "reserved_set_is_refused",
     .params = {.reserved = 1},
     .status = ATTN_ERROR_UNSUPPORTED,
     .line = "reserved: expected 0 in this version, got 1"},
    {.name = "struct_size_below_first_release_is_refused",
     .params = {.struct_size = RELEASE_0_1 - 1},
     .status = ATTN_ERROR_VALUE,
     .line = "config: expected struct_size ..."},
};

static void test_refusal(void **state) {
    const context_refusal *entry = *state;
    attn_context_config params = entry->params;
    if (params.struct_size == 0) {
        params.struct_size = sizeof params;
    }
    attn_context *context = (attn_context *)&params;
    refusal_assert("attn_context_create", attn_context_create(&params, &context), entry->status,
                   entry->line);
    assert_null(context);
    refusal_assert("attn_context_create", attn_context_create(&params, NULL), ATTN_ERROR_NULL,
                   "context: expected a place for the result, got NULL");
    const attn_context_config valid = {.struct_size = sizeof valid};
    refusal_assert_ok("attn_context_create", attn_context_create(&valid, &context));
    attn_context_destroy(context);
}

static void struct_size_zero_is_refused(void **state) {
    (void)state;
    const attn_context_config params = {.num_threads = 1};
    attn_context *context;
    refusal_assert("attn_context_create", attn_context_create(&params, &context), ATTN_ERROR_VALUE,
                   refusal_size_line("config", RELEASE_0_1, 0));
    assert_null(context);
}

static void newer_struct_is_accepted_until_it_asks_for_more(void **state) {
    (void)state;
    union {
        attn_context_config known;
        unsigned char bytes[sizeof(attn_context_config) + 24];
    } newer;
    memset(&newer, 0, sizeof newer);
    newer.known.struct_size = sizeof newer;
    attn_context *context;
    refusal_assert_ok("attn_context_create", attn_context_create(&newer.known, &context));
    assert_usable(context);
    attn_context_destroy(context);
    newer.bytes[sizeof newer.known + 9] = 200;
    refusal_assert("attn_context_create", attn_context_create(&newer.known, &context),
                   ATTN_ERROR_UNSUPPORTED,
                   refusal_newer_line("config", sizeof newer.known, sizeof newer.known + 9));
    assert_null(context);
}

static void struct_of_first_release_is_accepted(void **state) {
    (void)state;
    const attn_context_config params = {
        .struct_size = RELEASE_0_1, .allocate = allocate, .deallocate = deallocate};
    attn_context *context;
    refusal_assert_ok("attn_context_create", attn_context_create(&params, &context));
    assert_usable(context);
    attn_context_destroy(context);
}

/* A build without BLAS refuses ATTN_GEMM_BLAS, any other has it. */
static void gemm_blas_is_refused_without_blas(void **state) {
    (void)state;
    attn_context_info info = {.struct_size = sizeof info};
    attn_context *context;
    const attn_context_config defaults = {.struct_size = sizeof defaults};
    refusal_assert_ok("attn_context_create", attn_context_create(&defaults, &context));
    refusal_assert_ok("attn_context_describe", attn_context_describe(context, &info));
    attn_context_destroy(context);
    const attn_context_config params = {.struct_size = sizeof params, .gemm = ATTN_GEMM_BLAS};
    const attn_status status = attn_context_create(&params, &context);
    if (strcmp(info.blas, "none") == 0) {
        refusal_assert("attn_context_create", status, ATTN_ERROR_UNSUPPORTED,
                       "gemm: ATTN_GEMM_BLAS was asked for, but this build has no BLAS");
        assert_null(context);
    } else {
        refusal_assert_ok("attn_context_create", status);
        attn_context_destroy(context);
    }
}

static void describe_refuses_info_without_its_size(void **state) {
    (void)state;
    attn_context *context;
    refusal_assert_ok("attn_context_create", attn_context_create(NULL, &context));
    refusal_assert("attn_context_describe", attn_context_describe(context, NULL), ATTN_ERROR_NULL,
                   "info: expected a struct to fill, got NULL");
    const uint64_t sizes[] = {0, 8, sizeof(attn_context_info) - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
        attn_context_info info;
        refusal_fill(&info, sizeof info);
        info.struct_size = sizes[i];
        refusal_assert("attn_context_describe", attn_context_describe(context, &info),
                       ATTN_ERROR_VALUE, refusal_size_line("info", sizeof info, sizes[i]));
        refusal_assert_untouched("info", &info.num_threads, sizeof info - sizeof info.struct_size);
    }
    attn_context_destroy(context);
}

/* What a larger, newer info has beyond today's fields becomes 0. */
static void describe_clears_unknown_fields(void **state) {
    (void)state;
    union {
        attn_context_info known;
        unsigned char bytes[sizeof(attn_context_info) + 16];
    } newer;
    refusal_fill(&newer, sizeof newer);
    newer.known.struct_size = sizeof newer;
    attn_context *context;
    const attn_context_config params = {.struct_size = sizeof params, .num_threads = 3};
    refusal_assert_ok("attn_context_create", attn_context_create(&params, &context));
    refusal_assert_ok("attn_context_describe", attn_context_describe(context, &newer.known));
    assert_int_equal(newer.known.struct_size, sizeof newer);
    assert_int_equal(newer.known.num_threads, 3);
    for (size_t i = sizeof newer.known; i < sizeof newer; ++i) {
        assert_int_equal(newer.bytes[i], 0);
    }
    attn_context_destroy(context);
}

static void destroy_accepts_null(void **state) {
    (void)state;
    attn_context_destroy(NULL);
    attn_mha_destroy(NULL);
}

/* What computes nothing wants no context, or memory alone. */
static void assert_works_without_default(attn_mha *layer, const attn_tensor *input,
                                         const attn_tensor *bias) {
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    attn_mha_outputs layer_outputs = {.struct_size = sizeof layer_outputs};
    attn_mha_config config = {.struct_size = sizeof config};
    refusal_assert_ok("attn_sdpa_describe_outputs",
                      attn_sdpa_describe_outputs(input, input, input, NULL, &outputs));
    refusal_assert_ok("attn_mha_describe_outputs",
                      attn_mha_describe_outputs(layer, input, input, input, NULL, &layer_outputs));
    refusal_assert_ok("attn_mha_describe", attn_mha_describe(layer, &config));
    refusal_assert_ok("attn_mha_bind_parameter",
                      attn_mha_bind_parameter(layer, "out_proj.bias", bias));
}

/* As are those about a layer, and the queries. */
static void assert_default_refused_of_layers(attn_status status, const char *line) {
    const attn_mha_config config = {.struct_size = sizeof config, .embed_dim = 1, .num_heads = 1};
    attn_mha *layer;
    refusal_assert_ok("attn_mha_create", attn_mha_create(NULL, &config, &layer));
    float data[2] = {0};
    const int64_t shape[] = {1, 1};
    const attn_tensor input = refusal_view(&data[0], ATTN_DTYPE_FLOAT32, 2, shape);
    const attn_tensor output = refusal_view(&data[1], ATTN_DTYPE_FLOAT32, 2, shape);
    size_t bytes = 77;
    refusal_assert("attn_mha_forward",
                   attn_mha_forward(NULL, layer, &input, &input, &input, NULL, &output, NULL, 0),
                   status, line);
    refusal_assert(
        "attn_mha_workspace_bytes",
        attn_mha_workspace_bytes(NULL, layer, &input, &input, &input, NULL, &output, &bytes),
        status, line);
    refusal_assert("attn_softmax_workspace_bytes",
                   attn_softmax_workspace_bytes(NULL, &input, NULL, &output, &bytes), status, line);
    sdpa_fixture sdpa;
    sdpa_fixture_prepare(&sdpa, NULL);
    refusal_assert("attn_sdpa_workspace_bytes", sdpa_fixture_workspace_bytes(&sdpa, &bytes), status,
                   line);
    attn_sdpa_report report = {.struct_size = sizeof report};
    refusal_assert("attn_sdpa_explain", sdpa_fixture_explain(&sdpa, &report), status, line);
    attn_mha_report layer_report = {.struct_size = sizeof layer_report};
    refusal_assert(
        "attn_mha_explain",
        attn_mha_explain(NULL, layer, &input, &input, &input, NULL, &output, &layer_report), status,
        line);
    const int64_t bias_shape[] = {1};
    const attn_tensor bias = refusal_view(&data[1], ATTN_DTYPE_FLOAT32, 1, bias_shape);
    refusal_assert("attn_mha_load_parameter",
                   attn_mha_load_parameter(NULL, layer, "out_proj.bias", &bias, NULL), status,
                   line);
    refusal_assert("attn_mha_read_parameter",
                   attn_mha_read_parameter(NULL, layer, "out_proj.bias", &bias), status, line);
    refusal_assert("attn_mha_init_parameters", attn_mha_init_parameters(NULL, layer, NULL), status,
                   line);
    refusal_assert("attn_selftest", attn_selftest(NULL, NULL), status, line);
    refusal_assert("attn_context_start", attn_context_start(NULL), status, line);
    assert_int_equal(bytes, 77);
    assert_true(data[1] == 0);
    assert_works_without_default(layer, &input, &bias);
    attn_mha_destroy(layer);
}

/* Every kind of call with the default context fails while a variable is bad. */
static void assert_default_refused(attn_status status, const char *line) {
    sdpa_fixture sdpa;
    sdpa_fixture_prepare(&sdpa, NULL);
    sdpa_memory before;
    memcpy(&before, &sdpa.memory, sizeof before);
    refusal_assert("attn_sdpa", sdpa_fixture_run(&sdpa), status, line);
    assert_memory_equal(&sdpa.memory, &before, sizeof before);
    softmax_fixture softmax;
    softmax_fixture_prepare(&softmax, NULL);
    refusal_assert("attn_softmax", softmax_fixture_run(&softmax), status, line);
    refusal_assert_untouched("output", softmax.memory.output, sizeof softmax.memory.output);
    rope_fixture rope;
    rope_fixture_prepare(&rope, NULL);
    refusal_assert("attn_rope", rope_fixture_run(&rope), status, line);
    refusal_assert("attn_rms_norm", rope_fixture_normalize(&rope), status, line);
    refusal_assert_untouched("output", rope.memory.output, sizeof rope.memory.output);
    attn_context_info info;
    refusal_fill(&info, sizeof info);
    info.struct_size = sizeof info;
    refusal_assert("attn_context_describe", attn_context_describe(NULL, &info), status, line);
    refusal_assert_untouched("info", &info.num_threads, sizeof info - sizeof info.struct_size);
    assert_default_refused_of_layers(status, line);
}

/* The default context is made once, so this is the only test of the program that uses it, and the
 * order within matters. */
static void bad_environment_is_refused_until_corrected(void **state) {
    (void)state;
    static const struct {
        const char *value;
        const char *line;
    } threads[] = {
        {"0", "ATTN_NUM_THREADS: expected 1 to 1024, got \"0\""},
        {"1025", "ATTN_NUM_THREADS: expected 1 to 1024, got \"1025\""},
        {"-1", "ATTN_NUM_THREADS: expected 1 to 1024, got \"-1\""},
        {"two", "ATTN_NUM_THREADS: expected 1 to 1024, got \"two\""},
        {"2x", "ATTN_NUM_THREADS: expected 1 to 1024, got \"2x\""},
        {"99999999999999999999",
         "ATTN_NUM_THREADS: expected 1 to 1024, got \"99999999999999999999\""},
        {"4\n", "ATTN_NUM_THREADS: expected 1 to 1024, got \"4..."},
    };
    unsetenv("ATTN_KERNELS");
    for (size_t i = 0; i < sizeof threads / sizeof threads[0]; ++i) {
        setenv("ATTN_NUM_THREADS", threads[i].value, 1);
        assert_default_refused(ATTN_ERROR_VALUE, threads[i].line);
    }
    setenv("ATTN_KERNELS", "abacus", 1);
    static const char *const valid[] = {"", "2"}; /* empty is as if it were not there */
    for (size_t i = 0; i < sizeof valid / sizeof valid[0]; ++i) {
        setenv("ATTN_NUM_THREADS", valid[i], 1);
        assert_default_refused(
            ATTN_ERROR_UNSUPPORTED,
            "ATTN_KERNELS: expected kernels that this build and CPU have (the best are \"...");
    }
    setenv("ATTN_KERNELS", "", 1);
    assert_usable(NULL);
    setenv("ATTN_NUM_THREADS", "bad, but no longer read", 1);
    assert_usable(NULL);
    attn_context_info info = {.struct_size = sizeof info};
    refusal_assert_ok("attn_context_describe", attn_context_describe(NULL, &info));
    assert_int_equal(info.num_threads, 2);
}

static void memory_is_of_the_contexts_allocator(void **state) {
    (void)state;
    counting_allocator allocator;
    attn_context *context;
    attn_context_config config = {.struct_size = sizeof config};
    counting_allocator_init(&allocator);
    counting_allocator_use(&allocator, &config);
    refusal_assert_ok("attn_context_create", attn_context_create(&config, &context));
    const int own_blocks = allocator.live_blocks;
    void *memory = &memory;
    refusal_assert_ok("attn_context_allocate", attn_context_allocate(context, 77, &memory));
    assert_int_equal(allocator.live_blocks, own_blocks + 1);
    assert_int_equal((uintptr_t)memory % 64, 0);
    attn_context_deallocate(context, memory, 77);
    attn_context_deallocate(context, NULL, 5);
    assert_int_equal(allocator.live_blocks, own_blocks);
    counting_allocator_fail(&allocator, 1, false);
    refusal_assert("attn_context_allocate", attn_context_allocate(context, 77, &memory),
                   ATTN_ERROR_MEMORY, "memory: could not allocate 77 bytes");
    assert_null(memory);
    refusal_assert("attn_context_allocate", attn_context_allocate(context, 77, NULL),
                   ATTN_ERROR_NULL, "memory: expected a place for the result, got NULL");
    memory = &memory;
    refusal_assert("attn_context_allocate", attn_context_allocate(context, 0, &memory),
                   ATTN_ERROR_VALUE, "bytes: expected 1 or more, got 0");
    assert_null(memory);
    attn_context_destroy(context);
    assert_int_equal(allocator.mistakes, 0);
    refusal_assert_ok("attn_context_allocate", attn_context_allocate(NULL, 1, &memory));
    attn_context_deallocate(NULL, memory, 1);
}

static const struct CMUnitTest single_tests[] = {
    cmocka_unit_test(memory_is_of_the_contexts_allocator),
    cmocka_unit_test(struct_size_zero_is_refused),
    cmocka_unit_test(newer_struct_is_accepted_until_it_asks_for_more),
    cmocka_unit_test(struct_of_first_release_is_accepted),
    cmocka_unit_test(gemm_blas_is_refused_without_blas),
    cmocka_unit_test(describe_refuses_info_without_its_size),
    cmocka_unit_test(describe_clears_unknown_fields),
    cmocka_unit_test(destroy_accepts_null),
    cmocka_unit_test(bad_environment_is_refused_until_corrected),
};

int main(void) {
    static refusal_suite suite;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
        refusal_suite_add(&suite, refused[i].name, test_refusal, &refused[i]);
    }
    for (size_t i = 0; i < sizeof single_tests / sizeof single_tests[0]; ++i) {
        refusal_suite_add(&suite, single_tests[i].name, single_tests[i].test_func, NULL);
    }
    return refusal_suite_run(&suite, "errors of contexts");
}
