/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tensor_views.c: transposes and slices of thousands of views of any rank and strides; every
 * element of the new view must lie where the definition puts it in the old one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/status.h>

#include "refused_view.h"
#include "view_elements.h"

static char memory[16384];

static const view_limits any_view = {0, 8, 3, 7};

static attn_tensor next_view(random_state *random) {
    return random_view(random, memory + sizeof memory / 2, any_view);
}

/* ---- transpose ---- */

static void assert_transposed(const attn_tensor *tensor, int32_t a, int32_t b,
                              const attn_tensor *view) {
    assert_int_equal(view->dtype, tensor->dtype);
    assert_int_equal(view->rank, tensor->rank);
    assert_int_equal(view->shape[a], tensor->shape[b]);
    assert_int_equal(view->shape[b], tensor->shape[a]);
    for (int32_t axis = 0; axis < tensor->rank; ++axis) {
        assert_true(axis == a || axis == b || view->shape[axis] == tensor->shape[axis]);
    }
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        int64_t source[ATTN_MAX_RANK];
        memcpy(source, index, sizeof source);
        source[a] = index[b];
        source[b] = index[a];
        if (element_at(view, index) != element_at(tensor, source)) {
            fail_msg("axes %d, %d of %s became %s", a, b, view_text(tensor), view_text(view));
        }
    } while (next_element(view, index));
}

static void transpose_every_pair_of_axes_swaps_the_indices(void **state) {
    (void)state;
    random_state random = random_seeded(11);
    for (int round = 0; round < 1500; ++round) {
        const attn_tensor tensor = next_view(&random);
        for (int32_t a = -tensor.rank; a < tensor.rank; ++a) {
            const int32_t b = (int32_t)random_between(&random, -tensor.rank, tensor.rank - 1);
            attn_tensor view = poison();
            assert_int_equal(attn_tensor_transpose(&tensor, a, b, &view), ATTN_OK);
            assert_transposed(&tensor, a < 0 ? a + tensor.rank : a, b < 0 ? b + tensor.rank : b,
                              &view);
            attn_tensor in_place = tensor;
            assert_int_equal(attn_tensor_transpose(&in_place, a, b, &in_place), ATTN_OK);
            assert_memory_equal(&in_place, &view, sizeof view);
        }
    }
}

static void transpose_axis_outside_the_rank_is_refused(void **state) {
    (void)state;
    random_state random = random_seeded(12);
    for (int round = 0; round < 200; ++round) {
        const attn_tensor tensor = next_view(&random);
        const int32_t wrong[] = {tensor.rank, -tensor.rank - 1, 100, INT32_MIN, INT32_MAX};
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
            attn_tensor view = poison();
            assert_refused(attn_tensor_transpose(&tensor, wrong[i], 0, &view), ATTN_ERROR_VALUE,
                           &view);
            assert_refused(attn_tensor_transpose(&tensor, 0, wrong[i], &view), ATTN_ERROR_VALUE,
                           &view);
        }
    }
}

/* ---- slice ---- */

struct slice {
    int32_t axis;
    int64_t start;
    int64_t length;
    int64_t step;
};

/* The definition: every position it names exists. */
static bool is_valid(const attn_tensor *tensor, struct slice slice) {
    if (slice.step == 0 || slice.length < 0) {
        return false;
    }
    for (int64_t i = 0; i < slice.length; ++i) {
        const int64_t position = slice.start + i * slice.step;
        if (position < 0 || position >= tensor->shape[slice.axis]) {
            return false;
        }
    }
    return true;
}

static void assert_sliced(const attn_tensor *tensor, struct slice slice, const attn_tensor *view) {
    attn_tensor shape = *tensor;
    shape.shape[slice.axis] = slice.length;
    assert_int_equal(view->dtype, tensor->dtype);
    assert_int_equal(view->rank, tensor->rank);
    assert_memory_equal(view->shape, shape.shape, (size_t)tensor->rank * sizeof shape.shape[0]);
    if (elements_of(view) == 0) {
        return;
    }
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        int64_t source[ATTN_MAX_RANK];
        memcpy(source, index, sizeof source);
        source[slice.axis] = slice.start + index[slice.axis] * slice.step;
        if (element_at(view, index) != element_at(tensor, source)) {
            fail_msg("axis %d from %lld, %lld by %lld, of %s became %s", slice.axis,
                     (long long)slice.start, (long long)slice.length, (long long)slice.step,
                     view_text(tensor), view_text(view));
        }
    } while (next_element(view, index));
}

static void check_slice(const attn_tensor *tensor, struct slice slice, int64_t *num_accepted) {
    attn_tensor view = poison();
    const int32_t given_axis = slice.length % 2 == 0 ? slice.axis : slice.axis - tensor->rank;
    const attn_status status =
        attn_tensor_slice(tensor, given_axis, slice.start, slice.length, slice.step, &view);
    if (!is_valid(tensor, slice)) {
        assert_refused(status, ATTN_ERROR_VALUE, &view);
        return;
    }
    assert_int_equal(status, ATTN_OK);
    assert_sliced(tensor, slice, &view);
    attn_tensor in_place = *tensor;
    assert_int_equal(
        attn_tensor_slice(&in_place, given_axis, slice.start, slice.length, slice.step, &in_place),
        ATTN_OK);
    assert_memory_equal(&in_place, &view, sizeof view);
    ++*num_accepted;
}

/* Every start, length and step around an axis, valid or not. */
static void slice_all_around_an_axis_agrees_with_the_definition(void **state) {
    (void)state;
    random_state random = random_seeded(13);
    int64_t num_accepted = 0;
    for (int round = 0; round < 250; ++round) {
        attn_tensor tensor = next_view(&random);
        if (tensor.rank == 0) {
            continue;
        }
        const int32_t axis = (int32_t)random_between(&random, 0, tensor.rank - 1);
        tensor.shape[axis] = random_between(&random, 0, 5);
        tensor.strides[axis] = random_between(&random, -7, 7);
        for (int64_t start = -1; start <= tensor.shape[axis]; ++start) {
            for (int64_t length = -1; length <= tensor.shape[axis] + 1; ++length) {
                for (int64_t step = -3; step <= 3; ++step) {
                    check_slice(&tensor, (struct slice){axis, start, length, step}, &num_accepted);
                }
            }
        }
    }
    assert_true(num_accepted > 5000);
}

static void slice_extreme_numbers_are_refused(void **state) {
    (void)state;
    attn_tensor tensor;
    assert_int_equal(attn_tensor_init(&tensor, memory, ATTN_DTYPE_FLOAT32, 1, (int64_t[]){10}),
                     ATTN_OK);
    static const struct slice slices[] = {
        {0, 0, INT64_MAX, INT64_MAX}, {0, 9, INT64_MAX, INT64_MIN}, {0, INT64_MIN, 2, 1},
        {0, INT64_MAX, 2, 1},         {0, 1, 3, INT64_MAX},         {0, 1, 2, INT64_MIN},
        {0, 0, INT64_MIN, 1},         {0, 0, INT64_MAX, 1},         {0, 9, INT64_MAX, -1},
        {0, 5, 3, INT64_C(1) << 62},  {0, 1, 5, INT64_C(1) << 62},
    };
    for (size_t i = 0; i < sizeof slices / sizeof slices[0]; ++i) {
        attn_tensor view = poison();
        assert_refused(attn_tensor_slice(&tensor, slices[i].axis, slices[i].start, slices[i].length,
                                         slices[i].step, &view),
                       ATTN_ERROR_VALUE, &view);
    }
}

static void slice_of_one_position_takes_any_step(void **state) {
    (void)state;
    attn_tensor tensor;
    assert_int_equal(attn_tensor_init(&tensor, memory, ATTN_DTYPE_FLOAT64, 1, (int64_t[]){10}),
                     ATTN_OK);
    static const int64_t steps[] = {INT64_MIN, -1, 1, INT64_MAX};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; ++i) {
        attn_tensor view;
        int64_t count;
        assert_int_equal(attn_tensor_slice(&tensor, 0, 7, 1, steps[i], &view), ATTN_OK);
        assert_ptr_equal(view.data, memory + 56);
        assert_int_equal(attn_tensor_count(&view, &count), ATTN_OK);
        assert_int_equal(count, 1);
    }
}

static void slice_of_nothing_takes_any_start(void **state) {
    (void)state;
    attn_tensor tensor;
    assert_int_equal(attn_tensor_init(&tensor, memory, ATTN_DTYPE_FLOAT64, 2, (int64_t[]){3, 4}),
                     ATTN_OK);
    static const int64_t starts[] = {INT64_MIN, -1, 0, 4, INT64_MAX};
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; ++i) {
        attn_tensor view;
        int64_t count;
        assert_int_equal(attn_tensor_slice(&tensor, 1, starts[i], 0, 1, &view), ATTN_OK);
        assert_int_equal(attn_tensor_count(&view, &count), ATTN_OK);
        assert_int_equal(count, 0);
        assert_ptr_equal(view.data, memory);
    }
}

static void slice_without_data_stays_without(void **state) {
    (void)state;
    attn_tensor tensor;
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&tensor, NULL, ATTN_DTYPE_FLOAT64, 1, (int64_t[]){10}),
                     ATTN_OK);
    assert_int_equal(attn_tensor_slice(&tensor, 0, 3, 4, 1, &view), ATTN_OK);
    assert_null(view.data);
    assert_int_equal(view.shape[0], 4);
}

/* The example of the header: the keys of a packed (N, L, 3 * E) buffer. */
static void slice_packed_buffer_finds_the_keys(void **state) {
    (void)state;
    attn_tensor packed;
    attn_tensor key;
    assert_int_equal(
        attn_tensor_init(&packed, memory, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){2, 5, 12}), ATTN_OK);
    assert_int_equal(attn_tensor_slice(&packed, -1, 4, 4, 1, &key), ATTN_OK);
    assert_ptr_equal(element_at(&key, (int64_t[]){1, 2, 3}), memory + 4 * (60 + 24 + 4 + 3));
    assert_int_equal(key.shape[2], 4);
}

/* ---- what every function refuses ---- */

static void view_of_an_invalid_tensor_is_refused(void **state) {
    (void)state;
    const attn_tensor valid = {.data = memory,
                               .dtype = ATTN_DTYPE_FLOAT32,
                               .rank = 3,
                               .shape = {2, 3, 4},
                               .strides = {12, 4, 1}};
    attn_tensor invalid[6] = {valid, valid, valid, valid, valid, valid};
    static const attn_status expected[6] = {ATTN_ERROR_DTYPE,    ATTN_ERROR_VALUE,
                                            ATTN_ERROR_VALUE,    ATTN_ERROR_VALUE,
                                            ATTN_ERROR_OVERFLOW, ATTN_ERROR_UNSUPPORTED};
    invalid[0].dtype = 0;
    invalid[1].rank = 9;
    invalid[2].rank = -1;
    invalid[3].shape[1] = -1;
    invalid[4].strides[0] = INT64_MAX;
    invalid[5].dtype = ATTN_DTYPE_UINT4X2 + 1;
    for (int i = 0; i < 6; ++i) {
        attn_tensor view = poison();
        assert_refused(attn_tensor_transpose(&invalid[i], 0, 0, &view), expected[i], &view);
        assert_refused(attn_tensor_slice(&invalid[i], 0, 0, 1, 1, &view), expected[i], &view);
        assert_refused(attn_tensor_select(&invalid[i], 0, 0, &view), expected[i], &view);
        assert_refused(attn_tensor_split_heads(&invalid[i], 1, &view), expected[i], &view);
        assert_refused(attn_tensor_merge_heads(&invalid[i], &view), expected[i], &view);
    }
}

static void view_null_arguments_are_refused(void **state) {
    (void)state;
    const attn_tensor valid = {.data = memory,
                               .dtype = ATTN_DTYPE_FLOAT32,
                               .rank = 3,
                               .shape = {2, 3, 4},
                               .strides = {12, 4, 1}};
    attn_tensor view = poison();
    assert_refused(attn_tensor_transpose(NULL, 0, 0, &view), ATTN_ERROR_NULL, &view);
    assert_refused(attn_tensor_slice(NULL, 0, 0, 1, 1, &view), ATTN_ERROR_NULL, &view);
    assert_refused(attn_tensor_select(NULL, 0, 0, &view), ATTN_ERROR_NULL, &view);
    assert_refused(attn_tensor_split_heads(NULL, 1, &view), ATTN_ERROR_NULL, &view);
    assert_refused(attn_tensor_merge_heads(NULL, &view), ATTN_ERROR_NULL, &view);
    assert_int_equal(attn_tensor_transpose(&valid, 0, 0, NULL), ATTN_ERROR_NULL);
    assert_int_equal(attn_tensor_slice(&valid, 0, 0, 1, 1, NULL), ATTN_ERROR_NULL);
    assert_int_equal(attn_tensor_select(&valid, 0, 0, NULL), ATTN_ERROR_NULL);
    assert_int_equal(attn_tensor_split_heads(&valid, 1, NULL), ATTN_ERROR_NULL);
    assert_int_equal(attn_tensor_merge_heads(&valid, NULL), ATTN_ERROR_NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transpose_every_pair_of_axes_swaps_the_indices),
        cmocka_unit_test(transpose_axis_outside_the_rank_is_refused),
        cmocka_unit_test(slice_all_around_an_axis_agrees_with_the_definition),
        cmocka_unit_test(slice_extreme_numbers_are_refused),
        cmocka_unit_test(slice_of_one_position_takes_any_step),
        cmocka_unit_test(slice_of_nothing_takes_any_start),
        cmocka_unit_test(slice_without_data_stays_without),
        cmocka_unit_test(slice_packed_buffer_finds_the_keys),
        cmocka_unit_test(view_of_an_invalid_tensor_is_refused),
        cmocka_unit_test(view_null_arguments_are_refused),
    };
    return cmocka_run_group_tests_name("tensor_views", tests, NULL, NULL);
}
