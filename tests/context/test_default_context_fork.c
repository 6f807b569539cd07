/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_default_context_fork.c: a process forks while one of its threads is making the default
 * context; the child, which has no such thread, makes its own. getenv is wrapped: it holds that
 * thread up.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <attention/context.h>

static atomic_bool is_shut;
static atomic_bool is_someone_waiting;

char *__real_getenv(const char *name);
char *__wrap_getenv(const char *name);

char *__wrap_getenv(const char *name) {
    if (atomic_load(&is_shut)) {
        atomic_store(&is_someone_waiting, true);
        while (atomic_load(&is_shut)) {
            usleep(100);
        }
    }
    return __real_getenv(name);
}

static void *describe_default(void *data) {
    attn_context_info info = {.struct_size = sizeof info};
    *(attn_status *)data = attn_context_describe(NULL, &info);
    return NULL;
}

static void child_makes_the_default_context_its_parent_was_making(void **state) {
    (void)state;
    attn_status status = ATTN_ERROR_VALUE;
    pthread_t maker;
    atomic_store(&is_shut, true);
    assert_int_equal(pthread_create(&maker, NULL, describe_default, &status), 0);
    for (int i = 0; i < 100000 && !atomic_load(&is_someone_waiting); ++i) {
        usleep(100);
    }
    assert_true(atomic_load(&is_someone_waiting));
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        atomic_store(&is_shut, false);
        attn_status own = ATTN_ERROR_VALUE;
        describe_default(&own);
        _exit(own == ATTN_OK ? 0 : 1);
    }
    atomic_store(&is_shut, false);
    assert_int_equal(pthread_join(maker, NULL), 0);
    assert_int_equal(status, ATTN_OK);
    int outcome;
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFEXITED(outcome));
    assert_int_equal(WEXITSTATUS(outcome), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(child_makes_the_default_context_its_parent_was_making),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
