/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tensor_select.c: one position of an axis of a thousand views of any rank and strides; every
 * element of the new view must lie where the slice there has it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <attention/status.h>

#include "refused_view.h"
#include "view_elements.h"

static char memory[16384];

static const view_limits any_view = {0, 8, 3, 7};

static attn_tensor next_view(random_state *random) {
    return random_view(random, memory + sizeof memory / 2, any_view);
}

/* The view at `index` of an axis has the elements of the slice there, without the axis. */
static void assert_selected(const attn_tensor *tensor, int32_t axis, int64_t index,
                            const attn_tensor *view) {
    assert_int_equal(view->dtype, tensor->dtype);
    assert_int_equal(view->rank, tensor->rank - 1);
    for (int32_t kept = 0; kept < view->rank; ++kept) {
        assert_int_equal(view->shape[kept], tensor->shape[kept + (kept >= axis)]);
    }
    if (elements_of(view) == 0) {
        return;
    }
    int64_t position[ATTN_MAX_RANK] = {0};
    do {
        int64_t source[ATTN_MAX_RANK] = {0};
        for (int32_t kept = 0; kept < view->rank; ++kept) {
            source[kept + (kept >= axis)] = position[kept];
        }
        source[axis] = index;
        if (element_at(view, position) != element_at(tensor, source)) {
            fail_msg("position %lld of axis %d of %s became %s", (long long)index, axis,
                     view_text(tensor), view_text(view));
        }
    } while (next_element(view, position));
}

/* Every axis, counted from either end, and every position of it and one beyond. */
static void select_all_around_every_axis_agrees_with_the_definition(void **state) {
    (void)state;
    random_state random = random_seeded(14);
    int64_t num_selected = 0;
    for (int round = 0; round < 1000; ++round) {
        const attn_tensor tensor = next_view(&random);
        for (int32_t axis = -tensor.rank; axis < tensor.rank; ++axis) {
            const int32_t at = axis < 0 ? axis + tensor.rank : axis;
            for (int64_t index = -1; index <= tensor.shape[at]; ++index) {
                attn_tensor view = poison();
                const attn_status status = attn_tensor_select(&tensor, axis, index, &view);
                if (index < 0 || index >= tensor.shape[at]) {
                    assert_refused(status, ATTN_ERROR_VALUE, &view);
                    continue;
                }
                assert_int_equal(status, ATTN_OK);
                assert_selected(&tensor, at, index, &view);
                attn_tensor in_place = tensor;
                assert_int_equal(attn_tensor_select(&in_place, axis, index, &in_place), ATTN_OK);
                assert_memory_equal(&in_place, &view, sizeof view);
                ++num_selected;
            }
        }
    }
    assert_true(num_selected > 5000);
}

static void select_of_rank_one_is_a_single_element(void **state) {
    (void)state;
    attn_tensor tensor, view;
    int64_t count = 0;
    assert_int_equal(attn_tensor_init(&tensor, memory, ATTN_DTYPE_INT32, 1, (int64_t[]){3}),
                     ATTN_OK);
    assert_int_equal(attn_tensor_select(&tensor, -1, 2, &view), ATTN_OK);
    assert_int_equal(view.rank, 0);
    assert_ptr_equal(view.data, memory + 8);
    assert_int_equal(attn_tensor_count(&view, &count), ATTN_OK);
    assert_int_equal(count, 1);
    attn_tensor again = poison();
    assert_refused(attn_tensor_select(&view, 0, 0, &again), ATTN_ERROR_VALUE, &again);
    assert_refused(attn_tensor_select(&view, -1, 0, &again), ATTN_ERROR_VALUE, &again);
}

static void select_extreme_numbers_are_refused(void **state) {
    (void)state;
    attn_tensor tensor;
    assert_int_equal(attn_tensor_init(&tensor, memory, ATTN_DTYPE_FLOAT64, 2, (int64_t[]){3, 4}),
                     ATTN_OK);
    const int64_t indices[] = {INT64_MIN, -1, 3, INT64_MAX};
    const int32_t axes[] = {INT32_MIN, -3, 2, INT32_MAX};
    for (int i = 0; i < 4; ++i) {
        attn_tensor view = poison();
        assert_refused(attn_tensor_select(&tensor, 0, indices[i], &view), ATTN_ERROR_VALUE, &view);
        assert_refused(attn_tensor_select(&tensor, axes[i], 0, &view), ATTN_ERROR_VALUE, &view);
    }
}

/* An axis without positions has none to select; another one beside it has. */
static void select_in_an_empty_tensor_needs_a_position(void **state) {
    (void)state;
    attn_tensor tensor, view = poison();
    assert_int_equal(attn_tensor_init(&tensor, NULL, ATTN_DTYPE_FLOAT64, 2, (int64_t[]){3, 0}),
                     ATTN_OK);
    assert_refused(attn_tensor_select(&tensor, 1, 0, &view), ATTN_ERROR_VALUE, &view);
    assert_int_equal(attn_tensor_select(&tensor, 0, 2, &view), ATTN_OK);
    assert_int_equal(view.rank, 1);
    assert_int_equal(view.shape[0], 0);
    assert_null(view.data);
}

static void select_without_data_stays_without(void **state) {
    (void)state;
    attn_tensor tensor, view;
    assert_int_equal(attn_tensor_init(&tensor, NULL, ATTN_DTYPE_FLOAT64, 2, (int64_t[]){3, 4}),
                     ATTN_OK);
    assert_int_equal(attn_tensor_select(&tensor, 0, 2, &view), ATTN_OK);
    assert_null(view.data);
    assert_int_equal(view.shape[0], 4);
}

/* The example of the header: head 2 of (N, H, L, E). */
static void select_a_head_finds_its_rows(void **state) {
    (void)state;
    attn_tensor heads, head;
    assert_int_equal(
        attn_tensor_init(&heads, memory, ATTN_DTYPE_FLOAT32, 4, (int64_t[]){2, 3, 4, 5}), ATTN_OK);
    assert_int_equal(attn_tensor_select(&heads, -3, 2, &head), ATTN_OK);
    assert_int_equal(head.rank, 3);
    assert_ptr_equal(element_at(&head, (int64_t[]){1, 3, 4}), memory + 4 * (60 + 40 + 15 + 4));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(select_all_around_every_axis_agrees_with_the_definition),
        cmocka_unit_test(select_of_rank_one_is_a_single_element),
        cmocka_unit_test(select_extreme_numbers_are_refused),
        cmocka_unit_test(select_in_an_empty_tensor_needs_a_position),
        cmocka_unit_test(select_without_data_stays_without),
        cmocka_unit_test(select_a_head_finds_its_rows),
    };
    return cmocka_run_group_tests_name("tensor_select", tests, NULL, NULL);
}
