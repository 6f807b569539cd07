/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tensor_heads.c: splitting features into heads and merging them again, on thousands of views
 * of any strides.
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

static char memory[65536];

static void *middle(void) {
    return memory + sizeof memory / 2;
}

/* heads(..., h, l, d) is features(..., l, h * head_dim + d). */
static void assert_same_elements(const attn_tensor *features, const attn_tensor *heads) {
    const int32_t last = heads->rank - 1;
    const int64_t head_dim = heads->shape[last];
    assert_int_equal(features->rank, last);
    assert_int_equal(features->dtype, heads->dtype);
    assert_int_equal(features->shape[last - 1], heads->shape[last - 2] * head_dim);
    assert_int_equal(features->shape[last - 2], heads->shape[last - 1]);
    assert_memory_equal(features->shape, heads->shape, (size_t)(last - 2) * sizeof heads->shape[0]);
    if (elements_of(heads) == 0) {
        return;
    }
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        int64_t merged[ATTN_MAX_RANK] = {0};
        memcpy(merged, index, (size_t)(last - 2) * sizeof merged[0]);
        merged[last - 2] = index[last - 1];
        merged[last - 1] = index[last - 2] * head_dim + index[last];
        if (element_at(features, merged) != element_at(heads, index)) {
            fail_msg("%s is not %s in heads", view_text(heads), view_text(features));
        }
    } while (next_element(heads, index));
}

/* ---- split ---- */

static void check_split(const attn_tensor *tensor, int64_t num_heads) {
    attn_tensor view = poison();
    const attn_tensor untouched = view;
    const attn_status status = attn_tensor_split_heads(tensor, num_heads, &view);
    attn_status expected = ATTN_OK;
    if (tensor->rank < 2 || tensor->rank > 7) {
        expected = ATTN_ERROR_SHAPE;
    } else if (num_heads < 1) {
        expected = ATTN_ERROR_VALUE;
    } else if (tensor->shape[tensor->rank - 1] % num_heads != 0) {
        expected = ATTN_ERROR_SHAPE;
    }
    assert_int_equal(status, expected);
    if (status != ATTN_OK) {
        assert_memory_equal(&view, &untouched, sizeof view);
        return;
    }
    assert_int_equal(view.shape[view.rank - 3], num_heads);
    assert_same_elements(tensor, &view);
    attn_tensor in_place = *tensor;
    assert_int_equal(attn_tensor_split_heads(&in_place, num_heads, &in_place), ATTN_OK);
    assert_memory_equal(&in_place, &view, sizeof view);
    attn_tensor merged = poison();
    assert_int_equal(attn_tensor_merge_heads(&view, &merged), ATTN_OK);
    assert_same_elements(&merged, &view);
}

static void split_any_view_keeps_every_feature_and_merges_back(void **state) {
    (void)state;
    random_state random = random_seeded(21);
    for (int round = 0; round < 2000; ++round) {
        attn_tensor tensor = random_view(&random, middle(), (view_limits){0, 8, 2, 9});
        if (tensor.rank > 0) {
            tensor.shape[tensor.rank - 1] = random_between(&random, 0, 12);
            tensor.strides[tensor.rank - 1] = random_between(&random, -9, 9);
        }
        for (int64_t num_heads = -1; num_heads <= 7; ++num_heads) {
            check_split(&tensor, num_heads);
        }
    }
}

/* Strides as large as a view may have: the heads' strides must be a view's, too. */
static void split_extreme_strides_stay_valid(void **state) {
    (void)state;
    static const int64_t strides[] = {INT64_C(1) << 62, -(INT64_C(1) << 62), INT64_MAX - 1,
                                      1 - INT64_MAX};
    for (size_t i = 0; i < sizeof strides / sizeof strides[0]; ++i) {
        attn_tensor tensor;
        attn_tensor view;
        int64_t count = 0;
        const int64_t tensor_strides[] = {0, strides[i]};
        assert_int_equal(attn_tensor_init_strided(&tensor, NULL, ATTN_DTYPE_BOOL, 2,
                                                  (int64_t[]){1, 2}, tensor_strides),
                         ATTN_OK);
        for (int64_t num_heads = 1; num_heads <= 2; ++num_heads) {
            assert_int_equal(attn_tensor_split_heads(&tensor, num_heads, &view), ATTN_OK);
            assert_int_equal(attn_tensor_count(&view, &count), ATTN_OK);
            assert_int_equal(count, 2);
        }
    }
}

/* ---- merge ---- */

/* Whether features that step evenly give every element of the first row its place: the definition
 * of a merged view. */
static bool merges(const attn_tensor *heads) {
    const int32_t last = heads->rank - 1;
    const int64_t num_heads = heads->shape[last - 2];
    const int64_t head_dim = heads->shape[last];
    const int64_t second = head_dim > 1 ? heads->strides[last] : heads->strides[last - 2];
    for (int64_t h = 0; h < num_heads; ++h) {
        for (int64_t d = 0; d < head_dim; ++d) {
            if (h * heads->strides[last - 2] + d * heads->strides[last] !=
                (h * head_dim + d) * second) {
                return false;
            }
        }
    }
    return true;
}

static void check_merge(const attn_tensor *heads, int64_t *num_merged, int64_t *num_refused) {
    attn_tensor view = poison();
    const attn_tensor untouched = view;
    const attn_status status = attn_tensor_merge_heads(heads, &view);
    if (heads->rank < 3) {
        assert_int_equal(status, ATTN_ERROR_SHAPE);
    } else if (!merges(heads)) {
        assert_int_equal(status, ATTN_ERROR_VALUE);
        ++*num_refused;
    } else {
        if (status != ATTN_OK) {
            fail_msg("%s: expected a view, got %s", view_text(heads), attn_last_error());
        }
        ++*num_merged;
    }
    if (status != ATTN_OK) {
        assert_memory_equal(&view, &untouched, sizeof view);
        return;
    }
    assert_same_elements(&view, heads);
    attn_tensor in_place = *heads;
    assert_int_equal(attn_tensor_merge_heads(&in_place, &in_place), ATTN_OK);
    assert_memory_equal(&in_place, &view, sizeof view);
}

static void merge_any_view_works_exactly_where_a_view_exists(void **state) {
    (void)state;
    random_state random = random_seeded(22);
    int64_t num_merged = 0;
    int64_t num_refused = 0;
    for (int round = 0; round < 20000; ++round) {
        attn_tensor heads = random_view(&random, middle(), (view_limits){1, 8, 3, 6});
        const int32_t last = heads.rank - 1;
        if (last >= 2 && round % 3 == 0 && heads.shape[last] > 1) {
            heads.strides[last - 2] = heads.strides[last] * heads.shape[last];
        }
        check_merge(&heads, &num_merged, &num_refused);
    }
    assert_true(num_merged > 2000 && num_refused > 2000);
}

static void merge_extreme_strides_do_not_wrap_around(void **state) {
    (void)state;
    attn_tensor heads;
    attn_tensor view = poison();
    static const int64_t shape[] = {2, 1, 2};
    static const int64_t strides[] = {0, 0, INT64_C(1) << 62};
    assert_int_equal(attn_tensor_init_strided(&heads, NULL, ATTN_DTYPE_BOOL, 3, shape, strides),
                     ATTN_OK);
    assert_int_equal(attn_tensor_merge_heads(&heads, &view), ATTN_ERROR_VALUE);
}

static void split_of_a_sequence_is_torch_multihead_attentions(void **state) {
    (void)state;
    attn_tensor sequence;
    attn_tensor heads;
    assert_int_equal(
        attn_tensor_init(&sequence, memory, ATTN_DTYPE_FLOAT32, 3, (int64_t[]){2, 5, 12}), ATTN_OK);
    assert_int_equal(attn_tensor_split_heads(&sequence, 3, &heads), ATTN_OK);
    assert_ptr_equal(element_at(&heads, (int64_t[]){1, 2, 4, 3}),
                     memory + 4 * (60 + 4 * 12 + 2 * 4 + 3));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_any_view_keeps_every_feature_and_merges_back),
        cmocka_unit_test(split_extreme_strides_stay_valid),
        cmocka_unit_test(merge_any_view_works_exactly_where_a_view_exists),
        cmocka_unit_test(merge_extreme_strides_do_not_wrap_around),
        cmocka_unit_test(split_of_a_sequence_is_torch_multihead_attentions),
    };
    return cmocka_run_group_tests_name("tensor_heads", tests, NULL, NULL);
}
