/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_workspace.c: the pieces of a layout, and the block a call takes for it from the caller or
 * from the allocator.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/workspace.h"
#include "errors/counting_allocator.h"

static attni_allocator allocator_of(counting_allocator *counting) {
    attn_context_config params = {0};
    counting_allocator_init(counting);
    counting_allocator_use(counting, &params);
    return (attni_allocator){params.allocate, params.deallocate, params.allocator_state};
}

/* ---- layouts ---- */

static void layout_pieces_are_aligned_and_apart(void **state) {
    (void)state;
    static const int64_t counts[] = {1, 0, 16, 17, 8, 0, 1000, 3, 64, 63, 65};
    static const size_t sizes[] = {4, 4, 4, 4, 8, 8, 8, 1, 1, 1, 1};
    attni_layout layout = {0};
    size_t end = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; ++i) {
        const size_t offset = attni_layout_add(&layout, counts[i], sizes[i]);
        assert_int_equal(offset % ATTNI_ALIGNMENT, 0);
        assert_true(offset >= end);
        assert_true(offset - end < ATTNI_ALIGNMENT);
        end = offset + (size_t)counts[i] * sizes[i];
    }
    assert_true(layout.bytes >= end);
    assert_false(layout.overflow);
}

static void layout_empty_pieces_take_nothing(void **state) {
    (void)state;
    attni_layout layout = {0};
    size_t bytes = 1;
    attni_layout_add(&layout, 0, 8);
    attni_layout_add(&layout, 8, 0);
    assert_int_equal(attni_layout_bytes(&layout, &bytes), ATTN_OK);
    assert_int_equal(bytes, 0);
}

static void layout_bytes_leave_room_for_any_alignment(void **state) {
    (void)state;
    attni_layout layout = {0};
    size_t bytes = 0;
    attni_layout_add(&layout, 65, 1);
    assert_int_equal(attni_layout_bytes(&layout, &bytes), ATTN_OK);
    assert_int_equal(bytes, 128 + 63);
}

static void assert_overflows(const attni_layout *layout) {
    size_t bytes = 12345;
    assert_int_equal(attni_layout_bytes(layout, &bytes), ATTN_ERROR_OVERFLOW);
    assert_int_equal(bytes, 12345);
    assert_int_equal(attni_workspace_check(layout, NULL, 0), ATTN_ERROR_OVERFLOW);
    char block[8];
    assert_int_equal(attni_workspace_check(layout, block, SIZE_MAX), ATTN_ERROR_OVERFLOW);
}

static void layout_overflow_in_one_piece_is_found(void **state) {
    (void)state;
    static const int64_t counts[] = {INT64_MAX, INT64_MAX / 8 + 1, INT64_MAX / 8, INT64_C(1) << 61};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; ++i) {
        attni_layout layout = {0};
        attni_layout_add(&layout, counts[i], 8);
        assert_overflows(&layout);
    }
    attni_layout bytes = {0};
    attni_layout_add(&bytes, INT64_MAX - 62, 1);
    assert_overflows(&bytes);
}

static void layout_overflow_of_the_sum_is_found(void **state) {
    (void)state;
    attni_layout layout = {0};
    attni_layout_add(&layout, INT64_C(1) << 62, 1);
    assert_false(layout.overflow);
    attni_layout_add(&layout, INT64_C(1) << 62, 1);
    assert_overflows(&layout);
}

static void layout_overflow_stays_whatever_is_added_later(void **state) {
    (void)state;
    attni_layout layout = {0};
    attni_layout_add(&layout, INT64_MAX, 8);
    attni_layout_add(&layout, 1, 4);
    attni_layout_add(&layout, 0, 4);
    assert_overflows(&layout);
}

/* The whole block, its alignment included, must fit int64_t: all sizes around the last that does.
 */
static void layout_size_near_the_largest_is_right_or_refused(void **state) {
    (void)state;
    const uint64_t most = INT64_MAX;
    for (int64_t below = 0; below < 400; ++below) {
        attni_layout layout = {0};
        attni_layout_add(&layout, INT64_MAX - below, 1);
        const uint64_t needed = ((most - (uint64_t)below) + 63) / 64 * 64 + 63;
        size_t bytes = 0;
        const attn_status status = attni_layout_bytes(&layout, &bytes);
        assert_int_equal(status, below >= 128 || (status == ATTN_OK && needed <= most)
                                     ? ATTN_OK
                                     : ATTN_ERROR_OVERFLOW);
        assert_true(bytes == (status == ATTN_OK ? needed : 0));
    }
}

/* ---- the caller's block ---- */

enum { MARGIN = 256 };

/* Exactly the asked bytes at every alignment: the pieces lie inside, aligned. */
static void acquire_given_block_at_any_alignment_stays_inside(void **state) {
    (void)state;
    attni_layout layout = {0};
    attni_layout_add(&layout, 100, 4);
    attni_layout_add(&layout, 3, 8);
    size_t needed = 0;
    assert_int_equal(attni_layout_bytes(&layout, &needed), ATTN_OK);
    unsigned char *memory = malloc(needed + 2 * MARGIN);
    assert_non_null(memory);
    for (size_t shift = 0; shift < 2 * ATTNI_ALIGNMENT; ++shift) {
        memset(memory, 0x11, needed + 2 * MARGIN);
        unsigned char *given = memory + MARGIN / 2 + shift;
        attni_workspace workspace;
        assert_int_equal(attni_workspace_check(&layout, given, needed), ATTN_OK);
        assert_int_equal(
            attni_workspace_acquire(&layout, &attni_system_allocator, given, &workspace), ATTN_OK);
        assert_int_equal((uintptr_t)workspace.base % ATTNI_ALIGNMENT, 0);
        memset(workspace.base, 0x22, layout.bytes);
        for (size_t i = 0; i < needed + 2 * MARGIN; ++i) {
            const bool is_inside = memory + i >= given && memory + i < given + needed;
            assert_true(is_inside || memory[i] == 0x11);
        }
        attni_workspace_release(&workspace, &attni_system_allocator);
    }
    free(memory);
}

static void check_given_block_one_byte_short_is_refused(void **state) {
    (void)state;
    attni_layout layout = {0};
    attni_layout_add(&layout, 10, 8);
    char block[8];
    assert_int_equal(attni_workspace_check(&layout, block, 190), ATTN_ERROR_WORKSPACE);
    assert_string_equal(attn_last_error(),
                        "workspace_bytes: expected at least 191 for this call, got 190");
    assert_int_equal(attni_workspace_check(&layout, block, 0), ATTN_ERROR_WORKSPACE);
    assert_int_equal(attni_workspace_check(&layout, block, 191), ATTN_OK);
    assert_int_equal(attni_workspace_check(&layout, block, 10000), ATTN_OK);
}

static void check_without_a_block_is_fine(void **state) {
    (void)state;
    attni_layout layout = {0};
    assert_int_equal(attni_workspace_check(&layout, NULL, 0), ATTN_OK);
    attni_layout_add(&layout, 10, 8);
    assert_int_equal(attni_workspace_check(&layout, NULL, 0), ATTN_OK);
}

/* ---- the allocator's block ---- */

static void acquire_without_a_block_allocates_once(void **state) {
    (void)state;
    counting_allocator counting;
    const attni_allocator allocator = allocator_of(&counting);
    attni_layout layout = {0};
    attni_layout_add(&layout, 1000, 8);
    attni_workspace workspace;
    assert_int_equal(attni_workspace_acquire(&layout, &allocator, NULL, &workspace), ATTN_OK);
    assert_int_equal(counting.requests, 1);
    assert_true(counting.live_bytes >= 8000);
    assert_int_equal((uintptr_t)workspace.base % ATTNI_ALIGNMENT, 0);
    memset(workspace.base, 0, layout.bytes);
    attni_workspace_release(&workspace, &allocator);
    assert_int_equal(counting.live_blocks, 0);
    assert_int_equal(counting.mistakes, 0);
    attni_workspace_release(&workspace, &allocator);
    assert_int_equal(counting.mistakes, 0);
}

static void acquire_given_block_allocates_and_frees_nothing(void **state) {
    (void)state;
    counting_allocator counting;
    const attni_allocator allocator = allocator_of(&counting);
    attni_layout layout = {0};
    attni_layout_add(&layout, 10, 8);
    char block[191];
    attni_workspace workspace;
    assert_int_equal(attni_workspace_acquire(&layout, &allocator, block, &workspace), ATTN_OK);
    attni_workspace_release(&workspace, &allocator);
    assert_int_equal(counting.requests, 0);
    assert_int_equal(counting.mistakes, 0);
}

static void acquire_empty_layout_takes_no_block(void **state) {
    (void)state;
    counting_allocator counting;
    const attni_allocator allocator = allocator_of(&counting);
    const attni_layout layout = {0};
    char block[8];
    attni_workspace workspace;
    assert_int_equal(attni_workspace_acquire(&layout, &allocator, NULL, &workspace), ATTN_OK);
    assert_null(workspace.base);
    attni_workspace_release(&workspace, &allocator);
    assert_int_equal(attni_workspace_acquire(&layout, &allocator, block, &workspace), ATTN_OK);
    assert_null(workspace.base);
    attni_workspace_release(&workspace, &allocator);
    assert_int_equal(counting.requests, 0);
}

static void acquire_refused_allocation_is_reported(void **state) {
    (void)state;
    counting_allocator counting;
    const attni_allocator allocator = allocator_of(&counting);
    counting_allocator_fail(&counting, 1, false);
    attni_layout layout = {0};
    attni_layout_add(&layout, 16, 4);
    attni_workspace workspace;
    assert_int_equal(attni_workspace_acquire(&layout, &allocator, NULL, &workspace),
                     ATTN_ERROR_MEMORY);
    assert_string_equal(attn_last_error(), "workspace: allocation of 64 bytes failed");
    attni_workspace_release(&workspace, &allocator);
    assert_int_equal(counting.mistakes, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_pieces_are_aligned_and_apart),
        cmocka_unit_test(layout_empty_pieces_take_nothing),
        cmocka_unit_test(layout_bytes_leave_room_for_any_alignment),
        cmocka_unit_test(layout_overflow_in_one_piece_is_found),
        cmocka_unit_test(layout_overflow_of_the_sum_is_found),
        cmocka_unit_test(layout_overflow_stays_whatever_is_added_later),
        cmocka_unit_test(layout_size_near_the_largest_is_right_or_refused),
        cmocka_unit_test(acquire_given_block_at_any_alignment_stays_inside),
        cmocka_unit_test(check_given_block_one_byte_short_is_refused),
        cmocka_unit_test(check_without_a_block_is_fine),
        cmocka_unit_test(acquire_without_a_block_allocates_once),
        cmocka_unit_test(acquire_given_block_allocates_and_frees_nothing),
        cmocka_unit_test(acquire_empty_layout_takes_no_block),
        cmocka_unit_test(acquire_refused_allocation_is_reported),
    };
    return cmocka_run_group_tests_name("workspace", tests, NULL, NULL);
}
