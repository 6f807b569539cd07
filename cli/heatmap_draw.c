/* SPDX-License-Identifier: BSD-3-Clause
 *
 * heatmap_draw.c: drawing with cairo, after the layout.
 */
#include "heatmap_draw.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cairo-svg.h>
#include <cairo.h>

#include "file_replace.h"
#include "heatmap_colours.h"
#include "heatmap_layout.h"
#include "printable_text.h"

enum { LABEL_CHARACTERS = 13, LABEL_BYTES = 4 * LABEL_CHARACTERS + 8, LINE_BYTES = 600 };

static const double label_size = 11, heading_size = 13, title_size = 20, text_size = 13;
static const double label_angle = -0.9; /* radians; column labels rise to the right */

/* One picture being drawn. */
typedef struct picture {
    cairo_t *cairo;
    const heatmap_data *data;
    heatmap_layout layout;
    colour_scale scale;
    const char *title;
} picture;

/* ---- text ---- */

static void set_font(cairo_t *cairo, double size, int is_bold, double darkness) {
    cairo_select_font_face(cairo, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           is_bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cairo, size);
    cairo_set_source_rgb(cairo, 1 - darkness, 1 - darkness, 1 - darkness);
}

static double text_width(cairo_t *cairo, const char *text) {
    cairo_text_extents_t extents;
    cairo_text_extents(cairo, text, &extents);
    return extents.x_advance;
}

/* Copies at most `characters` characters, the last one an ellipsis if some are left out. shortened:
 * 4 * characters + 8 bytes. */
static const char *shorten(const char *text, int64_t characters, char *shortened) {
    const char *end = text;
    for (int64_t i = 0; i < characters && *end != '\0'; i++) {
        end += utf8_character_bytes(*end);
    }
    if (*end == '\0') {
        return memcpy(shortened, text, (size_t)(end - text) + 1);
    }
    end = text;
    for (int64_t i = 0; i < characters - 1; i++) {
        end += utf8_character_bytes(*end);
    }
    (void)sprintf(shortened, "%.*s…", (int)(end - text), text);
    return shortened;
}

static void show_text(cairo_t *cairo, double x, double y, const char *text) {
    cairo_move_to(cairo, x, y);
    cairo_show_text(cairo, text);
}

/* Shows a line of text, cut to a width. */
static void show_line(cairo_t *cairo, double x, double y, double width, const char *text) {
    char line[LINE_BYTES];
    int64_t characters = LINE_BYTES / 4 - 2;
    while (characters > 1 && text_width(cairo, shorten(text, characters, line)) > width) {
        characters--;
    }
    show_text(cairo, x, y, line);
}

/* ---- measuring ---- */

static double widest_label(cairo_t *cairo, const heatmap_axis *axis) {
    char label[LABEL_BYTES];
    double widest = 0;
    for (int64_t i = 0; i < axis->count; i++) {
        widest = fmax(widest, text_width(cairo, shorten(axis->labels[i], LABEL_CHARACTERS, label)));
    }
    return widest;
}

static heatmap_contents measure(const heatmap_data *data) {
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, 1, 1);
    cairo_t *cairo = cairo_create(surface);
    set_font(cairo, label_size, 0, 1);
    double column_width = widest_label(cairo, &data->columns);
    heatmap_contents contents = {
        .num_panels = data->num_heads,
        .num_rows = data->rows.count,
        .num_columns = data->columns.count,
        .row_label_width = widest_label(cairo, &data->rows),
        .column_label_height = column_width * sin(-label_angle) + label_size * cos(label_angle),
        .column_overhang = column_width * cos(label_angle) * 0.6,
    };
    cairo_destroy(cairo);
    cairo_surface_destroy(surface);
    return contents;
}

/* ---- a panel ---- */

/* One row of cells into cell_size rows of pixels. */
static void paint_cells(const picture *p, int64_t head, int64_t row, unsigned char *pixels,
                        int stride) {
    size_t cell_size = (size_t)p->layout.cell_size;
    for (int64_t column = 0; column < p->layout.cell_columns; column++) {
        uint32_t colour =
            colour_of(&p->scale, heatmap_cell_value(p->data, head, row, column, p->layout.block));
        for (size_t i = 0; i < cell_size; i++) {
            memcpy(pixels + ((size_t)column * cell_size + i) * sizeof colour, &colour,
                   sizeof colour);
        }
    }
    for (size_t i = 1; i < cell_size; i++) {
        memcpy(pixels + i * (size_t)stride, pixels,
               (size_t)p->layout.matrix_width * sizeof(uint32_t));
    }
}

/* The matrix as an image in the picture's own pixels, so that no viewer smooths the cells into one
 * another; NULL without memory. */
static cairo_surface_t *make_matrix(const picture *p, int64_t head) {
    cairo_surface_t *image = cairo_image_surface_create(CAIRO_FORMAT_RGB24, p->layout.matrix_width,
                                                        p->layout.matrix_height);
    if (cairo_surface_status(image) != CAIRO_STATUS_SUCCESS) {
        cairo_surface_destroy(image);
        return NULL;
    }
    cairo_surface_flush(image);
    unsigned char *pixels = cairo_image_surface_get_data(image);
    int stride = cairo_image_surface_get_stride(image);
    for (int64_t row = 0; row < p->layout.cell_rows; row++) {
        paint_cells(p, head, row,
                    pixels + (size_t)row * (size_t)p->layout.cell_size * (size_t)stride, stride);
    }
    cairo_surface_mark_dirty(image);
    return image;
}

static void paint_matrix(const picture *p, int64_t head, double x, double y) {
    cairo_surface_t *image = make_matrix(p, head);
    if (image == NULL) {
        return;
    }
    cairo_set_source_surface(p->cairo, image, x, y);
    cairo_pattern_set_filter(cairo_get_source(p->cairo), CAIRO_FILTER_NEAREST);
    cairo_paint(p->cairo);
    cairo_surface_destroy(image);
}

/* The middle of a position's cell, from the matrix' corner. */
static double cell_middle(const heatmap_layout *layout, int64_t position) {
    const int64_t cell = position / layout->block;
    return ((double)cell + 0.5) * layout->cell_size;
}

/* The first extra column has a label however long the sequence is, and the words before it make
 * room. */
static int has_label(const picture *p, const heatmap_axis *axis, int64_t position) {
    int64_t first_extra = axis->count - axis->num_extra;
    if (axis->num_extra > 0 && position >= first_extra) {
        return (position - first_extra) % p->layout.label_every == 0;
    }
    return position % p->layout.label_every == 0 &&
           (axis->num_extra == 0 || position + p->layout.label_every <= first_extra);
}

static void label_rows(const picture *p, double x, double y) {
    char label[LABEL_BYTES];
    for (int64_t row = 0; row < p->data->rows.count; row++) {
        if (has_label(p, &p->data->rows, row)) {
            (void)shorten(p->data->rows.labels[row], LABEL_CHARACTERS, label);
            show_text(p->cairo, x - HEATMAP_LABEL_GAP - text_width(p->cairo, label),
                      y + cell_middle(&p->layout, row) + label_size * 0.35, label);
        }
    }
}

static void label_columns(const picture *p, double x, double y) {
    char label[LABEL_BYTES];
    for (int64_t column = 0; column < p->data->columns.count; column++) {
        if (has_label(p, &p->data->columns, column)) {
            cairo_save(p->cairo);
            cairo_translate(p->cairo, x + cell_middle(&p->layout, column) + label_size * 0.3,
                            y - HEATMAP_LABEL_GAP);
            cairo_rotate(p->cairo, label_angle);
            show_text(p->cairo, 0, 0,
                      shorten(p->data->columns.labels[column], LABEL_CHARACTERS, label));
            cairo_restore(p->cairo);
        }
    }
}

/* A white line that parts the extra columns from the words. */
static void part_extra_columns(const picture *p, double x, double y) {
    const heatmap_axis *columns = &p->data->columns;
    if (columns->num_extra > 0 && columns->num_extra < columns->count) {
        const int64_t cells = (columns->count - columns->num_extra) / p->layout.block;
        double line_x = x + (double)cells * p->layout.cell_size;
        cairo_set_source_rgb(p->cairo, 1, 1, 1);
        cairo_rectangle(p->cairo, line_x - 1, y, 2, p->layout.matrix_height);
        cairo_fill(p->cairo);
    }
}

static void draw_panel(const picture *p, int64_t head) {
    char heading[40];
    const int64_t column = head % p->layout.grid_columns;
    const int64_t row = head / p->layout.grid_columns;
    double left = HEATMAP_MARGIN + (double)column * p->layout.panel_width;
    double top = HEATMAP_MARGIN + HEATMAP_HEADER_HEIGHT + (double)row * p->layout.panel_height;
    double x = left + p->layout.matrix_left;
    double y = top + p->layout.matrix_top;
    (void)snprintf(heading, sizeof heading, "head %lld", (long long)head);
    set_font(p->cairo, heading_size, 1, 0.85);
    show_text(p->cairo, left, top + heading_size,
              p->data->is_average ? "average over heads" : heading);
    set_font(p->cairo, label_size, 0, 0.8);
    label_rows(p, x, y);
    label_columns(p, x, y);
    paint_matrix(p, head, x, y);
    part_extra_columns(p, x, y);
}

/* ---- around the panels ---- */

static void draw_header(const picture *p) {
    char caption[LINE_BYTES];
    double width = p->layout.width - 2 * HEATMAP_MARGIN;
    int length = snprintf(caption, sizeof caption,
                          "Read a row: the word on the left attends to the words above%s.%s%s",
                          p->data->rows_add_up_to_one ? ", and its weights add up to 1" : "",
                          p->data->words_only ? " Marks such as [CLS] are left out." : "",
                          p->data->has_nan ? " Grey: not a number." : "");
    if (p->layout.block > 1 && length > 0) {
        (void)snprintf(caption + length, sizeof caption - (size_t)length,
                       " Each dot is the largest of %lld x %lld weights.",
                       (long long)p->layout.block, (long long)p->layout.block);
    }
    set_font(p->cairo, title_size, 1, 0.9);
    show_line(p->cairo, HEATMAP_MARGIN, HEATMAP_MARGIN + title_size * 0.8, width, p->title);
    set_font(p->cairo, text_size, 0, 0.8);
    show_line(p->cairo, HEATMAP_MARGIN, HEATMAP_MARGIN + 40, width, p->data->sentence);
    set_font(p->cairo, text_size, 0, 0.55);
    show_line(p->cairo, HEATMAP_MARGIN, HEATMAP_MARGIN + (p->data->sentence[0] != '\0' ? 60 : 40),
              width, caption);
}

static void draw_bar_colours(const picture *p, double x, double y, double width, double height) {
    for (int i = 0; i < (int)height; i++) {
        double value = p->scale.high - (p->scale.high - p->scale.low) * (i + 0.5) / height;
        uint32_t colour = colour_of(&p->scale, value);
        cairo_set_source_rgb(p->cairo, (colour >> 16) / 255.0, (colour >> 8 & 0xff) / 255.0,
                             (colour & 0xff) / 255.0);
        cairo_rectangle(p->cairo, x, y + i, width, 1);
        cairo_fill(p->cairo);
    }
}

static void draw_colour_bar(const picture *p) {
    char number[40];
    double width = 16;
    double height = fmin(320, p->layout.height - 2 * HEATMAP_MARGIN - HEATMAP_HEADER_HEIGHT -
                                  p->layout.matrix_top);
    height = floor(fmax(height, 80));
    double x = p->layout.width - HEATMAP_MARGIN - HEATMAP_BAR_SPACE + 20;
    double y = HEATMAP_MARGIN + HEATMAP_HEADER_HEIGHT + p->layout.matrix_top;
    draw_bar_colours(p, x, y, width, height);
    set_font(p->cairo, label_size, 0, 0.8);
    show_text(p->cairo, x, y - 10, "weight");
    const int steps = (int)round((p->scale.high - p->scale.low) / p->scale.step);
    for (int i = 0; i <= steps; i++) {
        const double part = (double)i / steps;
        (void)snprintf(number, sizeof number, "%g", p->scale.low + i * p->scale.step);
        show_text(p->cairo, x + width + 5, y + height - part * height + label_size * 0.35, number);
    }
}

static void draw_picture(const picture *p) {
    cairo_set_source_rgb(p->cairo, 1, 1, 1);
    cairo_paint(p->cairo);
    draw_header(p);
    for (int64_t head = 0; head < p->data->num_heads; head++) {
        draw_panel(p, head);
    }
    draw_colour_bar(p);
}

/* ---- files ---- */

static cairo_status_t write_bytes(void *closure, const unsigned char *data, unsigned int length) {
    return file_replace_write(closure, data, length) == 0 ? CAIRO_STATUS_SUCCESS
                                                          : CAIRO_STATUS_WRITE_ERROR;
}

static int has_suffix(const char *path, const char *suffix) {
    size_t length = strlen(path);
    return length > strlen(suffix) && strcmp(path + length - strlen(suffix), suffix) == 0;
}

int heatmap_knows_suffix(const char *path) {
    return has_suffix(path, ".png") || has_suffix(path, ".svg");
}

/* Draws and hands all bytes to the file. */
static cairo_status_t render(picture *p, const char *path, file_replacement *file) {
    int is_svg = has_suffix(path, ".svg");
    cairo_surface_t *surface =
        is_svg ? cairo_svg_surface_create_for_stream(write_bytes, file, p->layout.width,
                                                     p->layout.height)
               : cairo_image_surface_create(CAIRO_FORMAT_RGB24, p->layout.width, p->layout.height);
    p->cairo = cairo_create(surface);
    draw_picture(p);
    cairo_status_t status = cairo_status(p->cairo);
    cairo_destroy(p->cairo);
    if (status == CAIRO_STATUS_SUCCESS && !is_svg) {
        status = cairo_surface_write_to_png_stream(surface, write_bytes, file);
    }
    cairo_surface_finish(surface);
    status = status == CAIRO_STATUS_SUCCESS ? cairo_surface_status(surface) : status;
    cairo_surface_destroy(surface);
    return status;
}

int heatmap_draw(const heatmap_data *data, const char *title, const char *path, char *error,
                 size_t error_bytes) {
    heatmap_contents contents = measure(data);
    picture p = {.data = data, .title = title};
    file_replacement file;
    p.layout = heatmap_layout_make(&contents);
    p.scale = colour_scale_choose(data->smallest, data->largest);
    if (file_replace_begin(&file, path, error, error_bytes) != 0) {
        return -1;
    }
    cairo_status_t status = render(&p, path, &file);
    if (status != CAIRO_STATUS_SUCCESS && status != CAIRO_STATUS_WRITE_ERROR) {
        file_replace_abandon(&file);
        (void)snprintf(error, error_bytes, "%s: cairo: %s", path, cairo_status_to_string(status));
        return -1;
    }
    return file_replace_commit(&file, error, error_bytes);
}
