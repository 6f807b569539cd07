/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_tensor_overlap.c: "disjoint" and "writable" are never said wrongly: 200,000 pairs of views
 * are compared with the set of bytes they cover. What real callers do must be accepted; how often a
 * harmless view is refused is printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/tensor_check.h"
#include "view_elements.h"

enum { BYTES = 1 << 14, NUM_PAIRS = 200000, NUM_WRITABLE = 100000 };

static unsigned char buffer[BYTES];
static unsigned char visits[BYTES];

/* ---- the byte sets ---- */

/* Adds `weight` to the bytes of every element; the largest sum found. */
static int visit(const attn_tensor *view, int weight) {
    int64_t index[ATTN_MAX_RANK] = {0};
    int most = 0;
    do {
        unsigned char *bytes = visits + ((unsigned char *)element_at(view, index) - buffer);
        for (int64_t i = 0; i < element_bytes_of(view->dtype); ++i) {
            bytes[i] = (unsigned char)(bytes[i] + weight);
            most = bytes[i] > most ? bytes[i] : most;
        }
    } while (next_element(view, index));
    return most;
}

static void forget(const attn_tensor *view) {
    int64_t index[ATTN_MAX_RANK] = {0};
    do {
        memset(visits + ((unsigned char *)element_at(view, index) - buffer), 0,
               (size_t)element_bytes_of(view->dtype));
    } while (next_element(view, index));
}

static bool share_a_byte(const attn_tensor *a, const attn_tensor *b) {
    int64_t index[ATTN_MAX_RANK] = {0};
    bool shared = false;
    visit(a, 1);
    do {
        const unsigned char *bytes = visits + ((unsigned char *)element_at(b, index) - buffer);
        for (int64_t i = 0; i < element_bytes_of(b->dtype); ++i) {
            shared = shared || bytes[i] != 0;
        }
    } while (next_element(b, index));
    forget(a);
    return shared;
}

static bool writes_a_byte_twice(const attn_tensor *view) {
    /* 16 * 16 * 16 elements at most could wrap the counter; lengths here are at most 6 * 6 * 6 <
     * 256. */
    const bool twice = visit(view, 1) > 1;
    forget(view);
    return twice;
}

/* ---- random views ---- */

static int32_t random_dtype(random_state *random) {
    return (int32_t)random_between(random, ATTN_DTYPE_FLOAT32, ATTN_DTYPE_UINT4X2);
}

/* Any strides, any alignment. */
static attn_tensor scattered_view(random_state *random) {
    attn_tensor view = random_view(random, buffer + BYTES / 2 + random_between(random, -60, 60),
                                   (view_limits){1, 3, 4, 12});
    for (int32_t axis = 0; axis < view.rank; ++axis) {
        view.shape[axis] += view.shape[axis] == 0;
    }
    return view;
}

/* A part of a dense (rows, heads, head_dim) buffer that both views of a pair share: slices in every
 * direction, axes in any order. */
static attn_tensor packed_view(random_state *random, const attn_tensor *whole) {
    attn_tensor view = *whole;
    for (int32_t axis = 0; axis < view.rank; ++axis) {
        const int64_t extent = view.shape[axis];
        const int64_t step = random_between(random, 1, 2);
        const int64_t length = random_between(random, 1, (extent + step - 1) / step);
        const int64_t first = random_between(random, 0, extent - 1 - (length - 1) * step);
        const bool reversed = random_between(random, 0, 3) == 0;
        assert_int_equal(attn_tensor_slice(&view, axis,
                                           reversed ? first + (length - 1) * step : first, length,
                                           reversed ? -step : step, &view),
                         ATTN_OK);
    }
    assert_int_equal(attn_tensor_transpose(&view, 0, (int32_t)random_between(random, 0, 2), &view),
                     ATTN_OK);
    assert_int_equal(attn_tensor_transpose(&view, 1, (int32_t)random_between(random, 1, 2), &view),
                     ATTN_OK);
    return view;
}

static attn_tensor whole_buffer(random_state *random) {
    const int64_t shape[] = {random_between(random, 1, 5), random_between(random, 1, 6),
                             random_between(random, 1, 5)};
    attn_tensor whole;
    assert_int_equal(attn_tensor_init(&whole, buffer + random_between(random, 0, 7),
                                      random_dtype(random), 3, shape),
                     ATTN_OK);
    return whole;
}

/* ---- disjoint ---- */

struct tally {
    int64_t num_shared;
    int64_t num_accepted;
    int64_t num_refused; /* although disjoint */
};

static bool says_disjoint(const attn_tensor *a, const attn_tensor *b) {
    return attni_check_disjoint("output", a, "input", b) == ATTN_OK;
}

static void check_pair(const attn_tensor *a, const attn_tensor *b, struct tally *tally) {
    const bool shared = share_a_byte(a, b);
    const bool forth = says_disjoint(a, b);
    const bool back = says_disjoint(b, a);
    if (shared && (forth || back)) {
        fail_msg("%s and %s, %lld bytes further, share memory but are called disjoint",
                 view_text(a), view_text(b), (long long)((char *)b->data - (char *)a->data));
    }
    tally->num_shared += shared;
    tally->num_accepted += !shared && forth;
    tally->num_refused += !shared && !forth;
}

static void print_tally(const char *kind, const struct tally *tally) {
    print_message(
        "%s pairs: %lld share memory, %lld are accepted, %lld are disjoint but refused (%.1f %%)\n",
        kind, (long long)tally->num_shared, (long long)tally->num_accepted,
        (long long)tally->num_refused,
        100.0 * (double)tally->num_refused / (double)(tally->num_accepted + tally->num_refused));
}

static void disjoint_is_never_said_of_views_that_share_a_byte(void **state) {
    (void)state;
    random_state random = random_seeded(31);
    struct tally scattered = {0};
    struct tally packed = {0};
    for (int i = 0; i < NUM_PAIRS / 2; ++i) {
        const attn_tensor a = scattered_view(&random);
        const attn_tensor b = scattered_view(&random);
        check_pair(&a, &b, &scattered);
        const attn_tensor whole = whole_buffer(&random);
        const attn_tensor c = packed_view(&random, &whole);
        const attn_tensor d = packed_view(&random, &whole);
        check_pair(&c, &d, &packed);
    }
    print_tally("scattered", &scattered);
    print_tally("packed", &packed);
    assert_true(scattered.num_shared > 10000 && packed.num_shared > 10000);
    assert_true(packed.num_accepted > 10000);
}

/* Ranges that do not meet are disjoint, and end exactly where they end: one byte nearer is refused.
 */
static void disjoint_neighbours_touch_but_do_not_overlap(void **state) {
    (void)state;
    random_state random = random_seeded(32);
    for (int i = 0; i < 20000; ++i) {
        const attn_tensor a = scattered_view(&random);
        attn_tensor b = scattered_view(&random);
        int64_t top = 0;
        int64_t bottom = 0;
        for (int32_t axis = 0; axis < a.rank; ++axis) {
            const int64_t reach = (a.shape[axis] - 1) * a.strides[axis];
            top += reach > 0 ? reach : 0;
        }
        for (int32_t axis = 0; axis < b.rank; ++axis) {
            const int64_t reach = (b.shape[axis] - 1) * b.strides[axis];
            bottom += reach < 0 ? reach : 0;
        }
        b.data = (char *)a.data + (top + 1) * element_bytes_of(a.dtype) -
                 bottom * element_bytes_of(b.dtype);
        assert_true(says_disjoint(&a, &b));
        assert_true(says_disjoint(&b, &a));
        /* Their last and first elements now share one byte. */
        b.data = (char *)b.data - 1;
        assert_false(says_disjoint(&a, &b));
        assert_false(says_disjoint(&b, &a));
    }
}

static attn_tensor dense(int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor view;
    assert_int_equal(attn_tensor_init(&view, buffer, dtype, rank, shape), ATTN_OK);
    return view;
}

static attn_tensor slice_of(const attn_tensor *tensor, int32_t axis, int64_t start, int64_t length,
                            int64_t step) {
    attn_tensor view;
    assert_int_equal(attn_tensor_slice(tensor, axis, start, length, step, &view), ATTN_OK);
    return view;
}

/* Every pair of `count` views is accepted in both orders, upside down too. */
static void assert_all_accepted(const char *what, const attn_tensor *views, int count) {
    for (int i = 0; i < count; ++i) {
        attn_tensor reversed = views[i];
        for (int32_t axis = 0; axis < reversed.rank; ++axis) {
            reversed =
                slice_of(&reversed, axis, reversed.shape[axis] - 1, reversed.shape[axis], -1);
        }
        for (int j = 0; j < count; ++j) {
            if (i != j &&
                !(says_disjoint(&views[i], &views[j]) && says_disjoint(&reversed, &views[j]))) {
                fail_msg("%s: views %d and %d are refused", what, i, j);
            }
        }
        assert_false(says_disjoint(&reversed, &views[i]));
    }
}

static void disjoint_packed_projections_are_accepted(void **state) {
    (void)state;
    const attn_tensor packed = dense(ATTN_DTYPE_FLOAT32, 3, (int64_t[]){2, 5, 24});
    attn_tensor columns[3];
    attn_tensor heads[3];
    for (int i = 0; i < 3; ++i) {
        columns[i] = slice_of(&packed, -1, 8 * i, 8, 1);
        assert_int_equal(attn_tensor_split_heads(&columns[i], 2, &heads[i]), ATTN_OK);
    }
    assert_all_accepted("columns of a packed projection", columns, 3);
    assert_all_accepted("heads of a packed projection", heads, 3);
}

static void disjoint_single_heads_are_accepted(void **state) {
    (void)state;
    const attn_tensor packed = dense(ATTN_DTYPE_FLOAT64, 3, (int64_t[]){2, 5, 12});
    attn_tensor split;
    attn_tensor heads[3];
    assert_int_equal(attn_tensor_split_heads(&packed, 3, &split), ATTN_OK);
    for (int i = 0; i < 3; ++i) {
        heads[i] = slice_of(&split, 1, i, 1, 1);
    }
    assert_all_accepted("heads", heads, 3);
}

static void disjoint_interleaved_rows_and_elements_are_accepted(void **state) {
    (void)state;
    const attn_tensor matrix = dense(ATTN_DTYPE_FLOAT32, 2, (int64_t[]){6, 8});
    attn_tensor views[3];
    for (int i = 0; i < 3; ++i) {
        views[i] = slice_of(&matrix, 0, i, 2, 3);
    }
    assert_all_accepted("every third row", views, 3);
    for (int i = 0; i < 2; ++i) {
        views[i] = slice_of(&matrix, 1, i, 4, 2);
    }
    assert_all_accepted("every second element", views, 2);
    for (int i = 0; i < 3; ++i) {
        views[i] = slice_of(&matrix, 0, 2 * i, 2, 1);
    }
    assert_all_accepted("rows one after the other", views, 3);
}

static void disjoint_absent_or_empty_tensors_share_nothing(void **state) {
    (void)state;
    const attn_tensor full = dense(ATTN_DTYPE_FLOAT32, 2, (int64_t[]){2, 3});
    const attn_tensor empty = dense(ATTN_DTYPE_FLOAT32, 2, (int64_t[]){2, 0});
    attn_tensor without_data = full;
    without_data.data = NULL;
    assert_true(says_disjoint(NULL, &full));
    assert_true(says_disjoint(&full, NULL));
    assert_true(says_disjoint(&empty, &full));
    assert_true(says_disjoint(&full, &empty));
    assert_true(says_disjoint(&without_data, &full));
    assert_true(says_disjoint(&full, &without_data));
    assert_false(says_disjoint(&full, &full));
}

/* ---- several outputs ---- */

/* Outputs a, b and inputs c, d at these places of the buffer: the first pair that may not share
 * memory is named. */
struct outputs_case {
    int places[4];
    const char *detail; /* "" if all is well */
};

static void outputs_every_pair_but_two_inputs_is_checked(void **state) {
    (void)state;
    static const struct outputs_case cases[] = {
        {{0, 1, 2, 3}, ""},
        {{0, 1, 2, 2}, ""},
        {{0, 0, 2, 3}, "b: expected memory of its own, got memory that overlaps a"},
        {{0, 1, 0, 3}, "a: expected memory of its own, got memory that overlaps c"},
        {{0, 1, 2, 0}, "a: expected memory of its own, got memory that overlaps d"},
        {{0, 1, 1, 3}, "b: expected memory of its own, got memory that overlaps c"},
        {{0, 1, 2, 1}, "b: expected memory of its own, got memory that overlaps d"},
    };
    static const char *const names[] = {"a", "b", "c", "d"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        attn_tensor tensors[4];
        attni_argument arguments[4];
        for (int j = 0; j < 4; ++j) {
            tensors[j] = dense(ATTN_DTYPE_FLOAT32, 1, (int64_t[]){4});
            tensors[j].data = buffer + 16 * cases[i].places[j];
            arguments[j] = (attni_argument){names[j], &tensors[j]};
        }
        attni_error_clear();
        const attn_status expected = cases[i].detail[0] == '\0' ? ATTN_OK : ATTN_ERROR_OVERLAP;
        assert_int_equal(attni_check_outputs(arguments, 2, arguments + 2, 2), expected);
        assert_string_equal(attn_last_error(), cases[i].detail);
    }
}

static void same_view_is_the_same_elements_in_the_same_places(void **state) {
    (void)state;
    const attn_tensor view = dense(ATTN_DTYPE_FLOAT32, 3, (int64_t[]){3, 1, 2});
    attn_tensor other = view;
    assert_true(attni_is_same_view(&view, &other));
    other.strides[1] = 99; /* of an axis that has one place */
    assert_true(attni_is_same_view(&view, &other));
    other.strides[0] = -other.strides[0];
    assert_false(attni_is_same_view(&view, &other));
    other = view;
    other.data = (char *)view.data + 4;
    assert_false(attni_is_same_view(&view, &other));
    other = view;
    other.dtype = ATTN_DTYPE_INT32;
    assert_false(attni_is_same_view(&view, &other));
}

/* ---- writable ---- */

static void writable_is_never_said_of_a_view_that_writes_twice(void **state) {
    (void)state;
    random_state random = random_seeded(33);
    int64_t num_twice = 0;
    int64_t num_accepted = 0;
    int64_t num_refused = 0;
    for (int i = 0; i < NUM_WRITABLE; ++i) {
        const attn_tensor view = scattered_view(&random);
        const bool twice = writes_a_byte_twice(&view);
        const bool accepted = attni_check_writable("output", &view) == ATTN_OK;
        if (twice && accepted) {
            fail_msg("%s writes an element twice but is accepted", view_text(&view));
        }
        num_twice += twice;
        num_accepted += accepted;
        num_refused += !twice && !accepted;
    }
    print_message(
        "views: %lld write an element twice, %lld are accepted, %lld are harmless but refused\n",
        (long long)num_twice, (long long)num_accepted, (long long)num_refused);
    assert_true(num_twice > 10000 && num_accepted > 10000);
}

static void writable_every_part_of_a_dense_buffer_is_accepted(void **state) {
    (void)state;
    random_state random = random_seeded(34);
    for (int i = 0; i < 20000; ++i) {
        const attn_tensor whole = whole_buffer(&random);
        const attn_tensor view = packed_view(&random, &whole);
        if (attni_check_writable("output", &view) != ATTN_OK) {
            fail_msg("%s of %s is refused", view_text(&view), view_text(&whole));
        }
    }
}

static void writable_repeated_axis_is_refused_unless_of_length_1(void **state) {
    (void)state;
    attn_tensor view = dense(ATTN_DTYPE_FLOAT32, 2, (int64_t[]){3, 4});
    view.strides[0] = 0;
    assert_int_equal(attni_check_writable("weights", &view), ATTN_ERROR_OVERLAP);
    assert_string_equal(
        attn_last_error(),
        "weights: expected strides that give every element its own memory, got 0 on axis 0");
    view.shape[0] = 1;
    assert_int_equal(attni_check_writable("weights", &view), ATTN_OK);
    view.shape[0] = 0;
    view.strides[1] = 0;
    assert_int_equal(attni_check_writable("weights", &view), ATTN_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disjoint_is_never_said_of_views_that_share_a_byte),
        cmocka_unit_test(disjoint_neighbours_touch_but_do_not_overlap),
        cmocka_unit_test(disjoint_packed_projections_are_accepted),
        cmocka_unit_test(disjoint_single_heads_are_accepted),
        cmocka_unit_test(disjoint_interleaved_rows_and_elements_are_accepted),
        cmocka_unit_test(disjoint_absent_or_empty_tensors_share_nothing),
        cmocka_unit_test(outputs_every_pair_but_two_inputs_is_checked),
        cmocka_unit_test(same_view_is_the_same_elements_in_the_same_places),
        cmocka_unit_test(writable_is_never_said_of_a_view_that_writes_twice),
        cmocka_unit_test(writable_every_part_of_a_dense_buffer_is_accepted),
        cmocka_unit_test(writable_repeated_axis_is_refused_unless_of_length_1),
    };
    return cmocka_run_group_tests_name("tensor_overlap", tests, NULL, NULL);
}
