/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_attn_leftovers.c: "attn run" on layers that have tensors it does not know: refused by name,
 * or computed without them when asked to. Arguments: the program, the folder of fixtures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "program_run.h"
#include "scratch_files.h"
#include "tiny_layer.h"

static const safetensors_text one_head = {"num_heads", "1"};

/* What the tiny layer gives for x.safetensors; see tiny_layer.h. */
static void assert_tiny_output(void **state) {
    char path[SCRATCH_PATH_BYTES];
    const double sigmoid_1 = 1 / (1 + exp(-1.0));
    const double sigmoid_2 = 1 / (1 + exp(-2.0));
    const double expected[2] = {2 + 2 * sigmoid_1, 2 + 2 * sigmoid_2};
    assert_tensor(scratch_path(state, "out.safetensors", path), "attn_output", 2, expected);
}

static void write_layer(void **state, const char *prefix, int naming, const char *const *extras) {
    char path[SCRATCH_PATH_BYTES];
    tiny_layer_write_beside(scratch_path(state, "layer.safetensors", path), prefix, naming, "F32",
                            extras, &one_head, 1);
}

/* Runs the layer with more options, and expects the tiny layer's result. */
static void assert_computed(void **state, const char *options, const char *text) {
    char command_line[600];
    (void)snprintf(
        command_line, sizeof command_line,
        "run %%D/layer.safetensors --query %%D/x.safetensors --output %%D/out.safetensors %s",
        options);
    assert_program(state, command_line, 0, text);
    assert_tiny_output(state);
}

static void assert_refused(void **state, const char *options, const char *error) {
    char command_line[600];
    (void)snprintf(command_line, sizeof command_line,
                   "run %%D/layer.safetensors --query %%D/x.safetensors %s", options);
    assert_program(state, command_line, 4, error);
}

/* Each would change what the layer computes in the model it comes from. */
static void unknown_tensor_of_the_layer_is_refused_or_ignored_by_name(void **state) {
    static const struct {
        int naming;
        const char *name;
    } cases[] = {
        {TINY_LLAMA, "q_norm.weight"},
        {TINY_LLAMA, "k_norm.weight"},
        {TINY_LLAMA, "sinks"},
        {TINY_LLAMA, "q_proj.lora_A.weight"},
        {TINY_LLAMA, "q_proj.weight_scale"},
        {TINY_LLAMA, "in_proj_bias"},
        {TINY_LLAMA, "rotary_emb.inv_freq"},
        {TINY_BART, "relative_attention_bias.weight"},
        {TINY_BART, "bias"},
        {TINY_BART, "masked_bias"},
        {TINY_BART, "in_proj_bias"},
        {TINY_BERT, "self.distance_embedding.weight"},
        {TINY_BERT, "self.relative_position_bias_table"},
        {TINY_BERT, "self.query_global.weight"},
        {TINY_BERT, "LayerNorm.weight"},
        {TINY_BERT, "output.adapters.weight"},
        {TINY_TORCH_PACKED, "q_proj.weight"},
        {TINY_TORCH_PACKED, "query.weight"},
        {TINY_TORCH_SEPARATE, "qkv.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char error[300];
        char options[300];
        const char *const extras[] = {cases[i].name, NULL};
        write_layer(state, "", cases[i].naming, extras);
        (void)snprintf(error, sizeof error, "layer.safetensors: %s: under the layer's prefix, but",
                       cases[i].name);
        assert_refused(state, "", error);
        (void)snprintf(error, sizeof error, "--ignore %s leaves it out", cases[i].name);
        assert_refused(state, "", error);
        (void)snprintf(options, sizeof options, "--ignore %s", cases[i].name);
        (void)snprintf(error, sizeof error, "  ignored  1 tensor of the layer: %s\n",
                       cases[i].name);
        assert_computed(state, options, error);
    }
}

static void every_unknown_tensor_must_be_ignored(void **state) {
    static const char *const extras[] = {"q_norm.weight", "q_norm.bias", "k_norm.weight",
                                         "k_norm.bias",   "sinks",       NULL};
    write_layer(state, "", TINY_LLAMA, extras);
    assert_refused(state, "",
                   "q_norm.weight, q_norm.bias, k_norm.weight, k_norm.bias and 1 more: under");
    assert_refused(state, "--ignore sinks --ignore q_norm.weight --ignore q_norm.bias",
                   "layer.safetensors: k_norm.weight, k_norm.bias: under");
    assert_refused(state, "--ignore q_norm. --ignore k_norm.", "layer.safetensors: sinks: under");
    assert_computed(state, "--ignore q_norm. --ignore k_norm. --ignore=sinks",
                    "  ignored  5 tensors of the layer: q_norm. k_norm. sinks\n");
    assert_computed(state, "--ignore q_norm. --ignore k_norm. --ignore sinks --json",
                    "\"num_ignored\":5");
}

static void tensors_of_other_layers_and_modules_are_no_concern(void **state) {
    static const char *const extras[] = {"model.1.q_norm.weight", "model.01.sinks", "sinks",
                                         "model.norm.weight",     "model.0",        NULL};
    write_layer(state, "model.0.", TINY_LLAMA, extras);
    assert_computed(state, "--prefix model.0. --num-heads 1", "attn_output (L=2, E=1)");
    assert_computed(state, "--prefix model.0 --num-heads 1", "attn_output (L=2, E=1)");
}

static void unknown_tensor_under_a_prefix_is_refused_by_its_whole_name(void **state) {
    static const char *const extras[] = {"model.0.q_norm.weight", NULL};
    write_layer(state, "model.0.", TINY_LLAMA, extras);
    assert_refused(state, "--prefix model.0.", "layer.safetensors: model.0.q_norm.weight: under");
    assert_refused(state, "--prefix model.0", "layer.safetensors: model.0.q_norm.weight: under");
    assert_refused(state, "--prefix model.0 --ignore q_norm.weight",
                   "model.0.q_norm.weight: under");
    assert_computed(state, "--prefix model.0 --ignore model.0.q_norm.weight",
                    "ignored  1 tensor of the layer: model.0.q_norm.weight\n");
}

/* BERT's layers keep the norm behind the residual, which is not attention, among attention's names. */
static void norm_behind_the_attention_of_bert_is_accepted(void **state) {
    static const char *const extras[] = {"output.LayerNorm.weight", "output.LayerNorm.bias", NULL};
    write_layer(state, "", TINY_BERT, extras);
    assert_computed(state, "", "BERT style");
    write_layer(state, "", TINY_LLAMA, extras);
    assert_refused(state, "", "output.LayerNorm.weight, output.LayerNorm.bias: under");
}

static void inputs_and_results_beside_the_layer_are_accepted(void **state) {
    static const char *const extras[] = {
        "query", "key", "value", "hidden_states", "attn_output", "attn_weights", "attn_mask", NULL};
    static const char *const in_model[] = {"model.attn_mask", NULL};
    write_layer(state, "", TINY_TORCH_PACKED, extras);
    assert_computed(state, "", "attn_output (L=2, E=1)");
    write_layer(state, "model.", TINY_TORCH_PACKED, in_model);
    assert_refused(state, "--prefix model.", "model.attn_mask: under");
}

/* The tiny layer and a tensor of three bools before it, so that all others are unaligned. */
static void write_flagged_layer(void **state, const char *flag_shape, size_t flag_bytes) {
    char path[SCRATCH_PATH_BYTES];
    char header[800];
    unsigned char file[1000] = {0};
    const float values[9] = {1, 1, 4, 1, 0, 2, 0.5F, 1, 0};
    int used = snprintf(header, sizeof header,
                        "{\"flag\":{\"dtype\":\"BOOL\",\"shape\":%s,\"data_offsets\":[0,%zu]},"
                        "\"__metadata__\":{\"num_heads\":\"1\"}",
                        flag_shape, flag_bytes);
    static const struct {
        const char *name, *shape;
        size_t count;
    } parameters[] = {{"in_proj_weight", "[3,1]", 3},
                      {"in_proj_bias", "[3]", 3},
                      {"out_proj.weight", "[1,1]", 1},
                      {"out_proj.bias", "[1]", 1}};
    size_t begin = flag_bytes;
    for (size_t i = 0; i < 4; i++) {
        used += snprintf(header + used, sizeof header - (size_t)used,
                         ",\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                         parameters[i].name, parameters[i].shape, begin,
                         begin + 4 * parameters[i].count);
        begin += 4 * parameters[i].count;
    }
    (void)snprintf(header + used, sizeof header - (size_t)used, "}");
    size_t header_bytes = strlen(header);
    file[0] = (unsigned char)(header_bytes & 0xff);
    file[1] = (unsigned char)(header_bytes >> 8);
    memcpy(file + 8, header, header_bytes);
    memset(file + 8 + header_bytes, 1, flag_bytes);
    memcpy(file + 8 + header_bytes + flag_bytes, values, 32);
    scratch_write(scratch_path(state, "layer.safetensors", path), file, 8 + header_bytes + begin);
}

static void flags_beside_a_layer_are_accepted_but_no_mask(void **state) {
    static const char *const extras[] = {"flag", NULL};
    write_flagged_layer(state, "[3]", 3);
    assert_computed(state, "", "attn_output (L=2, E=1)");
    write_flagged_layer(state, "[]", 1);
    assert_computed(state, "", "attn_output (L=2, E=1)");
    write_flagged_layer(state, "[3,1]", 3);
    assert_refused(state, "", "layer.safetensors: flag: under");
    write_layer(state, "", TINY_TORCH_PACKED, extras); /* a number */
    assert_refused(state, "", "layer.safetensors: flag: under");
}

static void input_of_the_command_line_is_accepted_from_its_file_alone(void **state) {
    char path[SCRATCH_PATH_BYTES];
    static const char *const extras[] = {"shift", NULL};
    const float none[1] = {0};
    write_layer(state, "", TINY_TORCH_PACKED, extras);
    assert_computed(state, "--bias %D/layer.safetensors:shift", "attn_output (L=2, E=1)");
    tiny_tensor_write(scratch_path(state, "shift.safetensors", path), "shift", 1,
                      (const int64_t[]){1}, none, NULL, 0);
    assert_refused(state, "--bias %D/shift.safetensors:shift", "layer.safetensors: shift: under");
}

static void ignoring_what_is_not_left_out_is_refused(void **state) {
    static const char *const extras[] = {"q_norm.weight", NULL};
    write_layer(state, "", TINY_LLAMA, extras);
    assert_refused(state, "--ignore q_norm.weight --ignore k_norm.weight",
                   "has no tensor 'k_norm.weight' that could be left out of the layer");
    assert_refused(state, "--ignore q_norm.weight --ignore q_proj.bias",
                   "has no tensor 'q_proj.bias' that could be left out of the layer");
    assert_refused(state, "--ignore q_norm", "q_norm.weight: under");
}

int main(int argc, char **argv) {
#define TINY_TEST(test) cmocka_unit_test_setup_teardown(test, tiny_layer_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TINY_TEST(unknown_tensor_of_the_layer_is_refused_or_ignored_by_name),
        TINY_TEST(every_unknown_tensor_must_be_ignored),
        TINY_TEST(tensors_of_other_layers_and_modules_are_no_concern),
        TINY_TEST(unknown_tensor_under_a_prefix_is_refused_by_its_whole_name),
        TINY_TEST(norm_behind_the_attention_of_bert_is_accepted),
        TINY_TEST(inputs_and_results_beside_the_layer_are_accepted),
        TINY_TEST(flags_beside_a_layer_are_accepted_but_no_mask),
        TINY_TEST(input_of_the_command_line_is_accepted_from_its_file_alone),
        TINY_TEST(ignoring_what_is_not_left_out_is_refused),
    };
    if (argc < 3) {
        (void)fprintf(stderr, "usage: %s PROGRAM FIXTURES\n", argv[0]);
        return 1;
    }
    program_path = argv[1];
    fixtures_path = argv[2];
    return cmocka_run_group_tests_name("attn_leftovers", tests, NULL, NULL);
}
