/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_strided_copy.c: copies between layouts against copying one element after the other; nothing
 * between the elements is written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/element.h"
#include "tensor/strided_copy.h"
#include "view_elements.h"

enum { BYTES = 65536 };

static char source[BYTES];
static char target[BYTES];
static char expected[BYTES];

static void fill(random_state *random, char *bytes) {
    for (size_t i = 0; i < BYTES; i += sizeof(uint64_t)) {
        const uint64_t word = random_bits(random);
        memcpy(bytes + i, &word, sizeof word);
    }
}

static void assert_expected(const char *what) {
    for (int64_t i = 0; i < BYTES; ++i) {
        if (target[i] != expected[i]) {
            fail_msg("%s: byte %lld: expected %d, got %d", what, (long long)i, expected[i],
                     target[i]);
        }
    }
}

/* ---- matrices ---- */

/* How a matrix of rows x cols lies in memory. */
enum layout {
    ROW_MAJOR,
    COLUMN_MAJOR,
    WIDE_ROWS,
    EVERY_THIRD,
    REVERSED,
    NUM_TARGET_LAYOUTS,
    REPEATED_ROW = NUM_TARGET_LAYOUTS,
    REPEATED_COLUMN,
    NUM_LAYOUTS
};

static attni_strided_matrix matrix_of(char *bytes, enum layout layout, int64_t rows, int64_t cols) {
    switch (layout) {
    case ROW_MAJOR:
        return (attni_strided_matrix){bytes, cols, 1};
    case COLUMN_MAJOR:
        return (attni_strided_matrix){bytes, 1, rows};
    case WIDE_ROWS:
        return (attni_strided_matrix){bytes, cols + 5, 1};
    case EVERY_THIRD:
        return (attni_strided_matrix){bytes, 3 * cols, 3};
    case REVERSED:
        return (attni_strided_matrix){bytes, -cols, -1};
    case REPEATED_ROW:
        return (attni_strided_matrix){bytes, 0, 1};
    default:
        return (attni_strided_matrix){bytes, 1, 0};
    }
}

static void check_matrix(random_state *random, enum layout to_layout, enum layout from_layout,
                         int64_t rows, int64_t cols, int64_t element) {
    const attni_strided_matrix to =
        matrix_of(target + BYTES / 2 + random_between(random, 0, 7), to_layout, rows, cols);
    const attni_strided_matrix from =
        matrix_of(source + BYTES / 2 + random_between(random, 0, 7), from_layout, rows, cols);
    memcpy(expected, target, BYTES);
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
            memcpy(
                expected + (to.data - target) + (r * to.row_stride + c * to.col_stride) * element,
                from.data + (r * from.row_stride + c * from.col_stride) * element, (size_t)element);
        }
    }
    attni_copy_matrix(to, from, rows, cols, (size_t)element);
    assert_expected("matrix");
}

static void matrix_between_any_two_layouts_arrives(void **state) {
    (void)state;
    static const int64_t sizes[] = {0, 1, 2, 15, 16, 17, 33};
    enum { NUM_SIZES = sizeof sizes / sizeof sizes[0] };
    random_state random = random_seeded(51);
    fill(&random, source);
    fill(&random, target);
    for (enum layout to = ROW_MAJOR; to < NUM_TARGET_LAYOUTS; ++to) {
        for (enum layout from = ROW_MAJOR; from < NUM_LAYOUTS; ++from) {
            for (int i = 0; i < NUM_SIZES * NUM_SIZES; ++i) {
                check_matrix(&random, to, from, sizes[i / NUM_SIZES], sizes[i % NUM_SIZES], 4);
                check_matrix(&random, to, from, sizes[i / NUM_SIZES], sizes[i % NUM_SIZES], 8);
            }
        }
    }
}

/* ---- tensors ---- */

static double value_at(const attn_tensor *tensor, const int64_t *index) {
    float single;
    double real;
    if (tensor->dtype == ATTN_DTYPE_FLOAT32) {
        memcpy(&single, element_at(tensor, index), sizeof single);
        return (double)single;
    }
    memcpy(&real, element_at(tensor, index), sizeof real);
    return real;
}

static void set_expected(const attn_tensor *to, const int64_t *index, double value) {
    char *place = expected + (element_at(to, index) - target);
    const float single = (float)value;
    if (to->dtype == ATTN_DTYPE_FLOAT32) {
        memcpy(place, &single, sizeof single);
    } else {
        memcpy(place, &value, sizeof value);
    }
}

/* Numbers that float32 has and numbers that it must round. */
static void set_values(random_state *random, const attn_tensor *tensor) {
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        const double value = random_real(random, -1000, 1000);
        const float single = (float)value;
        if (tensor->dtype == ATTN_DTYPE_FLOAT32) {
            memcpy(element_at(tensor, index), &single, sizeof single);
        } else {
            memcpy(element_at(tensor, index), &value, sizeof value);
        }
    } while (next_element(tensor, index));
}

static void tensor_of_any_layout_and_float_type_arrives(void **state) {
    (void)state;
    random_state random = random_seeded(52);
    fill(&random, target);
    for (int round = 0; round < 3000; ++round) {
        const int64_t any = random_between(&random, 0, 7);
        attn_tensor from =
            random_view(&random, source + BYTES / 2 + any, (view_limits){0, 8, 3, 9});
        attn_tensor to =
            random_view(&random, target + BYTES / 2 + 7 - any, (view_limits){0, 8, 3, 9});
        from.dtype = (int32_t)random_between(&random, ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64);
        to.dtype = (int32_t)random_between(&random, ATTN_DTYPE_FLOAT32, ATTN_DTYPE_FLOAT64);
        to.rank = from.rank;
        memcpy(to.shape, from.shape, sizeof to.shape);
        /* Each axis of the target steps over all behind it, so that no element is written twice. */
        int64_t reach = random_between(&random, 1, 2);
        for (int32_t axis = to.rank - 1; axis >= 0 && elements_of(&to) > 0; --axis) {
            to.strides[axis] = random_between(&random, 0, 1) == 0 ? reach : -reach;
            reach *= to.shape[axis];
        }
        from = attni_canonical(&from);
        memcpy(expected, target, BYTES);
        if (elements_of(&from) > 0) {
            int64_t index[ATTN_MAX_RANK] = {0};
            set_values(&random, &from);
            do {
                set_expected(&to, index, value_at(&from, index));
            } while (next_element(&to, index));
        }
        attni_copy_tensor(&to, &from);
        assert_expected("tensor");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrix_between_any_two_layouts_arrives),
        cmocka_unit_test(tensor_of_any_layout_and_float_type_arrives),
    };
    return cmocka_run_group_tests_name("strided_copy", tests, NULL, NULL);
}
