/* SPDX-License-Identifier: BSD-3-Clause
 *
 * heatmap_layout.h: where everything of the picture goes. Pure arithmetic in pixels; the drawing
 * follows it.
 *
 *     margin
 *     title, sentence, caption                             (header_height)
 *     panel panel panel panel   colour bar                 one panel per head, in a grid
 *     panel panel ...
 *     margin
 *
 * A panel: a heading, the column labels above the matrix, the row labels to its left.
 */
#ifndef ATTN_CLI_HEATMAP_LAYOUT_H
#define ATTN_CLI_HEATMAP_LAYOUT_H

#include <stdint.h>

/* What the layout is made for. */
typedef struct heatmap_contents {
    int64_t num_panels;
    int64_t num_rows;
    int64_t num_columns;
    double row_label_width;     /* of the widest label */
    double column_label_height; /* of the tallest label, turned */
    double column_overhang; /* how far the last column's turned label reaches beyond its column */
} heatmap_contents;

typedef struct heatmap_layout {
    int64_t block; /* values per cell, in both directions: 1 unless the sequence is too long for one
                      pixel per value */
    int64_t cell_rows; /* cells of a matrix */
    int64_t cell_columns;
    int cell_size;       /* pixels of a cell */
    int64_t label_every; /* of so many rows or columns only the first has a label, so that labels do
                            not touch: 1, 2, 5, 10, ... */
    int grid_columns;
    int grid_rows;
    int panel_width; /* with labels and the gap to the next panel */
    int panel_height;
    int matrix_left; /* from the panel's corner */
    int matrix_top;
    int matrix_width;
    int matrix_height;
    int width; /* of the picture */
    int height;
} heatmap_layout;

enum {
    HEATMAP_MARGIN = 24,
    HEATMAP_HEADER_HEIGHT = 84,
    HEATMAP_HEADING_HEIGHT = 24, /* "head 3" over a panel */
    HEATMAP_PANEL_GAP = 22,
    HEATMAP_LABEL_GAP = 5,    /* between a label and the matrix */
    HEATMAP_LABEL_PITCH = 15, /* two labels must be so far apart */
    HEATMAP_BAR_SPACE = 92,   /* to the right of the panels */
    HEATMAP_MAX_PANELS = 256,
    HEATMAP_MAX_SIDE = 6000 /* no picture is wider or higher */
};

/* Lays out num_panels (1 to HEATMAP_MAX_PANELS) panels of at least one row and column. */
heatmap_layout heatmap_layout_make(const heatmap_contents *contents);

#endif
