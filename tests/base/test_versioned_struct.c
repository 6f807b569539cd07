/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_versioned_struct.c: structs of older, equal and newer releases, in and out. The caller's
 * struct ends where a page begins that may not be touched, so a byte read or written past it ends
 * the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/versioned_struct.h"
#include "support/guard_pages.h"

/* The struct had FIRST bytes in its first release and has KNOWN today. */
enum { FIRST = 24, KNOWN = 56, MOST = 120 };

static guard_pages pages;

static int map_pages(void **state) {
    (void)state;
    pages = guard_pages_map(MOST);
    return 0;
}

static int unmap_pages(void **state) {
    (void)state;
    guard_pages_unmap(&pages);
    return 0;
}

/* A caller's struct of `size` bytes, all 1, 2, 3, ... behind its size, that ends where the pages do. */
static unsigned char *given_struct(uint64_t size) {
    unsigned char *given = guard_pages_last(&pages, size < sizeof size ? sizeof size : size);
    for (uint64_t i = sizeof size; i < size; ++i) {
        given[i] = (unsigned char)i;
    }
    memcpy(given, &size, sizeof size);
    return given;
}

/* ---- in ---- */

static void assert_read(const void *given, attn_status expected, unsigned char *known) {
    memset(known, 0xEE, MOST);
    assert_int_equal(attni_struct_read("params", given, FIRST, KNOWN, known), expected);
    for (size_t i = KNOWN; i < MOST; ++i) {
        assert_int_equal(known[i], 0xEE);
    }
}

static void read_null_is_all_zero(void **state) {
    (void)state;
    unsigned char known[MOST];
    assert_read(NULL, ATTN_OK, known);
    for (size_t i = 0; i < KNOWN; ++i) {
        assert_int_equal(known[i], 0);
    }
}

static void read_smaller_than_the_first_release_is_refused(void **state) {
    (void)state;
    unsigned char known[MOST];
    for (uint64_t size = 0; size < FIRST; ++size) {
        assert_read(given_struct(size), ATTN_ERROR_VALUE, known);
        char detail[100];
        snprintf(detail, sizeof detail,
                 "params: expected struct_size 24 (sizeof the struct) or more, got %d", (int)size);
        assert_string_equal(attn_last_error(), detail);
    }
}

/* Every size from the first release's to today's: what the caller has arrives, the rest is zero.
 * Part of eight bytes is nothing, since it may be of a pointer. */
static void read_older_struct_leaves_newer_fields_zero(void **state) {
    (void)state;
    unsigned char known[MOST];
    for (uint64_t size = FIRST; size <= KNOWN; ++size) {
        const unsigned char *given = given_struct(size);
        assert_read(given, ATTN_OK, known);
        const size_t whole = size / 8 * 8;
        assert_memory_equal(known, given, whole);
        for (size_t i = whole; i < KNOWN; ++i) {
            assert_int_equal(known[i], 0);
        }
    }
}

static void read_newer_struct_with_a_zero_tail_is_accepted(void **state) {
    (void)state;
    unsigned char known[MOST];
    for (uint64_t size = KNOWN + 1; size <= MOST; ++size) {
        unsigned char *given = given_struct(size);
        memset(given + KNOWN, 0, size - KNOWN);
        assert_read(given, ATTN_OK, known);
        assert_memory_equal(known, given, KNOWN);
    }
}

static void read_newer_struct_that_uses_any_new_byte_is_refused(void **state) {
    (void)state;
    unsigned char known[MOST];
    unsigned char *given = given_struct(MOST);
    for (size_t used = KNOWN; used < MOST; ++used) {
        memset(given + KNOWN, 0, MOST - KNOWN);
        given[used] = used % 2 == 0 ? 1 : 0x80;
        assert_read(given, ATTN_ERROR_UNSUPPORTED, known);
        char detail[160];
        snprintf(detail, sizeof detail,
                 "params: expected zeroes past byte 56, which is all this version knows, got an "
                 "option at byte %zu",
                 used);
        assert_string_equal(attn_last_error(), detail);
    }
}

/* A struct_size that nobody set, at the end of what may be read: nothing behind it is. */
static void absurd_sizes_are_refused_before_the_struct_is_read(void **state) {
    (void)state;
    static const uint64_t sizes[] = {4097,      5000,      INT32_MAX, (uint64_t)1 << 32,
                                     INT64_MAX, UINT64_MAX};
    unsigned char known[MOST];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
        unsigned char *given = guard_pages_last(&pages, sizeof(uint64_t));
        char detail[100];
        memcpy(given, &sizes[i], sizeof sizes[i]);
        snprintf(detail, sizeof detail,
                 "params: expected struct_size (sizeof the struct) of at most 4096, got %llu",
                 (unsigned long long)sizes[i]);
        assert_read(given, ATTN_ERROR_VALUE, known);
        assert_string_equal(attn_last_error(), detail);
        assert_int_equal(attni_struct_check_output("params", given, FIRST), ATTN_ERROR_VALUE);
        assert_string_equal(attn_last_error(), detail);
    }
}

/* ---- out ---- */

static void output_null_is_refused(void **state) {
    (void)state;
    assert_int_equal(attni_struct_check_output("report", NULL, FIRST), ATTN_ERROR_NULL);
    assert_string_equal(attn_last_error(), "report: expected a struct to fill, got NULL");
}

static void output_smaller_than_the_first_release_is_refused(void **state) {
    (void)state;
    for (uint64_t size = 0; size < FIRST; ++size) {
        assert_int_equal(attni_struct_check_output("report", given_struct(size), FIRST),
                         ATTN_ERROR_VALUE);
    }
    for (uint64_t size = FIRST; size <= MOST; ++size) {
        assert_int_equal(attni_struct_check_output("report", given_struct(size), FIRST), ATTN_OK);
    }
}

/* struct_size stays the caller's, known fields are filled as far as there is room, zeroes up to
 * its end, and nothing behind it. */
static void write_fills_what_the_caller_has_room_for(void **state) {
    (void)state;
    unsigned char known[KNOWN];
    memset(known, 0xC3, sizeof known);
    for (uint64_t size = FIRST; size <= MOST; ++size) {
        unsigned char *given = given_struct(size);
        attni_struct_write(given, known, KNOWN);
        uint64_t kept_size = 0;
        memcpy(&kept_size, given, sizeof kept_size);
        assert_int_equal(kept_size, size);
        for (uint64_t i = sizeof size; i < size; ++i) {
            assert_int_equal(given[i], i < KNOWN ? 0xC3 : 0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_null_is_all_zero),
        cmocka_unit_test(read_smaller_than_the_first_release_is_refused),
        cmocka_unit_test(read_older_struct_leaves_newer_fields_zero),
        cmocka_unit_test(read_newer_struct_with_a_zero_tail_is_accepted),
        cmocka_unit_test(read_newer_struct_that_uses_any_new_byte_is_refused),
        cmocka_unit_test(absurd_sizes_are_refused_before_the_struct_is_read),
        cmocka_unit_test(output_null_is_refused),
        cmocka_unit_test(output_smaller_than_the_first_release_is_refused),
        cmocka_unit_test(write_fills_what_the_caller_has_room_for),
    };
    return cmocka_run_group_tests_name("versioned_struct", tests, map_pages, unmap_pages);
}
