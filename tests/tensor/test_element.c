/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_element.c: where single elements lie, and reading and writing them at any alignment.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/element.h"
#include "view_elements.h"

static char memory[8192];

static void offset_of_a_flat_index_is_the_elements(void **state) {
    (void)state;
    random_state random = random_seeded(53);
    for (int round = 0; round < 500; ++round) {
        const attn_tensor view =
            random_view(&random, memory + sizeof memory / 2, (view_limits){0, 8, 3, 9});
        int64_t index[ATTN_MAX_RANK] = {0};
        int64_t flat = 0;
        do {
            const int64_t offset =
                elements_of(&view) > 0
                    ? attni_offset_of(flat++, view.rank, view.shape, view.strides)
                    : 0;
            assert_int_equal(offset * element_bytes_of(view.dtype),
                             element_at(&view, index) - (char *)view.data);
        } while (next_element(&view, index) && elements_of(&view) > 0);
    }
}

static void element_at_any_alignment_is_read_and_written(void **state) {
    (void)state;
    for (int shift = 0; shift < 8; ++shift) {
        char bytes[64];
        memset(bytes, 0, sizeof bytes);
        attni_write_real(bytes + shift, 2, ATTN_DTYPE_FLOAT32, -1.5);
        attni_write_real(bytes + shift, 3, ATTN_DTYPE_FLOAT64, 0.1);
        const float single = -1.5f;
        const double real = 0.1;
        const int64_t integer = INT64_C(-123456789012);
        assert_memory_equal(bytes + shift + 8, &single, sizeof single);
        assert_memory_equal(bytes + shift + 24, &real, sizeof real);
        memcpy(bytes + shift + 32, &integer, sizeof integer);
        assert_true(attni_read_real(bytes + shift, 2, ATTN_DTYPE_FLOAT32) == -1.5);
        assert_true(attni_read_real(bytes + shift, 3, ATTN_DTYPE_FLOAT64) == real);
        assert_true(attni_read_int64(bytes + shift, 4) == integer);
    }
}

/* The same elements, and strides that anything may be computed with. */
static void canonical_view_has_strides_only_where_they_are_taken(void **state) {
    (void)state;
    random_state random = random_seeded(54);
    for (int round = 0; round < 2000; ++round) {
        const attn_tensor view =
            random_view(&random, memory + sizeof memory / 2, (view_limits){0, 8, 2, 9});
        const attn_tensor canonical = attni_canonical(&view);
        assert_ptr_equal(canonical.data, view.data);
        assert_int_equal(canonical.dtype, view.dtype);
        assert_int_equal(canonical.rank, view.rank);
        for (int32_t axis = 0; axis < view.rank; ++axis) {
            const int64_t stride = view.shape[axis] > 1 ? view.strides[axis] : 0;
            assert_int_equal(canonical.shape[axis], view.shape[axis]);
            assert_int_equal(canonical.strides[axis], stride);
            assert_int_equal(attni_stride(&view, axis), stride);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offset_of_a_flat_index_is_the_elements),
        cmocka_unit_test(element_at_any_alignment_is_read_and_written),
        cmocka_unit_test(canonical_view_has_strides_only_where_they_are_taken),
    };
    return cmocka_run_group_tests_name("element", tests, NULL, NULL);
}
