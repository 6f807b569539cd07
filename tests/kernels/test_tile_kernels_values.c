/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tile_kernels_values.c: weighing values, by every set of kernels: any number of columns, any
 * part of the keys, any layout, output that ends where memory does.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "panel_setting.h"

enum { MOST_COLS = 70, MOST_KEYS = 23 };

static int64_t chunks_of(const panel_setting *setting, int64_t value_dim) {
    const int64_t cols = setting->set->tiles->value_columns;
    return (value_dim + cols - 1) / cols;
}

static void fill_matrix(panel_setting *setting, float *first, int64_t rows, int64_t row_stride,
                        int64_t cols, int64_t col_stride) {
    for (int64_t j = 0; j < rows; ++j) {
        for (int64_t c = 0; c < cols; ++c) {
            set_float(first, j * row_stride + c * col_stride, random_float(setting, -2, 2));
        }
    }
}

/* ---- weigh_values ---- */

typedef struct value_case {
    attni_value_tile tile;
    int64_t num_keys;
    bool is_packed;
    int64_t plain_stride; /* of the values before packing, or as they are */
    const float *plain;
    float *weights;
    int32_t begin[ATTNI_PANEL_LANES];
    int32_t end[ATTNI_PANEL_LANES];
    float rescale[ATTNI_PANEL_LANES];
    float factor[ATTNI_PANEL_LANES];
    float *outputs[ATTNI_PANEL_LANES];
    float old_sums[ATTNI_PANEL_LANES][2 * MOST_COLS];
} value_case;

/* Bounds as causality, windows and lengths make them, in part empty or turned round. */
static void fill_bounds(panel_setting *setting, value_case *c) {
    const int64_t kind = random_between(&setting->random, 0, 4);
    const int64_t first = random_between(&setting->random, -setting->width, c->num_keys);
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        const int64_t past = first + lane;
        const int64_t begin = kind == 0 || kind == 1 ? 0 : past - (kind == 4 ? 0 : 5);
        const int64_t end = kind == 0 || kind == 2 ? c->num_keys : kind == 4 ? past - 4 : past;
        c->begin[lane] = (int32_t)(begin < 0 ? 0 : begin > c->num_keys ? c->num_keys : begin);
        c->end[lane] = (int32_t)(end < 0 ? 0 : end > c->num_keys ? c->num_keys : end);
    }
}

static void fill_weights(panel_setting *setting, value_case *c) {
    c->weights = place_own(setting, c->num_keys * setting->width);
    for (int64_t i = 0; i < c->num_keys * setting->width; ++i) {
        const int64_t lane = i % setting->width;
        const int64_t j = i / setting->width;
        const bool is_seen = c->begin[lane] <= j && j < c->end[lane];
        c->weights[i] = is_seen ? random_float(setting, 0, 1) : 0;
    }
}

/* Values where they lie, or packed. */
static void fill_values(panel_setting *setting, value_case *c) {
    const int64_t value_dim = c->tile.value_dim;
    const int64_t cols = setting->set->tiles->value_columns;
    const int64_t strides[] = {value_dim, value_dim + 5, -value_dim - 2, 0};
    c->plain_stride = random_of(setting, strides, 4);
    float *plain = place_matrix(setting, c->num_keys, c->plain_stride, value_dim, 1);
    fill_matrix(setting, plain, c->num_keys, c->plain_stride, value_dim, 1);
    c->plain = plain;
    c->tile.values = plain;
    c->tile.key_stride = c->plain_stride;
    c->tile.chunk_stride = cols;
    if (c->is_packed) {
        c->tile.key_stride = cols;
        c->tile.chunk_stride = c->num_keys * cols;
        float *packed = place_own(setting, chunks_of(setting, value_dim) * c->tile.chunk_stride);
        setting->set->storage[ATTNI_STORED_FLOAT32]->pack_values(
            packed, c->tile.chunk_stride, cols, plain, c->plain_stride, 1, c->num_keys, value_dim);
        c->tile.values = packed;
    }
}

static void fill_sums(panel_setting *setting, value_case *c) {
    c->tile.sum_stride = chunks_of(setting, c->tile.value_dim) * setting->set->tiles->value_columns;
    c->tile.sums = place_own(setting, setting->width * c->tile.sum_stride);
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        c->rescale[lane] = lane % 3 == 0 ? 1 : random_float(setting, 0, 1);
        c->factor[lane] = lane % 3 == 1 ? 1 : random_float(setting, 0, 1);
        for (int64_t col = 0; c->tile.is_added && col < c->tile.sum_stride; ++col) {
            c->old_sums[lane][col] = random_float(setting, -3, 3);
            c->tile.sums[lane * c->tile.sum_stride + col] = c->old_sums[lane][col];
        }
    }
}

/* Everything but the results' place. */
static void fill_case(panel_setting *setting, value_case *c) {
    begin_call(setting);
    fill_bounds(setting, c);
    fill_weights(setting, c);
    fill_values(setting, c);
    fill_sums(setting, c);
    c->tile.weights = c->weights;
    c->tile.vectors = setting->vectors;
    c->tile.num_rows = setting->width;
    c->tile.begin = c->begin;
    c->tile.end = c->end;
    c->tile.rescale = c->rescale;
    c->tile.factor = c->factor;
    c->tile.outputs = NULL;
}

static void check_row(const panel_setting *setting, const value_case *c, const float *row,
                      int64_t lane, double factor) {
    for (int64_t col = 0; col < c->tile.value_dim; ++col) {
        double sum =
            c->tile.is_added ? (double)c->rescale[lane] * (double)c->old_sums[lane][col] : 0;
        double magnitude = fabs(sum);
        for (int64_t j = c->begin[lane]; j < c->end[lane]; ++j) {
            const double term = (double)c->weights[j * setting->width + lane] *
                                (double)get_float(c->plain, j * c->plain_stride + col);
            sum += term;
            magnitude += fabs(term);
        }
        const double bound = sum_bound(c->num_keys + 2, magnitude);
        assert_within(setting, "weighted values", lane, col, get_float(row, col), factor * sum,
                      magnitude == 0 ? 0 : bound);
    }
}

static void weigh(panel_setting *setting, value_case *c) {
    setting->set->tiles->weigh_values(&c->tile);
    check_guards(setting, "weigh_values");
}

static void check_sums(panel_setting *setting, value_case *c) {
    fill_case(setting, c);
    weigh(setting, c);
    for (int64_t lane = 0; lane < setting->width; ++lane) {
        check_row(setting, c, c->tile.sums + lane * c->tile.sum_stride, lane, 1);
    }
}

/* Fewer rows than lanes; the outputs end where memory does, or are the sums themselves. */
static void check_outputs(panel_setting *setting, value_case *c, bool is_in_place) {
    fill_case(setting, c);
    c->tile.num_rows = (int32_t)random_between(&setting->random, 1, setting->width);
    place_rows(setting, c->tile.num_rows, c->tile.value_dim, 1, false, c->outputs);
    for (int64_t lane = 0; is_in_place && lane < c->tile.num_rows; ++lane) {
        c->outputs[lane] = c->tile.sums + lane * c->tile.sum_stride;
    }
    c->tile.outputs = c->outputs;
    weigh(setting, c);
    for (int64_t lane = 0; lane < c->tile.num_rows; ++lane) {
        check_row(setting, c, c->outputs[lane], lane, (double)c->factor[lane]);
    }
    if (!is_in_place) {
        check_row_gaps(setting, c->tile.num_rows, c->outputs, c->tile.value_dim);
    }
}

static void check_weigh(panel_setting *setting) {
    static value_case c;
    for (int64_t value_dim = 1; value_dim <= MOST_COLS; ++value_dim) {
        for (int kind = 0; kind < 8; ++kind) {
            c.is_packed = kind % 2 == 0;
            c.tile.is_added = kind % 4 < 2;
            c.tile.value_dim = value_dim;
            c.num_keys = random_between(&setting->random, 0, MOST_KEYS);
            if (!c.is_packed && value_dim % setting->set->tiles->lanes != 0) {
                continue; /* whole vectors are read */
            }
            if (kind < 4) {
                check_sums(setting, &c);
            }
            check_outputs(setting, &c, kind >= 6);
        }
    }
}

static void weigh_values_of_any_size_is_within_the_bound_of_a_sum(void **state) {
    (void)state;
    for_every_panel(check_weigh);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weigh_values_of_any_size_is_within_the_bound_of_a_sum),
    };
    return cmocka_run_group_tests_name("tile_kernels_values", tests, NULL, NULL);
}
