/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_dtypes.c: every dtype in every tensor of every function. What this version computes
 * with, but not there, is ATTN_ERROR_DTYPE, as are numbers that are no dtype; what it only makes
 * views of, and what a later release may add, is ATTN_ERROR_UNSUPPORTED. The line names the tensor.
 */
#include <stdio.h>
#include <string.h>

#include "merge_fixture.h"
#include "mha_fixture.h"
#include "rope_fixture.h"
#include "sdpa_fixture.h"
#include "softmax_fixture.h"

#define BIT(dtype) (UINT32_C(1) << (dtype))

enum {
    HALVES = BIT(ATTN_DTYPE_BFLOAT16) | BIT(ATTN_DTYPE_FLOAT16),
    FLOATS = BIT(ATTN_DTYPE_FLOAT32) | BIT(ATTN_DTYPE_FLOAT64) | HALVES,
    FLOAT = BIT(ATTN_DTYPE_FLOAT32),
    STORED = FLOAT | HALVES,
    FLAG = BIT(ATTN_DTYPE_BOOL),
    BLOCK = BIT(ATTN_DTYPE_UINT8),
    INDEX = BIT(ATTN_DTYPE_INT64) | BIT(ATTN_DTYPE_INT32),
    QUANTIZED = BIT(ATTN_DTYPE_INT8) | BIT(ATTN_DTYPE_UINT8) | BIT(ATTN_DTYPE_INT4X2) |
                BIT(ATTN_DTYPE_UINT4X2) | BIT(ATTN_DTYPE_Q8_0) | BIT(ATTN_DTYPE_Q4_0),
    COMPUTED = FLOATS | FLAG | INDEX | QUANTIZED,
    LAST_PINNED = ATTN_DTYPE_UINT4X2
};

static const int32_t dtypes[] = {INT32_MIN, -1, 0,  1,  2,  3,  4,  5,  6,  7,        8,
                                 9,         10, 11, 12, 13, 14, 15, 16, 99, INT32_MAX};

/* A tensor of a call and what it may be there. */
typedef struct dtype_target {
    const char *name; /* in the line */
    int tensor;       /* of the fixture */
    uint32_t allowed;
    int32_t mask_kind;
    bool is_output; /* which the describe_outputs functions are not given */
} dtype_target;

static attn_context *context;
static mha_layer layer;

static bool is_one_of(int32_t dtype, uint32_t bits) {
    return dtype >= 0 && dtype < 32 && (bits & BIT(dtype)) != 0;
}

static void assert_refused(const char *call, attn_status status, const char *name, int32_t dtype) {
    const bool is_later = dtype > LAST_PINNED || (dtype > 0 && !is_one_of(dtype, COMPUTED));
    char line[128];
    snprintf(line, sizeof line, "%s: expected ...", name);
    refusal_assert(call, status, is_later ? ATTN_ERROR_UNSUPPORTED : ATTN_ERROR_DTYPE, line);
    char why[64] = "";
    if (dtype > LAST_PINNED) {
        snprintf(why, sizeof why, ", got %d, unknown to this version", (int)dtype);
    } else if (is_later) {
        snprintf(why, sizeof why, ", which this version does not compute with");
    }
    if (strstr(attn_last_error(), why) == NULL) {
        fail_msg("%s of dtype %d: expected \"%s\" in \"%s\"", call, (int)dtype, why,
                 attn_last_error());
    }
}

/* Calls `check` with every dtype that the target may not have. */
static void for_every_other_dtype(const dtype_target *target,
                                  void (*check)(const dtype_target *target, int32_t dtype)) {
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; ++i) {
        if (!is_one_of(dtypes[i], target->allowed)) {
            check(target, dtypes[i]);
        }
    }
}

/* ---- attn_softmax ---- */

static void check_softmax(const dtype_target *target, int32_t dtype) {
    softmax_fixture fixture;
    softmax_fixture_prepare(&fixture, context);
    fixture.views[target->tensor].dtype = dtype;
    fixture.options.mask_kind = target->mask_kind;
    if (target->tensor >= SOFTMAX_ARGUMENTS) {
        softmax_fixture_link(&fixture, target->tensor);
    }
    const softmax_memory before = fixture.memory;
    size_t bytes = 77;
    assert_refused("attn_softmax", softmax_fixture_run(&fixture), target->name, dtype);
    assert_refused("attn_softmax_workspace_bytes",
                   softmax_fixture_workspace_bytes(&fixture, &bytes), target->name, dtype);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    assert_int_equal(bytes, 77);
}

static void softmax_refuses_other_dtypes(void **state) {
    (void)state;
    static const dtype_target targets[] = {
        {"input", SOFTMAX_INPUT, FLOATS, 0, false},
        {"output", SOFTMAX_OUTPUT, FLOAT, 0, true},
        {"mask", SOFTMAX_MASK, FLOAT, ATTN_MASK_ADDITIVE, false},
        {"mask", SOFTMAX_BOOL_MASK, FLAG, ATTN_MASK_BOOL_INCLUDE, false},
        {"mask", SOFTMAX_BOOL_MASK, FLAG, ATTN_MASK_BOOL_EXCLUDE, false},
        {"lengths", SOFTMAX_LENGTHS, INDEX, 0, false},
        {"lse", SOFTMAX_LSE, FLOAT, 0, true},
    };
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; ++i) {
        for_every_other_dtype(&targets[i], check_softmax);
    }
}

/* ---- attn_rope, attn_rms_norm ---- */

static void check_rope(const dtype_target *target, int32_t dtype) {
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, context);
    if (target->tensor == ROPE_COS || target->tensor == ROPE_SIN) {
        rope_fixture_link(&fixture, ROPE_COS);
        rope_fixture_link(&fixture, ROPE_SIN);
        rope_fixture_link(&fixture, ROPE_LENGTHS);
    } else if (target->tensor >= ROPE_ARGUMENTS) {
        rope_fixture_link(&fixture, target->tensor);
    }
    fixture.views[target->tensor].dtype = dtype;
    const rope_memory before = fixture.memory;
    assert_refused("attn_rope", rope_fixture_run(&fixture), target->name, dtype);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
}

static void check_rms_norm(const dtype_target *target, int32_t dtype) {
    rope_fixture fixture;
    rope_fixture_prepare(&fixture, context);
    if (target->tensor >= ROPE_ARGUMENTS) {
        rope_fixture_link(&fixture, target->tensor);
    }
    fixture.views[target->tensor].dtype = dtype;
    const rope_memory before = fixture.memory;
    assert_refused("attn_rms_norm", rope_fixture_normalize(&fixture), target->name, dtype);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
}

static void rope_and_rms_norm_refuse_other_dtypes(void **state) {
    (void)state;
    static const dtype_target targets[] = {
        {"input", ROPE_INPUT, FLOATS, 0, false},
        {"output", ROPE_OUTPUT, FLOAT, 0, true},
        {"frequencies", ROPE_FREQUENCIES, FLOATS, 0, false},
        {"cos", ROPE_COS, STORED, 0, false},
        {"sin", ROPE_SIN, STORED, 0, false},
        {"positions", ROPE_POSITIONS, INDEX, 0, false},
        {"lengths", ROPE_LENGTHS, INDEX, 0, false},
    };
    static const dtype_target norm_targets[] = {
        {"input", ROPE_INPUT, FLOATS, 0, false},
        {"output", ROPE_OUTPUT, FLOAT, 0, true},
        {"weight", ROPE_WEIGHT, STORED, 0, false},
    };
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; ++i) {
        for_every_other_dtype(&targets[i], check_rope);
    }
    for (size_t i = 0; i < sizeof norm_targets / sizeof norm_targets[0]; ++i) {
        for_every_other_dtype(&norm_targets[i], check_rms_norm);
    }
}

/* ---- attn_sdpa ---- */

static void check_sdpa(const dtype_target *target, int32_t dtype) {
    sdpa_fixture fixture;
    sdpa_fixture_prepare(&fixture, context);
    fixture.views[target->tensor].dtype = dtype;
    fixture.options.mask_kind = target->mask_kind;
    if (target->tensor >= SDPA_ARGUMENTS) {
        sdpa_fixture_link(&fixture, target->tensor);
    }
    const sdpa_memory before = fixture.memory;
    size_t bytes = 77;
    attn_sdpa_report report = {.struct_size = sizeof report};
    attn_sdpa_outputs outputs = {.struct_size = sizeof outputs};
    assert_refused("attn_sdpa", sdpa_fixture_run(&fixture), target->name, dtype);
    assert_refused("attn_sdpa_workspace_bytes", sdpa_fixture_workspace_bytes(&fixture, &bytes),
                   target->name, dtype);
    assert_refused("attn_sdpa_explain", sdpa_fixture_explain(&fixture, &report), target->name,
                   dtype);
    const attn_status described = sdpa_fixture_describe_outputs(&fixture, &outputs);
    if (target->is_output) {
        refusal_assert_ok("attn_sdpa_describe_outputs", described);
    } else {
        assert_refused("attn_sdpa_describe_outputs", described, target->name, dtype);
    }
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    assert_int_equal(bytes, 77);
    assert_null(report.reason);
}

static void sdpa_refuses_other_dtypes(void **state) {
    (void)state;
    static const dtype_target targets[] = {
        {"query", SDPA_QUERY, FLOATS, 0, false},
        {"key", SDPA_KEY, STORED, 0, false},
        {"value", SDPA_VALUE, STORED, 0, false},
        {"output", SDPA_OUTPUT, FLOAT, 0, true},
        {"mask", SDPA_MASK, FLOAT, ATTN_MASK_ADDITIVE, false},
        {"mask", SDPA_BOOL_MASK, FLAG, ATTN_MASK_BOOL_INCLUDE, false},
        {"mask", SDPA_BOOL_MASK, FLAG, ATTN_MASK_BOOL_EXCLUDE, false},
        {"bias", SDPA_BIAS, FLOAT, 0, false},
        {"query_offset", SDPA_QUERY_OFFSET, INDEX, 0, false},
        {"key_lengths", SDPA_KEY_LENGTHS, INDEX, 0, false},
        {"mask_start", SDPA_MASK_START, INDEX, 0, false},
        {"position_bias", SDPA_POSITION_BIAS, FLOAT, 0, false},
        {"block_mask", SDPA_BLOCK_MASK, BLOCK, 0, false},
        {"alibi_slopes", SDPA_ALIBI_SLOPES, FLOAT, 0, false},
        {"sinks", SDPA_SINKS, FLOAT, 0, false},
        {"lse", SDPA_LSE, FLOAT, 0, true},
        {"weights", SDPA_WEIGHTS, FLOAT, 0, true},
        {"weights", SDPA_AVERAGE_WEIGHTS, FLOAT, 0, true},
        {"scores", SDPA_SCORES, FLOAT, 0, true},
    };
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; ++i) {
        for_every_other_dtype(&targets[i], check_sdpa);
    }
}

/* ---- attn_sdpa_merge ---- */

static void check_merge(const dtype_target *target, int32_t dtype) {
    merge_fixture fixture;
    merge_fixture_prepare(&fixture, context);
    fixture.views[target->tensor].dtype = dtype;
    fixture.options.sinks = &fixture.views[MERGE_SINKS];
    const merge_memory before = fixture.memory;
    assert_refused("attn_sdpa_merge", merge_fixture_run(&fixture), target->name, dtype);
    assert_memory_equal(&fixture.memory, &before, sizeof before);
}

static void merge_refuses_other_dtypes(void **state) {
    (void)state;
    static const dtype_target targets[] = {
        {"output", MERGE_OUTPUT, FLOATS, 0, true},
        {"outputs[0]", MERGE_FIRST, STORED, 0, false},
        {"outputs[1]", MERGE_SECOND, STORED, 0, false},
        {"lses[0]", MERGE_FIRST_LSE, FLOAT, 0, false},
        {"lses[1]", MERGE_SECOND_LSE, FLOAT, 0, false},
        {"lse", MERGE_LSE, FLOAT, 0, true},
        {"sinks", MERGE_SINKS, STORED, 0, false},
    };
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; ++i) {
        for_every_other_dtype(&targets[i], check_merge);
    }
}

/* ---- attn_mha_forward ---- */

static void check_mha(const dtype_target *target, int32_t dtype) {
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, context, &layer);
    fixture.views[target->tensor].dtype = dtype;
    if (target->tensor >= MHA_ATTENTION_MASK) {
        fixture.attention.mask_kind = target->mask_kind;
    } else {
        fixture.options.key_padding_mask_kind = target->mask_kind;
    }
    if (target->tensor >= MHA_ARGUMENTS) {
        mha_fixture_link(&fixture, target->tensor);
    }
    const mha_memory before = fixture.memory;
    size_t bytes = 77;
    attn_mha_report report = {.struct_size = sizeof report};
    attn_mha_outputs outputs = {.struct_size = sizeof outputs};
    assert_refused("attn_mha_forward", mha_fixture_run(&fixture), target->name, dtype);
    assert_refused("attn_mha_workspace_bytes", mha_fixture_workspace_bytes(&fixture, &bytes),
                   target->name, dtype);
    assert_refused("attn_mha_explain", mha_fixture_explain(&fixture, &report), target->name, dtype);
    const attn_status described = mha_fixture_describe_outputs(&fixture, &outputs);
    if (target->is_output) {
        refusal_assert_ok("attn_mha_describe_outputs", described);
    } else {
        assert_refused("attn_mha_describe_outputs", described, target->name, dtype);
    }
    assert_memory_equal(&fixture.memory, &before, sizeof before);
    assert_int_equal(bytes, 77);
    assert_null(report.kernels);
}

static void mha_refuses_other_dtypes(void **state) {
    (void)state;
    static const dtype_target targets[] = {
        {"query", MHA_QUERY, FLOAT, 0, false},
        {"key", MHA_KEY, FLOAT, 0, false},
        {"value", MHA_VALUE, FLOAT, 0, false},
        {"output", MHA_OUTPUT, FLOAT, 0, true},
        {"key_padding_mask", MHA_FLOAT_PADDING_MASK, FLOAT, ATTN_MASK_ADDITIVE, false},
        {"key_padding_mask", MHA_KEY_PADDING_MASK, FLAG, ATTN_MASK_BOOL_EXCLUDE, false},
        {"attention.mask", MHA_ATTENTION_MASK, FLOAT, ATTN_MASK_ADDITIVE, false},
        {"attention.mask", MHA_BOOL_MASK, FLAG, ATTN_MASK_BOOL_INCLUDE, false},
        {"attention.bias", MHA_ATTENTION_BIAS, FLOAT, 0, false},
        {"attention.query_offset", MHA_ATTENTION_OFFSET, INDEX, 0, false},
        {"attention.key_lengths", MHA_ATTENTION_LENGTHS, INDEX, 0, false},
        {"attention.mask_start", MHA_ATTENTION_MASK_START, INDEX, 0, false},
        {"attention.position_bias", MHA_ATTENTION_POSITION_BIAS, FLOAT, 0, false},
        {"attention.block_mask", MHA_ATTENTION_BLOCK_MASK, BLOCK, 0, false},
        {"attention.alibi_slopes", MHA_ATTENTION_SLOPES, FLOAT, 0, false},
        {"attention.sinks", MHA_ATTENTION_SINKS, FLOAT, 0, false},
        {"attention.lse", MHA_ATTENTION_LSE, FLOAT, 0, true},
        {"attention.weights", MHA_ATTENTION_WEIGHTS, FLOAT, 0, true},
        {"attention.weights", MHA_AVERAGE_WEIGHTS, FLOAT, 0, true},
        {"attention.scores", MHA_ATTENTION_SCORES, FLOAT, 0, true},
    };
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; ++i) {
        for_every_other_dtype(&targets[i], check_mha);
    }
}

/* ---- parameters ---- */

static void check_load(const dtype_target *target, int32_t dtype) {
    attn_tensor values = mha_parameters_view(&layer.parameters, target->name);
    values.dtype = dtype;
    assert_refused("attn_mha_load_parameter",
                   attn_mha_load_parameter(context, layer.layer, target->name, &values, NULL),
                   target->name, dtype);
}

static void check_bind_and_read(const dtype_target *target, int32_t dtype) {
    attn_tensor values = mha_parameters_view(&layer.parameters, target->name);
    float read[MHA_E * MHA_E];
    values.dtype = dtype;
    assert_refused("attn_mha_bind_parameter",
                   attn_mha_bind_parameter(layer.layer, target->name, &values), target->name,
                   dtype);
    refusal_fill(read, sizeof read);
    values.data = read;
    assert_refused("attn_mha_read_parameter",
                   attn_mha_read_parameter(context, layer.layer, target->name, &values),
                   target->name, dtype);
    refusal_assert_untouched(target->name, read, sizeof read);
}

/* float64 values are converted on loading, but a layer of float32 cannot use or write them. */
static void parameters_refuse_other_dtypes(void **state) {
    (void)state;
    for (const char *const *name = mha_parameter_names; *name != NULL; ++name) {
        for_every_other_dtype(&(dtype_target){*name, 0, FLOATS, 0, false}, check_load);
        for_every_other_dtype(&(dtype_target){*name, 0, FLOAT, 0, false}, check_bind_and_read);
    }
    mha_fixture fixture;
    mha_fixture_prepare(&fixture, context, &layer);
    refusal_assert_ok("attn_mha_forward", mha_fixture_run(&fixture));
    mha_fixture_assert_values(&fixture);
}

static int set_up(void **state) {
    (void)state;
    const attn_context_config config = {.struct_size = sizeof config, .num_threads = 2};
    refusal_assert_ok("attn_context_create", attn_context_create(&config, &context));
    mha_layer_create(&layer, context);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    attn_mha_destroy(layer.layer);
    attn_context_destroy(context);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_refuses_other_dtypes),
        cmocka_unit_test(rope_and_rms_norm_refuse_other_dtypes),
        cmocka_unit_test(sdpa_refuses_other_dtypes),
        cmocka_unit_test(merge_refuses_other_dtypes),
        cmocka_unit_test(mha_refuses_other_dtypes),
        cmocka_unit_test(parameters_refuse_other_dtypes),
    };
    return cmocka_run_group_tests_name("errors of dtypes", tests, set_up, tear_down);
}
