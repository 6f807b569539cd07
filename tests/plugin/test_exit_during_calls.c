/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_exit_during_calls.c: a process ends by exit() while other threads of it are inside calls
 * with the default context: with its status, without a crash, soon. float32 alone: what a BLAS does
 * at exit() is its own.
 *
 * Usage: test_exit_during_calls <processes>
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "small_calls.h"

enum { NUM_CALLERS = 2, SECONDS_FOR_ALL = 120, STATUS = 7 };

static pthread_barrier_t barrier;

static void *call_for_ever(void *data) {
    bool is_first = true;
    for (;;) {
        /* Past the hook a failure has no detail: the computations are what has to be right. */
        if (!computes_attention(NULL, ATTN_DTYPE_FLOAT32) ||
            attn_context_create(NULL, NULL) != ATTN_ERROR_NULL) {
            _exit(1);
        }
        if (is_first) {
            pthread_barrier_wait(&barrier);
            is_first = false;
        }
    }
    return data;
}

/* The library is new in every child: the parent has never called it. */
static void run_child(int number) {
    pthread_barrier_init(&barrier, NULL, NUM_CALLERS + 1);
    for (int i = 0; i < NUM_CALLERS; ++i) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, call_for_ever, NULL) != 0) {
            _exit(2);
        }
    }
    pthread_barrier_wait(&barrier);
    usleep((useconds_t)(37 * number));
    exit(STATUS);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: test_exit_during_calls <processes>\n");
        return 2;
    }
    const int num_processes = (int)strtol(argv[1], NULL, 10);
    setenv("ATTN_NUM_THREADS", "3", 1);
    alarm(SECONDS_FOR_ALL); /* ends a test that hangs */
    for (int number = 0; number < num_processes; ++number) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(SECONDS_FOR_ALL);
            run_child(number);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
            WEXITSTATUS(status) != STATUS) {
            fprintf(stderr, "process %d: wait status %#x\n", number, (unsigned)status);
            return 1;
        }
    }
    printf("exits during calls: %d processes ended with their status\n", num_processes);
    return 0;
}
