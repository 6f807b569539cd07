/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_machine_limits.c: limits are positive, and measuring them leaves no trace.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "limits_probe.h"
#include "machine_limits.h"

static void the_fma_limit_is_positive(void **state) {
    (void)state;
    assert_true(attn_limit_fma_flops(1, 0.02) > 0.0);
}

static void limits_of_several_threads_are_positive(void **state) {
    (void)state;
    assert_true(attn_limit_fma_flops(3, 0.01) > 0.0);
    assert_true(attn_limit_read_bytes(2, 0.0) > 0.0);
    attn_limit_release();
}

static void the_callers_affinity_is_kept(void **state) {
    (void)state;
    cpu_set_t before;
    cpu_set_t after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_true(attn_limit_fma_flops(1, 0.0) > 0.0);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}

static void what_cannot_be_measured_is_zero(void **state) {
    (void)state;
    assert_true(attn_limit_fma_flops(0, 0.01) == 0.0);
    assert_true(attn_limit_fma_flops(-1, 0.01) == 0.0);
    assert_true(attn_limit_read_bytes(0, 0.01) == 0.0);
    assert_true(attn_limit_read_bytes(-1, 0.01) == 0.0);
}

/* A vector of 4 in two cycles at least, eight of 16 in one at most. */
static void flops_per_cycle_are_a_power_of_two(void **state) {
    (void)state;
    const int flops = attn_limit_flops_per_cycle();
    assert_in_range(flops, 2, 256);
    assert_int_equal(flops & (flops - 1), 0);
    assert_int_equal(attn_limit_flops_per_cycle(), flops);
}

static void the_probe_only_raises_limits(void **state) {
    (void)state;
    limits_probe probe;
    machine_limits limits = {1e30, 0.0};
    assert_int_equal(limits_probe_start(&probe), 0);
    limits_probe_raise(&probe, 1, &limits);
    limits_probe_stop(&probe);
    assert_true(limits.fma_flops == 1e30);
    assert_true(limits.read_bytes > 0.0);
    const double read_bytes = limits.read_bytes;
    limits_probe_raise(&probe, 1, &limits);
    assert_true(limits.read_bytes == read_bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        /* First: a probe is started by a process without threads. */
        cmocka_unit_test(the_probe_only_raises_limits),
        cmocka_unit_test(the_fma_limit_is_positive),
        cmocka_unit_test(limits_of_several_threads_are_positive),
        cmocka_unit_test(the_callers_affinity_is_kept),
        cmocka_unit_test(what_cannot_be_measured_is_zero),
        cmocka_unit_test(flops_per_cycle_are_a_power_of_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
