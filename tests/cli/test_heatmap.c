/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_heatmap.c: which rows and columns are drawn, in which colours, and that everything has its
 * place in the picture.
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
#include "heatmap_colours.h"
#include "heatmap_data.h"
#include "heatmap_layout.h"
#include "program_exit.h"
#include "safetensors_write.h"
#include "scratch_files.h"

/* ---- colours ---- */

static void scale_ends_are_round_and_cover_the_values(void **state) {
    static const struct {
        double smallest, largest, low, high, step;
    } cases[] = {{0, 1, 0, 1, 0.2},           {0, 0.93, 0, 1, 0.1},
                 {0.2, 0.41, 0, 0.45, 0.05},  {0, 0.0012, 0, 0.0012, 0.0002},
                 {-1.3, 0.4, -1.4, 0.4, 0.2}, {-3, -1, -3, 0, 0.5},
                 {0, 0, 0, 1, 0.2},           {0, INFINITY, 0, 1, 0.2},
                 {0, 1.0000001, 0, 1, 0.2},   {-1e300, 1e300, -1e300, 1e300, 2e299}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        colour_scale scale = colour_scale_choose(cases[i].smallest, cases[i].largest);
        double slack = cases[i].step * 1e-9;
        if (fabs(scale.low - cases[i].low) > slack || fabs(scale.high - cases[i].high) > slack ||
            fabs(scale.step - cases[i].step) > slack) {
            fail_msg("case %zu: expected %g to %g by %g, got %g to %g by %g", i, cases[i].low,
                     cases[i].high, cases[i].step, scale.low, scale.high, scale.step);
        }
    }
}

/* Relative luminance of sRGB: what the eye sees as bright. */
static double luminance(uint32_t colour) {
    static const double share[3] = {0.2126, 0.7152, 0.0722};
    double sum = 0;
    for (int channel = 0; channel < 3; channel++) {
        double value = (colour >> (16 - 8 * channel) & 0xff) / 255.0;
        sum +=
            share[channel] * (value <= 0.04045 ? value / 12.92 : pow((value + 0.055) / 1.055, 2.4));
    }
    return sum;
}

static void colours_grow_brighter_with_the_value(void **state) {
    const colour_scale scale = {-1, 1, 0.5};
    double previous = -1;
    (void)state;
    for (int i = 0; i <= 100; i++) {
        /* CIE lightness, in which equal steps look equal: it must rise all the way, evenly to
         * within a factor of about three. */
        double lightness = 116 * cbrt(luminance(colour_of(&scale, -1 + i / 50.0))) - 16;
        if (i > 0) {
            assert_true(lightness - previous > 0.25);
            assert_true(lightness - previous < 1.6);
        }
        previous = lightness;
    }
}

static void colours_outside_the_scale_are_clamped_and_nan_is_grey(void **state) {
    const colour_scale scale = {0, 1, 0.2};
    (void)state;
    assert_int_equal(colour_of(&scale, -5), colour_of(&scale, 0));
    assert_int_equal(colour_of(&scale, INFINITY), colour_of(&scale, 1));
    assert_int_equal(colour_of(&scale, 0), 0x440154);
    assert_int_equal(colour_of(&scale, 1), 0xfde725);
    uint32_t grey = colour_of(&scale, (double)NAN);
    assert_int_equal(grey & 0xff, grey >> 8 & 0xff);
    assert_int_equal(grey & 0xff, grey >> 16);
}

/* ---- layout ---- */

static void assert_layout_is_sound(const heatmap_contents *contents) {
    heatmap_layout layout = heatmap_layout_make(contents);
    int right = HEATMAP_MARGIN + (layout.grid_columns - 1) * layout.panel_width +
                layout.matrix_left + layout.matrix_width;
    int bottom = HEATMAP_MARGIN + HEATMAP_HEADER_HEIGHT +
                 (layout.grid_rows - 1) * layout.panel_height + layout.matrix_top +
                 layout.matrix_height;
    int is_sound = layout.width <= HEATMAP_MAX_SIDE && layout.height <= HEATMAP_MAX_SIDE &&
                   layout.cell_size >= 1 && layout.block >= 1 &&
                   (int64_t)layout.grid_columns * layout.grid_rows >= contents->num_panels &&
                   layout.cell_rows * layout.block >= contents->num_rows &&
                   layout.cell_columns * layout.block >= contents->num_columns &&
                   right + HEATMAP_BAR_SPACE <= layout.width && bottom <= layout.height &&
                   layout.label_every * layout.cell_size >= HEATMAP_LABEL_PITCH * layout.block;
    if (!is_sound) {
        fail_msg("%d panels of %d x %d: picture %d x %d, cell %d, block %d, right %d, bottom %d, "
                 "label every %d",
                 (int)contents->num_panels, (int)contents->num_rows, (int)contents->num_columns,
                 layout.width, layout.height, layout.cell_size, (int)layout.block, right, bottom,
                 (int)layout.label_every);
    }
}

static void layout_of_any_contents_fits_the_picture(void **state) {
    static const int64_t panels[] = {1, 2, 3, 12, 16, 32, 97, HEATMAP_MAX_PANELS};
    static const int64_t lengths[] = {1, 2, 14, 63, 300, 1024, 5000, 6001, 131072, 10000000};
    (void)state;
    for (size_t p = 0; p < sizeof panels / sizeof panels[0]; p++) {
        for (size_t r = 0; r < sizeof lengths / sizeof lengths[0]; r++) {
            for (size_t c = 0; c < sizeof lengths / sizeof lengths[0]; c++) {
                const heatmap_contents contents = {panels[p], lengths[r], lengths[c], 95, 85, 40};
                assert_layout_is_sound(&contents);
            }
        }
    }
}

static void layout_of_a_sentence_labels_every_word_on_one_screen(void **state) {
    const heatmap_contents contents = {12, 14, 14, 45, 45, 20};
    heatmap_layout layout = heatmap_layout_make(&contents);
    (void)state;
    assert_int_equal(layout.label_every, 1);
    assert_int_equal(layout.block, 1);
    assert_int_equal(layout.grid_columns, 4);
    assert_int_equal(layout.grid_rows, 3);
    assert_true(layout.width <= 1600 && layout.height <= 1250);
}

/* ---- data ---- */

/* A file of weights 0, 1, 2, ... in C order, with metadata and possibly a mask. */
static void write_weights(const char *path, int32_t rank, const int64_t *shape,
                          const safetensors_text *texts, int64_t text_count,
                          const safetensors_entry *mask) {
    float values[1000];
    int64_t count = 1;
    char error[300] = "";
    safetensors_entry tensors[2] = {
        {.name = "attn_weights", .dtype = "F32", .rank = rank, .data = values}};
    for (int32_t axis = 0; axis < rank; axis++) {
        tensors[0].shape[axis] = shape[axis];
        count *= shape[axis];
    }
    assert_in_range(count, 0, 1000);
    for (int64_t i = 0; i < count; i++) {
        values[i] = (float)i;
    }
    tensors[0].data_bytes = (size_t)count * sizeof values[0];
    if (mask != NULL) {
        tensors[1] = *mask;
    }
    if (safetensors_save(path, tensors, mask != NULL ? 2 : 1, texts, text_count, error,
                         sizeof error) != 0) {
        fail_msg("%s", error);
    }
}

/* Reads it back; returns the exit code. */
static int read_data(const char *path, int axes, int64_t sequence, int words_only,
                     heatmap_data *data) {
    char error[300] = "";
    safetensors_file *file = NULL;
    const heatmap_request request = {path, "attn_weights", axes, sequence, words_only};
    if (safetensors_open(path, &file, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
    int exit_code = heatmap_data_read(file, &request, data);
    safetensors_close(file);
    return exit_code;
}

static void assert_labels(const heatmap_axis *axis, const char *expected) {
    char labels[300] = "";
    size_t used = 0;
    for (int64_t i = 0; i < axis->count; i++) {
        used += (size_t)snprintf(labels + used, sizeof labels - used, "%s%s", i == 0 ? "" : " ",
                                 axis->labels[i]);
    }
    assert_string_equal(labels, expected);
}

static void data_leaves_out_padding_of_rows_and_columns(void **state) {
    char path[SCRATCH_PATH_BYTES];
    heatmap_data data;
    const uint8_t padding[8] = {0, 0, 0, 1, 0, 0, 1, 1};
    const safetensors_entry mask = {.name = "key_padding_mask",
                                    .dtype = "BOOL",
                                    .rank = 2,
                                    .shape = {2, 4},
                                    .data = padding,
                                    .data_bytes = 8};
    const safetensors_text texts[] = {{"tokens.0", "[\"[CLS]\",\"a\",\"b\",\"[PAD]\"]"},
                                      {"tokens.1", "[\"c\",\"d\",\"[PAD]\",\"[PAD]\"]"}};
    write_weights(scratch_path(state, "w.safetensors", path), 4, (const int64_t[]){2, 3, 4, 4},
                  texts, 2, &mask);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_DONE);
    assert_int_equal(data.num_heads, 3);
    assert_labels(&data.rows, "[CLS] a b");
    assert_labels(&data.columns, "[CLS] a b");
    assert_string_equal(data.sentence, "a b");
    heatmap_data_free(&data);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 1, 0, &data), EXIT_DONE);
    assert_labels(&data.columns, "c d");
    assert_true(heatmap_cell_value(&data, 2, 1, 0, 1) == 48 + 32 + 4);
    assert_true(data.largest == 48 + 32 + 5);
    assert_false(data.rows_add_up_to_one);
    heatmap_data_free(&data);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 1, &data), EXIT_DONE);
    assert_labels(&data.rows, "a b");
    assert_true(heatmap_cell_value(&data, 0, 0, 1, 1) == 6);
    heatmap_data_free(&data);
}

/* bfloat16's nearest to 1/3 is 0x3eab; three of it are 2^-9 too many, within their roundings, at
 * most 2^-8. The same number in a wider type says that the weights are none of a softmax. */
static void data_of_rounded_weights_adds_up_to_one(void **state) {
    static const char *const file_names[] = {"BF16", "F16", "F32", "F64"};
    for (size_t i = 0; i < sizeof file_names / sizeof file_names[0]; i++) {
        const element_type *type = element_type_in_file(file_names[i]);
        char path[SCRATCH_PATH_BYTES];
        char error[300] = "";
        char weights[3 * sizeof(double)];
        heatmap_data data;
        for (size_t column = 0; column < 3; column++) {
            type->write(weights + column * type->bytes, 0x1.56p-2);
        }
        const safetensors_entry tensor = {.name = "attn_weights",
                                          .dtype = file_names[i],
                                          .rank = 2,
                                          .shape = {1, 3},
                                          .data = weights,
                                          .data_bytes = 3 * type->bytes};
        assert_int_equal(safetensors_save(scratch_path(state, "w.safetensors", path), &tensor, 1,
                                          NULL, 0, error, sizeof error),
                         0);
        assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_DONE);
        assert_true(heatmap_cell_value(&data, 0, 0, 2, 1) == 0x1.56p-2);
        assert_int_equal(data.rows_add_up_to_one, i == 0);
        heatmap_data_free(&data);
    }
}

static void data_of_cross_attention_has_words_of_its_own_for_columns(void **state) {
    char path[SCRATCH_PATH_BYTES];
    heatmap_data data;
    const uint8_t padding[3] = {0, 0, 1};
    const safetensors_entry mask = {.name = "key_padding_mask",
                                    .dtype = "BOOL",
                                    .rank = 2,
                                    .shape = {1, 3},
                                    .data = padding,
                                    .data_bytes = 3};
    const safetensors_text texts[] = {{"tokens.0", "[\"a\",\"b\",\"c\"]"},
                                      {"key_tokens.0", "[\"x\",\"y\",\"z\"]"},
                                      {"self_attention", "0"}};
    write_weights(scratch_path(state, "w.safetensors", path), 4, (const int64_t[]){1, 2, 3, 3},
                  texts, 3, &mask);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_DONE);
    assert_labels(&data.rows, "a b c");
    assert_labels(&data.columns, "x y");
    heatmap_data_free(&data);
}

static void data_of_cross_attention_without_words_for_columns_counts_them(void **state) {
    char path[SCRATCH_PATH_BYTES];
    heatmap_data data;
    const safetensors_text texts[] = {{"tokens.0", "[\"a\",\"b\"]"}, {"self_attention", "0"}};
    write_weights(scratch_path(state, "w.safetensors", path), 4, (const int64_t[]){1, 1, 2, 5},
                  texts, 2, NULL);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_DONE);
    assert_labels(&data.rows, "a b");
    assert_labels(&data.columns, "0 1 2 3 4");
    heatmap_data_free(&data);
}

static void data_labels_extra_columns(void **state) {
    char path[SCRATCH_PATH_BYTES];
    heatmap_data data;
    const safetensors_text words = {"tokens.0", "[\"a\",\"b\"]"};
    const safetensors_text texts[] = {words, {"add_bias_kv", "1"}, {"add_zero_attn", "1"}};
    const safetensors_text zero_only[] = {words, {"add_bias_kv", "0"}, {"add_zero_attn", "1"}};
    write_weights(scratch_path(state, "w.safetensors", path), 4, (const int64_t[]){1, 1, 2, 4},
                  texts, 3, NULL);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_DONE);
    assert_labels(&data.rows, "a b");
    assert_labels(&data.columns, "a b (bias) (zero)");
    assert_int_equal(data.columns.num_extra, 2);
    heatmap_data_free(&data);
    write_weights(path, 4, (const int64_t[]){1, 1, 2, 3}, zero_only, 3, NULL);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_DONE);
    assert_labels(&data.columns, "a b (zero)");
    heatmap_data_free(&data);
    write_weights(path, 4, (const int64_t[]){1, 1, 2, 3}, &words, 1, NULL);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_DONE);
    assert_labels(&data.columns, "a b (extra)");
    heatmap_data_free(&data);
}

static void data_axes_come_from_metadata_words_or_the_caller(void **state) {
    char path[SCRATCH_PATH_BYTES];
    heatmap_data data;
    const safetensors_text said = {"attn_weights_axes", "NLT"};
    const safetensors_text words[] = {{"tokens.0", "[\"a\",\"b\"]"}, {"tokens.1", "[\"c\",\"d\"]"}};
    const int64_t shape[3] = {2, 2, 2};
    write_weights(scratch_path(state, "w.safetensors", path), 3, shape, NULL, 0, NULL);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_DONE);
    assert_int_equal(data.num_heads, 2);
    assert_false(data.is_average);
    heatmap_data_free(&data);
    assert_int_equal(read_data(path, HEATMAP_AXES_NLT, 1, 0, &data), EXIT_DONE);
    assert_int_equal(data.num_heads, 1);
    assert_true(data.is_average);
    assert_true(heatmap_cell_value(&data, 0, 0, 0, 1) == 4);
    heatmap_data_free(&data);
    write_weights(path, 3, shape, &said, 1, NULL);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 1, 0, &data), EXIT_DONE);
    assert_int_equal(data.num_heads, 1);
    heatmap_data_free(&data);
    write_weights(path, 3, shape, words, 2, NULL);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 1, 0, &data), EXIT_DONE);
    assert_labels(&data.rows, "c d");
    heatmap_data_free(&data);
    write_weights(path, 2, shape, NULL, 0, NULL);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_DONE);
    assert_true(data.is_average);
    heatmap_data_free(&data);
}

static void data_with_nothing_to_draw_is_a_bad_file(void **state) {
    char path[SCRATCH_PATH_BYTES];
    heatmap_data data;
    static const int64_t shapes[][4] = {{1, 0, 2, 2}, {1, 1, 0, 2}, {1, 1, 2, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        write_weights(scratch_path(state, "w.safetensors", path), 4, shapes[i], NULL, 0, NULL);
        assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_BAD_FILE);
        heatmap_data_free(&data);
    }
    write_weights(path, 4, (const int64_t[]){0, 1, 2, 2}, NULL, 0, NULL);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data),
                     EXIT_USAGE); /* there is no sequence 0 */
    heatmap_data_free(&data);
    write_weights(path, 1, (const int64_t[]){4}, NULL, 0, NULL);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_BAD_FILE);
    heatmap_data_free(&data);
}

static void data_cells_of_a_block_show_the_farthest_from_zero(void **state) {
    char path[SCRATCH_PATH_BYTES];
    heatmap_data data;
    write_weights(scratch_path(state, "w.safetensors", path), 2, (const int64_t[]){3, 5}, NULL, 0,
                  NULL);
    assert_int_equal(read_data(path, HEATMAP_AXES_AUTO, 0, 0, &data), EXIT_DONE);
    float *values = data.weights.memory;
    values[6] = -50;
    assert_true(heatmap_cell_value(&data, 0, 0, 0, 2) == -50);
    assert_true(heatmap_cell_value(&data, 0, 1, 2, 2) == 14); /* cut at both edges */
    values[14] = NAN;
    assert_true(isnan(heatmap_cell_value(&data, 0, 1, 2, 2)));
    heatmap_data_free(&data);
}

int main(void) {
#define SCRATCH_TEST(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scale_ends_are_round_and_cover_the_values),
        cmocka_unit_test(colours_grow_brighter_with_the_value),
        cmocka_unit_test(colours_outside_the_scale_are_clamped_and_nan_is_grey),
        cmocka_unit_test(layout_of_any_contents_fits_the_picture),
        cmocka_unit_test(layout_of_a_sentence_labels_every_word_on_one_screen),
        SCRATCH_TEST(data_leaves_out_padding_of_rows_and_columns),
        SCRATCH_TEST(data_of_rounded_weights_adds_up_to_one),
        SCRATCH_TEST(data_of_cross_attention_has_words_of_its_own_for_columns),
        SCRATCH_TEST(data_of_cross_attention_without_words_for_columns_counts_them),
        SCRATCH_TEST(data_labels_extra_columns),
        SCRATCH_TEST(data_axes_come_from_metadata_words_or_the_caller),
        SCRATCH_TEST(data_with_nothing_to_draw_is_a_bad_file),
        SCRATCH_TEST(data_cells_of_a_block_show_the_farthest_from_zero),
    };
    return cmocka_run_group_tests_name("heatmap", tests, NULL, NULL);
}
