/* SPDX-License-Identifier: BSD-3-Clause
 *
 * panel_setting.h: panels for the tile and lane kernels: every set this CPU runs, every number of
 * vectors, and operands in memory outside of which nothing can be touched unnoticed.
 */
#ifndef TESTS_KERNELS_PANEL_SETTING_H
#define TESTS_KERNELS_PANEL_SETTING_H

#include <stdbool.h>
#include <stdint.h>

#include "guarded_block.h"
#include "kernels/kernel_select.h"
#include "support/random.h"

enum { PANEL_OPERANDS = 8, OPERAND_BYTES = 1 << 18 };

/* What one check of a kernel works with. */
typedef struct panel_setting {
    const attni_kernel_set *set;
    int32_t vectors;
    int32_t width; /* lanes */
    enum guarded_placement placement;
    enum attni_storage storage; /* of place_stored */
    random_state random;
    guarded_block blocks[PANEL_OPERANDS];
    int num_placed;
} panel_setting;

typedef void (*panel_check)(panel_setting *setting);

/* Runs a check with every set, number of vectors and placement. */
void for_every_panel(panel_check check);

/* Begins a call: operands placed before are given up. */
void begin_call(panel_setting *setting);

/* Fails the test if a byte outside of the operands has been written since begin_call. */
void check_guards(const panel_setting *setting, const char *kernel);

/* `count` floats of the engine's own memory: aligned to vectors wherever they are whole vectors. */
float *place_own(panel_setting *setting, int64_t count);

/* Element (0, 0) of a caller's matrix with these strides, which fills its operand from the lowest
 * to the highest element; what lies between elements is NaN. */
float *place_matrix(panel_setting *setting, int64_t rows, int64_t row_stride, int64_t cols,
                    int64_t col_stride);

/* Likewise of elements as the setting's storage has them; one of them, by its number, rounded to
 * the type where it is set. */
void *place_stored(panel_setting *setting, int64_t rows, int64_t row_stride, int64_t cols,
                   int64_t col_stride);
float get_stored(const panel_setting *setting, const void *from, int64_t i);
void set_stored(const panel_setting *setting, void *to, int64_t i, double x);
int32_t storage_dtype(const panel_setting *setting);
const attni_storage_kernels *storage_of(const panel_setting *setting);

/* Runs a check with every storage type. */
void for_every_storage(panel_setting *setting, panel_check check);

/* `count` bytes of a caller, anywhere. */
unsigned char *place_bytes(panel_setting *setting, int64_t count);

/* Rows of `cols` elements, one for each of `count` lanes in random order, at some distance from one
 * another; with `repeats`, some lanes share a row. Other lanes of `rows` are NULL. */
void place_rows(panel_setting *setting, int64_t count, int64_t cols, int64_t col_stride,
                bool repeats, float **rows);

/* Fails the test if what lies between the rows of place_rows has changed; `used` elements of each
 * belong to it. */
void check_row_gaps(const panel_setting *setting, int64_t count, float *const *rows, int64_t used);

/* An element at any alignment. */
float get_float(const float *from, int64_t i);
void set_float(float *to, int64_t i, float x);

/* A float uniform in [lowest, highest), and one of some numbers. */
float random_float(panel_setting *setting, double lowest, double highest);
int64_t random_of(panel_setting *setting, const int64_t *numbers, int64_t count);

/* Fails the test unless `actual` is `expected` within `bound`: NaN where that is NaN, the same
 * where it is infinite. `row` and `lane` are for the message. */
void assert_within(const panel_setting *setting, const char *what, int64_t row, int64_t lane,
                   float actual, double expected, double bound);

/* Likewise, the same number or any NaN. */
void assert_equals(const panel_setting *setting, const char *what, int64_t row, int64_t lane,
                   float actual, float expected);

/* 2^-24, and the error of a sum of n products of this magnitude whose order is not known. */
#define FLOAT_UNIT 0x1p-24
double sum_bound(int64_t n, double magnitude);

#endif
