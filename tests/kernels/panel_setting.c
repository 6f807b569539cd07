/* SPDX-License-Identifier: BSD-3-Clause
 *
 * panel_setting.c: goes through sets, vectors and placements, and lays operands out.
 */
#include "panel_setting.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/oracle_tensor.h"

/* Elements between two rows of place_rows. */
enum { ROW_GAP = 3, NAN_BYTE = 0xFF };

void for_every_panel(panel_check check) {
    static panel_setting setting;
    for (int i = 0; i < PANEL_OPERANDS; ++i) {
        guarded_open_bytes(&setting.blocks[i], OPERAND_BYTES);
    }
    for (int32_t index = 0; (setting.set = attni_kernel_set_at(index)) != NULL; ++index) {
        for (setting.vectors = 1; setting.vectors <= ATTNI_PANEL_VECTORS; ++setting.vectors) {
            setting.width = setting.vectors * setting.set->tiles->lanes;
            assert_true(setting.width <= ATTNI_PANEL_LANES);
            for (setting.placement = 0; setting.placement < GUARDED_NUM_PLACEMENTS;
                 ++setting.placement) {
                setting.random = random_seeded((uint64_t)(setting.width * 3 + setting.placement));
                check(&setting);
            }
        }
    }
    for (int i = 0; i < PANEL_OPERANDS; ++i) {
        guarded_close(&setting.blocks[i]);
    }
}

void begin_call(panel_setting *setting) {
    setting->num_placed = 0;
}

void check_guards(const panel_setting *setting, const char *kernel) {
    for (int i = 0; i < setting->num_placed; ++i) {
        guarded_check(&setting->blocks[i], kernel);
    }
}

static void *place(panel_setting *setting, int64_t bytes, enum guarded_placement placement) {
    assert_true(setting->num_placed < PANEL_OPERANDS);
    guarded_block *block = &setting->blocks[setting->num_placed++];
    void *memory = guarded_place(block, (size_t)bytes, placement);
    memset(memory, NAN_BYTE, (size_t)bytes);
    return memory;
}

float *place_own(panel_setting *setting, int64_t count) {
    return place(setting, count * (int64_t)sizeof(float),
                 setting->placement == GUARDED_AT_START ? GUARDED_AT_START : GUARDED_AT_END);
}

unsigned char *place_bytes(panel_setting *setting, int64_t count) {
    return place(setting, count, setting->placement);
}

/* Element (0, 0) of a matrix of elements of `bytes` bytes. */
static void *place_elements(panel_setting *setting, int64_t rows, int64_t row_stride, int64_t cols,
                            int64_t col_stride, int64_t bytes) {
    const int64_t row_reach = rows > 0 && cols > 0 ? (rows - 1) * row_stride : 0;
    const int64_t col_reach = rows > 0 && cols > 0 ? (cols - 1) * col_stride : 0;
    const int64_t span = rows > 0 && cols > 0 ? llabs(row_reach) + llabs(col_reach) + 1 : 0;
    char *memory = place(setting, span * bytes, setting->placement);
    return memory - bytes * ((row_reach < 0 ? row_reach : 0) + (col_reach < 0 ? col_reach : 0));
}

float *place_matrix(panel_setting *setting, int64_t rows, int64_t row_stride, int64_t cols,
                    int64_t col_stride) {
    return place_elements(setting, rows, row_stride, cols, col_stride, sizeof(float));
}

void *place_stored(panel_setting *setting, int64_t rows, int64_t row_stride, int64_t cols,
                   int64_t col_stride) {
    return place_elements(setting, rows, row_stride, cols, col_stride,
                          storage_of(setting)->element_bytes);
}

int32_t storage_dtype(const panel_setting *setting) {
    static const int32_t dtypes[ATTNI_NUM_STORAGES] = {ATTN_DTYPE_FLOAT32, ATTN_DTYPE_BFLOAT16,
                                                       ATTN_DTYPE_FLOAT16};
    return dtypes[setting->storage];
}

const attni_storage_kernels *storage_of(const panel_setting *setting) {
    return setting->set->storage[setting->storage];
}

static attn_tensor one_stored(const panel_setting *setting, const void *data, int64_t i) {
    return (attn_tensor){.data = (char *)(uintptr_t)data + i * storage_of(setting)->element_bytes,
                         .dtype = storage_dtype(setting)};
}

float get_stored(const panel_setting *setting, const void *from, int64_t i) {
    const attn_tensor one = one_stored(setting, from, i);
    return (float)oracle_element(&one, NULL);
}

void set_stored(const panel_setting *setting, void *to, int64_t i, double x) {
    const attn_tensor one = one_stored(setting, to, i);
    oracle_store(&one, NULL, x);
}

void for_every_storage(panel_setting *setting, panel_check check) {
    for (setting->storage = 0; setting->storage < ATTNI_NUM_STORAGES; ++setting->storage) {
        check(setting);
    }
}

void place_rows(panel_setting *setting, int64_t count, int64_t cols, int64_t col_stride,
                bool repeats, float **rows) {
    int64_t order[ATTNI_PANEL_LANES];
    const int64_t pitch = (cols > 0 ? (cols - 1) * llabs(col_stride) + 1 : 0) + ROW_GAP;
    float *first = place_matrix(setting, count, pitch, cols, col_stride);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t j = random_between(&setting->random, 0, i);
        order[i] = order[j];
        order[j] = i;
    }
    for (int64_t lane = 0; lane < ATTNI_PANEL_LANES; ++lane) {
        rows[lane] = lane < count ? first + order[lane] * pitch : NULL;
        if (repeats && lane > 0 && lane < count && random_between(&setting->random, 0, 2) == 0) {
            rows[lane] = rows[lane - 1];
        }
    }
}

void check_row_gaps(const panel_setting *setting, int64_t count, float *const *rows, int64_t used) {
    const unsigned char *end = setting->blocks[setting->num_placed - 1].start +
                               setting->blocks[setting->num_placed - 1].length;
    for (int64_t lane = 0; lane < count; ++lane) {
        const unsigned char *gap = (const unsigned char *)(rows[lane] + used);
        for (size_t i = 0; i < ROW_GAP * sizeof(float) && gap + i < end; ++i) {
            if (gap[i] != NAN_BYTE) {
                fail_msg("%s: wrote behind the row of lane %d", setting->set->name, (int)lane);
            }
        }
    }
}

float get_float(const float *from, int64_t i) {
    float x;
    memcpy(&x, (const char *)from + i * (int64_t)sizeof x, sizeof x);
    return x;
}

void set_float(float *to, int64_t i, float x) {
    memcpy((char *)to + i * (int64_t)sizeof x, &x, sizeof x);
}

float random_float(panel_setting *setting, double lowest, double highest) {
    return (float)random_real(&setting->random, lowest, highest);
}

int64_t random_of(panel_setting *setting, const int64_t *numbers, int64_t count) {
    return numbers[random_between(&setting->random, 0, count - 1)];
}

void assert_within(const panel_setting *setting, const char *what, int64_t row, int64_t lane,
                   float actual, double expected, double bound) {
    const double found = (double)actual;
    const bool is_right = isnan(expected)   ? isnan(found)
                          : isinf(expected) ? found == expected
                                            : fabs(found - expected) <= bound;
    if (!is_right) {
        fail_msg("%s, %d vectors, %s (%lld, %lld): expected %a within %g, got %a",
                 setting->set->name, (int)setting->vectors, what, (long long)row, (long long)lane,
                 expected, bound, found);
    }
}

void assert_equals(const panel_setting *setting, const char *what, int64_t row, int64_t lane,
                   float actual, float expected) {
    assert_within(setting, what, row, lane, actual, (double)expected, 0);
}

double sum_bound(int64_t n, double magnitude) {
    return (double)(n + 1) * (FLOAT_UNIT * magnitude + (double)FLT_MIN);
}
