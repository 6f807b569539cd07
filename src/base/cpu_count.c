/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cpu_count.c: reads the affinity mask and the cgroups' quotas, by plain open and read into arrays
 * on the stack.
 *
 * A quota is the time the threads of a group may run in each period: "150000 100000" is one and a
 * half CPUs. More threads than that would all stand still at the end of each period. A group has
 * its own quota and those of its parents up to the root, and in a container the visible root is
 * often some group in the middle, so every level is looked at and those not found are passed over.
 */
#include "base/cpu_count.h"

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The most CPUs Linux can be configured for; the C library's plain cpu_set_t ends at 1024. */
enum { MAX_LISTED_CPUS = 8192 };

enum { PATH_BYTES = 1024, GROUP_LIST_BYTES = 4096, QUOTA_BYTES = 128 };

/* Where a version of cgroups keeps quotas. Version 1 has two files; one after the other they read
 * like the one of version 2. */
struct group_files {
    const char *mount;
    const char *quota;
    const char *period; /* or NULL */
};

struct group {
    const char *root; /* stands before the mount */
    const struct group_files *files;
    const char *name; /* "/system.slice/a.service" */
    size_t name_length;
};

static const struct group_files version_1 = {"/sys/fs/cgroup/cpu", "/cpu.cfs_quota_us",
                                             "/cpu.cfs_period_us"};
static const struct group_files version_2 = {"/sys/fs/cgroup", "/cpu.max", NULL};

static int32_t smaller(int32_t a, int32_t b) {
    return a < b ? a : b;
}

/* ---- text ---- */

static const char *skip_blanks(const char *text) {
    while (*text == ' ' || *text == '\t' || *text == '\n') {
        text++;
    }
    return text;
}

/* Moves *text behind its digits and returns their value, stopping at a number no sum or product
 * here overflows with. */
static int64_t take_number(const char **text) {
    static const int64_t most = INT64_C(1000000000000000);
    int64_t value = 0;
    for (; **text >= '0' && **text <= '9'; (*text)++) {
        value = value < most ? 10 * value + (**text - '0') : value;
    }
    return value;
}

int32_t attni_cpu_quota_parse(const char *text) {
    text = skip_blanks(text);
    const int64_t quota = take_number(&text);
    const char *period_text = skip_blanks(text);
    const bool are_separate = period_text != text;
    const int64_t period = take_number(&period_text);
    if (quota == 0 || !are_separate || period == 0) {
        return ATTNI_CPU_COUNT_MAX;
    }
    const int64_t cpus = (quota + period - 1) / period;
    return cpus < ATTNI_CPU_COUNT_MAX ? (int32_t)cpus : ATTNI_CPU_COUNT_MAX;
}

/* Whether `name` is an item of the comma-separated list that ends at `end`. */
static bool is_listed(const char *list, const char *end, const char *name) {
    const size_t name_length = strlen(name);
    while (list < end) {
        const char *comma = memchr(list, ',', (size_t)(end - list));
        const char *item_end = comma != NULL ? comma : end;
        if ((size_t)(item_end - list) == name_length && memcmp(list, name, name_length) == 0) {
            return true;
        }
        list = item_end + 1;
    }
    return false;
}

/* ---- files ---- */

/* Reads a file's beginning, as far as it fits with a terminating zero, and returns its length: 0 if
 * it cannot be read. */
static size_t read_text(const char *path, char *text, size_t size) {
    size_t length = 0;
    text[0] = '\0';
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return 0;
    }
    ssize_t got = 1;
    while (got > 0 && length < size - 1) {
        got = read(file, text + length, size - 1 - length);
        length += got > 0 ? (size_t)got : 0;
    }
    close(file);
    text[length] = '\0';
    return length;
}

/* Reads one file of a group. A path too long is a file not there. */
static size_t read_group_file(const struct group *group, const char *name, char *text,
                              size_t size) {
    char path[PATH_BYTES];
    const int length = snprintf(path, sizeof path, "%s%s%.*s%s", group->root, group->files->mount,
                                (int)group->name_length, group->name, name);
    text[0] = '\0';
    return (size_t)length < sizeof path ? read_text(path, text, size) : 0;
}

/* The quota of one group alone. */
static int32_t group_quota(const struct group *group) {
    char text[QUOTA_BYTES];
    const size_t length = read_group_file(group, group->files->quota, text, sizeof text);
    if (length > 0 && group->files->period != NULL) {
        read_group_file(group, group->files->period, text + length, sizeof text - length);
    }
    return attni_cpu_quota_parse(text);
}

/* The smallest quota of a group such as "/system.slice/a.service" and its parents; the root's own
 * name is empty. */
static int32_t quota_up_to_root(struct group group) {
    int32_t quota = group_quota(&group);
    while (group.name_length > 0) {
        do {
            group.name_length--;
        } while (group.name_length > 0 && group.name[group.name_length] != '/');
        quota = smaller(quota, group_quota(&group));
    }
    return quota;
}

/* The quota behind one line of /proc/self/cgroup, "NUMBER:CONTROLLERS:GROUP"; version 2 has no
 * controllers there. */
static int32_t line_quota(const char *root, const char *line, const char *end) {
    const char *colon = memchr(line, ':', (size_t)(end - line));
    const char *controllers = colon != NULL ? colon + 1 : end;
    const char *controllers_end = memchr(controllers, ':', (size_t)(end - controllers));
    if (controllers_end == NULL) {
        return ATTNI_CPU_COUNT_MAX;
    }
    const char *name = controllers_end + 1;
    const bool is_version_2 = controllers_end == controllers;
    if (!is_version_2 && !is_listed(controllers, controllers_end, "cpu")) {
        return ATTNI_CPU_COUNT_MAX;
    }
    return quota_up_to_root(
        (struct group){root, is_version_2 ? &version_2 : &version_1, name, (size_t)(end - name)});
}

int32_t attni_cpu_quota(const char *root) {
    char path[PATH_BYTES];
    char lines[GROUP_LIST_BYTES];
    const int length = snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if ((size_t)length >= sizeof path || read_text(path, lines, sizeof lines) == 0) {
        return ATTNI_CPU_COUNT_MAX;
    }
    int32_t quota = ATTNI_CPU_COUNT_MAX;
    const char *line = lines;
    /* A last line that did not fit whole has no end and is not looked at. */
    for (const char *end = strchr(line, '\n'); end != NULL; end = strchr(line, '\n')) {
        quota = smaller(quota, line_quota(root, line, end));
        line = end + 1;
    }
    return quota;
}

/* ---- affinity ---- */

int32_t attni_cpu_affinity_count(void) {
    cpu_set_t cpus[MAX_LISTED_CPUS / CPU_SETSIZE];
    if (sched_getaffinity(0, sizeof cpus, cpus) == 0) {
        return CPU_COUNT_S(sizeof cpus, cpus);
    }
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 1 ? smaller((int32_t)online, ATTNI_CPU_COUNT_MAX) : 1;
}

int32_t attni_cpu_count(void) {
    return smaller(smaller(attni_cpu_affinity_count(), attni_cpu_quota("")), ATTNI_CPU_COUNT_MAX);
}
