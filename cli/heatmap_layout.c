/* SPDX-License-Identifier: BSD-3-Clause
 *
 * heatmap_layout.c: the choice of grid and cell size.
 */
#include "heatmap_layout.h"

#include <math.h>

/* A picture fits a screen if it can; it may grow to a poster so that every word keeps its label; it
 * never exceeds HEATMAP_MAX_SIDE. */
static const double screen_width = 1560, screen_height = 1240;
static const double poster_width = 3400, poster_height = 3400;

enum { LARGEST_CELL = 44, HEADER_MIN_WIDTH = 700, BAR_MIN_HEIGHT = 160, SMALLEST_MATRIX = 24 };

static int64_t divide_up(int64_t numerator, int64_t denominator) {
    return numerator / denominator + (numerator % denominator != 0);
}

/* The next of 1, 2, 5, 10, 20, 50, ... */
static int64_t round_count(int64_t count) {
    int64_t power = 1;
    while (power * 10 <= count) {
        power *= 10;
    }
    return count <= power       ? power
           : count <= 2 * power ? 2 * power
           : count <= 5 * power ? 5 * power
                                : 10 * power;
}

static int larger(int a, int b) {
    return a > b ? a : b;
}

static void size_picture(heatmap_layout *layout) {
    layout->width =
        larger(2 * HEATMAP_MARGIN + layout->grid_columns * layout->panel_width + HEATMAP_BAR_SPACE,
               HEADER_MIN_WIDTH);
    layout->height = 2 * HEATMAP_MARGIN + HEATMAP_HEADER_HEIGHT +
                     larger(layout->grid_rows * layout->panel_height, BAR_MIN_HEIGHT);
}

/* The grid whose picture is nearest to a screen's proportions. */
static void choose_grid(heatmap_layout *layout, int64_t num_panels) {
    double best = INFINITY;
    for (int columns = 1; columns <= num_panels; columns++) {
        heatmap_layout candidate = *layout;
        candidate.grid_columns = columns;
        candidate.grid_rows = (int)divide_up(num_panels, columns);
        size_picture(&candidate);
        double excess = fmax(candidate.width / screen_width, candidate.height / screen_height);
        if (excess < best) {
            best = excess;
            *layout = candidate;
        }
    }
}

/* The layout for cells of so many pixels, each standing for block * block values. */
static heatmap_layout lay_out(const heatmap_contents *contents, int cell_size, int64_t block) {
    heatmap_layout layout = {.block = block, .cell_size = cell_size};
    layout.cell_rows = divide_up(contents->num_rows, block);
    layout.cell_columns = divide_up(contents->num_columns, block);
    layout.label_every = round_count(divide_up(HEATMAP_LABEL_PITCH * block, cell_size));
    layout.matrix_left = (int)ceil(contents->row_label_width) + HEATMAP_LABEL_GAP;
    layout.matrix_top =
        HEATMAP_HEADING_HEIGHT + (int)ceil(contents->column_label_height) + HEATMAP_LABEL_GAP;
    layout.matrix_width = (int)layout.cell_columns * cell_size;
    layout.matrix_height = (int)layout.cell_rows * cell_size;
    int overhang = larger((int)ceil(contents->column_overhang), HEATMAP_PANEL_GAP);
    layout.panel_width =
        layout.matrix_left + larger(layout.matrix_width, SMALLEST_MATRIX) + overhang;
    layout.panel_height =
        layout.matrix_top + larger(layout.matrix_height, SMALLEST_MATRIX) + HEATMAP_PANEL_GAP;
    choose_grid(&layout, contents->num_panels);
    return layout;
}

static int fits(const heatmap_layout *layout, double width, double height) {
    return layout->width <= width && layout->height <= height;
}

heatmap_layout heatmap_layout_make(const heatmap_contents *contents) {
    heatmap_layout layout;
    int64_t longest =
        contents->num_rows > contents->num_columns ? contents->num_rows : contents->num_columns;
    /* Sizes in int are safe below this many cells, which is more than fit any picture. */
    int64_t block = divide_up(longest, HEATMAP_MAX_SIDE);
    for (int cell = LARGEST_CELL; cell >= 1 && block == 1; cell--) {
        layout = lay_out(contents, cell, 1);
        int all_labelled = cell >= HEATMAP_LABEL_PITCH;
        if (fits(&layout, screen_width, screen_height) ||
            (fits(&layout, poster_width, poster_height) &&
             (!all_labelled || cell == HEATMAP_LABEL_PITCH))) {
            return layout;
        }
    }
    do {
        layout = lay_out(contents, 1, block);
        block += 1 + block / 16;
    } while (!fits(&layout, poster_width, poster_height) &&
             layout.cell_rows * layout.cell_columns > 1);
    return layout;
}
