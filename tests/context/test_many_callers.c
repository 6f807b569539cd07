/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_many_callers.c: 16 threads make calls of every kind on one context and one layer, and get
 * the bits of a lone caller, while contexts and layers come and go, signals arrive and processes
 * fork. The first line of its output is for reports.
 */
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "mixed_calls.h"
#include "support/fork_threads.h"
#include "support/strength.h"

enum { CALLERS = 16, CALLS = 300, BUSY_CALLERS = 3, SECONDS_TO_LIVE = 60 };

static mixed_calls calls;

/* ---- threads ---- */

typedef struct crowd {
    attn_context *context;
    int most_calls; /* of each caller */
    atomic_int num_callers;
    atomic_int mismatches;
    atomic_bool is_over;
} crowd;

/* Held by who allocates, and by who forks while others may. The sanitizers' allocators are not made
 * for fork: in the child they stay as a thread of the parent was about to change them. */
static pthread_mutex_t memory_mutex = PTHREAD_MUTEX_INITIALIZER;

static void *allocate_alone(void *state, size_t bytes, size_t alignment) {
    (void)state;
    pthread_mutex_lock(&memory_mutex);
    void *memory = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    pthread_mutex_unlock(&memory_mutex);
    return memory;
}

static void deallocate_alone(void *state, void *memory, size_t bytes, size_t alignment) {
    (void)state;
    (void)bytes;
    (void)alignment;
    pthread_mutex_lock(&memory_mutex);
    free(memory);
    pthread_mutex_unlock(&memory_mutex);
}

static void *call_again_and_again(void *data) {
    crowd *with = data;
    void *memory = allocate_alone(NULL, MIXED_MOST_BYTES, 64);
    const int caller = atomic_fetch_add(&with->num_callers, 1);
    for (int i = 0; i < with->most_calls && !atomic_load(&with->is_over); ++i) {
        const int which = (i * 5 + caller) % mixed_calls_count();
        const int wrong =
            memory == NULL || mixed_call_mismatch(&calls, with->context, which, memory) != 0;
        atomic_fetch_add(&with->mismatches, wrong);
    }
    deallocate_alone(NULL, memory, MIXED_MOST_BYTES, 64);
    return NULL;
}

/* Whether a fresh context and a fresh layer, used once each, give the lone caller's bits. */
static bool fresh_ones_work(int round, void *memory) {
    const attn_context_config settings = {
        .struct_size = sizeof settings, .num_threads = 1 + round % 3, .gemm = ATTN_GEMM_NATIVE};
    const attn_mha_config config = {
        .struct_size = sizeof config, .embed_dim = MIXED_EMBED, .num_heads = MIXED_HEADS};
    const int which = round % mixed_calls_count();
    attn_context *context = NULL;
    attn_mha *layer = NULL;
    const bool works = attn_context_create(&settings, &context) == ATTN_OK &&
                       attn_mha_create(context, &config, &layer) == ATTN_OK &&
                       attn_mha_init_parameters(NULL, layer, NULL) == ATTN_OK &&
                       mixed_call_run(&calls, context, layer, which, memory) == ATTN_OK &&
                       mixed_call_is_expected(&calls, which, memory);
    attn_context_destroy(context);
    attn_mha_destroy(layer);
    return works;
}

static void *come_and_go(void *data) {
    crowd *with = data;
    void *memory = malloc(MIXED_MOST_BYTES);
    intptr_t rounds = 0;
    while (!atomic_load(&with->is_over)) {
        atomic_fetch_add(&with->mismatches,
                         memory == NULL || !fresh_ones_work((int)rounds, memory));
        ++rounds;
    }
    free(memory);
    return (void *)rounds; /* NOLINT: a count, not an address */
}

static void many_callers_get_the_bits_of_a_lone_one(void **state) {
    (void)state;
    crowd with = {.context = mixed_context(3, ATTN_ENGINE_AUTO), .most_calls = test_repeats(CALLS)};
    pthread_t companion;
    pthread_t callers[CALLERS];
    assert_int_equal(pthread_create(&companion, NULL, come_and_go, &with), 0);
    for (int i = 0; i < CALLERS; ++i) {
        assert_int_equal(pthread_create(&callers[i], NULL, call_again_and_again, &with), 0);
    }
    for (int i = 0; i < CALLERS; ++i) {
        assert_int_equal(pthread_join(callers[i], NULL), 0);
    }
    atomic_store(&with.is_over, true);
    void *rounds;
    assert_int_equal(pthread_join(companion, &rounds), 0);
    attn_context_destroy(with.context);
    printf("concurrency: %d threads, %d calls, %d mismatches\n", CALLERS, CALLERS * with.most_calls,
           atomic_load(&with.mismatches));
    printf("meanwhile %d contexts and layers came and went\n", (int)(intptr_t)rounds);
    assert_int_equal(atomic_load(&with.mismatches), 0);
}

/* ---- fork ---- */

/* In a child: every call once, with the context given and with a new one. */
static int count_mismatches_of_child(attn_context *inherited) {
    static char memory[MIXED_MOST_BYTES];
    const attn_context_config settings = {.struct_size = sizeof settings,
                                          .num_threads = threads_beside_fork(),
                                          .gemm = ATTN_GEMM_NATIVE};
    attn_context *own = NULL;
    int mismatches = attn_context_create(&settings, &own) != ATTN_OK;
    for (int i = 0; mismatches == 0 && i < mixed_calls_count(); ++i) {
        mismatches += mixed_call_mismatch(&calls, inherited, i, memory);
        mismatches += mixed_call_mismatch(&calls, own, i, memory);
    }
    attn_context_destroy(own);
    attn_context_destroy(inherited);
    return mismatches;
}

/* Forks, with the memory's mutex held, and returns the child, which does the above and ends within a
 * bounded time. */
static pid_t fork_a_caller(attn_context *inherited) {
    pthread_mutex_lock(&memory_mutex);
    const pid_t child = fork();
    pthread_mutex_unlock(&memory_mutex);
    if (child == 0) {
        alarm(SECONDS_TO_LIVE);
        _exit(count_mismatches_of_child(inherited) == 0 ? 0 : 1);
    }
    assert_true(child > 0);
    return child;
}

static void assert_child_succeeds(pid_t child) {
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    if (!WIFEXITED(outcome) || WEXITSTATUS(outcome) != 0) {
        fail_msg("forked child: expected exit status 0, got wait status 0x%x", (unsigned)outcome);
    }
}

/* qemu's user mode ends a child that is forked while other threads compute. */
static void skip_if_emulated(void) {
    if (getenv("ATTENTION_TEST_EMULATED") != NULL) {
        print_message("skipped: the emulator cannot fork a process whose threads are running\n");
        skip();
    }
}

/* With its threads running: what the sanitizers do when one starts is, like memory, not for fork. */
static attn_context *context_for_fork(void) {
    static char memory[MIXED_MOST_BYTES];
    const attn_context_config settings = {.struct_size = sizeof settings,
                                          .num_threads = 3,
                                          .gemm = ATTN_GEMM_NATIVE,
                                          .allocate = allocate_alone,
                                          .deallocate = deallocate_alone};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    for (int i = 0; i < mixed_calls_count(); ++i) {
        assert_int_equal(mixed_call_mismatch(&calls, context, i, memory), 0);
    }
    return context;
}

/* Three children, one after the other, while three threads make calls. */
static void child_of_a_busy_process_computes(void **state) {
    (void)state;
    skip_if_emulated();
    crowd with = {.context = context_for_fork(), .most_calls = INT_MAX};
    pthread_t callers[BUSY_CALLERS];
    for (int i = 0; i < BUSY_CALLERS; ++i) {
        assert_int_equal(pthread_create(&callers[i], NULL, call_again_and_again, &with), 0);
    }
    while (atomic_load(&with.num_callers) < BUSY_CALLERS) {
        usleep(100);
    }
    for (int i = 0; i < 3; ++i) {
        assert_child_succeeds(fork_a_caller(with.context));
    }
    atomic_store(&with.is_over, true);
    for (int i = 0; i < BUSY_CALLERS; ++i) {
        assert_int_equal(pthread_join(callers[i], NULL), 0);
    }
    attn_context_destroy(with.context);
    assert_int_equal(atomic_load(&with.mismatches), 0);
}

/* An allocator whose second thread to ask is held up: the one whose call starts the pool. */
typedef struct turnstile {
    atomic_bool is_shut;
    atomic_bool is_someone_waiting;
    pthread_t forker;
} turnstile;

static void *allocate_behind_turnstile(void *state, size_t bytes, size_t alignment) {
    turnstile *at = state;
    if (!pthread_equal(pthread_self(), at->forker)) {
        atomic_store(&at->is_someone_waiting, true);
        while (atomic_load(&at->is_shut)) {
            usleep(100);
        }
    }
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void deallocate_behind_turnstile(void *state, void *memory, size_t bytes, size_t alignment) {
    (void)state;
    (void)bytes;
    (void)alignment;
    free(memory);
}

/* With a workspace, so that the pool is the only thing to allocate. */
static void *start_threads_of(void *data) {
    static char workspace[1 << 22];
    static float values[8 * 96 * 64];
    static float results[8 * 96 * 64];
    const int64_t shape[] = {8, 96, 64};
    attn_tensor x;
    attn_tensor y;
    const attn_status status =
        attn_tensor_init(&x, values, ATTN_DTYPE_FLOAT32, 3, shape) != ATTN_OK ||
                attn_tensor_init(&y, results, ATTN_DTYPE_FLOAT32, 3, shape) != ATTN_OK
            ? ATTN_ERROR_VALUE
            : attn_sdpa(data, &x, &x, &x, NULL, &y, workspace, sizeof workspace);
    return (void *)(intptr_t)status; /* NOLINT: a status, not an address */
}

/* The child's copy of whatever guards the making of the pool stays locked for ever. */
static void child_of_a_process_that_starts_its_threads_computes(void **state) {
    (void)state;
    skip_if_emulated();
    turnstile at = {.is_shut = true, .forker = pthread_self()};
    const attn_context_config settings = {.struct_size = sizeof settings,
                                          .num_threads = 2,
                                          .gemm = ATTN_GEMM_NATIVE,
                                          .allocate = allocate_behind_turnstile,
                                          .deallocate = deallocate_behind_turnstile,
                                          .allocator_state = &at};
    attn_context *context;
    assert_int_equal(attn_context_create(&settings, &context), ATTN_OK);
    pthread_t starter;
    assert_int_equal(pthread_create(&starter, NULL, start_threads_of, context), 0);
    for (int i = 0; i < 100000 && !atomic_load(&at.is_someone_waiting); ++i) {
        usleep(100);
    }
    assert_true(atomic_load(&at.is_someone_waiting));
    const pid_t child = fork_a_caller(context);
    atomic_store(&at.is_shut, false);
    void *status;
    assert_int_equal(pthread_join(starter, &status), 0);
    assert_int_equal((intptr_t)status, ATTN_OK);
    attn_context_destroy(context);
    assert_child_succeeds(child);
}

/* ---- signals ---- */

static atomic_int num_signals;
static atomic_int num_on_other_threads;
static pthread_t main_thread;
static volatile double scribble;

/* Uses what a call uses: vector registers and the stack. */
static void count_signal(int number) {
    (void)number;
    double sum = 0;
    for (int i = 1; i < 50; ++i) {
        sum += 1.0 / i;
    }
    scribble = sum;
    atomic_fetch_add(&num_signals, 1);
    atomic_fetch_add(&num_on_other_threads, !pthread_equal(pthread_self(), main_thread));
}

static void signals_during_calls_change_nothing(void **state) {
    (void)state;
    main_thread = pthread_self();
    struct sigaction action = {.sa_handler = count_signal};
    struct sigaction before;
    sigemptyset(&action.sa_mask);
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
    const struct itimerval every = {{0, 500}, {0, 500}};
    const struct itimerval never = {{0, 0}, {0, 0}};
    attn_context *context = mixed_context(3, ATTN_ENGINE_AUTO);
    void *memory = malloc(MIXED_MOST_BYTES);
    assert_non_null(memory);
    int mismatches = 0;
    int num_calls = 0;
    assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
    while (num_calls < 20 * mixed_calls_count() ||
           (atomic_load(&num_signals) < 100 && num_calls < 2000 * mixed_calls_count())) {
        mismatches +=
            mixed_call_mismatch(&calls, context, num_calls++ % mixed_calls_count(), memory);
    }
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    struct sigaction during;
    assert_int_equal(sigaction(SIGALRM, &before, &during), 0);
    free(memory);
    attn_context_destroy(context);
    printf("signals: %d during %d calls, %d mismatches\n", atomic_load(&num_signals), num_calls,
           mismatches);
    assert_int_equal(mismatches, 0);
    assert_true(atomic_load(&num_signals) > 0);
    assert_int_equal(atomic_load(&num_on_other_threads), 0);
    assert_true(during.sa_handler == count_signal);
}

static int prepare(void **state) {
    (void)state;
    mixed_calls_create(&calls);
    return 0;
}

static int clean_up(void **state) {
    (void)state;
    mixed_calls_destroy(&calls);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_callers_get_the_bits_of_a_lone_one),
        cmocka_unit_test(child_of_a_busy_process_computes),
        cmocka_unit_test(child_of_a_process_that_starts_its_threads_computes),
        cmocka_unit_test(signals_during_calls_change_nothing),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
