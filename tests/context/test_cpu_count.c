/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_cpu_count.c: the CPUs a process may use, against made-up quotas, made-up trees of cgroups
 * and real affinity masks.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpu_count.h"

enum { NO_LIMIT = ATTNI_CPU_COUNT_MAX };

/* ---- text ---- */

struct quota_case {
    const char *text;
    int32_t cpus;
};

static void assert_parses(const struct quota_case *cases, size_t num_cases) {
    for (size_t i = 0; i < num_cases; i++) {
        const int32_t actual = attni_cpu_quota_parse(cases[i].text);
        if (actual != cases[i].cpus) {
            fail_msg("\"%s\": expected %d, got %d", cases[i].text, cases[i].cpus, actual);
        }
    }
}

static void parse_quota_is_rounded_up(void **state) {
    (void)state;
    static const struct quota_case cases[] = {
        {"100000 100000\n", 1},   {"100001 100000\n", 2}, {"150000 100000\n", 2},
        {"200000 100000\n", 2},   {"1000 100000\n", 1},   {"1 1000000\n", 1},
        {"6400000 100000\n", 64}, {"25000\n10000\n", 3},  {" 3\t1", 3},
        {"1024 1\n", 1024},       {"1025 1\n", NO_LIMIT}, {"1023 1\n", 1023},
    };
    assert_parses(cases, sizeof cases / sizeof cases[0]);
}

static void parse_without_a_limit_is_no_limit(void **state) {
    (void)state;
    static const struct quota_case cases[] = {
        {"max 100000\n", NO_LIMIT}, {"-1\n100000\n", NO_LIMIT}, {"max", NO_LIMIT}};
    assert_parses(cases, sizeof cases / sizeof cases[0]);
}

static void parse_nonsense_is_no_limit(void **state) {
    (void)state;
    static const struct quota_case cases[] = {
        {"", NO_LIMIT},           {"\n", NO_LIMIT},
        {"200000", NO_LIMIT},     {"200000\n", NO_LIMIT},
        {"200000 0\n", NO_LIMIT}, {"0 100000\n", NO_LIMIT},
        {"200000 max", NO_LIMIT}, {"200000x 100000", NO_LIMIT},
        {"two three", NO_LIMIT},  {"200000 -1\n", NO_LIMIT},
    };
    assert_parses(cases, sizeof cases / sizeof cases[0]);
}

static void parse_huge_numbers_do_not_overflow(void **state) {
    (void)state;
    static const struct quota_case cases[] = {
        {"99999999999999999999999999999999 1", NO_LIMIT},
        {"1 99999999999999999999999999999999", 1},
        {"9223372036854775807 9223372036854775807", 1},
        {"18446744073709551615 100000", NO_LIMIT},
    };
    assert_parses(cases, sizeof cases / sizeof cases[0]);
}

/* ---- made-up trees ---- */

struct made_up_file {
    const char *path;
    const char *text;
};

struct tree {
    const char *root;
    char paths[64][256]; /* in the order of their making */
    int32_t num_paths;
};

static char *next_path(struct tree *tree) {
    assert_true(tree->num_paths < (int32_t)(sizeof tree->paths / sizeof tree->paths[0]));
    return tree->paths[tree->num_paths];
}

static void plant_file(struct tree *tree, const struct made_up_file *file) {
    for (const char *slash = strchr(file->path + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        char *folder = next_path(tree);
        snprintf(folder, sizeof tree->paths[0], "%s%.*s", tree->root, (int)(slash - file->path),
                 file->path);
        if (mkdir(folder, 0700) == 0) {
            tree->num_paths++;
        }
    }
    char *path = next_path(tree);
    snprintf(path, sizeof tree->paths[0], "%s%s", tree->root, file->path);
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    assert_true(fputs(file->text, stream) >= 0);
    assert_int_equal(fclose(stream), 0);
    tree->num_paths++;
}

static void fell(struct tree *tree) {
    while (tree->num_paths > 0) {
        tree->num_paths--;
        assert_int_equal(remove(tree->paths[tree->num_paths]), 0);
    }
    assert_int_equal(rmdir(tree->root), 0);
}

static int32_t quota_of_tree(const struct made_up_file *files, size_t num_files) {
    char root[] = "/tmp/attention_cpu_count_XXXXXX";
    struct tree tree = {.root = mkdtemp(root)};
    assert_non_null(tree.root);
    for (size_t i = 0; i < num_files; i++) {
        plant_file(&tree, &files[i]);
    }
    const int32_t quota = attni_cpu_quota(tree.root);
    fell(&tree);
    return quota;
}

#define QUOTA_OF(...)                                                  \
    quota_of_tree((const struct made_up_file[]){__VA_ARGS__},          \
                  sizeof((const struct made_up_file[]){__VA_ARGS__}) / \
                      sizeof(struct made_up_file))

static void quota_version_2_of_the_own_group_counts(void **state) {
    (void)state;
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", "0::/a/b\n"},
                              {"/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n"}),
                     3);
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", "0::/a/b\n"},
                              {"/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"}),
                     NO_LIMIT);
}

static void quota_version_2_is_the_smallest_up_to_the_root(void **state) {
    (void)state;
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", "0::/a/b/c\n"},
                              {"/sys/fs/cgroup/a/b/c/cpu.max", "500000 100000\n"},
                              {"/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"},
                              {"/sys/fs/cgroup/a/cpu.max", "150000 50000\n"}),
                     3);
    /* The parent is the larger one. */
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", "0::/a/b\n"},
                              {"/sys/fs/cgroup/a/b/cpu.max", "200000 100000\n"},
                              {"/sys/fs/cgroup/a/cpu.max", "700000 100000\n"}),
                     2);
}

/* In a container the visible root carries the container's quota, whatever name the group has
 * outside. */
static void quota_version_2_of_the_visible_root_counts(void **state) {
    (void)state;
    assert_int_equal(
        QUOTA_OF({"/proc/self/cgroup", "0::/\n"}, {"/sys/fs/cgroup/cpu.max", "400000 100000\n"}),
        4);
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", "0::/docker/0123\n"},
                              {"/sys/fs/cgroup/cpu.max", "400000 100000\n"}),
                     4);
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", "0::/../sibling\n"},
                              {"/sys/fs/cgroup/cpu.max", "400000 100000\n"}),
                     4);
}

static void quota_of_a_group_with_a_similar_name_does_not_count(void **state) {
    (void)state;
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", "0::/ab/cd\n"},
                              {"/sys/fs/cgroup/a/cpu.max", "100000 100000\n"},
                              {"/sys/fs/cgroup/ab/c/cpu.max", "100000 100000\n"},
                              {"/sys/fs/cgroup/ab/cpu.max", "500000 100000\n"}),
                     5);
}

static void quota_version_1_has_two_files(void **state) {
    (void)state;
    static const char *const groups = "12:cpuset:/x\n4:cpuacct,cpu:/a/b\n1:name=systemd:/y\n";
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", groups},
                              {"/sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "250000\n"},
                              {"/sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "50000\n"}),
                     5);
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", groups},
                              {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"},
                              {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"},
                              {"/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n"},
                              {"/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"}),
                     2);
    /* One file without the other says nothing. */
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", groups},
                              {"/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "200000\n"}),
                     NO_LIMIT);
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", groups},
                              {"/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "200000\n"}),
                     NO_LIMIT);
}

static void quota_of_other_controllers_does_not_count(void **state) {
    (void)state;
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", "3:cpuacct:/a\n2:cpuset,net,memory:/a\n"},
                              {"/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "100000\n"},
                              {"/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"}),
                     NO_LIMIT);
}

static void quota_of_both_versions_is_the_smaller(void **state) {
    (void)state;
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", "1:cpu:/a\n0::/b\n"},
                              {"/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "600000\n"},
                              {"/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"},
                              {"/sys/fs/cgroup/b/cpu.max", "700000 100000\n"}),
                     6);
}

/* What does not fit is as if it were not there: groups behind 4095 bytes, digits behind 127. */
static void quota_in_files_too_long_is_read_as_far_as_it_fits(void **state) {
    (void)state;
    char groups[6000];
    size_t length = (size_t)snprintf(groups, sizeof groups, "0::/a\n");
    while (length < 5000) {
        length += (size_t)snprintf(groups + length, sizeof groups - length, "7:memory:/m\n");
    }
    snprintf(groups + length, sizeof groups - length, "1:cpu:/b\n");
    char quota[200];
    snprintf(quota, sizeof quota, "300000%120s%d", "", 100000); /* the period loses its last 0s */
    assert_int_equal(QUOTA_OF({"/proc/self/cgroup", groups},
                              {"/sys/fs/cgroup/a/cpu.max", "300000 100000\n"},
                              {"/sys/fs/cgroup/cpu/b/cpu.cfs_quota_us", "100000\n"},
                              {"/sys/fs/cgroup/cpu/b/cpu.cfs_period_us", "100000\n"}),
                     3);
    assert_int_equal(
        QUOTA_OF({"/proc/self/cgroup", "0::/a\n"}, {"/sys/fs/cgroup/a/cpu.max", quota}), NO_LIMIT);
}

static void quota_of_a_malformed_list_is_no_limit(void **state) {
    (void)state;
    static const char *const lists[] = {
        "", "\n", ":\n", "::", "0:\n", "a line without colons\n", "0::/a" /* cut off */};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        assert_int_equal(QUOTA_OF({"/proc/self/cgroup", lists[i]},
                                  {"/sys/fs/cgroup/a/cpu.max", "100000 100000\n"}),
                         NO_LIMIT);
    }
    assert_int_equal(attni_cpu_quota("/nonexistent"), NO_LIMIT);
}

/* Longer than any path read here: the group itself is passed over, its parents are not. */
static void quota_with_a_very_long_group_name_uses_its_parents(void **state) {
    (void)state;
    char groups[2000];
    snprintf(groups, sizeof groups, "0::/a/%01500d\n", 0);
    assert_int_equal(
        QUOTA_OF({"/proc/self/cgroup", groups}, {"/sys/fs/cgroup/a/cpu.max", "300000 100000\n"}),
        3);

    char root[2000];
    snprintf(root, sizeof root, "/%01500d", 0);
    assert_int_equal(attni_cpu_quota(root), NO_LIMIT);
}

/* ---- this process ---- */

static void count_follows_the_affinity_mask(void **state) {
    (void)state;
    cpu_set_t before[8]; /* 8192 CPUs */
    assert_int_equal(sched_getaffinity(0, sizeof before, before), 0);
    const int32_t affine = CPU_COUNT_S(sizeof before, before);
    const int32_t quota = attni_cpu_quota("");
    assert_in_range(quota, 1, ATTNI_CPU_COUNT_MAX);
    assert_int_equal(attni_cpu_count(), affine < quota ? affine : quota);
    for (int cpu = 0; cpu < 8 * CPU_SETSIZE; cpu++) {
        if (CPU_ISSET_S(cpu, sizeof before, before)) {
            cpu_set_t one[8] = {0};
            CPU_SET_S(cpu, sizeof one, one);
            assert_int_equal(sched_setaffinity(0, sizeof one, one), 0);
            const int32_t count = attni_cpu_count();
            assert_int_equal(sched_setaffinity(0, sizeof before, before), 0);
            assert_int_equal(count, 1);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_quota_is_rounded_up),
        cmocka_unit_test(parse_without_a_limit_is_no_limit),
        cmocka_unit_test(parse_nonsense_is_no_limit),
        cmocka_unit_test(parse_huge_numbers_do_not_overflow),
        cmocka_unit_test(quota_version_2_of_the_own_group_counts),
        cmocka_unit_test(quota_version_2_is_the_smallest_up_to_the_root),
        cmocka_unit_test(quota_version_2_of_the_visible_root_counts),
        cmocka_unit_test(quota_of_a_group_with_a_similar_name_does_not_count),
        cmocka_unit_test(quota_version_1_has_two_files),
        cmocka_unit_test(quota_of_other_controllers_does_not_count),
        cmocka_unit_test(quota_of_both_versions_is_the_smaller),
        cmocka_unit_test(quota_in_files_too_long_is_read_as_far_as_it_fits),
        cmocka_unit_test(quota_of_a_malformed_list_is_no_limit),
        cmocka_unit_test(quota_with_a_very_long_group_name_uses_its_parents),
        cmocka_unit_test(count_follows_the_affinity_mask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
