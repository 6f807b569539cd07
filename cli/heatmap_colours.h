/* SPDX-License-Identifier: BSD-3-Clause
 *
 * heatmap_colours.h: values to colours, and the numbers beside the colour bar.
 */
#ifndef ATTN_CLI_HEATMAP_COLOURS_H
#define ATTN_CLI_HEATMAP_COLOURS_H

#include <stdint.h>

/* The range of values the colours run over: low is 0 unless values are negative; high > low, both
 * multiples of `step`. */
typedef struct colour_scale {
    double low;
    double high;
    double step; /* between numbers on the colour bar: 1, 2 or 5 times a power of ten */
} colour_scale;

/* The scale that covers values from smallest to largest and 0 with round numbers. */
colour_scale colour_scale_choose(double smallest, double largest);

/* 0xRRGGBB of a value: dark blue (low) over green to yellow (high), brighter all the way; clamped
 * to the scale; grey for NaN. */
uint32_t colour_of(const colour_scale *scale, double value);

#endif
