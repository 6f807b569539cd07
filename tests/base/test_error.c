/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_error.c: status names and texts, and the detail that each thread keeps.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"

/* ---- statuses ---- */

struct status_case {
    attn_status status;
    const char *name;
    const char *text;
};

static void status_every_code_has_its_name_and_text(void **state) {
    (void)state;
    static const struct status_case cases[] = {
        {0, "ATTN_OK", "success"},
        {1, "ATTN_ERROR_NULL", "required pointer is NULL"},
        {2, "ATTN_ERROR_VALUE", "value out of range"},
        {3, "ATTN_ERROR_SHAPE", "shape mismatch"},
        {4, "ATTN_ERROR_DTYPE", "wrong element type"},
        {5, "ATTN_ERROR_OVERLAP", "output overlaps another tensor or itself"},
        {6, "ATTN_ERROR_OVERFLOW", "sizes overflow"},
        {7, "ATTN_ERROR_PARAMETER", "unknown or missing layer parameter"},
        {8, "ATTN_ERROR_WORKSPACE", "workspace too small"},
        {9, "ATTN_ERROR_MEMORY", "out of memory"},
        {10, "ATTN_ERROR_THREAD", "threads not available"},
        {11, "ATTN_ERROR_UNSUPPORTED", "not supported by this version or build"},
        {12, "ATTN_ERROR_BLAS", "BLAS cannot be used"},
        {13, "ATTN_ERROR_SELFTEST", "a wrong result in the self-test"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        assert_string_equal(attn_status_name(cases[i].status), cases[i].name);
        assert_string_equal(attn_status_text(cases[i].status), cases[i].text);
    }
}

static void status_unknown_number_is_called_unknown(void **state) {
    (void)state;
    static const attn_status numbers[] = {-1, 14, 15, 1000, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; ++i) {
        assert_string_equal(attn_status_name(numbers[i]), "ATTN_ERROR_UNKNOWN");
        assert_string_equal(attn_status_text(numbers[i]), "unknown status");
    }
}

/* ---- the detail ---- */

static void fail_sets_the_detail_and_returns_the_status(void **state) {
    (void)state;
    assert_int_equal(attni_fail(ATTN_ERROR_SHAPE, "%s: expected %d, got %lld", "key", 3, 4LL),
                     ATTN_ERROR_SHAPE);
    assert_string_equal(attn_last_error(), "key: expected 3, got 4");
    assert_int_equal(attni_fail(ATTN_ERROR_NULL, "short"), ATTN_ERROR_NULL);
    assert_string_equal(attn_last_error(), "short");
}

static void clear_empties_the_detail(void **state) {
    (void)state;
    attni_fail(ATTN_ERROR_NULL, "something");
    attni_error_clear();
    assert_string_equal(attn_last_error(), "");
    assert_int_equal(attn_last_error_copy(NULL, 0), 1);
}

static void fail_long_detail_is_cut_to_511_bytes(void **state) {
    (void)state;
    char text[2001];
    for (size_t length = 505; length < sizeof text; length += length < 520 ? 1 : 493) {
        for (size_t i = 0; i < length; ++i) {
            text[i] = (char)('a' + i % 26);
        }
        text[length] = '\0';
        assert_int_equal(attni_fail(ATTN_ERROR_VALUE, "%s", text), ATTN_ERROR_VALUE);
        const size_t kept = length < 511 ? length : 511;
        assert_int_equal(strlen(attn_last_error()), kept);
        assert_memory_equal(attn_last_error(), text, kept);
    }
}

static void fail_detail_is_one_printable_line(void **state) {
    (void)state;
    for (int byte = 1; byte < 256; ++byte) {
        const bool is_control = byte < ' ' || byte == 0x7f;
        const char expected[] = {'a', is_control ? '?' : (char)byte, 'b', '\0'};
        attni_fail(ATTN_ERROR_PARAMETER, "a%cb", byte);
        assert_string_equal(attn_last_error(), expected);
    }
}

static attn_status try_all(const attn_status *statuses, int count, int *tried) {
    for (*tried = 0; *tried < count;) {
        ATTNI_TRY(statuses[(*tried)++]);
    }
    return ATTN_OK;
}

static void try_stops_at_the_first_failure_only(void **state) {
    (void)state;
    static const attn_status statuses[] = {ATTN_OK, ATTN_OK, ATTN_ERROR_BLAS, ATTN_ERROR_NULL};
    int tried = 0;
    assert_int_equal(try_all(statuses, 2, &tried), ATTN_OK);
    assert_int_equal(tried, 2);
    assert_int_equal(try_all(statuses, 4, &tried), ATTN_ERROR_BLAS);
    assert_int_equal(tried, 3);
}

/* ---- attn_last_error_copy ---- */

static void copy_every_size_writes_its_bytes_and_no_more(void **state) {
    (void)state;
    static const char detail[] = "output: expected";
    attni_fail(ATTN_ERROR_SHAPE, "%s", detail);
    for (size_t size = 0; size <= sizeof detail + 3; ++size) {
        char buffer[40];
        memset(buffer, '#', sizeof buffer);
        assert_int_equal(attn_last_error_copy(buffer, size), sizeof detail);
        const size_t kept = size == 0 ? 0 : size > sizeof detail ? sizeof detail - 1 : size - 1;
        assert_memory_equal(buffer, detail, kept);
        if (size > 0) {
            assert_int_equal(buffer[kept], '\0');
        }
        for (size_t i = size == 0 ? 0 : kept + 1; i < sizeof buffer; ++i) {
            assert_int_equal(buffer[i], '#');
        }
    }
}

static void copy_without_a_buffer_tells_the_size(void **state) {
    (void)state;
    attni_fail(ATTN_ERROR_SHAPE, "12345");
    assert_int_equal(attn_last_error_copy(NULL, 0), 6);
    assert_int_equal(attn_last_error_copy(NULL, 100), 6);
    assert_string_equal(attn_last_error(), "12345");
}

static void copy_longest_detail_needs_512_bytes(void **state) {
    (void)state;
    attni_fail(ATTN_ERROR_SHAPE, "%0600d", 7);
    char buffer[600];
    assert_int_equal(attn_last_error_copy(buffer, sizeof buffer), ATTNI_ERROR_BYTES);
    assert_string_equal(buffer, attn_last_error());
}

/* ---- attn_error_set ---- */

static void set_makes_the_detail_of_a_companion(void **state) {
    (void)state;
    static const attn_status statuses[] = {ATTN_ERROR_SHAPE, 1000, -1, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; ++i) {
        assert_int_equal(attn_error_set(statuses[i], "ranks: expected 2, got 3"), statuses[i]);
        assert_string_equal(attn_last_error(), "ranks: expected 2, got 3");
    }
}

static void set_without_detail_takes_the_text_of_the_status(void **state) {
    (void)state;
    assert_int_equal(attn_error_set(ATTN_ERROR_DTYPE, NULL), ATTN_ERROR_DTYPE);
    assert_string_equal(attn_last_error(), "wrong element type");
    assert_int_equal(attn_error_set(1000, NULL), 1000);
    assert_string_equal(attn_last_error(), "unknown status");
}

static void set_ok_clears_the_detail(void **state) {
    (void)state;
    static const char *const details[] = {NULL, "something"};
    for (size_t i = 0; i < sizeof details / sizeof details[0]; ++i) {
        attni_fail(ATTN_ERROR_NULL, "something");
        assert_int_equal(attn_error_set(ATTN_OK, details[i]), ATTN_OK);
        assert_string_equal(attn_last_error(), "");
    }
}

static void set_detail_is_one_line_of_511_bytes_and_no_format(void **state) {
    (void)state;
    attn_error_set(ATTN_ERROR_VALUE, "%s %n\n\t\x7f\x1b[1m");
    assert_string_equal(attn_last_error(), "%s %n????[1m");
    char text[1001];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    attn_error_set(ATTN_ERROR_VALUE, text);
    assert_int_equal(strlen(attn_last_error()), 511);
    assert_memory_equal(attn_last_error(), text, 511);
}

static void set_detail_may_be_the_last_one(void **state) {
    (void)state;
    attni_fail(ATTN_ERROR_VALUE, "key: of a ring");
    assert_int_equal(attn_error_set(1001, attn_last_error()), 1001);
    assert_string_equal(attn_last_error(), "key: of a ring");
    assert_int_equal(attn_error_set(1001, attn_last_error() + 5), 1001);
    assert_string_equal(attn_last_error(), "of a ring");
}

/* ---- errno ---- */

static void errno_of_the_caller_stays(void **state) {
    (void)state;
    errno = EXDEV;
    attni_fail(ATTN_ERROR_VALUE, "%d", 1);
    attn_error_set(ATTN_ERROR_VALUE, NULL);
    (void)attn_last_error();
    attni_error_clear();
    assert_int_equal(errno, EXDEV);
}

/* ---- threads ---- */

struct other_thread {
    pthread_barrier_t barrier;
    char before[16]; /* what the other thread saw before it failed itself */
    char after[16];
    int differs; /* whether its detail lies elsewhere */
    const char *detail_here;
};

static void *fail_elsewhere(void *data) {
    struct other_thread *other = data;
    pthread_barrier_wait(&other->barrier); /* the first thread has failed */
    attn_last_error_copy(other->before, sizeof other->before);
    attni_fail(ATTN_ERROR_VALUE, "second");
    other->differs = attn_last_error() != other->detail_here;
    pthread_barrier_wait(&other->barrier); /* both have failed */
    pthread_barrier_wait(&other->barrier); /* the first thread has cleared its own */
    attn_last_error_copy(other->after, sizeof other->after);
    return NULL;
}

static void detail_of_two_threads_is_apart(void **state) {
    (void)state;
    struct other_thread other = {.detail_here = attn_last_error()};
    pthread_t thread;
    assert_int_equal(pthread_barrier_init(&other.barrier, NULL, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &other), 0);
    attni_fail(ATTN_ERROR_NULL, "first");
    pthread_barrier_wait(&other.barrier);
    pthread_barrier_wait(&other.barrier);
    char seen[16];
    attn_last_error_copy(seen, sizeof seen);
    attni_error_clear();
    pthread_barrier_wait(&other.barrier);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&other.barrier);
    assert_string_equal(other.before, "");
    assert_string_equal(seen, "first");
    assert_string_equal(other.after, "second");
    assert_true(other.differs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_every_code_has_its_name_and_text),
        cmocka_unit_test(status_unknown_number_is_called_unknown),
        cmocka_unit_test(fail_sets_the_detail_and_returns_the_status),
        cmocka_unit_test(clear_empties_the_detail),
        cmocka_unit_test(fail_long_detail_is_cut_to_511_bytes),
        cmocka_unit_test(fail_detail_is_one_printable_line),
        cmocka_unit_test(try_stops_at_the_first_failure_only),
        cmocka_unit_test(copy_every_size_writes_its_bytes_and_no_more),
        cmocka_unit_test(copy_without_a_buffer_tells_the_size),
        cmocka_unit_test(copy_longest_detail_needs_512_bytes),
        cmocka_unit_test(set_makes_the_detail_of_a_companion),
        cmocka_unit_test(set_without_detail_takes_the_text_of_the_status),
        cmocka_unit_test(set_ok_clears_the_detail),
        cmocka_unit_test(set_detail_is_one_line_of_511_bytes_and_no_format),
        cmocka_unit_test(set_detail_may_be_the_last_one),
        cmocka_unit_test(errno_of_the_caller_stays),
        cmocka_unit_test(detail_of_two_threads_is_apart),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
