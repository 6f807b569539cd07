/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_errors_mha_backward.c: what attn_mha_backward, its query and attn_mha_saved_bytes say of a call
 * that is wrong, and that they write nothing then.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <attention/multihead_backward.h>

#include "mha_fixture.h"

enum { NUM_PARAMETERS = 6, SAVED_BYTES = 1 << 14, CANARY = 0x5a };

/* What is wanted of a call, in one block. */
typedef struct gradient_memory {
    float query[MHA_N * MHA_L * MHA_E];
    float key[MHA_N * MHA_S * MHA_KDIM];
    float value[MHA_N * MHA_S * MHA_VDIM];
    float parameters[NUM_PARAMETERS][MHA_E * MHA_E];
    float mask[MHA_L * MHA_S];
} gradient_memory;

/* A valid call, and the one thing of it that a test spoils. */
typedef struct scene {
    mha_layer layer;
    mha_fixture call;
    _Alignas(64) unsigned char saved[SAVED_BYTES];
    float given[MHA_N * MHA_L * MHA_E];
    gradient_memory memory;
    attn_tensor output, query, key, value, mask, parameters[NUM_PARAMETERS + 1];
    attn_sdpa_gradients attention;
    attn_mha_gradients gradients;
    const attn_mha_gradients *given_gradients;
    void *workspace;
    size_t workspace_bytes;
} scene;

static scene s;

static attn_status run_backward(void) {
    return attn_mha_backward(s.call.context, s.call.layer, s.call.arguments[MHA_QUERY],
                             s.call.arguments[MHA_KEY], s.call.arguments[MHA_VALUE], s.call.params,
                             s.given_gradients, s.workspace, s.workspace_bytes);
}

static attn_status ask_bytes(size_t *bytes) {
    return attn_mha_backward_workspace_bytes(
        s.call.context, s.call.layer, s.call.arguments[MHA_QUERY], s.call.arguments[MHA_KEY],
        s.call.arguments[MHA_VALUE], s.call.params, s.given_gradients, bytes);
}

static attn_status ask_saved(size_t *bytes) {
    return attn_mha_saved_bytes(s.call.context, s.call.layer, s.call.arguments[MHA_QUERY],
                                s.call.arguments[MHA_KEY], s.call.arguments[MHA_VALUE],
                                s.call.params, bytes);
}

static attn_tensor view_of(const attn_tensor *like, void *data) {
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, data, like->dtype, like->rank, like->shape), ATTN_OK);
    return view;
}

static void prepare(void) {
    mha_fixture_prepare(&s.call, NULL, &s.layer);
    s.call.options.saved = s.saved;
    s.call.options.saved_bytes = sizeof s.saved;
    mha_fixture_link(&s.call, MHA_ATTENTION_MASK);
    s.call.attention.mask_kind = ATTN_MASK_ADDITIVE;
    memset(&s.memory, CANARY, sizeof s.memory);
    for (size_t i = 0; i < sizeof s.given / sizeof s.given[0]; ++i) {
        s.given[i] = (float)(i % 7) - 3;
    }
    s.output = view_of(&s.call.views[MHA_OUTPUT], s.given);
    s.query = view_of(&s.call.views[MHA_QUERY], s.memory.query);
    s.key = view_of(&s.call.views[MHA_KEY], s.memory.key);
    s.value = view_of(&s.call.views[MHA_VALUE], s.memory.value);
    s.mask = view_of(&s.call.views[MHA_ATTENTION_MASK], s.memory.mask);
    for (int i = 0; i < NUM_PARAMETERS; ++i) {
        assert_int_equal(attn_mha_parameter_describe(s.call.layer, i, NULL, &s.parameters[i]),
                         ATTN_OK);
        s.parameters[i].data = s.memory.parameters[i];
    }
    s.attention = (attn_sdpa_gradients){.struct_size = sizeof s.attention, .mask = &s.mask};
    s.gradients = (attn_mha_gradients){.struct_size = sizeof s.gradients,
                                       .output = &s.output,
                                       .query = &s.query,
                                       .key = &s.key,
                                       .value = &s.value,
                                       .parameters = s.parameters,
                                       .num_parameters = NUM_PARAMETERS,
                                       .attention = &s.attention};
    s.given_gradients = &s.gradients;
    s.workspace = NULL;
    s.workspace_bytes = 0;
    assert_int_equal(mha_fixture_run(&s.call), ATTN_OK);
}

/* ---- what may be wrong ---- */

static void no_gradients(void) {
    s.given_gradients = NULL;
}
static void small_struct(void) {
    s.gradients.struct_size = 71;
}
static void reserved_field(void) {
    s.gradients.reserved = 1;
}
static void accumulate_two(void) {
    s.gradients.accumulate = 2;
}
static void no_output(void) {
    s.gradients.output = NULL;
}
static void output_shape(void) {
    s.output.shape[1] = MHA_L - 1;
}
static void output_dtype(void) {
    s.output.dtype = ATTN_DTYPE_FLOAT64;
}
static void query_shape(void) {
    s.query.shape[2] = MHA_E - 1;
}
static void key_dtype(void) {
    s.key.dtype = ATTN_DTYPE_BFLOAT16;
}
static void value_repeats(void) {
    s.value.strides[0] = 0;
}
static void value_without_data(void) {
    s.value.data = NULL;
}
static void parameters_null(void) {
    s.gradients.parameters = NULL;
}
static void parameters_few(void) {
    s.gradients.num_parameters = NUM_PARAMETERS - 1;
}
static void parameters_none_but_some(void) {
    s.gradients.parameters = NULL;
    s.gradients.num_parameters = 1;
}
static void parameter_shape(void) {
    s.parameters[1].shape[1] = MHA_KDIM + 1;
}
static void attention_size(void) {
    s.attention.struct_size = 8;
}
static void attention_accumulate(void) {
    s.attention.accumulate = 1;
}
static void attention_output(void) {
    s.attention.output = &s.output;
}
static void attention_query(void) {
    s.attention.query = &s.query;
}
static void attention_key(void) {
    s.attention.key = &s.key;
}
static void attention_value(void) {
    s.attention.value = &s.value;
}
static void attention_sinks(void) {
    s.attention.sinks = &s.mask;
}
static void attention_mask_absent(void) {
    mha_fixture_unlink(&s.call, MHA_ATTENTION_MASK);
    s.call.attention.mask_kind = ATTN_MASK_NONE;
}
static void attention_mask_without_data(void) {
    s.mask.data = NULL;
}
static void attention_mask_of_another_form(void) {
    const int64_t shape[] = {1, 1, MHA_L, MHA_S};
    assert_int_equal(attn_tensor_init(&s.mask, s.memory.mask, ATTN_DTYPE_FLOAT32, 4, shape),
                     ATTN_OK);
}
static void attention_mask_shape(void) {
    s.mask.shape[1] = MHA_S - 1;
}
static void attention_lse_shape(void) {
    s.attention.lse = &s.mask;
}
static void saved_null(void) {
    s.call.options.saved = NULL;
}
static void saved_small(void) {
    s.call.options.saved_bytes = 8;
}
static void saved_unaligned(void) {
    s.call.options.saved = s.saved + 4;
}
static void with_cache(void) {
    mha_fixture_cache(&s.call, MHA_CACHE_OWN);
}
static void bad_query(void) {
    s.call.views[MHA_QUERY].shape[2] = MHA_E - 1;
}
static void bad_scale_option(void) {
    s.call.attention.softcap = -1;
}
static void overlapping_inputs(void) {
    s.value.data = s.memory.key;
}
static void overlap_with_saved(void) {
    s.key.data = s.saved;
}
static void overlap_with_output(void) {
    s.query.data = s.given;
}
static void overlap_with_parameter(void) {
    s.query.data = s.layer.parameters.out_weight;
}
static void small_workspace(void) {
    s.workspace = s.memory.parameters;
    s.workspace_bytes = 1;
}
static void workspace_over_saved(void) {
    s.workspace = s.saved;
    s.workspace_bytes = 1 << 24;
}

typedef struct refusal_case {
    const char *name;
    void (*spoil)(void);
    attn_status status;
    const char *line; /* the detail's beginning */
    bool call_only;   /* the query does not look at it */
} refusal_case;

static const refusal_case cases[] = {
    {"gradients_null_are_refused", no_gradients, ATTN_ERROR_NULL, "gradients: expected", false},
    {"gradients_size_below_first_release_is_refused", small_struct, ATTN_ERROR_VALUE,
     "gradients: expected struct_size", false},
    {"reserved_is_refused", reserved_field, ATTN_ERROR_UNSUPPORTED, "gradients.reserved", false},
    {"accumulate_two_is_refused", accumulate_two, ATTN_ERROR_UNSUPPORTED, "gradients.accumulate",
     false},
    {"output_null_is_refused", no_output, ATTN_ERROR_NULL, "gradients.output", false},
    {"output_of_another_shape_is_refused", output_shape, ATTN_ERROR_SHAPE, "gradients.output",
     false},
    {"output_of_another_type_is_refused", output_dtype, ATTN_ERROR_DTYPE, "gradients.output",
     false},
    {"query_of_another_shape_is_refused", query_shape, ATTN_ERROR_SHAPE, "gradients.query", false},
    {"key_of_another_type_is_refused", key_dtype, ATTN_ERROR_DTYPE, "gradients.key", false},
    {"value_that_repeats_is_refused", value_repeats, ATTN_ERROR_OVERLAP, "gradients.value", false},
    {"value_without_data_is_refused", value_without_data, ATTN_ERROR_NULL, "gradients.value", true},
    {"parameters_null_are_refused", parameters_null, ATTN_ERROR_NULL, "gradients.parameters",
     false},
    {"too_few_parameters_are_refused", parameters_few, ATTN_ERROR_VALUE,
     "gradients.num_parameters: expected 6, got 5", false},
    {"a_number_without_parameters_is_refused", parameters_none_but_some, ATTN_ERROR_VALUE,
     "gradients.num_parameters: expected 0, got 1", false},
    {"parameter_of_another_shape_is_refused", parameter_shape, ATTN_ERROR_SHAPE,
     "gradients.k_proj_weight", false},
    {"attention_size_below_first_release_is_refused", attention_size, ATTN_ERROR_VALUE,
     "gradients.attention: expected struct_size", false},
    {"attention_accumulate_is_refused", attention_accumulate, ATTN_ERROR_VALUE,
     "gradients.attention.accumulate", false},
    {"attention_output_is_refused", attention_output, ATTN_ERROR_VALUE,
     "gradients.attention.output", false},
    {"attention_query_is_refused", attention_query, ATTN_ERROR_VALUE, "gradients.attention.query",
     false},
    {"attention_key_is_refused", attention_key, ATTN_ERROR_VALUE, "gradients.attention.key", false},
    {"attention_value_is_refused", attention_value, ATTN_ERROR_VALUE, "gradients.attention.value",
     false},
    {"sinks_that_the_call_has_not_are_refused", attention_sinks, ATTN_ERROR_VALUE,
     "gradients.attention.sinks: expected NULL without attention.sinks", false},
    {"a_mask_that_the_call_has_not_is_refused", attention_mask_absent, ATTN_ERROR_VALUE,
     "gradients.attention.mask: expected NULL without attention.mask", false},
    {"mask_without_data_is_refused", attention_mask_without_data, ATTN_ERROR_NULL,
     "gradients.attention.mask", true},
    {"mask_of_another_form_is_refused", attention_mask_of_another_form, ATTN_ERROR_SHAPE,
     "gradients.attention.mask", false},
    {"mask_of_another_shape_is_refused", attention_mask_shape, ATTN_ERROR_SHAPE,
     "gradients.attention.mask", false},
    {"lse_of_another_shape_is_refused", attention_lse_shape, ATTN_ERROR_SHAPE,
     "gradients.attention.lse", false},
    {"saved_null_is_refused", saved_null, ATTN_ERROR_NULL, "saved: expected what", true},
    {"saved_too_small_is_refused", saved_small, ATTN_ERROR_WORKSPACE,
     "saved_bytes: expected at least", true},
    {"saved_unaligned_is_refused", saved_unaligned, ATTN_ERROR_VALUE,
     "saved: expected memory that is aligned to 8 bytes", true},
    {"cache_is_refused", with_cache, ATTN_ERROR_UNSUPPORTED, "cache: expected NULL", false},
    {"query_of_the_call_is_refused", bad_query, ATTN_ERROR_SHAPE, "query", false},
    {"option_of_the_attention_is_refused", bad_scale_option, ATTN_ERROR_VALUE, "attention.softcap",
     false},
    {"gradients_that_overlap_are_refused", overlapping_inputs, ATTN_ERROR_OVERLAP,
     "gradients.value", true},
    {"gradient_over_saved_is_refused", overlap_with_saved, ATTN_ERROR_OVERLAP, "gradients.key",
     true},
    {"gradient_over_the_given_one_is_refused", overlap_with_output, ATTN_ERROR_OVERLAP,
     "gradients.query", true},
    {"gradient_over_a_parameter_is_refused", overlap_with_parameter, ATTN_ERROR_OVERLAP,
     "gradients.query", true},
    {"workspace_too_small_is_refused", small_workspace, ATTN_ERROR_WORKSPACE, "workspace_bytes",
     true},
    {"workspace_over_saved_is_refused", workspace_over_saved, ATTN_ERROR_OVERLAP, "workspace",
     true},
};

static void assert_refused(const refusal_case *refused, attn_status status) {
    const char *detail = attn_last_error();
    if (status != refused->status || strncmp(detail, refused->line, strlen(refused->line)) != 0) {
        fail_msg("%s: expected %s, \"%s...\", got %s, \"%s\"", refused->name,
                 attn_status_name(refused->status), refused->line, attn_status_name(status),
                 detail);
    }
}

static void every_wrong_call_is_refused_and_writes_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        prepare();
        gradient_memory before;
        unsigned char *saved = malloc(sizeof s.saved);
        assert_non_null(saved);
        memcpy(&before, &s.memory, sizeof before);
        memcpy(saved, s.saved, sizeof s.saved);
        cases[i].spoil();
        assert_refused(&cases[i], run_backward());
        assert_memory_equal(&before, &s.memory, sizeof before);
        assert_memory_equal(saved, s.saved, sizeof s.saved);
        free(saved);
        size_t bytes = 77;
        const attn_status asked = ask_bytes(&bytes);
        if (cases[i].call_only) {
            assert_int_equal(asked, ATTN_OK);
        } else {
            assert_refused(&cases[i], asked);
            assert_int_equal(bytes, 77);
        }
        prepare();
        assert_int_equal(run_backward(), ATTN_OK);
    }
}

static void forward_refuses_saved_memory_that_is_wrong(void **state) {
    (void)state;
    void (*const spoils[])(void) = {saved_small, saved_unaligned, with_cache};
    const attn_status statuses[] = {ATTN_ERROR_WORKSPACE, ATTN_ERROR_VALUE, ATTN_ERROR_UNSUPPORTED};
    for (int i = 0; i < 3; ++i) {
        prepare();
        spoils[i]();
        assert_int_equal(mha_fixture_run(&s.call), statuses[i]);
    }
    prepare();
    s.call.options.saved = s.call.memory.query;
    s.call.options.saved_bytes = sizeof s.call.memory;
    assert_int_equal(mha_fixture_run(&s.call), ATTN_ERROR_OVERLAP);
    assert_non_null(strstr(attn_last_error(), "saved"));
}

static void queries_without_a_place_for_the_result_are_refused(void **state) {
    (void)state;
    prepare();
    assert_int_equal(ask_bytes(NULL), ATTN_ERROR_NULL);
    assert_int_equal(ask_saved(NULL), ATTN_ERROR_NULL);
    with_cache();
    size_t bytes = 77;
    assert_int_equal(ask_saved(&bytes), ATTN_ERROR_UNSUPPORTED);
    assert_int_equal(bytes, 77);
}

/* A parameter that is not wanted has no data; the query's bytes suffice for fewer. */
static void parameters_without_data_are_not_written(void **state) {
    (void)state;
    size_t all = 0, some = 0;
    prepare();
    assert_int_equal(ask_bytes(&all), ATTN_OK);
    void *workspace = malloc(all);
    assert_non_null(workspace);
    for (int i = 0; i < NUM_PARAMETERS; ++i) {
        prepare();
        gradient_memory before;
        memcpy(&before, &s.memory, sizeof before);
        s.parameters[i].data = NULL;
        s.workspace = workspace;
        s.workspace_bytes = all;
        assert_int_equal(run_backward(), ATTN_OK);
        assert_memory_equal(before.parameters[i], s.memory.parameters[i],
                            sizeof before.parameters[i]);
        assert_memory_not_equal(before.query, s.memory.query, sizeof before.query);
    }
    prepare();
    s.gradients.parameters = NULL;
    s.gradients.num_parameters = 0;
    assert_int_equal(ask_bytes(&some), ATTN_OK);
    assert_true(some <= all);
    free(workspace);
}

static void a_layer_without_parameters_is_refused(void **state) {
    (void)state;
    prepare();
    const attn_mha_config config = mha_fixture_config();
    attn_mha *empty = NULL;
    assert_int_equal(attn_mha_create(NULL, &config, &empty), ATTN_OK);
    s.call.layer = empty;
    size_t bytes;
    assert_int_equal(run_backward(), ATTN_ERROR_PARAMETER);
    assert_int_equal(ask_bytes(&bytes), ATTN_OK);
    attn_mha_destroy(empty);
    s.call.layer = NULL;
    assert_int_equal(run_backward(), ATTN_ERROR_NULL);
}

int main(void) {
    mha_layer_create(&s.layer, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_wrong_call_is_refused_and_writes_nothing),
        cmocka_unit_test(forward_refuses_saved_memory_that_is_wrong),
        cmocka_unit_test(queries_without_a_place_for_the_result_are_refused),
        cmocka_unit_test(parameters_without_data_are_not_written),
        cmocka_unit_test(a_layer_without_parameters_is_refused),
    };
    const int failed = cmocka_run_group_tests_name("errors of mha backward", tests, NULL, NULL);
    attn_mha_destroy(s.layer.layer);
    return failed;
}
