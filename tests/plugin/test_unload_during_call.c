/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_unload_during_call.c: the hook comes, as at exit(), while a call of another thread is in the
 * middle of its tasks on the default context's threads. It must not wait for that call, which here
 * goes on only when the hook has returned, nor take its threads away. Linked with the static
 * library, whose hook has no priority, so that a destructor with one comes after it.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/unload.h"
#include "context/context.h"
#include "small_calls.h"

enum { NUM_TASKS = 2, SECONDS_TO_HANG = 20 };

static pthread_t caller;
static pthread_barrier_t all_inside;
static atomic_bool hook_has_run;
static atomic_int tasks_done;

static void expect(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        _exit(1);
    }
}

/* Both tasks of the call are inside at the same time, one on the caller, one on a worker. */
static void wait_for_the_hook(void *data, int64_t index) {
    (void)data;
    (void)index;
    pthread_barrier_wait(&all_inside);
    while (!atomic_load(&hook_has_run)) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    atomic_fetch_add(&tasks_done, 1);
}

static void *call(void *data) {
    attn_context *context;
    expect(attni_context_resolve(NULL, &context) == ATTN_OK, "no default context");
    expect(attni_parallel_for(context, NUM_TASKS, wait_for_the_hook, data) == ATTN_OK,
           "the call failed");
    expect(atomic_load(&tasks_done) == NUM_TASKS, "the call returned before its tasks");
    expect(computes_attention(NULL, ATTN_DTYPE_FLOAT32), "a wrong result in the next call");
    return NULL;
}

__attribute__((destructor(101))) static void let_the_call_end(void) {
    expect(attni_is_unloading(), "the library's hook has not run yet");
    expect(atomic_load(&tasks_done) == 0, "the call went on before the hook returned");
    atomic_store(&hook_has_run, true);
    expect(pthread_join(caller, NULL) == 0, "the caller did not end");
    printf("a call during the hook: completed\n");
    fflush(stdout);
}

int main(void) {
    setenv("ATTN_NUM_THREADS", "2", 1); /* NUM_TASKS */
    alarm(SECONDS_TO_HANG);
    expect(pthread_barrier_init(&all_inside, NULL, NUM_TASKS + 1) == 0, "no barrier");
    expect(pthread_create(&caller, NULL, call, NULL) == 0, "no thread");
    pthread_barrier_wait(&all_inside);
    return 0;
}
