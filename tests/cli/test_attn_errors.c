/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_attn_errors.c: help, exit codes and error lines of the attn program. Arguments: the program,
 * the folder of fixtures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "program_run.h"
#include "scratch_files.h"
#include "tiny_layer.h"

static void wrong_command_lines_exit_with_2(void **state) {
    static const struct {
        const char *command_line;
        const char *error;
    } cases[] = {
        {"", "a command is missing"},
        {"rum", "unknown command 'rum'"},
        {"info --jsom", "unknown option '--jsom'"},
        {"info extra", "unexpected argument 'extra'"},
        {"selftest --threads 0", "--threads: expected an integer from 1 to 1024, got '0'"},
        {"selftest extra", "unexpected argument 'extra'"},
        {"info --json=1", "--json: takes no value, got '1'"},
        {"run", "LAYER.safetensors: missing"},
        {"run %D/layer.safetensors", "--query: missing"},
        {"run %D/layer.safetensors %D/x.safetensors --query x", "unexpected argument"},
        {"run %D/layer.safetensors --query", "--query: expected a value"},
        {"run %D/layer.safetensors --query x --query y", "--query: given twice"},
        {"run %D/layer.safetensors --query x --value y", "--value: needs --key"},
        {"run %D/layer.safetensors --query x --num-heads 0",
         "--num-heads: expected an integer of at least 1, got '0'"},
        {"run %D/layer.safetensors --query x --num-heads 1x", "--num-heads: expected an integer"},
        {"run %D/layer.safetensors --query x --num-heads 99999999999999999999",
         "--num-heads: expected an integer"},
        {"run %D/layer.safetensors --query x --threads 1025",
         "--threads: expected an integer from 1 to 1024, got '1025'"},
        {"run %D/layer.safetensors --query x --scale nan", "--scale: expected a number, got 'nan'"},
        {"run %D/layer.safetensors --query x --scale 1e", "--scale: expected a number, got '1e'"},
        {"run %D/layer.safetensors --query x --dtype int8",
         "--dtype: expected one of auto, float32, float64, bfloat16, float16, got 'int8'"},
        {"run %D/layer.safetensors --query x --window 1", "--window: expected LEFT,RIGHT"},
        {"run %D/layer.safetensors --query x --window 1,2,3", "--window: expected LEFT,RIGHT"},
        {"run %D/layer.safetensors --query x --window 1,x", "--window: expected LEFT,RIGHT"},
        {"run %D/layer.safetensors --query x --batch-first --sequence-first",
         "contradict each other"},
        {"run %D/layer.safetensors --query x --align-end --query-offset 1",
         "--align-end and --query-offset contradict each other"},
        {"run %D/layer.safetensors --query x --links", "--links: needs --weights heads"},
        {"run %D/layer.safetensors --query x --tolerance 1", "--tolerance: needs --expect"},
        {"run %D/layer.safetensors --query x --dropout-seed 1", "--dropout-seed: needs --dropout"},
        {"run %D/layer.safetensors --query x --rope 0", "--rope: expected a base above 0, got 0"},
        {"run %D/layer.safetensors --query x --rope 2 --rope-frequencies y",
         "--rope and --rope-frequencies contradict each other"},
        {"run %D/layer.safetensors --query x --rope-dim 2", "--rope-dim: needs --rope or"},
        {"run %D/layer.safetensors --query x --rope-interleaved", "--rope-interleaved: needs"},
        {"run %D/layer.safetensors --query x --block-mask y --block-rows 3",
         "--block-mask: needs --block-rows and --block-columns"},
        {"run %D/layer.safetensors --query x --block-rows 3", "--block-rows: needs --block-mask"},
        {"run %D/layer.safetensors --query x --block-columns 3",
         "--block-columns: needs --block-mask"},
        {"run %D/layer.safetensors --query %D/x.safetensors --key-lengths 1,2",
         "--key-lengths: expected 1 integers"},
        {"run %D/layer.safetensors --query %D/x.safetensors --key-lengths 3",
         "--key-lengths: expected lengths from 0 to 2, got 3"},
        {"run %D/no_heads.safetensors --query %D/x.safetensors", "--num-heads: missing, and "},
    };
    char path[SCRATCH_PATH_BYTES];
    program_result result = program_run(state, "");
    assert_int_equal(result.exit_code, 2);
    assert_non_null(strstr(result.output, "attn COMMAND --help"));
    program_result_free(&result);
    tiny_layer_write(scratch_path(state, "no_heads.safetensors", path), "", TINY_TORCH_PACKED,
                     "F32", NULL, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_program(state, cases[i].command_line, 2, cases[i].error);
    }
}

static void unusable_files_exit_with_4(void **state) {
    static const struct {
        const char *command_line;
        const char *error;
    } cases[] = {
        {"run %D/absent --query %D/x.safetensors", "absent: No such file or directory"},
        {"run %D/text --query %D/x.safetensors", "text: header:"},
        {"run %D/x.safetensors --query %D/x.safetensors",
         "x.safetensors: no attention layer under prefix '' or any other"},
        {"run %D/layer.safetensors --prefix a. --query %D/x.safetensors",
         "no attention layer under prefix 'a.'; layers found under ''"},
        {"run %D/layer.safetensors --query %D/absent:x", "absent: No such file or directory"},
        {"run %D/layer.safetensors --query %D/x.safetensors:y", "x.safetensors: has no tensor y"},
        {"run %D/layer.safetensors --query %D/layer.safetensors",
         "layer.safetensors: has no tensor query or hidden_states; name one as "},
        {"run %D/layer.safetensors --query %D/x.safetensors --attn-mask %D/layer.safetensors",
         "has no tensor attn_mask; name one as"},
        {"run %D/layer.safetensors --query %D/layer.safetensors:in_proj_bias",
         "expected 3 axes, or 2 for one sequence, got 1"},
        {"run %D/layer.safetensors --query %D/mask.safetensors",
         "m: expected dtype F32, F64, F16 or BF16, got BOOL"},
        {"run %D/layer.safetensors --query %D/x.safetensors --attn-mask %D/integer.safetensors",
         "i: a mask is BOOL or floating, got I64"},
        {"run %D/layer.safetensors --query %D/x.safetensors --bias %D/mask.safetensors",
         "m: a bias is floating, got BOOL"},
        {"run %D/layer.safetensors --query %D/x.safetensors --sinks %D/mask.safetensors",
         "m: sinks are floating, got BOOL"},
        {"run %D/layer.safetensors --query %D/x.safetensors --block-rows 1 --block-columns 1 "
         "--block-mask %D/x.safetensors",
         "x: expected dtype BOOL, got F32"},
        {"run %D/layer.safetensors --num-heads 2 --query %D/x.safetensors",
         "layer.safetensors: out_proj.weight: its 1 columns are not num_heads = 2 times "
         "value_head_dim"},
        {"run %D/heads.safetensors --query %D/x.safetensors",
         "metadata num_heads: expected an integer of at least 1, got 'two'"},
        {"run %D/words.safetensors --query %D/words.safetensors:q --num-heads 1",
         "out_proj.bias: expected shape ("},
        {"run %D/layer.safetensors --query %D/words.safetensors:q",
         "metadata tokens.0: expected a JSON array of strings"},
    };
    char path[SCRATCH_PATH_BYTES];
    const safetensors_text heads = {"num_heads", "two"};
    scratch_write(scratch_path(state, "text", path), "not a safetensors file", 22);
    tiny_mask_write(scratch_path(state, "mask.safetensors", path), "m", 2, (const int64_t[]){2, 1},
                    (const unsigned char[]){0, 1});
    scratch_write_safetensors(scratch_path(state, "integer.safetensors", path),
                              "{\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}",
                              8);
    tiny_layer_write(scratch_path(state, "heads.safetensors", path), "", TINY_TORCH_PACKED, "F32",
                     &heads, 1);
    scratch_write_safetensors(
        scratch_path(state, "words.safetensors", path),
        "{\"__metadata__\":{\"tokens.0\":\"[1]\"},\"q\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_"
        "offsets\":[0,4]},"
        "\"in_proj_weight\":{\"dtype\":\"F32\",\"shape\":[3,1],\"data_offsets\":[4,16]},"
        "\"out_proj.weight\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[16,20]},"
        "\"out_proj.bias\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[20,28]}}",
        28);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_program(state, cases[i].command_line, 4, cases[i].error);
    }
}

static void refusals_of_the_library_exit_with_1(void **state) {
    char path[SCRATCH_PATH_BYTES];
    tiny_tensor_write(scratch_path(state, "wide.safetensors", path), "x", 2,
                      (const int64_t[]){2, 3}, (const float[]){0, 1, 2, 3, 4, 5}, NULL, 0);
    assert_program(state, "run %D/layer.safetensors --query %D/wide.safetensors", 1,
                   "forward: query: expected shape");
    assert_program(state, "run %D/layer.safetensors --query %D/x.safetensors --window -2,0", 1,
                   "forward: attention.window_left: expected");
    assert_program(state, "run %D/layer.safetensors --query %D/x.safetensors --softcap -1", 1,
                   "forward: attention.softcap: expected");
    assert_program(state, "run %D/layer.safetensors --query %D/x.safetensors --kernels abacus", 1,
                   "context: kernels");
    assert_program(state, "selftest --kernels abacus", 1, "context: kernels");
}

static void help_of_the_program_and_every_command_teaches(void **state) {
    assert_program(state, "--help", 0, "Exit codes: 0 done;");
    assert_program(state, "help", 0, "attn run");
    assert_program(state, "info --help", 0, "attn info [--json]");
    assert_program(state, "selftest --help", 0, "Exit codes: 0 all checks passed;");
    assert_program(state, "run --help", 0, "--key-padding-mask F  (N, S)");
    assert_program(state, "run --nonsense -h", 0, "Example:");
    assert_program(state, "heatmap --help", 0, "--output F");
    assert_program(state, "--version", 0, "attn ");
}

static void output_that_cannot_be_written_is_an_error(void **state) {
    static const char *const command_lines[] = {
        "info", "run --help", "run %D/layer.safetensors --query %D/x.safetensors"};
    for (size_t i = 0; i < sizeof command_lines / sizeof command_lines[0]; i++) {
        program_result result = program_run_to(state, command_lines[i], "/dev/full");
        assert_int_equal(result.exit_code, 1);
        assert_string_equal(result.error, "attn: standard output: No space left on device\n");
        program_result_free(&result);
        result = program_run_to(state, command_lines[i], NULL);
        assert_int_equal(result.exit_code, 1);
        assert_string_equal(result.error, "attn: standard output: Bad file descriptor\n");
        program_result_free(&result);
    }
    assert_program(
        state,
        "run %D/layer.safetensors --query %D/x.safetensors --output %D/absent/out.safetensors", 1,
        "absent/out.safetensors: No such file or directory");
}

int main(int argc, char **argv) {
#define TINY_TEST(test) cmocka_unit_test_setup_teardown(test, tiny_layer_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TINY_TEST(help_of_the_program_and_every_command_teaches),
        TINY_TEST(output_that_cannot_be_written_is_an_error),
        TINY_TEST(wrong_command_lines_exit_with_2),
        TINY_TEST(unusable_files_exit_with_4),
        TINY_TEST(refusals_of_the_library_exit_with_1),
    };
    if (argc < 3) {
        (void)fprintf(stderr, "usage: %s PROGRAM FIXTURES\n", argv[0]);
        return 1;
    }
    program_path = argv[1];
    fixtures_path = argv[2];
    return cmocka_run_group_tests_name("attn_errors", tests, NULL, NULL);
}
