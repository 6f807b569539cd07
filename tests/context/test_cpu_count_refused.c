/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_cpu_count_refused.c: the number of CPUs where the system will not say which a process may
 * use, as in some sandboxes. Linked so that the calls named __wrap_ here come from this file.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpu_count.h"

static long online; /* what sysconf answers */

int __wrap_sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *cpus);
int __wrap_sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *cpus) {
    (void)process;
    (void)bytes;
    (void)cpus;
    errno = EPERM;
    return -1;
}

long __wrap_sysconf(int name);
long __wrap_sysconf(int name) {
    return name == _SC_NPROCESSORS_ONLN ? online : -1;
}

static void count_without_an_affinity_mask_is_of_the_cpus_online(void **state) {
    (void)state;
    static const struct {
        long online;
        int32_t count;
    } cases[] = {{-1, 1}, {0, 1}, {1, 1}, {2, 2}, {7, 7}, {100000, ATTNI_CPU_COUNT_MAX}};
    const int32_t quota = attni_cpu_quota("");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        online = cases[i].online;
        assert_int_equal(attni_cpu_count(), cases[i].count < quota ? cases[i].count : quota);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(count_without_an_affinity_mask_is_of_the_cpus_online),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
