/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_allocator.c: the alignment of blocks, and what reaches the allocator behind the seam.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/allocator.h"
#include "errors/counting_allocator.h"

static attni_allocator allocator_of(counting_allocator *counting) {
    attn_context_config params = {0};
    counting_allocator_init(counting);
    counting_allocator_use(counting, &params);
    return (attni_allocator){params.allocate, params.deallocate, params.allocator_state};
}

static void system_block_is_aligned_and_writable(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 3, 63, 64, 65, 1000, 4096, 1000003};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
        void *memory = attni_allocate(&attni_system_allocator, sizes[i]);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % ATTNI_ALIGNMENT, 0);
        memset(memory, 0x5A, sizes[i]);
        attni_deallocate(&attni_system_allocator, memory, sizes[i]);
    }
}

static void system_block_too_large_is_null(void **state) {
    (void)state;
    assert_null(attni_allocate(&attni_system_allocator, SIZE_MAX / 2));
}

static void block_goes_through_the_given_allocator(void **state) {
    (void)state;
    counting_allocator counting;
    const attni_allocator allocator = allocator_of(&counting);
    void *memory = attni_allocate(&allocator, 100);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % ATTNI_ALIGNMENT, 0);
    assert_int_equal(counting.live_blocks, 1);
    assert_int_equal(counting.live_bytes, 100);
    attni_deallocate(&allocator, memory, 100);
    assert_int_equal(counting.live_blocks, 0);
    assert_int_equal(counting.mistakes, 0);
}

static void deallocate_null_does_not_reach_the_allocator(void **state) {
    (void)state;
    counting_allocator counting;
    const attni_allocator allocator = allocator_of(&counting);
    attni_deallocate(&allocator, NULL, 0);
    attni_deallocate(&allocator, NULL, 100);
    assert_int_equal(counting.mistakes, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(system_block_is_aligned_and_writable),
        cmocka_unit_test(system_block_too_large_is_null),
        cmocka_unit_test(block_goes_through_the_given_allocator),
        cmocka_unit_test(deallocate_null_does_not_reach_the_allocator),
    };
    return cmocka_run_group_tests_name("allocator", tests, NULL, NULL);
}
