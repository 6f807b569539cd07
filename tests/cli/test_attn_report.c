/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_attn_report.c: what "attn run" says about its results, to people and as JSON: differences
 * from expected ones, links between words, facts; "attn info" and "attn selftest". Arguments: the
 * program, the folder of fixtures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>
#include <math.h>

#include "program_run.h"
#include "scratch_files.h"
#include "tiny_layer.h"

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* ---- comparing ---- */

static void run_expect_within_tolerance_succeeds_and_above_it_exits_with_3(void **state) {
    char path[SCRATCH_PATH_BYTES];
    const float good[2] = {(float)(2 + 2 * sigmoid(1)), (float)(2 + 2 * sigmoid(2))};
    const float bad[2] = {good[0], good[1] + 0.25F};
    const float not_a_number[2] = {good[0], NAN};
    tiny_tensor_write(scratch_path(state, "good.safetensors", path), "attn_output", 2,
                      (const int64_t[]){2, 1}, good, NULL, 0);
    tiny_tensor_write(scratch_path(state, "bad.safetensors", path), "attn_output", 2,
                      (const int64_t[]){2, 1}, bad, NULL, 0);
    tiny_tensor_write(scratch_path(state, "nan.safetensors", path), "attn_output", 2,
                      (const int64_t[]){2, 1}, not_a_number, NULL, 0);
    tiny_tensor_write(scratch_path(state, "shape.safetensors", path), "attn_output", 2,
                      (const int64_t[]){1, 2}, good, NULL, 0);
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --expect %D/good.safetensors",
                   0, "within the tolerance of 1e-05");
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --expect %D/bad.safetensors",
                   3, "attn_output 0.25 (ABOVE the tolerance of 1e-05)");
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --expect %D/bad.safetensors "
                   "--tolerance 0.3",
                   0, "within");
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --expect %D/nan.safetensors "
                   "--tolerance inf",
                   3, "ABOVE");
    assert_program(
        state, "run %D/layer.safetensors --query %D/x.safetensors --expect %D/shape.safetensors", 4,
        "attn_output: expected the computed shape (2, 1), got (1, 2)");
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --expect %D/x.safetensors", 4,
                   "has no tensor attn_output to compare with");
}

static void run_expect_compares_the_weights_too(void **state) {
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --weights heads --output "
                   "%D/out.safetensors",
                   0, "");
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --weights heads --expect "
                   "%D/out.safetensors",
                   0, "attn_output 0, attn_weights 0 (within");
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --expect %D/out.safetensors",
                   0, "attn_output 0 (within");
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --weights average --expect "
                   "%D/out.safetensors",
                   4, "attn_weights: expected the computed shape (2, 2), got (1, 2, 2)");
}

/* ---- what it says ---- */

static void run_links_name_the_words(void **state) {
    char path[SCRATCH_PATH_BYTES];
    const safetensors_text marks = {"tokens.0", "[\"[CLS]\",\"[SEP]\"]"};
    const safetensors_text twice = {"tokens.0", "[\"bank\",\"bank\"]"};
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --weights heads --links", 0,
                   "sequence 0: river bank\n  head 0: \"bank\" -> \"bank\" 0.88\n");
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --weights heads --links 3", 0,
                   "  head 0: \"bank\" -> \"bank\" 0.88, \"river\" -> \"bank\" 0.73, \"river\" -> "
                   "\"river\" 0.27\n");
    assert_program(
        state,
        "run %D/layer.safetensors --query %D/x.safetensors --weights heads --links --key-lengths 1",
        0, "sequence 0: river\n  head 0: \"river\" -> \"river\" 1.00\n");
    tiny_tensor_write(scratch_path(state, "x.safetensors", path), "x", 2, (const int64_t[]){2, 1},
                      (const float[]){0, 1}, &marks, 1);
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --weights heads --links", 0,
                   "  head 0: \"[SEP]\" -> \"[SEP]\" 0.88\n"); /* nothing else is there */
    tiny_tensor_write(path, "x", 2, (const int64_t[]){2, 1}, (const float[]){0, 1}, &twice, 1);
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --weights heads --links", 0,
                   "  head 0: \"bank\"@1 -> \"bank\"@1 0.88\n");
    tiny_tensor_write(path, "x", 2, (const int64_t[]){2, 1}, (const float[]){0, 1}, NULL, 0);
    assert_program(state,
                   "run %D/layer.safetensors --query %D/x.safetensors --weights heads --links", 0,
                   "  head 0: 1 -> 1 0.88\n");
}

static const char *json_text(const cJSON *object, const char *name) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static double json_number(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

static cJSON *run_for_json(void **state, const char *command_line) {
    program_result result = program_run(state, command_line);
    assert_int_equal(result.exit_code, 0);
    assert_string_equal(result.error, "");
    cJSON *root = cJSON_Parse(result.output);
    assert_non_null(root);
    program_result_free(&result);
    return root;
}

static void run_json_has_every_fact(void **state) {
    cJSON *root = run_for_json(state, "run %D/layer.safetensors --query %D/x.safetensors --weights "
                                      "heads --links 2 --time 4 --json");
    const cJSON *layer = cJSON_GetObjectItemCaseSensitive(root, "layer");
    const cJSON *time = cJSON_GetObjectItemCaseSensitive(root, "time");
    const cJSON *links = cJSON_GetObjectItemCaseSensitive(root, "links");
    const cJSON *shapes = cJSON_GetObjectItemCaseSensitive(root, "shapes");
    assert_int_equal(json_number(layer, "num_heads"), 1);
    assert_int_equal(json_number(layer, "head_dim"), 1);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(layer, "naming")),
                        "torch.nn.MultiheadAttention, packed");
    assert_int_equal(json_number(time, "runs"), 4);
    assert_true(json_number(time, "min_ms") >= 0 &&
                json_number(time, "min_ms") <= json_number(time, "median_ms"));
    assert_int_equal(cJSON_GetArraySize(links), 2);
    assert_string_equal(
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(links->child, "key_word")), "bank");
    assert_int_equal(json_number(links->child, "query"), 1);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(shapes, "attn_weights")),
                     3);
    assert_true(cJSON_IsString(cJSON_GetObjectItemCaseSensitive(root, "reason")));
    assert_true(json_number(root, "threads") >= 1);
    cJSON_Delete(root);
}

/* ---- control characters ---- */

/* No byte of standard output or error is, or begins, a control character but the line's end. */
static void assert_no_controls(const char *text) {
    for (const unsigned char *byte = (const unsigned char *)text; *byte != '\0'; byte++) {
        int is_c1 = byte[0] == 0xc2 && byte[1] >= 0x80 && byte[1] < 0xa0;
        int is_stray =
            byte > (const unsigned char *)text && byte[-1] < 0x80 && (*byte & 0xc0) == 0x80;
        if ((*byte < 0x20 && *byte != '\n') || *byte == 0x7f || is_c1 || is_stray) {
            fail_msg("byte %d of the output is 0x%02x", (int)(byte - (const unsigned char *)text),
                     *byte);
        }
    }
}

static void control_characters_of_files_reach_no_output(void **state) {
    static const struct {
        const char *command_line;
        int exit_code;
        const char *text;
    } cases[] = {
        {"run %D/l\x9b.safetensors --prefix m\x7f\xc2\x85. --num-heads 1 --query %D/x.safetensors "
         "--json",
         0, "\"output_weight\":\"m\\u007f\\u0085.out_proj.weight\""},
        {"run %D/l\x9b.safetensors --prefix m\x7f\xc2\x85. --num-heads 1 --query %D/x.safetensors "
         "--json",
         0, "/l\\ufffd.safetensors\""},
        {"run %D/l\x9b.safetensors --prefix m\x7f\xc2\x85. --num-heads 1 --query %D/x.safetensors "
         "--output %D/o\xc2\x9b\x1b.safetensors",
         0, "o???.safetensors\n"},
        {"run %D/l\x9b.safetensors --query %D/x.safetensors", 4,
         "l?.safetensors: no attention layer under prefix ''; layers found under 'm???.'"},
        {"run %D/l\x9b.safetensors --prefix m\x7f\xc2\x85. --query %D/x.safetensors --ignore "
         "\xc2\x9b\x80",
         2, "l?.safetensors does not say it in its metadata"},
        {"heatmap %D/o\xc2\x9b\x1b.safetensors --tensor attn_output --axes LT --output "
         "%D/p\xc2\x9b\x7f.svg",
         0, "p???.svg: heads 1, rows 2, columns 1\n"},
    };
    char path[SCRATCH_PATH_BYTES];
    tiny_layer_write(scratch_path(state, "l\x9b.safetensors", path), "m\x7f\xc2\x85.",
                     TINY_TORCH_PACKED, "F32", NULL, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_program(state, cases[i].command_line, cases[i].exit_code, cases[i].text);
        program_result result = program_run(state, cases[i].command_line);
        assert_no_controls(result.output);
        assert_no_controls(result.error);
        program_result_free(&result);
    }
}

static void long_words_are_cut_between_characters(void **state) {
    char path[SCRATCH_PATH_BYTES];
    char list[200];
    char expected[200];
    /* "w" and 20 characters of 3 bytes are 61 bytes, one more than is shown. */
    static const char euros[] = "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
                                "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
                                "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
                                "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac";
    (void)snprintf(list, sizeof list, "[\"w%s\",\"b\"]", euros);
    (void)snprintf(expected, sizeof expected, "\"w%.57s\" -> \"b\" 0.73", euros);
    const safetensors_text words = {"tokens.0", list};
    tiny_tensor_write(scratch_path(state, "long.safetensors", path), "x", 2,
                      (const int64_t[]){2, 1}, (const float[]){0, 1}, &words, 1);
    assert_program(state,
                   "run %D/layer.safetensors --query %D/long.safetensors --weights heads --links 3",
                   0, expected);
}

static void info_tells_version_kernels_and_threads(void **state) {
    assert_program(state, "info", 0, "libattention ");
    assert_program(state, "info", 0, "(in use)");
    assert_program(state, "info", 0, "  products attention of float64 ");
    assert_program(state, "info", 0, ", projections native\n");
    cJSON *root = run_for_json(state, "info --json");
    assert_true(cJSON_IsString(cJSON_GetObjectItemCaseSensitive(root, "version")));
    assert_true(cJSON_IsString(cJSON_GetObjectItemCaseSensitive(root, "kernels")));
    assert_string_equal(json_text(root, "projection_gemm"), "native");
    assert_non_null(json_text(root, "attention_gemm"));
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(root, "kernels_available")) >=
                1);
    assert_true(json_number(root, "threads") >= 1);
    cJSON_Delete(root);
}

static void selftest_lists_every_check_and_passes(void **state) {
    assert_program(state, "selftest", 0, "libattention ");
    assert_program(state, "selftest", 0, "  ok      products, float32\n");
    assert_program(state, "selftest --threads 1 --kernels baseline", 0,
                   "kernels baseline, threads 1");
    assert_program(state, "selftest", 0, " checks passed in ");
    cJSON *root = run_for_json(state, "selftest --json --threads 2");
    const cJSON *checks = cJSON_GetObjectItemCaseSensitive(root, "checks");
    const cJSON *check;
    assert_true(cJSON_GetArraySize(checks) >= 5);
    cJSON_ArrayForEach(check, checks) {
        assert_true(cJSON_IsString(cJSON_GetObjectItemCaseSensitive(check, "check")));
        assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(check, "status")),
                            "ATTN_OK");
    }
    assert_true(json_number(root, "failed") == 0);
    assert_true(json_number(root, "threads") == 2);
    assert_true(json_number(root, "seconds") > 0);
    cJSON_Delete(root);
}

int main(int argc, char **argv) {
#define TINY_TEST(test) cmocka_unit_test_setup_teardown(test, tiny_layer_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TINY_TEST(run_expect_within_tolerance_succeeds_and_above_it_exits_with_3),
        TINY_TEST(run_expect_compares_the_weights_too),
        TINY_TEST(run_links_name_the_words),
        TINY_TEST(run_json_has_every_fact),
        TINY_TEST(control_characters_of_files_reach_no_output),
        TINY_TEST(long_words_are_cut_between_characters),
        TINY_TEST(info_tells_version_kernels_and_threads),
        TINY_TEST(selftest_lists_every_check_and_passes),
    };
    if (argc < 3) {
        (void)fprintf(stderr, "usage: %s PROGRAM FIXTURES\n", argv[0]);
        return 1;
    }
    program_path = argv[1];
    fixtures_path = argv[2];
    return cmocka_run_group_tests_name("attn_report", tests, NULL, NULL);
}
