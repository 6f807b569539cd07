/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_unload_plugin.c: a plugin with the static library inside is loaded, computes on several
 * threads and is unloaded, again and again. A thread of the host that has seen one of its failures
 * lives on; the host forks. Neither threads nor memory are left behind; where the C library never
 * unloads (musl), threads are started once.
 *
 * The one thing left behind is the detail of that thread: only the thread may free it, and when it
 * ends nobody is there who knows of it.
 *
 * Usage: test_unload_plugin <plugin> <rounds> <most KiB to grow>; 0 KiB: memory is not compared.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live_threads.h"
#include "loaded_plugin.h"

/* A detail has 512 bytes, and malloc's own beside it. The slack is what malloc and the C library
 * hold back for threads that have ended. */
enum { ROUNDS_TO_SETTLE = 10, NUM_THREADS = 3, BYTES_OF_DETAIL = 528, BYTES_OF_SLACK = 16384 };

static long virtual_kib(void) {
    FILE *status = fopen("/proc/self/status", "r");
    char line[200];
    long kib = 0;
    while (status != NULL && fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, "VmSize:", 7) == 0) {
            kib = strtol(line + 7, NULL, 10);
        }
    }
    if (status != NULL) {
        fclose(status);
    }
    return kib;
}

/* Bytes allocated and not freed, where the C library tells; else 0. */
static long heap_bytes(void) {
    long bytes = 0;
#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 33)
    const struct mallinfo2 heap = mallinfo2();
    bytes = (long)(heap.uordblks + heap.hblkhd);
#endif
#endif
    return bytes;
}

/* A thread of the host that fails inside the plugin, and ends when the plugin is gone. */
typedef struct witness {
    const loaded_plugin *plugin;
    pthread_barrier_t barrier;
    int status;
} witness;

static void *fail_and_outlive(void *data) {
    witness *one = data;
    one->status = one->plugin->fail();
    pthread_barrier_wait(&one->barrier); /* it has failed */
    pthread_barrier_wait(&one->barrier); /* the plugin is gone */
    return NULL;
}

/* A handler of a fork must be gone with the plugin too. */
static int fork_once(void) {
    const pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    int status = 1;
    return child > 0 && waitpid(child, &status, 0) == child ? status : 1;
}

static void visit(const char *path, int round, int threads_at_first) {
    const bool starts_threads = code_is_unloaded() || round == 0;
    const int threads_before = threads_at_first + (starts_threads ? 0 : NUM_THREADS - 1);
    expect_zero(count_threads_after(threads_before) != threads_before, "threads before", round);
    const loaded_plugin plugin = load_plugin(path);
    witness one = {.plugin = &plugin};
    pthread_t thread;
    pthread_barrier_init(&one.barrier, NULL, 2);
    expect_zero(pthread_create(&thread, NULL, fail_and_outlive, &one), "a thread", round);
    pthread_barrier_wait(&one.barrier);
    expect_zero(one.status, "a failure on another thread", round);
    expect_zero(plugin.fail(), "a failure", round);
    expect_zero(plugin.compute_with_own_context(), "a context of its own", round);
    expect_zero(plugin.compute(), "the default context", round);
    const int threads_in_use = threads_before + 1 + (starts_threads ? NUM_THREADS - 1 : 0);
    expect_zero(count_threads() < threads_in_use, "threads in use", round);
    unload_plugin(&plugin, path);
    const int threads_to_stay = code_is_unloaded() ? threads_before + 1 : threads_in_use;
    expect_zero(count_threads_after(threads_to_stay) > threads_to_stay, "threads left behind",
                round);
    expect_zero(fork_once(), "a fork without the plugin", round);
    pthread_barrier_wait(&one.barrier);
    expect_zero(pthread_join(thread, NULL), "the end of the thread that failed", round);
    pthread_barrier_destroy(&one.barrier);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: test_unload_plugin <plugin> <rounds> <most KiB to grow>\n");
        return 2;
    }
    setenv("ATTN_NUM_THREADS", "3", 1); /* NUM_THREADS */
    have_sanitizers_thread();
    const int threads_at_first = count_threads();
    const int rounds = (int)strtol(argv[2], NULL, 10);
    const long slack = strtol(argv[3], NULL, 10);
    for (int round = 0; round < ROUNDS_TO_SETTLE; ++round) {
        visit(argv[1], round, threads_at_first);
    }
    const int threads = count_threads_after(threads_at_first);
    const long kib = virtual_kib();
    const long bytes = heap_bytes();
    for (int round = 0; round < rounds; ++round) {
        visit(argv[1], ROUNDS_TO_SETTLE + round, threads_at_first);
    }
    const long kib_after = virtual_kib();
    const long bytes_left = heap_bytes() - bytes;
    const int threads_after = count_threads_after(threads);
    printf(
        "unloading: %d rounds, threads %d to %d, virtual %ld to %ld KiB, %ld bytes left behind\n",
        rounds, threads, threads_after, kib, kib_after, bytes_left);
    const bool memory_grew =
        kib_after > kib + slack || bytes_left > BYTES_OF_DETAIL * rounds + BYTES_OF_SLACK;
    return threads_after > threads || (slack > 0 && memory_grew);
}
