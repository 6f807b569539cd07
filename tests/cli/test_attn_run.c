/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_attn_run.c: "attn info" and "attn run" as their users see them: results against numbers
 * known by hand, PyTorch's on the fixtures and golden cases. Arguments: the program, the folder of
 * fixtures, the folder of golden cases.
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
#include "safetensors_read.h"
#include "safetensors_write.h"
#include "scratch_files.h"
#include "tiny_layer.h"

static const char *golden_path;

static const safetensors_text one_head = {"num_heads", "1"};

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* Runs the tiny layer with more options and compares the output with that of rows of weights (w0,
 * w1). */
static void assert_tiny_run(void **state, const char *options, const double weights[2][2]) {
    char command_line[600];
    char path[SCRATCH_PATH_BYTES];
    const double expected[2] = {weights[0][0] + 3 * weights[0][1] + 1,
                                weights[1][0] + 3 * weights[1][1] + 1};
    (void)snprintf(
        command_line, sizeof command_line,
        "run %%D/layer.safetensors --query %%D/x.safetensors --output %%D/out.safetensors %s",
        options);
    assert_program(state, command_line, 0, "attn_output (L=2, E=1)");
    assert_tensor(scratch_path(state, "out.safetensors", path), "attn_output", 2, expected);
}

/* ---- results ---- */

static void run_plain_gives_the_result_known_by_hand(void **state) {
    const double weights[2][2] = {{1 - sigmoid(1), sigmoid(1)}, {1 - sigmoid(2), sigmoid(2)}};
    char path[SCRATCH_PATH_BYTES];
    const double flat[4] = {weights[0][0], weights[0][1], weights[1][0], weights[1][1]};
    assert_tiny_run(state, "", weights);
    assert_tiny_run(state, "--weights heads", weights);
    assert_tensor(scratch_path(state, "out.safetensors", path), "attn_weights", 4, flat);
    assert_tiny_run(state, "--weights average", weights);
    assert_tensor(path, "attn_weights", 4, flat);
    assert_tiny_run(state, "--dtype float64", weights);
    assert_tiny_run(state, "--threads 1 --kernels baseline", weights);
}

static void run_options_change_the_weights_as_defined(void **state) {
    const double e = exp(1);
    const double e2 = exp(2);
    const struct {
        const char *options;
        double weights[2][2];
    } cases[] = {
        {"--causal", {{1, 0}, {1 - sigmoid(2), sigmoid(2)}}},
        {"--window 0,0", {{1, 0}, {0, 1}}},
        {"--window -1,0", {{1, 0}, {1 - sigmoid(2), sigmoid(2)}}},
        {"--window 0,-1", {{1 - sigmoid(1), sigmoid(1)}, {0, 1}}},
        {"--scale 0", {{0.5, 0.5}, {0.5, 0.5}}},
        {"--scale -1", {{1 - sigmoid(-1), sigmoid(-1)}, {1 - sigmoid(-2), sigmoid(-2)}}},
        {"--softcap 1",
         {{1 - sigmoid(tanh(1)), sigmoid(tanh(1))}, {1 - sigmoid(tanh(2)), sigmoid(tanh(2))}}},
        {"--normalizer linear", {{0, 1}, {0, 2}}},
        {"--normalizer sigmoid", {{0.5, sigmoid(1)}, {0.5, sigmoid(2)}}},
        {"--key-lengths 1", {{1, 0}, {1, 0}}},
        {"--key-lengths 0", {{0, 0}, {0, 0}}},
        {"--causal --query-offset 1", {{1 - sigmoid(1), sigmoid(1)}, {1 - sigmoid(2), sigmoid(2)}}},
        {"--causal --align-end", {{1, 0}, {1 - sigmoid(2), sigmoid(2)}}},
        {"--causal --align-end --key-lengths 1", {{0, 0}, {1, 0}}},
        {"--causal --query-offset -1", {{0, 0}, {1, 0}}},
        {"--add-zero-attn", {{1 / (2 + e), e / (2 + e)}, {1 / (2 + e2), e2 / (2 + e2)}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_tiny_run(state, cases[i].options, cases[i].weights);
    }
}

static void run_masks_hide_and_biases_add(void **state) {
    char path[SCRATCH_PATH_BYTES];
    const double first_only[2][2] = {{1, 0}, {1, 0}};
    const double second_only[2][2] = {{0, 1}, {0, 1}};
    const double diagonal[2][2] = {{1, 0}, {0, 1}};
    const double opposite[2][2] = {{0, 1}, {1, 0}};
    const double first_row[2][2] = {{1, 0}, {0, 0}};
    const double shifted[2][2] = {{1 - sigmoid(1 - 3), sigmoid(1 - 3)},
                                  {1 - sigmoid(2 - 3), sigmoid(2 - 3)}};
    tiny_mask_write(scratch_path(state, "padding.safetensors", path), "key_padding_mask", 1,
                    (const int64_t[]){2}, (const unsigned char[]){0, 1});
    tiny_mask_write(scratch_path(state, "mask.safetensors", path), "m", 2, (const int64_t[]){2, 2},
                    (const unsigned char[]){0, 1, 1, 0});
    tiny_tensor_write(scratch_path(state, "hidden.safetensors", path), "m", 1, (const int64_t[]){2},
                      (const float[]){0, -INFINITY}, NULL, 0);
    tiny_tensor_write(scratch_path(state, "added.safetensors", path), "m", 1, (const int64_t[]){2},
                      (const float[]){0, -3}, NULL, 0);
    assert_tiny_run(state, "--key-padding-mask %D/padding.safetensors", first_only);
    assert_tiny_run(
        state, "--key-padding-mask %D/padding.safetensors:key_padding_mask --mask-polarity include",
        second_only);
    assert_tiny_run(state, "--key-padding-mask %D/hidden.safetensors", first_only);
    assert_tiny_run(state, "--key-padding-mask %D/added.safetensors", shifted);
    assert_tiny_run(state, "--bias %D/added.safetensors", shifted);
    assert_tiny_run(state, "--bias %D/hidden.safetensors:m", first_only);
    assert_tiny_run(state, "--bias %D/hidden.safetensors --attn-mask %D/mask.safetensors",
                    first_row);
    assert_tiny_run(state, "--attn-mask %D/mask.safetensors", diagonal);
    assert_tiny_run(state, "--attn-mask %D/mask.safetensors:m --mask-polarity include", opposite);
}

/* Row 0 has scores 0 and 1, row 1 scores 0 and 2, less or more what options add. */
static void run_options_of_scores_change_the_weights(void **state) {
    char path[SCRATCH_PATH_BYTES];
    const double e = exp(1), e2 = exp(2);
    const double by_distance[2][2] = {{1 - sigmoid(1 + 3), sigmoid(1 + 3)},
                                      {1 - sigmoid(2 - 2), sigmoid(2 - 2)}};
    const double sloped[2][2] = {{1 - sigmoid(1 - 2), sigmoid(1 - 2)},
                                 {1 - sigmoid(2 + 2), sigmoid(2 + 2)}};
    const double sunk[2][2] = {{1 / (2 + e), e / (2 + e)}, {1 / (2 + e2), e2 / (2 + e2)}};
    const double diagonal[2][2] = {{1, 0}, {0, 1}};
    const double first_row[2][2] = {{1, 0}, {0, 0}};
    tiny_tensor_write(scratch_path(state, "distances.safetensors", path), "position_bias", 2,
                      (const int64_t[]){1, 3}, (const float[]){2, 0, 3}, NULL, 0);
    tiny_tensor_write(scratch_path(state, "slopes.safetensors", path), "alibi_slopes", 1,
                      (const int64_t[]){1}, (const float[]){2}, NULL, 0);
    tiny_tensor_write(scratch_path(state, "sinks.safetensors", path), "sinks", 1,
                      (const int64_t[]){1}, (const float[]){0}, NULL, 0);
    tiny_mask_write(scratch_path(state, "blocks.safetensors", path), "block_mask", 2,
                    (const int64_t[]){2, 2}, (const unsigned char[]){1, 0, 0, 1});
    tiny_mask_write(scratch_path(state, "second.safetensors", path), "m", 1, (const int64_t[]){2},
                    (const unsigned char[]){0, 1});
    assert_tiny_run(state, "--position-bias %D/distances.safetensors", by_distance);
    assert_tiny_run(state, "--alibi %D/slopes.safetensors", sloped);
    assert_tiny_run(state, "--sinks %D/sinks.safetensors", sunk);
    assert_tiny_run(state, "--block-mask %D/blocks.safetensors --block-rows 1 --block-columns 1",
                    diagonal);
    tiny_mask_write(scratch_path(state, "rows.safetensors", path), "m", 2, (const int64_t[]){2, 2},
                    (const unsigned char[]){0, 0, 0, 1});
    assert_tiny_run(state,
                    "--block-mask %D/blocks.safetensors --block-rows 1 --block-columns 1 "
                    "--attn-mask %D/rows.safetensors",
                    first_row);
}

/* One head of two features, which projects nothing away. */
static void write_identity_layer(const char *path) {
    static const float stacked[6][2] = {{1, 0}, {0, 1}, {1, 0}, {0, 1}, {1, 0}, {0, 1}};
    const safetensors_entry tensors[] = {{.name = "in_proj_weight",
                                          .dtype = "F32",
                                          .rank = 2,
                                          .shape = {6, 2},
                                          .data = stacked,
                                          .data_bytes = sizeof stacked},
                                         {.name = "out_proj.weight",
                                          .dtype = "F32",
                                          .rank = 2,
                                          .shape = {2, 2},
                                          .data = stacked,
                                          .data_bytes = sizeof stacked[0] * 2}};
    char error[500] = "";
    if (safetensors_save(path, tensors, 2, &one_head, 1, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
}

/* Both words are (1, 0): a score is the cosine of how much farther one is turned. */
static void run_rope_turns_queries_and_keys(void **state) {
    char path[SCRATCH_PATH_BYTES];
    const struct {
        const char *options;
        double turn;
    } cases[] = {{"", 0},
                 {"--rope 10000", 1},
                 {"--rope 5 --rope-dim 2 --rope-interleaved", 1},
                 {"--rope-frequencies %D/turns.safetensors", 0.5}};
    write_identity_layer(scratch_path(state, "identity.safetensors", path));
    tiny_tensor_write(scratch_path(state, "words.safetensors", path), "x", 2,
                      (const int64_t[]){2, 2}, (const float[]){1, 0, 1, 0}, NULL, 0);
    tiny_tensor_write(scratch_path(state, "turns.safetensors", path), "inv_freq", 1,
                      (const int64_t[]){1}, (const float[]){0.5f}, NULL, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char command_line[600];
        const double near = sigmoid((1 - cos(cases[i].turn)) / sqrt(2));
        const double expected[4] = {near, 1 - near, 1 - near, near};
        (void)snprintf(command_line, sizeof command_line,
                       "run %%D/identity.safetensors --query %%D/words.safetensors --weights heads "
                       "--output %%D/out.safetensors %s",
                       cases[i].options);
        assert_program(state, command_line, 0,
                       i == 1 ? "rotary positions of base 10000" : "attn_weights");
        assert_tensor(scratch_path(state, "out.safetensors", path), "attn_weights", 4, expected);
    }
}

/* Of the first row the words of seed 0 are 6627e8d5 and e169c58d: half of them is below 2^31. */
static void run_dropout_drops_the_documented_weights(void **state) {
    char path[SCRATCH_PATH_BYTES];
    const double expected = 3 * 2 * sigmoid(1) + 1;
    tiny_tensor_write(scratch_path(state, "one.safetensors", path), "x", 2, (const int64_t[]){1, 1},
                      (const float[]){0}, NULL, 0);
    assert_program(state,
                   "run %D/layer.safetensors --query %D/one.safetensors --key %D/x.safetensors "
                   "--dropout 0.5 --dropout-seed 0 --output %D/out.safetensors",
                   0, "dropout 0.5");
    assert_tensor(scratch_path(state, "out.safetensors", path), "attn_output", 1, &expected);
}

static void run_of_no_queries_has_an_empty_result(void **state) {
    char path[SCRATCH_PATH_BYTES];
    tiny_tensor_write(scratch_path(state, "none.safetensors", path), "x", 2,
                      (const int64_t[]){0, 1}, NULL, NULL, 0);
    assert_program(
        state,
        "run %D/layer.safetensors --query %D/none.safetensors --weights heads --links --time 2 "
        "--output %D/out.safetensors",
        0, "attn_weights (H=1, L=0, T=0)");
    assert_tensor(scratch_path(state, "out.safetensors", path), "attn_output", 0, NULL);
    assert_program(state, "run %D/layer.safetensors --query %D/none.safetensors --json", 0,
                   "\"kernels\":");
}

static void run_every_naming_and_element_type_gives_the_same(void **state) {
    static const char *const dtypes[] = {"F32", "F64", "F16", "BF16"};
    const double expected[2] = {2 + 2 * sigmoid(1), 2 + 2 * sigmoid(2)};
    char path[SCRATCH_PATH_BYTES];
    for (int naming = 0; naming < TINY_NAMINGS; naming++) {
        for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
            tiny_layer_write(scratch_path(state, "named.safetensors", path), "model.0.", naming,
                             dtypes[i], NULL, 0);
            assert_program(state,
                           "run %D/named.safetensors --prefix model.0. --num-heads 1 --query "
                           "%D/x.safetensors:x "
                           "--output %D/out.safetensors",
                           0, i == 1 ? "float64" : "float32");
            assert_tensor(scratch_path(state, "out.safetensors", path), "attn_output", 2, expected);
        }
    }
}

static void run_batch_first_and_sequence_first_read_the_axes(void **state) {
    char path[SCRATCH_PATH_BYTES];
    const double s1 = 2 + 2 * sigmoid(1);
    const double s2 = 2 + 2 * sigmoid(2);
    const safetensors_text batch_first[] = {one_head, {"batch_first", "1"}};
    /* Read batch first: sequences (0, 1) and (0, 1). Read sequence first: sequences (0, 0) and (1,
     * 1), whose weights are equal: the outputs are 0.5 v + 1 with v = 2 and v = 6. */
    const double by_batch[4] = {s1, s2, s1, s2};
    const double by_sequence[4] = {2, 4, 2, 4};
    tiny_tensor_write(scratch_path(state, "x3.safetensors", path), "hidden_states", 3,
                      (const int64_t[]){2, 2, 1}, (const float[]){0, 1, 0, 1}, NULL, 0);
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x3.safetensors --batch-first --output "
                   "%D/out.safetensors",
                   0, "attn_output (N=2, L=2, E=1)");
    assert_tensor(scratch_path(state, "out.safetensors", path), "attn_output", 4, by_batch);
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x3.safetensors --output %D/out.safetensors",
                   0, "attn_output (L=2, N=2, E=1)");
    assert_tensor(path, "attn_output", 4, by_sequence);
    tiny_layer_write(scratch_path(state, "layer.safetensors", path), "", TINY_TORCH_PACKED, "F32",
                     batch_first, 2);
    assert_program(state, "run %D/layer.safetensors --query %D/x3.safetensors --key-lengths 1,2", 0,
                   "attn_output (N=2, L=2, E=1)");
    assert_program(state, "run %D/layer.safetensors --query %D/x3.safetensors --sequence-first", 0,
                   "attn_output (L=2, N=2, E=1)");
}

static void run_cross_attention_reads_key_and_value(void **state) {
    char path[SCRATCH_PATH_BYTES];
    const safetensors_text words = {"tokens.0", "[\"eau\",\"rive\",\"banc\"]"};
    /* Keys 0, 0, 0 give equal weights; the values' inputs 0, 1, 2 give v = 2, 6, 10, mean 6,
     * output 4. */
    const double expected[2] = {4, 4};
    const double of_keys[2] = {2, 2};
    tiny_tensor_write(scratch_path(state, "k.safetensors", path), "key", 2, (const int64_t[]){3, 1},
                      (const float[]){0, 0, 0}, &words, 1);
    tiny_tensor_write(scratch_path(state, "v.safetensors", path), "value", 2,
                      (const int64_t[]){3, 1}, (const float[]){0, 1, 2}, NULL, 0);
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --key %D/k.safetensors "
                   "--value %D/v.safetensors --weights heads "
                   "--links --output %D/out.safetensors",
                   0, "\"river\" -> \"eau\" 0.33");
    assert_tensor(scratch_path(state, "out.safetensors", path), "attn_output", 2, expected);
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --key %D/k.safetensors "
                   "--output %D/out.safetensors",
                   0, "value is the key");
    assert_tensor(path, "attn_output", 2, of_keys);
}

static void run_output_keeps_words_padding_and_axes(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char error[300] = "";
    safetensors_file *file = NULL;
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --weights heads "
                   "--key-lengths 1 --add-zero-attn "
                   "--output %D/out.safetensors",
                   0, "attn_weights (H=1, L=2, T=3) -> ");
    assert_int_equal(
        safetensors_open(scratch_path(state, "out.safetensors", path), &file, error, sizeof error),
        0);
    assert_string_equal(safetensors_metadata(file, "tokens.0"), "[\"river\",\"bank\"]");
    assert_string_equal(safetensors_metadata(file, "attn_weights_axes"), "HLT");
    assert_string_equal(safetensors_metadata(file, "add_zero_attn"), "1");
    assert_string_equal(safetensors_metadata(file, "self_attention"), "1");
    const safetensors_entry *padding = safetensors_find(file, "key_padding_mask");
    assert_non_null(padding);
    assert_string_equal(padding->dtype, "BOOL");
    assert_memory_equal(padding->data, "\0\1", 2);
    safetensors_close(file);
}

/* ---- against PyTorch ---- */

static void run_fixture_of_a_language_model_matches_pytorch(void **state) {
    assert_program(
        state,
        "run %F/minilm_layer.safetensors --query %F/minilm_layer.safetensors:hidden_states "
        "--key-padding-mask %F/minilm_layer.safetensors:key_padding_mask --weights heads --links "
        "--expect %F/minilm_layer.safetensors",
        0, "within the tolerance of 1e-05");
    /* A head of this layer finds whom a pronoun means. */
    assert_program(state,
                   "run %F/minilm_layer.safetensors --query %F/minilm_layer.safetensors "
                   "--key-padding-mask %F/minilm_layer.safetensors --weights heads --links",
                   0, "head 4: \"his\" -> \"man\" 0.6");
}

static void run_fixtures_of_whole_models_in_half_precision_match_pytorch(void **state) {
    assert_program(state,
                   "run %F/hf_names_f16.safetensors --prefix encoder.layer.0.attention. --query "
                   "%F/hf_names_f16.safetensors:x "
                   "--weights heads --expect %F/hf_names_f16.safetensors",
                   0, "BERT style");
    assert_program(state,
                   "run %F/hf_names_bf16.safetensors --prefix encoder.layer.0.attention --query "
                   "%F/hf_names_bf16.safetensors:x "
                   "--weights heads --expect %F/hf_names_bf16.safetensors",
                   0, "within the tolerance of 1e-05");
    assert_program(state, "run %F/hf_names_f16.safetensors --query %F/hf_names_f16.safetensors:x",
                   4,
                   "layers found under 'encoder.layer.0.attention.', 'encoder.layer.1.attention.'");
}

/* Cases of the golden collection: separate projections, both masks, extra columns. Their options
 * are in their metadata. */
static void run_golden_cases_match_pytorch(void **state) {
    static const struct {
        const char *file;
        const char *options;
    } cases[] = {
        {"mha_150_doc_example_default_init", "--weights average"},
        {"mha_154_doc_example_masks",
         "--weights average --key-padding-mask %G:key_padding_mask --attn-mask %G:attn_mask"},
        {"mha_156_doc_example_bias_kv_zero", "--weights average"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[400];
        char options[1000] = "";
        char command_line[4000];
        (void)snprintf(path, sizeof path, "%s/%s.safetensors", golden_path, cases[i].file);
        for (const char *byte = cases[i].options; *byte != '\0'; byte++) {
            size_t used = strlen(options);
            int is_path = byte[0] == '%' && byte[1] == 'G';
            (void)snprintf(options + used, sizeof options - used, is_path ? "%s" : "%.1s",
                           is_path ? path : byte);
            byte += is_path;
        }
        (void)snprintf(command_line, sizeof command_line,
                       "run %s --query %s:query --key %s:key --value %s:value --expect %s %s", path,
                       path, path, path, path, options);
        assert_program(state, command_line, 0, "within the tolerance of 1e-05");
    }
}

int main(int argc, char **argv) {
#define TINY_TEST(test) cmocka_unit_test_setup_teardown(test, tiny_layer_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TINY_TEST(run_plain_gives_the_result_known_by_hand),
        TINY_TEST(run_options_change_the_weights_as_defined),
        TINY_TEST(run_masks_hide_and_biases_add),
        TINY_TEST(run_options_of_scores_change_the_weights),
        TINY_TEST(run_rope_turns_queries_and_keys),
        TINY_TEST(run_dropout_drops_the_documented_weights),
        TINY_TEST(run_of_no_queries_has_an_empty_result),
        TINY_TEST(run_every_naming_and_element_type_gives_the_same),
        TINY_TEST(run_batch_first_and_sequence_first_read_the_axes),
        TINY_TEST(run_cross_attention_reads_key_and_value),
        TINY_TEST(run_output_keeps_words_padding_and_axes),
        TINY_TEST(run_fixture_of_a_language_model_matches_pytorch),
        TINY_TEST(run_fixtures_of_whole_models_in_half_precision_match_pytorch),
        TINY_TEST(run_golden_cases_match_pytorch),
    };
    if (argc != 4) {
        (void)fprintf(stderr, "usage: %s PROGRAM FIXTURES GOLDEN\n", argv[0]);
        return 1;
    }
    program_path = argv[1];
    fixtures_path = argv[2];
    golden_path = argv[3];
    return cmocka_run_group_tests_name("attn_run", tests, NULL, NULL);
}
