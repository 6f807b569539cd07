/* SPDX-License-Identifier: BSD-3-Clause
 *
 * heatmap_draw.h: the picture of attention weights.
 */
#ifndef ATTN_CLI_HEATMAP_DRAW_H
#define ATTN_CLI_HEATMAP_DRAW_H

#include "heatmap_data.h"

/*
 * Draws all heads and writes them to `path`, whose suffix, .png or .svg, says how. num_heads is at
 * most HEATMAP_MAX_PANELS. 0, or -1 with one line in `error`.
 */
int heatmap_draw(const heatmap_data *data, const char *title, const char *path, char *error,
                 size_t error_bytes);

/* 1 if the path ends in .png or .svg. */
int heatmap_knows_suffix(const char *path);

#endif
