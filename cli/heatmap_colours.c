/* SPDX-License-Identifier: BSD-3-Clause
 *
 * heatmap_colours.c: a perceptually uniform map: its lightness rises evenly, so equal steps of
 * value look like equal steps, also to the colour-blind and in print. Anchors a tenth apart in the
 * manner of the viridis map, straight lines between them.
 */
#include "heatmap_colours.h"

#include <math.h>

enum { ANCHOR_COUNT = 11 };

static const double anchors[ANCHOR_COUNT][3] = {
    {68, 1, 84},    {72, 36, 117},  {65, 68, 135},  {53, 95, 141},  {42, 120, 142}, {33, 145, 140},
    {34, 168, 132}, {68, 191, 112}, {122, 209, 81}, {189, 223, 38}, {253, 231, 37}};

static const uint32_t colour_of_nan = 0xb8b8b8;

/* 1, 2 or 5 times a power of ten, so that range / step is 4 to 10. */
static double round_step(double range) {
    double power = pow(10, floor(log10(range)));
    double digits = range / power; /* 1 to 10 */
    if (digits <= 2) {
        return power * 0.2;
    }
    return digits <= 5 ? power * 0.5 : power;
}

colour_scale colour_scale_choose(double smallest, double largest) {
    double low = smallest < 0 && isfinite(smallest) ? smallest : 0;
    double high = largest > 0 && isfinite(largest) ? largest : 0;
    if (!(high - low > 1e-300) || !isfinite(high - low)) {
        return (colour_scale){0, 1, 0.2};
    }
    double step = round_step(high - low);
    /* A value a rounding error above a multiple of the step does not open another step. */
    return (colour_scale){floor(low / step + 1e-6) * step, ceil(high / step - 1e-6) * step, step};
}

static uint32_t mix(const double *lower, const double *upper, double part) {
    uint32_t colour = 0;
    for (int channel = 0; channel < 3; channel++) {
        colour = colour << 8 |
                 (uint32_t)lround(lower[channel] + (upper[channel] - lower[channel]) * part);
    }
    return colour;
}

uint32_t colour_of(const colour_scale *scale, double value) {
    if (isnan(value)) {
        return colour_of_nan;
    }
    double place = (value - scale->low) / (scale->high - scale->low);
    place = fmin(fmax(place, 0), 1) * (ANCHOR_COUNT - 1);
    int below = place < ANCHOR_COUNT - 2 ? (int)place : ANCHOR_COUNT - 2;
    return mix(anchors[below], anchors[below + 1], place - below);
}
