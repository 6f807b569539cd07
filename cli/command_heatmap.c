/* SPDX-License-Identifier: BSD-3-Clause
 *
 * command_heatmap.c: "attn heatmap": weights of a file to pictures.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "heatmap_data.h"
#include "heatmap_draw.h"
#include "heatmap_layout.h"
#include "option_parsing.h"
#include "printable_text.h"
#include "program_commands.h"
#include "program_exit.h"
#include "safetensors_read.h"

static const char *const axes_names[] = {"auto", "NHLT", "NLT", "HLT",
                                         "LT",   NULL}; /* in the order of enum heatmap_axes */

typedef struct heatmap_options {
    heatmap_request request;
    option_integer sequence;
    const char *title;
    option_texts outputs;
} heatmap_options;

static int parse_options(int count, char *const *arguments, heatmap_options *o) {
    const option_spec specs[] = {
        {"--tensor", OPTION_TEXT, &o->request.tensor, 0, 0, NULL},
        {"--axes", OPTION_CHOICE, &o->request.axes, 0, 0, axes_names},
        {"--sequence", OPTION_INTEGER, &o->sequence, 0, INT64_MAX, NULL},
        {"--words-only", OPTION_FLAG, &o->request.words_only, 0, 0, NULL},
        {"--output", OPTION_TEXTS, &o->outputs, 0, 0, NULL},
        {"--title", OPTION_TEXT, &o->title, 0, 0, NULL},
    };
    *o = (heatmap_options){.request = {.tensor = "attn_weights"}};
    int exit_code = options_parse(specs, (int)(sizeof specs / sizeof specs[0]), count, arguments,
                                  "FILE.safetensors", &o->request.path);
    if (exit_code != EXIT_DONE) {
        return exit_code;
    }
    o->request.sequence = o->sequence.value;
    if (o->title != NULL && !utf8_is_valid(o->title, strlen(o->title))) {
        return program_fail(EXIT_USAGE, "--title: not valid UTF-8");
    }
    if (o->outputs.count == 0) {
        return program_fail(EXIT_USAGE, "--output: missing: a file ending in .png or .svg");
    }
    for (int i = 0; i < o->outputs.count; i++) {
        if (!heatmap_knows_suffix(o->outputs.items[i])) {
            return program_fail(EXIT_USAGE,
                                "--output: expected a file ending in .png or .svg, got '%s'",
                                o->outputs.items[i]);
        }
    }
    return EXIT_DONE;
}

/* A copy of the title that can be drawn, to be freed; NULL if memory runs out. */
static char *make_title(const heatmap_options *options) {
    char standard[80];
    (void)snprintf(standard, sizeof standard, "Attention weights, sequence %lld",
                   (long long)options->request.sequence);
    char *title = strdup(options->title != NULL ? options->title : standard);
    if (title != NULL) {
        make_printable(title);
    }
    return title;
}

static int draw_outputs(const heatmap_options *options, const heatmap_data *data) {
    char error[1000];
    if (data->num_heads > HEATMAP_MAX_PANELS) {
        return program_fail(EXIT_BAD_FILE,
                            "%s: %s: %lld heads are more than the %d a picture can hold",
                            options->request.path, options->request.tensor,
                            (long long)data->num_heads, HEATMAP_MAX_PANELS);
    }
    char *title = make_title(options);
    if (title == NULL) {
        return program_fail(EXIT_COMPUTATION, "--title: out of memory");
    }
    int exit_code = EXIT_DONE;
    for (int i = 0; i < options->outputs.count && exit_code == EXIT_DONE; i++) {
        if (heatmap_draw(data, title, options->outputs.items[i], error, sizeof error) != 0) {
            exit_code = program_fail(EXIT_COMPUTATION, "%s", error);
        } else {
            print_printable(options->outputs.items[i]);
            printf(": heads %lld, rows %lld, columns %lld\n", (long long)data->num_heads,
                   (long long)data->rows.count, (long long)data->columns.count);
        }
    }
    free(title);
    return exit_code;
}

int command_heatmap(int count, char *const *arguments) {
    char error[1000];
    heatmap_options options;
    heatmap_data data;
    safetensors_file *file = NULL;
    int exit_code = parse_options(count, arguments, &options);
    if (exit_code != EXIT_DONE) {
        return exit_code;
    }
    if (safetensors_open(options.request.path, &file, error, sizeof error) != 0) {
        return program_fail(EXIT_BAD_FILE, "%s", error);
    }
    exit_code = heatmap_data_read(file, &options.request, &data);
    if (exit_code == EXIT_DONE) {
        exit_code = draw_outputs(&options, &data);
    }
    heatmap_data_free(&data);
    safetensors_close(file);
    return exit_code;
}
