/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_worker_placement_refused.c: a worker's CPUs where the system will not tell or change them.
 * Linked so that the calls named __wrap_ here come from this file.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "context/worker_placement.h"

static bool refuses_to_tell;
static bool refuses_to_change;
static int num_changes;
static cpu_set_t current; /* CPUs 0 to 2 but for what was changed */

int __wrap_pthread_getaffinity_np(pthread_t thread, size_t bytes, cpu_set_t *cpus);
int __wrap_pthread_getaffinity_np(pthread_t thread, size_t bytes, cpu_set_t *cpus) {
    (void)thread;
    assert_int_equal(bytes, sizeof *cpus);
    *cpus = current;
    return refuses_to_tell ? EINVAL : 0;
}

int __wrap_pthread_setaffinity_np(pthread_t thread, size_t bytes, const cpu_set_t *cpus);
int __wrap_pthread_setaffinity_np(pthread_t thread, size_t bytes, const cpu_set_t *cpus) {
    (void)thread;
    assert_int_equal(bytes, sizeof *cpus);
    ++num_changes;
    if (refuses_to_change) {
        return EINVAL;
    }
    current = *cpus;
    return 0;
}

static void start_with_three_cpus(bool told, bool changed) {
    refuses_to_tell = !told;
    refuses_to_change = !changed;
    num_changes = 0;
    CPU_ZERO(&current);
    for (size_t cpu = 0; cpu < 3; ++cpu) {
        CPU_SET(cpu, &current);
    }
}

static void what_is_refused_is_not_undone(void **state) {
    (void)state;
    static const struct {
        bool told;
        bool changed;
        int num_changes; /* of keeping away and waking together */
    } cases[] = {{false, true, 0}, {true, false, 1}, {true, true, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        start_with_three_cpus(cases[i].told, cases[i].changed);
        const cpu_set_t before = current;
        attni_worker_placement placement = {.is_asleep = true};
        attni_placement_keep_away(&placement, pthread_self(), 1);
        assert_int_equal(placement.is_kept_away, cases[i].told && cases[i].changed);
        assert_int_equal(CPU_ISSET(1, &current) != 0, !placement.is_kept_away);
        attni_placement_note_awake(&placement);
        assert_false(placement.is_asleep);
        assert_false(placement.is_kept_away);
        assert_int_equal(num_changes, cases[i].num_changes);
        assert_true(CPU_EQUAL(&current, &before));
    }
}

/* The CPU to be kept away from is the only one, or none that a set can list. */
static void what_cannot_be_left_out_is_not(void **state) {
    (void)state;
    static const int32_t cpus[] = {0, -1, CPU_SETSIZE};
    for (size_t i = 0; i < sizeof cpus / sizeof cpus[0]; ++i) {
        start_with_three_cpus(true, true);
        CPU_CLR(1, &current);
        CPU_CLR(2, &current);
        attni_worker_placement placement = {.is_asleep = true};
        attni_placement_keep_away(&placement, pthread_self(), cpus[i]);
        assert_false(placement.is_kept_away);
        assert_int_equal(num_changes, 0);
    }
}

/* Two wakers of one sleeper: the second must not take the narrowed set for the worker's own. */
static void a_sleeper_kept_away_is_not_kept_away_again(void **state) {
    (void)state;
    start_with_three_cpus(true, true);
    const cpu_set_t before = current;
    attni_worker_placement placement = {.is_asleep = true};
    attni_placement_keep_away(&placement, pthread_self(), 0);
    attni_placement_keep_away(&placement, pthread_self(), 2);
    assert_int_equal(num_changes, 1);
    assert_true(CPU_ISSET(2, &current));
    attni_placement_note_awake(&placement);
    assert_true(CPU_EQUAL(&current, &before));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_refused_is_not_undone),
        cmocka_unit_test(what_cannot_be_left_out_is_not),
        cmocka_unit_test(a_sleeper_kept_away_is_not_kept_away_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
