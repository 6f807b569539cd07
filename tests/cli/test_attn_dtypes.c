/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_attn_dtypes.c: "attn run --dtype": the tiny layer in every element type beside its float64
 * values, and what attn reads back of files of 16 bits. Arguments: the program, the folder of
 * fixtures, the folder of golden cases.
 *
 * The layer's parameters and x hold in 16 bits, and all between the inputs and the results is
 * float32's. A result of 16 bits is rounded once: assert_tensor allows for that and no more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "element_types.h"
#include "program_run.h"
#include "safetensors_read.h"
#include "safetensors_write.h"
#include "scratch_files.h"
#include "tiny_layer.h"

static const struct {
    const char *title;
    const char *file_name;
    const char *tolerance; /* by default, as reports print it */
} dtypes[] = {{"float32", "F32", "1e-05"},
              {"float64", "F64", "1e-05"},
              {"bfloat16", "BF16", "0.0078125"},
              {"float16", "F16", "0.000976562"}};
enum { DTYPE_COUNT = sizeof dtypes / sizeof dtypes[0] };

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static void assert_stored_as(const char *path, const char *name, const char *file_name) {
    char error[300] = "";
    safetensors_file *file = NULL;
    if (safetensors_open(path, &file, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
    const safetensors_entry *entry = safetensors_find(file, name);
    assert_non_null(entry);
    assert_string_equal(entry->dtype, file_name);
    safetensors_close(file);
}

/* Runs the layer on x with more options and fails unless it ends so and says the text. */
static void assert_run(void **state, const char *dtype, const char *options, int exit_code,
                       const char *text) {
    char command_line[600];
    (void)snprintf(command_line, sizeof command_line,
                   "run %%D/layer.safetensors --query %%D/x.safetensors --dtype %s %s", dtype,
                   options);
    assert_program(state, command_line, exit_code, text);
}

/* Compares output and weights, of which row i is (w0, w1), with what they are in real numbers. */
static void assert_results(void **state, int dtype, const char *options,
                           const double weights[2][2]) {
    char path[SCRATCH_PATH_BYTES];
    char more[500];
    const double output[2] = {weights[0][0] + 3 * weights[0][1] + 1,
                              weights[1][0] + 3 * weights[1][1] + 1};
    const double flat[4] = {weights[0][0], weights[0][1], weights[1][0], weights[1][1]};
    for (int per_head = 0; per_head < 2; per_head++) {
        (void)snprintf(more, sizeof more, "%s --weights %s --output %%D/out.safetensors", options,
                       per_head ? "heads" : "average");
        assert_run(state, dtypes[dtype].title, more, 0, dtypes[dtype].title);
        (void)scratch_path(state, "out.safetensors", path);
        assert_stored_as(path, "attn_output", dtypes[dtype].file_name);
        assert_stored_as(path, "attn_weights", dtypes[dtype].file_name);
        assert_tensor(path, "attn_output", 2, output);
        assert_tensor(path, "attn_weights", 4, flat);
    }
}

/* Writes a tensor of two numbers of 16 bits. */
static void write_halves(void **state, const char *file_name, const char *dtype, const char *name,
                         const uint16_t halves[2]) {
    char path[SCRATCH_PATH_BYTES];
    char error[300] = "";
    const safetensors_entry tensor = {.name = name,
                                      .dtype = dtype,
                                      .rank = 1,
                                      .shape = {2},
                                      .data = halves,
                                      .data_bytes = 2 * sizeof halves[0]};
    if (safetensors_save(scratch_path(state, file_name, path), &tensor, 1, NULL, 0, error,
                         sizeof error) != 0) {
        fail_msg("%s", error);
    }
}

/* ---- results ---- */

static void results_of_every_type_are_the_real_ones_rounded(void **state) {
    const double plain[2][2] = {{1 - sigmoid(1), sigmoid(1)}, {1 - sigmoid(2), sigmoid(2)}};
    const double causal[2][2] = {{1, 0}, {1 - sigmoid(2), sigmoid(2)}};
    const double diagonal[2][2] = {{1, 0}, {0, 1}};
    const double shifted[2][2] = {{1 - sigmoid(1 - 3), sigmoid(1 - 3)},
                                  {1 - sigmoid(2 - 3), sigmoid(2 - 3)}};
    char path[SCRATCH_PATH_BYTES];
    tiny_mask_write(scratch_path(state, "mask.safetensors", path), "m", 2, (const int64_t[]){2, 2},
                    (const unsigned char[]){0, 1, 1, 0});
    tiny_tensor_write(scratch_path(state, "added.safetensors", path), "m", 1, (const int64_t[]){2},
                      (const float[]){0, -3}, NULL, 0);
    tiny_tensor_write(scratch_path(state, "rows.safetensors", path), "m", 2,
                      (const int64_t[]){2, 2}, (const float[]){0, -3, 0, -3}, NULL, 0);
    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        assert_results(state, dtype, "", plain);
        assert_results(state, dtype, "--threads 1 --kernels baseline", plain);
        assert_results(state, dtype, "--causal", causal);
        assert_results(state, dtype, "--attn-mask %D/mask.safetensors", diagonal);
        assert_results(state, dtype, "--attn-mask %D/rows.safetensors", shifted);
        assert_results(state, dtype, "--key-padding-mask %D/added.safetensors", shifted);
        assert_results(state, dtype, "--bias %D/added.safetensors", shifted);
    }
}

static void results_do_not_depend_on_the_type_of_exact_weights(void **state) {
    const double expected[2] = {2 + 2 * sigmoid(1), 2 + 2 * sigmoid(2)};
    const safetensors_text one_head = {"num_heads", "1"};
    char path[SCRATCH_PATH_BYTES];
    for (int stored = 0; stored < DTYPE_COUNT; stored++) {
        tiny_layer_write(scratch_path(state, "layer.safetensors", path), "", TINY_BERT,
                         dtypes[stored].file_name, &one_head, 1);
        for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
            assert_run(state, dtypes[dtype].title, "--output %D/out.safetensors", 0,
                       dtypes[dtype].title);
            assert_tensor(scratch_path(state, "out.safetensors", path), "attn_output", 2, expected);
        }
    }
}

static void assert_below(const char *path, const char *name, double bound) {
    char error[300] = "";
    safetensors_file *file = NULL;
    if (safetensors_open(path, &file, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
    const safetensors_entry *entry = safetensors_find(file, name);
    assert_non_null(entry);
    const element_type *type = element_type_in_file(entry->dtype);
    assert_non_null(type);
    for (size_t byte = 0; byte < entry->data_bytes; byte += type->bytes) {
        assert_true(fabs(type->read((const char *)entry->data + byte)) < bound);
    }
    safetensors_close(file);
}

/*
 * A layer of a model whose weights have 16 bits, run on its own output, which then has 16 bits too:
 * beside the same run in float64 only the last rounding differs, below 16 by at most
 * 8 * 2^-precision, and the computation in float32, by 16 * 1e-5.
 */
static void results_of_a_model_in_16_bits_are_those_of_float64_rounded(void **state) {
    static const struct {
        const char *title;
        const char *file;
        const char *tolerance;
    } cases[] = {{"bfloat16", "hf_names_bf16", "0.03141"}, {"float16", "hf_names_f16", "0.004066"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[SCRATCH_PATH_BYTES];
        char layer[200];
        char command_line[700];
        (void)snprintf(layer, sizeof layer,
                       "run %%F/%s.safetensors --prefix encoder.layer.0.attention. --weights heads",
                       cases[i].file);
        (void)snprintf(command_line, sizeof command_line,
                       "%s --query %%F/%s.safetensors:x --dtype %s --output %%D/in.safetensors",
                       layer, cases[i].file, cases[i].title);
        assert_program(state, command_line, 0, cases[i].title);
        (void)snprintf(command_line, sizeof command_line,
                       "%s --query %%D/in.safetensors:attn_output --dtype float64 "
                       "--output %%D/real.safetensors",
                       layer);
        assert_program(state, command_line, 0, "float64");
        assert_below(scratch_path(state, "real.safetensors", path), "attn_output", 16);
        (void)snprintf(command_line, sizeof command_line,
                       "%s --query %%D/in.safetensors:attn_output --dtype %s "
                       "--expect %%D/real.safetensors --tolerance %s",
                       layer, cases[i].title, cases[i].tolerance);
        assert_program(state, command_line, 0, "within the tolerance");
    }
}

/* 1 + 2^-12 is 1 in 16 bits; the outputs then are those of 1 bit by bit. */
static void inputs_are_rounded_to_the_type(void **state) {
    char path[SCRATCH_PATH_BYTES];
    for (int dtype = 2; dtype < DTYPE_COUNT; dtype++) {
        assert_run(state, dtypes[dtype].title, "--output %D/out.safetensors", 0, "");
        tiny_tensor_write(scratch_path(state, "near.safetensors", path), "x", 2,
                          (const int64_t[]){2, 1}, (const float[]){0, 1 + 0x1p-12F}, NULL, 0);
        char command_line[400];
        (void)snprintf(command_line, sizeof command_line,
                       "run %%D/layer.safetensors --query %%D/near.safetensors --dtype %s "
                       "--expect %%D/out.safetensors --tolerance 0",
                       dtypes[dtype].title);
        assert_program(state, command_line, 0, "attn_output 0 (within the tolerance of 0)");
    }
}

/* -1e30 is beyond float16: as -inf it would leave the rows empty. Beside it the scores 0, 1 and 2
 * are nothing, even in float64. */
static void masks_keep_the_type_of_scores(void **state) {
    const double equal[2][2] = {{0.5, 0.5}, {0.5, 0.5}};
    char path[SCRATCH_PATH_BYTES];
    tiny_tensor_write(scratch_path(state, "low.safetensors", path), "m", 2, (const int64_t[]){2, 2},
                      (const float[]){-1e30F, -1e30F, -1e30F, -1e30F}, NULL, 0);
    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        assert_results(state, dtype, "--attn-mask %D/low.safetensors", equal);
    }
}

static void the_lowest_number_of_a_masks_type_is_padding(void **state) {
    static const struct {
        const char *dtype;
        uint16_t halves[2];
    } masks[] = {{"F16", {0, 0xfbff}},
                 {"F16", {0, 0xfc00}}, /* -65504, -inf */
                 {"BF16", {0, 0xff7f}},
                 {"BF16", {0, 0xff80}}};
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        write_halves(state, "padding.safetensors", masks[i].dtype, "key_padding_mask",
                     masks[i].halves);
        for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
            assert_run(state, dtypes[dtype].title, "--key-padding-mask %D/padding.safetensors", 0,
                       "padding  1 of 2 keys");
        }
    }
    write_halves(state, "padding.safetensors", "F16", "key_padding_mask",
                 (const uint16_t[]){0, 0xfbfe});
    assert_run(state, "float16", "--key-padding-mask %D/padding.safetensors", 0,
               "padding  0 of 2 keys");
}

/* ---- reading back ---- */

static void results_of_every_type_are_read_back(void **state) {
    char text[200];
    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        assert_run(state, dtypes[dtype].title,
                   "--weights heads --output %D/out.safetensors --links", 0,
                   "\"bank\" -> \"bank\" 0.88");
        assert_run(state, dtypes[dtype].title, "--weights heads --expect %D/out.safetensors", 0,
                   "attn_output 0, attn_weights 0 (within");
        (void)snprintf(text, sizeof text, "\"dtype\":\"%s\"", dtypes[dtype].title);
        assert_run(state, dtypes[dtype].title, "--json --expect %D/out.safetensors", 0, text);
        assert_program(state, "heatmap %D/out.safetensors --output %D/out.png", 0,
                       "heads 1, rows 2, columns 2");
    }
}

static void the_default_tolerance_is_a_step_of_the_type(void **state) {
    const float far[2] = {(float)(2 + 2 * sigmoid(1)), (float)(2 + 2 * sigmoid(2)) + 0.25F};
    char path[SCRATCH_PATH_BYTES];
    char text[100];
    tiny_tensor_write(scratch_path(state, "far.safetensors", path), "attn_output", 2,
                      (const int64_t[]){2, 1}, far, NULL, 0);
    assert_run(state, "float64", "--output %D/real.safetensors", 0, "");
    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        /* Numbers from 2 to 4 are rounded by half their distance, which is the tolerance. */
        (void)snprintf(text, sizeof text, "(within the tolerance of %s)", dtypes[dtype].tolerance);
        assert_run(state, dtypes[dtype].title, "--expect %D/real.safetensors", 0, text);
        (void)snprintf(text, sizeof text, "(ABOVE the tolerance of %s)", dtypes[dtype].tolerance);
        assert_run(state, dtypes[dtype].title, "--expect %D/far.safetensors", 3, text);
    }
    assert_run(state, "bfloat16", "--expect %D/real.safetensors --tolerance 1e-5", 3,
               "(ABOVE the tolerance of 1e-05)");
}

int main(int argc, char **argv) {
#define TINY_TEST(test) cmocka_unit_test_setup_teardown(test, tiny_layer_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TINY_TEST(results_of_every_type_are_the_real_ones_rounded),
        TINY_TEST(results_do_not_depend_on_the_type_of_exact_weights),
        TINY_TEST(results_of_a_model_in_16_bits_are_those_of_float64_rounded),
        TINY_TEST(inputs_are_rounded_to_the_type),
        TINY_TEST(masks_keep_the_type_of_scores),
        TINY_TEST(the_lowest_number_of_a_masks_type_is_padding),
        TINY_TEST(results_of_every_type_are_read_back),
        TINY_TEST(the_default_tolerance_is_a_step_of_the_type),
    };
    if (argc != 4) {
        (void)fprintf(stderr, "usage: %s PROGRAM FIXTURES GOLDEN\n", argv[0]);
        return 1;
    }
    program_path = argv[1];
    fixtures_path = argv[2];
    return cmocka_run_group_tests_name("attn_dtypes", tests, NULL, NULL);
}
