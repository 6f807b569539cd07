/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tensor_init.c: making views, counting their elements, and which of them are contiguous.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <attention/status.h>

#include "view_elements.h"

static char memory[8192];

/* Those that this version does not compute with are pinned too. */
static const struct {
    int32_t dtype;
    int32_t bytes;
} dtypes[] = {
    {ATTN_DTYPE_FLOAT32, 4},     {ATTN_DTYPE_FLOAT64, 8},     {ATTN_DTYPE_BOOL, 1},
    {ATTN_DTYPE_INT64, 8},       {ATTN_DTYPE_BFLOAT16, 2},    {ATTN_DTYPE_FLOAT16, 2},
    {ATTN_DTYPE_INT32, 4},       {ATTN_DTYPE_INT8, 1},        {ATTN_DTYPE_UINT8, 1},
    {ATTN_DTYPE_FLOAT8_E4M3, 1}, {ATTN_DTYPE_FLOAT8_E5M2, 1}, {ATTN_DTYPE_INT4X2, 1},
    {ATTN_DTYPE_Q8_0, 34},       {ATTN_DTYPE_Q4_0, 18},       {ATTN_DTYPE_UINT4X2, 1},
};
enum { NUM_DTYPES = sizeof dtypes / sizeof dtypes[0] };

static void dtype_sizes_are_those_of_the_header(void **state) {
    (void)state;
    for (size_t i = 0; i < NUM_DTYPES; ++i) {
        const int32_t dtype = dtypes[i].dtype;
        const int is_block = dtype == ATTN_DTYPE_Q8_0 || dtype == ATTN_DTYPE_Q4_0;
        const int is_pair = dtype == ATTN_DTYPE_INT4X2 || dtype == ATTN_DTYPE_UINT4X2;
        assert_int_equal(attn_dtype_size_bytes(dtype), dtypes[i].bytes);
        assert_int_equal(attn_dtype_values(dtype), is_block ? 32 : is_pair ? 2 : 1);
    }
    static const int32_t unknown[] = {0, -1, ATTN_DTYPE_UINT4X2 + 1, 99, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; ++i) {
        assert_int_equal(attn_dtype_size_bytes(unknown[i]), 0);
        assert_int_equal(attn_dtype_values(unknown[i]), 0);
    }
}

/* A view of any of them may be made, cut and turned, and its data pointer moves by whole elements. */
static void views_of_every_dtype_can_be_made(void **state) {
    (void)state;
    const int64_t shape[] = {3, 4};
    for (size_t i = 0; i < NUM_DTYPES; ++i) {
        attn_tensor view, part;
        int64_t count = 0;
        assert_int_equal(attn_tensor_init(&view, memory, dtypes[i].dtype, 2, shape), ATTN_OK);
        assert_int_equal(attn_tensor_count(&view, &count), ATTN_OK);
        assert_int_equal(count, 12);
        assert_int_equal(attn_tensor_is_contiguous(&view), 1);
        assert_int_equal(attn_tensor_init_strided(&part, memory, dtypes[i].dtype, 2, shape,
                                                  (const int64_t[]){1, 3}),
                         ATTN_OK);
        assert_int_equal(attn_tensor_slice(&view, 1, 3, 2, -2, &part), ATTN_OK);
        assert_ptr_equal(part.data, memory + 3 * dtypes[i].bytes);
        assert_int_equal(attn_tensor_select(&view, 0, 2, &part), ATTN_OK);
        assert_ptr_equal(part.data, memory + 8 * dtypes[i].bytes);
        assert_int_equal(attn_tensor_split_heads(&view, 2, &part), ATTN_OK);
        assert_int_equal(attn_tensor_merge_heads(&part, &part), ATTN_OK);
        assert_int_equal(attn_tensor_transpose(&part, 0, 1, &part), ATTN_OK);
        assert_int_equal(part.dtype, dtypes[i].dtype);
        assert_int_equal(part.shape[0], 4);
        /* Bytes, not elements, are what must fit. */
        const int64_t most = INT64_MAX / dtypes[i].bytes;
        assert_int_equal(attn_tensor_init(&view, NULL, dtypes[i].dtype, 1, &most), ATTN_OK);
        if (dtypes[i].bytes > 1) {
            assert_int_equal(
                attn_tensor_init(&view, NULL, dtypes[i].dtype, 1, (const int64_t[]){most + 1}),
                ATTN_ERROR_OVERFLOW);
        }
    }
}

/* Elements in C order lie one after the other. */
static void assert_dense(const attn_tensor *view, const char *data) {
    int64_t index[ATTN_MAX_RANK] = {0};
    int64_t position = 0;
    do {
        if (element_at(view, index) != data + position * element_bytes_of(view->dtype)) {
            fail_msg("%s: element %lld is not in its place", view_text(view), (long long)position);
        }
        ++position;
    } while (next_element(view, index));
    assert_int_equal(position, elements_of(view));
}

static void init_every_shape_is_dense(void **state) {
    (void)state;
    random_state random = random_seeded(1);
    for (int round = 0; round < 3000; ++round) {
        const attn_tensor drawn = random_view(&random, NULL, (view_limits){0, 8, 3, 0});
        attn_tensor view;
        memset(&view, 0x55, sizeof view);
        assert_int_equal(attn_tensor_init(&view, memory, drawn.dtype, drawn.rank,
                                          drawn.rank > 0 ? drawn.shape : NULL),
                         ATTN_OK);
        assert_ptr_equal(view.data, memory);
        assert_int_equal(view.dtype, drawn.dtype);
        assert_int_equal(view.rank, drawn.rank);
        assert_memory_equal(view.shape, drawn.shape, (size_t)drawn.rank * sizeof view.shape[0]);
        if (elements_of(&view) > 0) {
            assert_dense(&view, memory);
        }
        assert_true(attn_tensor_is_contiguous(&view));
    }
}

static void init_strided_keeps_what_it_is_given(void **state) {
    (void)state;
    random_state random = random_seeded(2);
    for (int round = 0; round < 3000; ++round) {
        const attn_tensor drawn = random_view(&random, memory, (view_limits){0, 8, 3, 9});
        attn_tensor view;
        memset(&view, 0x55, sizeof view);
        assert_int_equal(attn_tensor_init_strided(&view, round % 2 == 0 ? memory : NULL,
                                                  drawn.dtype, drawn.rank, drawn.shape,
                                                  drawn.strides),
                         ATTN_OK);
        assert_ptr_equal(view.data, round % 2 == 0 ? memory : NULL);
        assert_int_equal(view.dtype, drawn.dtype);
        assert_int_equal(view.rank, drawn.rank);
        assert_memory_equal(view.shape, drawn.shape, (size_t)drawn.rank * sizeof view.shape[0]);
        assert_memory_equal(view.strides, drawn.strides,
                            (size_t)drawn.rank * sizeof view.strides[0]);
    }
}

static void init_rank_0_needs_no_arrays(void **state) {
    (void)state;
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, memory, ATTN_DTYPE_BOOL, 0, NULL), ATTN_OK);
    assert_int_equal(attn_tensor_init_strided(&view, memory, ATTN_DTYPE_BOOL, 0, NULL, NULL),
                     ATTN_OK);
    int64_t count = 0;
    assert_int_equal(attn_tensor_count(&view, &count), ATTN_OK);
    assert_int_equal(count, 1);
}

/* ---- sizes ---- */

struct size_case {
    int32_t dtype;
    int32_t rank;
    int64_t shape[3];
    attn_status status;
};

static void init_bytes_up_to_int64_max_are_accepted(void **state) {
    (void)state;
    static const int64_t power = INT64_C(1) << 61;
    const struct size_case cases[] = {
        {ATTN_DTYPE_BOOL, 1, {INT64_MAX}, ATTN_OK},
        {ATTN_DTYPE_FLOAT32, 1, {power - 1}, ATTN_OK},
        {ATTN_DTYPE_FLOAT32, 1, {power}, ATTN_ERROR_OVERFLOW},
        {ATTN_DTYPE_FLOAT64, 1, {power / 2 - 1}, ATTN_OK},
        {ATTN_DTYPE_FLOAT64, 1, {power / 2}, ATTN_ERROR_OVERFLOW},
        {ATTN_DTYPE_INT64, 3, {1 << 20, 1 << 20, (1 << 20) - 1}, ATTN_OK},
        {ATTN_DTYPE_INT64, 3, {1 << 20, 1 << 20, 1 << 20}, ATTN_ERROR_OVERFLOW},
        {ATTN_DTYPE_FLOAT32, 2, {power, 4}, ATTN_ERROR_OVERFLOW},
        {ATTN_DTYPE_FLOAT32, 3, {INT64_MAX, INT64_MAX, INT64_MAX}, ATTN_ERROR_OVERFLOW},
        {ATTN_DTYPE_BOOL, 2, {INT64_C(1) << 32, INT64_C(1) << 32}, ATTN_ERROR_OVERFLOW},
        {ATTN_DTYPE_FLOAT32, 2, {2, -1}, ATTN_ERROR_VALUE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        attn_tensor view;
        memset(&view, 0x55, sizeof view);
        const attn_tensor before = view;
        const attn_status status =
            attn_tensor_init(&view, NULL, cases[i].dtype, cases[i].rank, cases[i].shape);
        if (status != cases[i].status) {
            fail_msg("case %zu: expected %s, got %s", i, attn_status_name(cases[i].status),
                     attn_status_name(status));
        }
        assert_int_equal(memcmp(&view, &before, sizeof view) == 0, status != ATTN_OK);
    }
}

static void init_strided_distance_beyond_int64_max_is_refused(void **state) {
    (void)state;
    static const int64_t shape[] = {3, 2};
    static const int64_t refused[][2] = {
        {INT64_C(1) << 60, 1}, {-(INT64_C(1) << 60), 1}, {1, INT64_MIN},
        {INT64_MAX, 1},        {1, INT64_MAX},           {(INT64_C(1) << 59), INT64_C(1) << 60},
    };
    static const int64_t accepted[][2] = {
        {(INT64_C(1) << 60) - 2, 1}, {2 - (INT64_C(1) << 60), -1}, {0, 0}};
    attn_tensor view;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
        memset(&view, 0x55, sizeof view);
        const attn_tensor before = view;
        assert_int_equal(
            attn_tensor_init_strided(&view, NULL, ATTN_DTYPE_FLOAT32, 2, shape, refused[i]),
            ATTN_ERROR_OVERFLOW);
        assert_memory_equal(&view, &before, sizeof view);
    }
    for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; ++i) {
        assert_int_equal(
            attn_tensor_init_strided(&view, NULL, ATTN_DTYPE_FLOAT32, 2, shape, accepted[i]),
            ATTN_OK);
    }
    /* Each axis alone would fit. */
    static const int64_t both[] = {INT64_MAX / 2, INT64_MAX - 1};
    assert_int_equal(attn_tensor_init_strided(&view, NULL, ATTN_DTYPE_BOOL, 2, shape, both),
                     ATTN_ERROR_OVERFLOW);
}

/* What an axis of one position or none has for a stride is never taken. */
static void init_strided_never_taken_strides_may_be_anything(void **state) {
    (void)state;
    static const int64_t anything[] = {0, -1, INT64_MAX, -INT64_MAX, INT64_MIN};
    static const int64_t shapes[][2] = {{1, 5}, {0, 5}};
    for (int i = 0; i < 10; ++i) {
        const int64_t strides[] = {anything[i / 2], 1};
        attn_tensor view;
        if (attn_tensor_init_strided(&view, memory, ATTN_DTYPE_FLOAT64, 2, shapes[i % 2],
                                     strides) != ATTN_OK) {
            fail_msg("stride %lld of an axis of length %lld: %s", (long long)strides[0],
                     (long long)shapes[i % 2][0], attn_last_error());
        }
        assert_true(view.strides[0] == strides[0]);
    }
}

/* ---- counting, contiguity ---- */

static void count_is_the_number_of_elements(void **state) {
    (void)state;
    random_state random = random_seeded(3);
    for (int round = 0; round < 3000; ++round) {
        const attn_tensor view = random_view(&random, NULL, (view_limits){0, 8, 4, 5});
        int64_t count = -1;
        assert_int_equal(attn_tensor_count(&view, &count), ATTN_OK);
        assert_int_equal(count, elements_of(&view));
    }
}

static bool is_dense(const attn_tensor *view) {
    int64_t index[ATTN_MAX_RANK] = {0};
    int64_t position = 0;
    if (elements_of(view) == 0) {
        return true;
    }
    do {
        if (element_at(view, index) !=
            (char *)view->data + position++ * element_bytes_of(view->dtype)) {
            return false;
        }
    } while (next_element(view, index));
    return true;
}

/* Half of the views start dense and have at most one stride changed, so that both answers are
 * common. */
static void is_contiguous_agrees_with_the_elements_places(void **state) {
    (void)state;
    random_state random = random_seeded(4);
    int64_t num_dense = 0;
    int64_t num_other = 0;
    for (int round = 0; round < 20000; ++round) {
        attn_tensor view = random_view(&random, memory + 4096, (view_limits){0, 8, 3, 3});
        if (round % 2 == 0) {
            const int64_t kept = view.rank > 0 ? random_between(&random, 0, 2 * view.rank) : 0;
            const int64_t stride = view.strides[kept % ATTN_MAX_RANK];
            assert_int_equal(attn_tensor_init(&view, view.data, view.dtype, view.rank, view.shape),
                             ATTN_OK);
            if (kept < view.rank) {
                view.strides[kept] = stride;
            }
        }
        const bool expected = is_dense(&view);
        num_dense += expected;
        num_other += !expected;
        if (attn_tensor_is_contiguous(&view) != expected) {
            fail_msg("%s: expected %d", view_text(&view), expected);
        }
    }
    assert_true(num_dense > 3000 && num_other > 3000);
}

static void is_contiguous_null_or_impossible_rank_is_0(void **state) {
    (void)state;
    attn_tensor view = {.data = memory, .dtype = ATTN_DTYPE_FLOAT32, .rank = 9};
    assert_int_equal(attn_tensor_is_contiguous(NULL), 0);
    assert_int_equal(attn_tensor_is_contiguous(&view), 0);
    view.rank = -1;
    assert_int_equal(attn_tensor_is_contiguous(&view), 0);
}

/* It is asked about views that nothing has checked. */
static void is_contiguous_beyond_int64_is_0(void **state) {
    (void)state;
    const attn_tensor view = {.data = memory,
                              .dtype = ATTN_DTYPE_FLOAT32,
                              .rank = 3,
                              .shape = {2, INT64_C(1) << 40, INT64_C(1) << 40},
                              .strides = {1, INT64_C(1) << 40, 1}};
    assert_int_equal(attn_tensor_is_contiguous(&view), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtype_sizes_are_those_of_the_header),
        cmocka_unit_test(views_of_every_dtype_can_be_made),
        cmocka_unit_test(init_every_shape_is_dense),
        cmocka_unit_test(init_strided_keeps_what_it_is_given),
        cmocka_unit_test(init_rank_0_needs_no_arrays),
        cmocka_unit_test(init_bytes_up_to_int64_max_are_accepted),
        cmocka_unit_test(init_strided_distance_beyond_int64_max_is_refused),
        cmocka_unit_test(init_strided_never_taken_strides_may_be_anything),
        cmocka_unit_test(count_is_the_number_of_elements),
        cmocka_unit_test(is_contiguous_agrees_with_the_elements_places),
        cmocka_unit_test(is_contiguous_null_or_impossible_rank_is_0),
        cmocka_unit_test(is_contiguous_beyond_int64_is_0),
    };
    return cmocka_run_group_tests_name("tensor_init", tests, NULL, NULL);
}
