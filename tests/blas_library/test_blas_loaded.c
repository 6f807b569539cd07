/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_blas_loaded.c: what the loader of the BLAS says where something is missing; it loads once,
 * and what the BLAS's threads inherit is not the caller's. Linked so that the dynamic linker's
 * answers come from this file.
 */
#include <dlfcn.h>
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "blas_library/blas_functions.h"
#include "blas_library/thread_trial.h"
#include "support/end_of_child.h"

/* ---- the dynamic linker ---- */

static struct {
    bool has_threads;
    const char *library; /* where the loader lies; NULL: not known */
    bool has_module;
    bool has_getter;
    size_t struct_size;
} world;

static char asked_for[5000];
static bool was_disturbed; /* loaded with the caller's rounding, or open to signals */
static atomic_int loads;
static atomic_bool is_loading;
static atomic_bool may_finish = true;

static const attni_blas_functions *table_of_module(const char **why) {
    static attni_blas_functions table;
    (void)why;
    table.struct_size = world.struct_size;
    return &table;
}

bool attni_can_start_blas_threads(void) {
    return world.has_threads;
}

int __wrap_dladdr(const void *address, Dl_info *info);
int __wrap_dladdr(const void *address, Dl_info *info) {
    (void)address;
    info->dli_fname = world.library;
    return world.library != NULL;
}

void *__wrap_dlopen(const char *path, int flags);
void *__wrap_dlopen(const char *path, int flags) {
    assert_int_equal(flags, RTLD_NOW | RTLD_LOCAL);
    snprintf(asked_for, sizeof asked_for, "%s", path);
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    was_disturbed = fegetround() != FE_TONEAREST || !sigismember(&mask, SIGUSR1);
    atomic_store(&is_loading, true);
    while (!atomic_load(&may_finish)) {
        sched_yield();
    }
    atomic_fetch_add(&loads, world.has_module);
    return world.has_module ? &world : NULL;
}

void *__wrap_dlsym(void *module, const char *name);
void *__wrap_dlsym(void *module, const char *name) {
    assert_ptr_equal(module, &world);
    assert_string_equal(name, "attni_blas_functions_get");
    const attni_blas_functions *(*get)(const char **) = table_of_module;
    void *address = NULL;
    memcpy(&address, &get, sizeof address);
    return world.has_getter ? address : NULL;
}

char *__wrap_dlerror(void);
char *__wrap_dlerror(void) {
    static char words[] = "the linker's words";
    return words;
}

static void make_whole(void) {
    world.has_threads = true;
    world.library = "/some/where/libattention.so.0";
    world.has_module = true;
    world.has_getter = true;
    world.struct_size = sizeof(attni_blas_functions);
}

/* ---- tests: in children, since the answer stays ---- */

static int end_of(pid_t child) {
    int status = 1;
    return child > 0 && waitpid(child, &status, 0) == child ? status : 1;
}

/* The answer to the world as it is, and the same one when all is there. */
static int find_refusal(const char *line) {
    const char *why = NULL;
    const char *why_again = NULL;
    const bool is_there = attni_blas_functions_get(&why) != NULL;
    make_whole();
    const bool is_there_again = attni_blas_functions_get(&why_again) != NULL;
    return is_there || is_there_again || strstr(why, line) == NULL || why != why_again;
}

static void assert_refused(const char *line) {
    const pid_t child = fork();
    if (child == 0) {
        end_of_child(find_refusal(line));
    }
    assert_int_equal(end_of(child), 0);
    make_whole();
}

static void what_is_missing_is_said_and_stays_missing(void **state) {
    (void)state;
    static char long_path[5000];
    make_whole();
    world.has_threads = false;
    assert_refused("no thread could be started");
    world.has_threads = false;
    assert_refused("OPENBLAS_NUM_THREADS=1");
    world.library = NULL;
    assert_refused("where it lies");
    memset(long_path, 'a', sizeof long_path - 3);
    long_path[0] = '/';
    long_path[sizeof long_path - 3] = '/';
    world.library = long_path;
    assert_refused("where it lies");
    world.has_module = false;
    assert_refused("the linker's words");
    world.has_getter = false;
    assert_refused("the linker's words");
    world.struct_size = 8;
    assert_refused("attention-0/blas.so is of another release");
}

static int load_from(const char *library, const char *module) {
    make_whole();
    world.library = library;
    const char *why = NULL;
    sigset_t mask;
    fesetround(FE_UPWARD);
    const attni_blas_functions *functions = attni_blas_functions_get(&why);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return functions == NULL || functions->struct_size != sizeof *functions ||
           strcmp(asked_for, module) != 0 || was_disturbed || fegetround() != FE_UPWARD ||
           sigismember(&mask, SIGUSR1);
}

static void module_lies_beside_the_library(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"/some/where/libattention.so.0", "/some/where/attention-0/blas.so"},
        {"/libattention.so", "/attention-0/blas.so"},
#ifdef __GLIBC__ /* Others do not know where it was. */
        {"./libattention.so", "$ORIGIN/attention-0/blas.so"},
        {"libattention.so", "$ORIGIN/attention-0/blas.so"},
#endif
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            end_of_child(load_from(cases[i][0], cases[i][1]));
        }
        assert_int_equal(end_of(child), 0);
    }
}

static atomic_bool was_forked;

/* A thread that had ended before the fork would be one that the child never joins, which the thread
 * sanitizer reports. */
static void stay_until_forked(void) {
    while (!atomic_load(&was_forked)) {
        sched_yield();
    }
}

static void *ask(void *unused) {
    (void)unused;
    const attni_blas_functions *functions = attni_blas_functions_get(NULL);
    stay_until_forked();
    return (void *)(uintptr_t)functions;
}

static void *finish_soon(void *unused) {
    usleep(20000);
    atomic_store(&may_finish, true);
    stay_until_forked();
    return unused;
}

/* Of threads that ask at once one loads; a fork waits for it, and its child has the whole. */
static void loading_is_done_once_and_a_fork_waits_for_it(void **state) {
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    make_whole();
    atomic_store(&may_finish, false);
    for (int i = 0; i < THREADS; ++i) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask, NULL), 0);
    }
    while (!atomic_load(&is_loading)) {
        sched_yield();
    }
    pthread_t finisher;
    assert_int_equal(pthread_create(&finisher, NULL, finish_soon, NULL), 0);
    const pid_t child = fork();
    if (child == 0) {
        end_of_child(atomic_load(&loads) != 1 || attni_blas_functions_get(NULL) == NULL ||
                     atomic_load(&loads) != 1);
    }
    atomic_store(&was_forked, true);
    assert_int_equal(end_of(child), 0);
    pthread_join(finisher, NULL);
    for (int i = 0; i < THREADS; ++i) {
        void *functions = NULL;
        pthread_join(threads[i], &functions);
        assert_non_null(functions);
    }
    assert_int_equal(atomic_load(&loads), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_missing_is_said_and_stays_missing),
        cmocka_unit_test(module_lies_beside_the_library),
        cmocka_unit_test(loading_is_done_once_and_a_fork_waits_for_it),
    };
    return cmocka_run_group_tests_name("blas_loaded", tests, NULL, NULL);
}
