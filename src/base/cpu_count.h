/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cpu_count.h: how many CPUs this process may use: those of its affinity mask, within the quotas of
 * its cgroups.
 */
#ifndef ATTNI_BASE_CPU_COUNT_H
#define ATTNI_BASE_CPU_COUNT_H

#include <stdint.h>

/* No count is larger, whatever the machine; as a quota it means "no limit". */
enum { ATTNI_CPU_COUNT_MAX = 1024 };

/* CPUs the calling thread may run on, at most the quota rounded up; 1 to ATTNI_CPU_COUNT_MAX.
 * Allocates nothing, never fails. */
int32_t attni_cpu_count(void);

/* CPUs the calling thread may run on, whatever the quota; at least 1. */
int32_t attni_cpu_affinity_count(void);

/* The smallest quota among the process's cgroups (version 1 or 2) and all their parents, in CPUs,
 * rounded up. `root` stands before /proc and /sys: "" but in tests. What cannot be read or
 * understood does not limit. */
int32_t attni_cpu_quota(const char *root);

/* Parses "QUOTA PERIOD", both in the same unit of time, into CPUs rounded up and at least 1. Any
 * white space separates. A QUOTA of "max" or "-1", or any other text, is no limit. */
int32_t attni_cpu_quota_parse(const char *text);

#endif
