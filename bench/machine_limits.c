/* SPDX-License-Identifier: BSD-3-Clause
 *
 * machine_limits.c: a team of threads that runs the loops of limit_loops.c in slices.
 *
 * The calling thread leads. Every member arrives, which also says that its last slice is done, and
 * waits; the leader sets the next slice, releases all at once and works too. All work until the
 * same moment, so that a member that is late or slow does less and delays nobody. A slice's rate is
 * the work of all over the time from the first start to the last end.
 */
#include "machine_limits.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "limit_loops.h"

/* Below a scheduler's smallest share, so that some slices are undisturbed on a busy machine. */
static const double FMA_SLICE_SECONDS = 1e-3;
static const double READ_SLICE_SECONDS = 2e-3;

/* Work between two looks at the clock: a tenth of a millisecond. */
enum { ROUNDS_AT_ONCE = 1 << 13, BYTES_AT_ONCE = 2 << 20, CYCLE_SLICES = 50 };

enum { PAGE_BYTES = 4096 };

typedef struct limit_team limit_team;

typedef struct team_member {
    limit_team *team;
    pthread_t thread;
    const char *memory; /* its part of the buffer; NULL when multiply-adds are measured */
    size_t position;    /* what of it was read last: the cache has that, not what follows */
    double begin;       /* of its last slice, in seconds */
    double end;
    double work; /* flop or bytes of its last slice */
} team_member;

struct limit_team {
    const limit_loops *loops;
    int threads;
    team_member *members; /* the first is the leader */
    size_t member_bytes;

    /* Each member has a CPU of its own, the first ones of `cpus`. */
    cpu_set_t cpus;

    atomic_int arrived; /* members but the leader that wait for the next slice */
    atomic_int slice;   /* its number; a change releases them */

    /* The next slice: written by the leader while all wait. */
    bool stops;
    double deadline;
    int pattern; /* of reads */
};

static const limit_loops *best_loops(void) {
#if defined(ATTN_LIMIT_HAVE_avx512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
        return &limit_loops_avx512;
    }
#endif
#if defined(ATTN_LIMIT_HAVE_avx2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return &limit_loops_avx2;
    }
#endif
#if defined(ATTN_LIMIT_HAVE_neon)
    return &limit_loops_neon;
#else
    return &limit_loops_baseline;
#endif
}

static double now_seconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double do_work(team_member *member) {
    const limit_team *team = member->team;
    if (member->memory == NULL) {
        team->loops->fma(ROUNDS_AT_ONCE);
        return ROUNDS_AT_ONCE * team->loops->flops_per_round;
    }
    const char *memory = member->memory + member->position;
    member->position = (member->position + BYTES_AT_ONCE) % team->member_bytes;
    return (double)team->loops->read(memory, BYTES_AT_ONCE, team->pattern);
}

static void run_slice(team_member *member) {
    member->work = 0.0;
    member->begin = now_seconds();
    do {
        member->work += do_work(member);
        member->end = now_seconds();
    } while (member->end < member->team->deadline);
}

/* A page belongs to the memory of the CPU that first writes it; all of them read the zero page
 * before. */
static void touch_memory(const team_member *member) {
    for (size_t at = 0; member->memory != NULL && at < member->team->member_bytes;
         at += PAGE_BYTES) {
        ((volatile char *)(uintptr_t)member->memory)[at] = 1;
    }
}

/* Left alone, the scheduler often keeps two threads that sometimes wait on one CPU. */
static void pin_member(const team_member *member) {
    const cpu_set_t *cpus = &member->team->cpus;
    long before = member - member->team->members;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, cpus) && before-- == 0) {
            cpu_set_t own;
            CPU_ZERO(&own);
            CPU_SET(cpu, &own);
            (void)sched_setaffinity(0, sizeof own, &own);
        }
    }
}

static void *follow(void *argument) {
    team_member *member = argument;
    limit_team *team = member->team;
    pin_member(member);
    touch_memory(member);
    for (;;) {
        const int slice = atomic_load(&team->slice);
        atomic_fetch_add(&team->arrived, 1);
        while (atomic_load(&team->slice) == slice) {
            /* Spins: a thread that gave its CPU away would be late for the release. */
        }
        if (team->stops) {
            return NULL;
        }
        run_slice(member);
    }
}

static void wait_for_followers(limit_team *team) {
    while (atomic_load(&team->arrived) < team->threads - 1) {
    }
}

static void release_followers(limit_team *team) {
    atomic_store(&team->arrived, 0);
    atomic_fetch_add(&team->slice, 1);
}

/* Runs one slice and returns its rate. */
static double lead_slice(limit_team *team) {
    const bool reads = team->member_bytes != 0;
    team->deadline = now_seconds() + (reads ? READ_SLICE_SECONDS : FMA_SLICE_SECONDS);
    release_followers(team);
    run_slice(&team->members[0]);
    wait_for_followers(team);
    double begin = team->members[0].begin;
    double end = team->members[0].end;
    double work = 0.0;
    for (int i = 0; i < team->threads; i++) {
        const team_member *member = &team->members[i];
        begin = member->begin < begin ? member->begin : begin;
        end = member->end > end ? member->end : end;
        work += member->work;
    }
    return end > begin ? work / (end - begin) : 0.0;
}

/* Tries every pattern of reads twice, then stays with the best for the rest of the time. */
static double lead_slices(limit_team *team, double seconds) {
    const double stop = now_seconds() + seconds;
    const int trials = team->member_bytes == 0 ? 1 : 2 * LIMIT_READ_PATTERNS;
    double best = 0.0;
    int best_pattern = 0;
    for (int slice = 0; slice < trials || now_seconds() < stop; slice++) {
        team->pattern = slice < trials ? slice % LIMIT_READ_PATTERNS : best_pattern;
        const double rate = lead_slice(team);
        if (rate > best) {
            best = rate;
            best_pattern = team->pattern;
        }
    }
    return best;
}

/* Starts the followers, leads, and stops them. 0 if one of them could not be started. */
static double run_team(limit_team *team, double seconds) {
    int started = 1;
    pin_member(&team->members[0]);
    touch_memory(&team->members[0]);
    while (started < team->threads && pthread_create(&team->members[started].thread, NULL, follow,
                                                     &team->members[started]) == 0) {
        started++;
    }
    const bool is_complete = started == team->threads;
    team->threads = started;
    wait_for_followers(team);
    double best = 0.0;
    if (is_complete) {
        best = lead_slices(team, seconds);
    }
    team->stops = true;
    release_followers(team);
    for (int i = 1; i < started; i++) {
        (void)pthread_join(team->members[i].thread, NULL);
    }
    (void)sched_setaffinity(0, sizeof team->cpus, &team->cpus);
    return best;
}

/* How many threads measure for `threads`: more than this process has CPUs would only take turns. */
static int member_count(int threads) {
    cpu_set_t cpus;
    if (threads < 1 || sched_getaffinity(0, sizeof cpus, &cpus) != 0) {
        return 0;
    }
    return threads < CPU_COUNT(&cpus) ? threads : CPU_COUNT(&cpus);
}

/* memory NULL: multiply-adds. */
static double measure(int threads, double seconds, const char *memory, size_t member_bytes) {
    team_member *members = calloc((size_t)threads, sizeof *members);
    limit_team team = {.loops = best_loops(),
                       .threads = threads,
                       .members = members,
                       .member_bytes = member_bytes};
    (void)sched_getaffinity(0, sizeof team.cpus, &team.cpus);
    if (members == NULL) {
        return 0.0;
    }
    for (int i = 0; i < threads; i++) {
        members[i].team = &team;
        members[i].memory = memory == NULL ? NULL : memory + (size_t)i * member_bytes;
    }
    const double best = run_team(&team, seconds);
    free(members);
    return best;
}

double attn_limit_fma_flops(int threads, double seconds) {
    const int members = member_count(threads);
    return members == 0 ? 0.0 : measure(members, seconds, NULL, 0);
}

static size_t read_buffer_bytes(void) {
    size_t bytes = (size_t)256 << 20;
#if defined(_SC_LEVEL3_CACHE_SIZE)
    const long cache_bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (cache_bytes > 0 && 4 * (size_t)cache_bytes > bytes) {
        bytes = 4 * (size_t)cache_bytes;
    }
#endif
    return bytes;
}

/* The buffer that is read, kept for the next call: fresh memory costs up to a second where a
 * hypervisor has to find it. Another number of threads needs another one, whose pages they touch
 * first. */
static struct read_buffer {
    void *memory;
    size_t member_bytes;
    int threads;
} kept;

void attn_limit_release(void) {
    if (kept.memory != NULL) {
        (void)munmap(kept.memory, kept.member_bytes * (size_t)kept.threads);
    }
    kept = (struct read_buffer){0};
}

static bool keep_buffer(int threads) {
    if (kept.threads == threads) {
        return true;
    }
    attn_limit_release();
    size_t member_bytes = read_buffer_bytes() / (size_t)threads / BYTES_AT_ONCE * BYTES_AT_ONCE;
    member_bytes = member_bytes < BYTES_AT_ONCE ? BYTES_AT_ONCE : member_bytes;
    const size_t bytes = member_bytes * (size_t)threads;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return false;
    }
#if defined(MADV_HUGEPAGE)
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    kept.memory = memory;
    kept.member_bytes = member_bytes;
    kept.threads = threads;
    return true;
}

double attn_limit_read_bytes(int threads, double seconds) {
    const int members = member_count(threads);
    if (members == 0 || !keep_buffer(members)) {
        return 0.0;
    }
    return measure(members, seconds, kept.memory, kept.member_bytes);
}

const char *attn_limit_isa(void) {
    return best_loops()->isa;
}

/* Of the best of short runs, like the slices above. */
static double best_rate(void (*loop)(int64_t rounds), double per_round) {
    double best = 0.0;
    for (int slice = 0; slice < CYCLE_SLICES; slice++) {
        const double begin = now_seconds();
        loop(ROUNDS_AT_ONCE);
        const double rate = ROUNDS_AT_ONCE * per_round / (now_seconds() - begin);
        best = rate > best ? rate : best;
    }
    return best;
}

int attn_limit_flops_per_cycle(void) {
    static int known;
    if (known == 0) {
        const limit_loops *loops = best_loops();
        const double flops = best_rate(loops->fma, loops->flops_per_round);
        const double cycles = best_rate(loops->cycles, loops->cycles_per_round);
        known = 1 << (int)lround(log2(flops / cycles));
    }
    return known;
}
