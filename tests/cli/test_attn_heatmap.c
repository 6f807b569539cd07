/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_attn_heatmap.c: "attn heatmap" as its users see it: pictures that can be opened and show the
 * weights, exit codes and error lines. Arguments: the program, the folder of fixtures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cairo.h>
#include <cmocka.h>
#include <sys/stat.h>

#include "program_run.h"
#include "scratch_files.h"
#include "tiny_layer.h"

/* Pixels of a PNG that have a colour. */
static int count_pixels(const char *path, uint32_t colour) {
    cairo_surface_t *image = cairo_image_surface_create_from_png(path);
    assert_int_equal(cairo_surface_status(image), CAIRO_STATUS_SUCCESS);
    int width = cairo_image_surface_get_width(image);
    int height = cairo_image_surface_get_height(image);
    int stride = cairo_image_surface_get_stride(image);
    const unsigned char *pixels = cairo_image_surface_get_data(image);
    int count = 0;
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            uint32_t pixel = 0;
            memcpy(&pixel, pixels + (int64_t)y * stride + x * (int64_t)sizeof pixel, sizeof pixel);
            count += (pixel & 0xffffff) == colour;
        }
    }
    cairo_surface_destroy(image);
    return count;
}

/* Two heads: the first all on the diagonal, the second all on the other one. */
static void write_weights(void **state, const safetensors_text *texts, int64_t text_count) {
    char path[SCRATCH_PATH_BYTES];
    static const float weights[8] = {1, 0, 0, 1, 0, 1, 1, 0};
    tiny_tensor_write(scratch_path(state, "w.safetensors", path), "attn_weights", 3,
                      (const int64_t[]){2, 2, 2}, weights, texts, text_count);
}

static void heatmap_png_shows_every_weight_in_its_colour(void **state) {
    char path[SCRATCH_PATH_BYTES];
    write_weights(state, NULL, 0);
    assert_program(state, "heatmap %D/w.safetensors --output %D/w.png", 0,
                   "w.png: heads 2, rows 2, columns 2\n");
    /* Four weights of 1 in the brightest colour, four of 0 in the darkest; the colour bar touches
     * neither end. */
    int bright = count_pixels(scratch_path(state, "w.png", path), 0xfde725);
    int dark = count_pixels(path, 0x440154);
    assert_in_range(bright, 4 * 20 * 20, 4 * 60 * 60);
    assert_in_range(dark, bright, bright + 100);
    assert_true(count_pixels(path, 0xffffff) > bright);
}

static void heatmap_writes_png_and_svg_at_once(void **state) {
    char path[SCRATCH_PATH_BYTES];
    size_t bytes = 0;
    const safetensors_text words = {"tokens.0", "[\"river\",\"\xc3\xbc"
                                                "ber \\u0007 <&>\"]"};
    write_weights(state, &words, 1);
    assert_program(state,
                   "heatmap %D/w.safetensors --output %D/w.png --output %D/w.svg --title <&>", 0,
                   "w.svg: heads 2");
    char *svg = scratch_read(scratch_path(state, "w.svg", path), &bytes);
    assert_memory_equal(svg, "<?xml", 5);
    assert_non_null(strstr(svg, "</svg>"));
    free(svg);
    assert_true(count_pixels(scratch_path(state, "w.png", path), 0xfde725) > 0);
    assert_int_equal(
        scratch_count(state),
        5); /* weights, two pictures, standard output and error: nothing half-written is left */
}

static void heatmap_of_a_run_draws_words_only_when_asked(void **state) {
    assert_program(state,
                   "run %F/minilm_layer.safetensors --query %F/minilm_layer.safetensors "
                   "--key-padding-mask %F/minilm_layer.safetensors "
                   "--weights heads --output %D/out.safetensors",
                   0, "attn_weights (N=3, H=12, L=14, T=14)");
    assert_program(state, "heatmap %D/out.safetensors --output %D/o.png", 0,
                   "heads 12, rows 7, columns 7");
    assert_program(state, "heatmap %D/out.safetensors --sequence 1 --output %D/o.png", 0,
                   "heads 12, rows 10, columns 10");
    assert_program(state, "heatmap %D/out.safetensors --sequence 2 --output %D/o.svg", 0,
                   "heads 12, rows 14, columns 14");
    assert_program(state, "heatmap %D/out.safetensors --sequence 2 --words-only --output %D/o.png",
                   0, "heads 12, rows 12, columns 12");
    assert_program(state, "heatmap %F/minilm_layer.safetensors --output %D/o.png", 0,
                   "heads 12, rows 7, columns 7");
}

static void heatmap_of_long_sequences_stays_bounded(void **state) {
    enum { LENGTH = 2500 };
    char path[SCRATCH_PATH_BYTES];
    float *weights = calloc((size_t)LENGTH * LENGTH, sizeof *weights);
    assert_non_null(weights);
    for (size_t i = 0; i < LENGTH; i++) {
        weights[i * LENGTH + i] = 1;
    }
    tiny_tensor_write(scratch_path(state, "w.safetensors", path), "attn_weights", 2,
                      (const int64_t[]){LENGTH, LENGTH}, weights, NULL, 0);
    free(weights);
    assert_program(state, "heatmap %D/w.safetensors --output %D/w.png", 0,
                   "heads 1, rows 2500, columns 2500");
    cairo_surface_t *image =
        cairo_image_surface_create_from_png(scratch_path(state, "w.png", path));
    assert_in_range(cairo_image_surface_get_width(image), 500, 6000);
    assert_in_range(cairo_image_surface_get_height(image), 500, 6000);
    cairo_surface_destroy(image);
    /* The diagonal is one weight wide, and no part of it may get lost. */
    assert_true(count_pixels(path, 0xfde725) >= 500);
}

static void heatmap_errors_have_their_exit_codes(void **state) {
    static const struct {
        const char *command_line;
        int exit_code;
        const char *error;
    } cases[] = {
        {"heatmap", 2, "FILE.safetensors: missing"},
        {"heatmap %D/w.safetensors", 2, "--output: missing"},
        {"heatmap %D/w.safetensors --output %D/w.jpg", 2,
         "--output: expected a file ending in .png or .svg, got "},
        {"heatmap %D/w.safetensors --output %D/w.png --axes HTL", 2,
         "--axes: expected one of auto, NHLT, NLT, HLT, LT, got 'HTL'"},
        {"heatmap %D/w.safetensors --output %D/w.png --axes NHLT", 2,
         "--axes: attn_weights has 3 axes, not NHLT"},
        {"heatmap %D/w.safetensors --output %D/w.png --sequence 1", 2,
         "--sequence: attn_weights has 1 sequence, counted from 0; got 1"},
        {"heatmap %D/w.safetensors --output %D/w.png --sequence -1", 2,
         "--sequence: expected an integer of at least 0"},
        {"heatmap %D/w.safetensors --output %D/w.png --title \xff", 2, "--title: not valid UTF-8"},
        {"heatmap %D/absent --output %D/w.png", 4, "No such file or directory"},
        {"heatmap %D/w.safetensors --output %D/w.png --tensor x", 4, "has no tensor x"},
        {"heatmap %D/empty.safetensors --output %D/w.png", 4, "nothing to draw"},
        {"heatmap %D/many.safetensors --output %D/w.png", 4,
         "300 heads are more than the 256 a picture can hold"},
        {"heatmap %D/mask.safetensors --tensor m --output %D/w.png", 4,
         "m: expected dtype F32, F64, F16 or BF16, got BOOL"},
        {"heatmap %D/w.safetensors --output %D/absent/w.png", 1,
         "absent/w.png: No such file or directory"},
        {"heatmap %D/w.safetensors --output %D/taken.png", 1,
         "taken.png: exists and is not a regular file"},
    };
    char path[SCRATCH_PATH_BYTES];
    static const float many[300] = {0};
    write_weights(state, NULL, 0);
    tiny_tensor_write(scratch_path(state, "empty.safetensors", path), "attn_weights", 3,
                      (const int64_t[]){2, 0, 5}, many, NULL, 0);
    tiny_tensor_write(scratch_path(state, "many.safetensors", path), "attn_weights", 3,
                      (const int64_t[]){300, 1, 1}, many, NULL, 0);
    tiny_mask_write(scratch_path(state, "mask.safetensors", path), "m", 2, (const int64_t[]){1, 1},
                    (const unsigned char[]){1});
    assert_int_equal(mkdir(scratch_path(state, "taken.png", path), 0700), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_program(state, cases[i].command_line, cases[i].exit_code, cases[i].error);
    }
}

int main(int argc, char **argv) {
#define SCRATCH_TEST(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(heatmap_png_shows_every_weight_in_its_colour),
        SCRATCH_TEST(heatmap_writes_png_and_svg_at_once),
        SCRATCH_TEST(heatmap_of_a_run_draws_words_only_when_asked),
        SCRATCH_TEST(heatmap_of_long_sequences_stays_bounded),
        SCRATCH_TEST(heatmap_errors_have_their_exit_codes),
    };
    if (argc < 3) {
        (void)fprintf(stderr, "usage: %s PROGRAM FIXTURES\n", argv[0]);
        return 1;
    }
    program_path = argv[1];
    fixtures_path = argv[2];
    return cmocka_run_group_tests_name("attn_heatmap", tests, NULL, NULL);
}
