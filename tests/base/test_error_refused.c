/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_error_refused.c: failures told on a system that has no key for a thread's detail, no memory
 * for it, or no room for the pointer to it. Linked so that those calls come through this file.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"

/* What the system refuses at the moment. */
static bool refuses_keys;
static bool refuses_memory;
static bool refuses_room;
static int num_blocks; /* memory for details, allocated so far */

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes) {
    if (bytes != ATTNI_ERROR_BYTES) {
        return __real_malloc(bytes);
    }
    if (refuses_memory) {
        errno = ENOMEM;
        return NULL;
    }
    ++num_blocks;
    return __real_malloc(bytes);
}

int __real_pthread_key_create(pthread_key_t *key, void (*destroy)(void *));
int __wrap_pthread_key_create(pthread_key_t *key, void (*destroy)(void *));
int __wrap_pthread_key_create(pthread_key_t *key, void (*destroy)(void *)) {
    return refuses_keys ? EAGAIN : __real_pthread_key_create(key, destroy);
}

int __real_pthread_setspecific(pthread_key_t key, const void *value);
int __wrap_pthread_setspecific(pthread_key_t key, const void *value);
int __wrap_pthread_setspecific(pthread_key_t key, const void *value) {
    return refuses_room && value != NULL ? ENOMEM : __real_pthread_setspecific(key, value);
}

/* Each case begins on a thread that has not failed yet. */
static void on_new_thread(void *(*run)(void *)) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void fail_and_see(const char *detail) {
    char copy[ATTNI_ERROR_BYTES];
    errno = EXDEV;
    assert_int_equal(attni_fail(ATTN_ERROR_SHAPE, "key: expected %d", 3), ATTN_ERROR_SHAPE);
    assert_int_equal(errno, EXDEV);
    assert_string_equal(attn_last_error(), detail);
    assert_int_equal(attn_last_error_copy(copy, sizeof copy), strlen(detail) + 1);
    assert_string_equal(copy, detail);
}

static void clear_and_see(void) {
    attni_error_clear();
    assert_string_equal(attn_last_error(), "");
}

/* ---- no key: comes first, while the process has none ---- */

static void *fail_without_keys(void *data) {
    refuses_keys = true;
    fail_and_see("");
    clear_and_see();
    refuses_keys = false;
    fail_and_see("key: expected 3");
    clear_and_see();
    return data;
}

static void no_key_leaves_the_status_alone_until_there_is_one(void **state) {
    (void)state;
    on_new_thread(fail_without_keys);
}

/* ---- no memory ---- */

static void *fail_without_memory(void *data) {
    refuses_memory = true;
    fail_and_see("shape mismatch");
    assert_int_equal(attn_error_set(ATTN_ERROR_DTYPE, "mask: a wrong dtype"), ATTN_ERROR_DTYPE);
    assert_string_equal(attn_last_error(), "wrong element type");
    clear_and_see();
    fail_and_see("shape mismatch");
    refuses_memory = false;
    fail_and_see("key: expected 3");
    clear_and_see();
    return data;
}

static void no_memory_leaves_the_text_of_the_status(void **state) {
    (void)state;
    on_new_thread(fail_without_memory);
}

static void *fail_after_memory_ran_out(void *data) {
    fail_and_see("key: expected 3");
    refuses_memory = true;
    fail_and_see("key: expected 3");
    refuses_memory = false;
    return data;
}

static void memory_is_needed_for_the_first_failure_only(void **state) {
    (void)state;
    on_new_thread(fail_after_memory_ran_out);
}

/* ---- no room for the pointer ---- */

static void *fail_without_room(void *data) {
    refuses_room = true;
    fail_and_see("");
    clear_and_see();
    refuses_room = false;
    fail_and_see("key: expected 3");
    return data;
}

static void no_room_leaves_the_status_alone_and_nothing_behind(void **state) {
    (void)state;
    on_new_thread(fail_without_room);
}

/* ---- success ---- */

static void *succeed(void *data) {
    for (int i = 0; i < 3; ++i) {
        clear_and_see();
        assert_int_equal(attn_last_error_copy(NULL, 0), 1);
    }
    return data;
}

static void threads_without_failures_have_no_block(void **state) {
    (void)state;
    num_blocks = 0;
    on_new_thread(succeed);
    assert_int_equal(num_blocks, 0);
    on_new_thread(fail_after_memory_ran_out);
    assert_int_equal(num_blocks, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_key_leaves_the_status_alone_until_there_is_one),
        cmocka_unit_test(no_memory_leaves_the_text_of_the_status),
        cmocka_unit_test(memory_is_needed_for_the_first_failure_only),
        cmocka_unit_test(no_room_leaves_the_status_alone_and_nothing_behind),
        cmocka_unit_test(threads_without_failures_have_no_block),
    };
    return cmocka_run_group_tests_name("error refused", tests, NULL, NULL);
}
