/* SPDX-License-Identifier: BSD-3-Clause
 *
 * row_setting.h: rows for the kernels: every set, type and length that matters, at every placement.
 */
#ifndef TESTS_KERNELS_ROW_SETTING_H
#define TESTS_KERNELS_ROW_SETTING_H

#include <stdint.h>

#include "guarded_block.h"
#include "kernel_choice.h"

enum { ROW_MOST = 1025 };

/* What one check of a kernel works with. */
struct row_setting {
    kernel_choice choice;
    int64_t n;
    enum guarded_placement placement;
    random_state *random;
    char *row; /* n elements, already set to before[] */
    double before[ROW_MOST];
    guarded_block row_block;
    guarded_block operand_block; /* for what else a kernel reads */
};

typedef void (*row_check)(struct row_setting *setting);

/* Runs a check on rows of random numbers; fails the test if it writes outside of one. */
void for_every_row(row_check check);

/* Puts before[], changed by the check, into a row of its own; random numbers first, for fill_row.
 */
void set_row(struct row_setting *setting);
void fill_row(struct row_setting *setting);

/* Fails the test, telling what element j was and has become. */
void fail_element(const struct row_setting *setting, int64_t j, double expected, double actual);

/* Fails the test unless element j is now that number, or all are as before. */
void assert_element(const struct row_setting *setting, int64_t j, double expected);
void assert_unchanged(const struct row_setting *setting);

/* One product or one sum in a type. */
double product_in(int32_t dtype, double a, double b);
double sum_in(int32_t dtype, double a, double b);

/* The sum, but of two finite numbers at most the largest number of the type, of either sign. */
double finite_sum_in(int32_t dtype, double a, double b);

#endif
