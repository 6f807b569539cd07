/* SPDX-License-Identifier: BSD-3-Clause
 *
 * context.c: makes contexts, the process's default one included, and runs tasks on their threads.
 */
#include "context/context.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "blas_library/blas_library.h"
#include "base/checked_size.h"
#include "base/cpu_count.h"
#include "base/float_traps.h"
#include "base/option_check.h"
#include "base/process_identity.h"
#include "base/process_once.h"
#include "base/unload.h"
#include "base/versioned_struct.h"

enum { MAX_THREADS = 1024 };

struct attn_context {
    attni_allocator allocator;
    const attni_kernel_set *kernels;
    attn_parallel_for_fn parallel_for; /* NULL: the pool */
    void *parallel_for_state;
    int32_t num_threads; /* of the pool, the calling one included; 1 beside a parallel_for */
    bool takes_fewer;    /* threads than that where no more are to be had */
    int32_t num_slots;   /* items that may run at a time */
    int32_t engine;
    int32_t gemm;
    bool float32_weights;
    uint64_t creator;                  /* in a forked child of it, the mutex is in any state */
    pthread_mutex_t pool_mutex;        /* held while the pool is made */
    _Atomic(attni_thread_pool *) pool; /* NULL until the first call that needs threads */
    atomic_int num_users;              /* callers that may hold the pool at this moment */
};

static attn_status check_numbers(const attn_context_config *config) {
    const bool has_own_threads = config->parallel_for == NULL;
    if (config->num_threads < 0 || config->num_threads > MAX_THREADS) {
        return attni_fail(ATTN_ERROR_VALUE, "num_threads: expected 0 to %d, got %d", MAX_THREADS,
                          (int)config->num_threads);
    }
    if (config->parallel_for_width < 0 || config->parallel_for_width > MAX_THREADS) {
        return attni_fail(ATTN_ERROR_VALUE, "parallel_for_width: expected 0 to %d, got %d",
                          MAX_THREADS, (int)config->parallel_for_width);
    }
    if (!has_own_threads && config->num_threads != 0) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "num_threads: expected 0 beside parallel_for, whose width is "
                          "parallel_for_width, got %d",
                          (int)config->num_threads);
    }
    if (has_own_threads && config->parallel_for_width != 0) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "parallel_for_width: expected 0 without parallel_for, got %d",
                          (int)config->parallel_for_width);
    }
    return ATTN_OK;
}

static attn_status check_config(const attn_context_config *config) {
    ATTNI_TRY(check_numbers(config));
    ATTNI_TRY(
        attni_check_choice("", "engine", config->engine, ATTN_ENGINE_FUSED, "enum attn_engine"));
    ATTNI_TRY(attni_check_choice("", "gemm", config->gemm, ATTN_GEMM_NATIVE, "enum attn_gemm"));
    ATTNI_TRY(attni_check_switch("", "float32_weights", config->float32_weights));
    ATTNI_TRY(attni_check_reserved("", config->reserved));
    if (config->gemm == ATTN_GEMM_BLAS && !attni_blas_present()) {
        return attni_fail(ATTN_ERROR_UNSUPPORTED,
                          "gemm: ATTN_GEMM_BLAS was asked for, but this build has no BLAS");
    }
    if ((config->allocate == NULL) != (config->deallocate == NULL)) {
        return attni_fail(ATTN_ERROR_VALUE,
                          "%s: expected allocate and deallocate together, got only the other",
                          config->allocate == NULL ? "allocate" : "deallocate");
    }
    return ATTN_OK;
}

static attn_status find_kernels(const char *argument, const char *name,
                                const attni_kernel_set **kernels) {
    *kernels = attni_kernel_set_find(name);
    if (*kernels == NULL) {
        return attni_fail(ATTN_ERROR_UNSUPPORTED,
                          "%s: expected kernels that this build and CPU have (the best are "
                          "\"%s\"), got \"%.64s\"",
                          argument, attni_kernel_set_at(0)->name, name);
    }
    return ATTN_OK;
}

static void set_up(attn_context *context, const attn_context_config *config,
                   const attni_kernel_set *kernels) {
    const int32_t width =
        config->parallel_for != NULL ? config->parallel_for_width : config->num_threads;
    context->allocator = attni_system_allocator;
    if (config->allocate != NULL) {
        context->allocator =
            (attni_allocator){config->allocate, config->deallocate, config->allocator_state};
    }
    context->kernels = kernels;
    context->parallel_for = config->parallel_for;
    context->parallel_for_state = config->parallel_for_state;
    context->num_slots = width != 0 ? width : attni_cpu_count();
    context->num_threads = config->parallel_for != NULL ? 1 : context->num_slots;
    context->takes_fewer = width == 0;
    context->engine = config->engine;
    context->gemm = config->gemm;
    context->float32_weights = config->float32_weights != 0;
    context->creator = attni_process_identity();
    atomic_init(&context->pool, NULL);
    atomic_init(&context->num_users, 0);
}

attn_status attn_context_create(const attn_context_config *config, attn_context **context) {
    attni_error_clear();
    if (context == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "context: expected a place for the result, got NULL");
    }
    *context = NULL;
    attn_context_config known;
    ATTNI_TRY(attni_struct_read("config", config,
                                ATTNI_BYTES_THROUGH(attn_context_config, allocator_state),
                                sizeof known, &known));
    ATTNI_TRY(check_config(&known));
    const attni_kernel_set *kernels;
    ATTNI_TRY(find_kernels("kernels", known.kernels, &kernels));
    const attni_allocator given = {known.allocate, known.deallocate, known.allocator_state};
    attn_context *made =
        attni_allocate(known.allocate != NULL ? &given : &attni_system_allocator, sizeof *made);
    if (made == NULL) {
        return attni_fail(ATTN_ERROR_MEMORY, "context: allocation of %zu bytes failed",
                          sizeof *made);
    }
    set_up(made, &known, kernels);
    if (pthread_mutex_init(&made->pool_mutex, NULL) != 0) {
        const attni_allocator allocator = made->allocator;
        attni_deallocate(&allocator, made, sizeof *made);
        return attni_fail(ATTN_ERROR_THREAD, "context: the system has no mutex for it");
    }
    *context = made;
    return ATTN_OK;
}

void attn_context_destroy(attn_context *context) {
    if (context == NULL) {
        return;
    }
    attni_thread_pool_destroy(atomic_load(&context->pool));
    pthread_mutex_destroy(&context->pool_mutex);
    const attni_allocator allocator = context->allocator;
    attni_deallocate(&allocator, context, sizeof *context);
}

/* The default context lives in static memory: it cannot fail for want of memory, and is never
 * destroyed; its threads end when the library is unloaded. */
static attn_context default_context = {.pool_mutex = PTHREAD_MUTEX_INITIALIZER};
static pthread_mutex_t default_mutex = PTHREAD_MUTEX_INITIALIZER;
static attni_process_once default_mutex_once;
static atomic_bool default_ready;

static void make_default_mutex(void) {
    pthread_mutex_init(&default_mutex, NULL);
}

/* The environment's number of threads, 0 for none. */
static attn_status read_num_threads(int32_t *num_threads) {
    const char *text = getenv("ATTN_NUM_THREADS");
    *num_threads = 0;
    if (text == NULL || *text == '\0') {
        return ATTN_OK;
    }
    char *end;
    const long number = strtol(text, &end, 10);
    if (*end != '\0' || number < 1 || number > MAX_THREADS) {
        return attni_fail(ATTN_ERROR_VALUE, "ATTN_NUM_THREADS: expected 1 to %d, got \"%.64s\"",
                          MAX_THREADS, text);
    }
    *num_threads = (int32_t)number;
    return ATTN_OK;
}

/* Ends the default context's threads, unless a call is under way, as at exit() it may be. Whoever
 * comes now finds no pool, or is counted before the look at the count: callers count themselves
 * first and then look for the pool. */
static void end_default_threads(attni_unload_step *step) {
    (void)step;
    attni_thread_pool *const pool = atomic_exchange(&default_context.pool, NULL);
    if (atomic_load(&default_context.num_users) == 0) {
        attni_thread_pool_destroy(pool);
    } else {
        atomic_store(&default_context.pool, pool);
    }
}

static attn_status make_default(void) {
    static attni_unload_step end_threads = {.run = end_default_threads};
    attn_context_config config = {.struct_size = sizeof config};
    ATTNI_TRY(read_num_threads(&config.num_threads));
    const char *name = getenv("ATTN_KERNELS");
    const attni_kernel_set *kernels;
    ATTNI_TRY(find_kernels("ATTN_KERNELS", name != NULL && *name != '\0' ? name : NULL, &kernels));
    set_up(&default_context, &config, kernels);
    attni_at_unload(&end_threads);
    atomic_store_explicit(&default_ready, true, memory_order_release);
    return ATTN_OK;
}

attn_status attni_context_resolve(attn_context *context, attn_context **resolved) {
    *resolved = context != NULL ? context : &default_context;
    if (context != NULL || atomic_load_explicit(&default_ready, memory_order_acquire)) {
        return ATTN_OK;
    }
    attni_once_per_process(&default_mutex_once, make_default_mutex);
    pthread_mutex_lock(&default_mutex);
    const attn_status status =
        atomic_load_explicit(&default_ready, memory_order_relaxed) ? ATTN_OK : make_default();
    pthread_mutex_unlock(&default_mutex);
    return status;
}

/* Whether this is a forked child of the process that made the context: one of its threads, which do
 * not exist here, may have been making the pool. */
static bool is_inherited(const attn_context *context) {
    return attni_process_identity() != context->creator;
}

/* Threads that run, where they do, else those that may. */
static int32_t threads_in_force(attn_context *context) {
    atomic_fetch_add(&context->num_users, 1);
    const attni_thread_pool *pool = atomic_load(&context->pool);
    const int32_t num_threads = pool != NULL ? attni_thread_pool_size(pool) : context->num_threads;
    atomic_fetch_sub(&context->num_users, 1);
    return num_threads;
}

/* Pieces of work under way at a time. */
static int32_t width_in_force(attn_context *context) {
    if (context->num_threads == 1) {
        return context->num_slots;
    }
    return is_inherited(context) ? 1 : threads_in_force(context);
}

attn_status attn_context_describe(attn_context *context, attn_context_info *info) {
    attni_error_clear();
    ATTNI_TRY(
        attni_struct_check_output("info", info, ATTNI_BYTES_THROUGH(attn_context_info, blas)));
    attn_context *resolved;
    ATTNI_TRY(attni_context_resolve(context, &resolved));
    const attn_context_info known = {
        .struct_size = sizeof known,
        .num_threads = width_in_force(resolved),
        .engine = resolved->engine,
        .gemm = resolved->gemm,
        .attention_gemm = attni_context_attention_gemm(resolved),
        .projection_gemm = attni_context_projection_gemm(resolved),
        .blas_is_serial = attni_blas_can_be_called() && attni_blas_max_callers() == 1,
        .kernels = resolved->kernels->name,
        .blas = attni_blas_description(),
    };
    attni_struct_write(info, &known, sizeof known);
    return ATTN_OK;
}

const attni_allocator *attni_context_allocator(const attn_context *context) {
    return &context->allocator;
}

const attni_kernel_set *attni_context_kernels(const attn_context *context) {
    return context->kernels;
}

bool attni_context_float32_weights(const attn_context *context) {
    return context->float32_weights;
}

int32_t attni_context_engine(const attn_context *context) {
    return context->engine;
}

/* Products of attention in blocks of rows are faster by BLAS. */
int32_t attni_context_attention_gemm(const attn_context *context) {
    if (context->gemm != ATTN_GEMM_AUTO) {
        return context->gemm;
    }
    return attni_blas_can_be_called() ? ATTN_GEMM_BLAS : ATTN_GEMM_NATIVE;
}

/* A layer's projections were as fast or faster by the library's own product for float32, much
 * faster for few rows of either type and little slower for many of float64, and they share the
 * attention's threads, which those of a BLAS would compete with. */
int32_t attni_context_projection_gemm(const attn_context *context) {
    return context->gemm != ATTN_GEMM_AUTO ? context->gemm : ATTN_GEMM_NATIVE;
}

int32_t attni_context_slots(const attn_context *context, int64_t count) {
    return (int32_t)attni_clamp(count, 1, context->num_slots);
}

static attn_status make_pool(attn_context *context, attni_thread_pool **pool) {
    attn_status status = ATTN_OK;
    pthread_mutex_lock(&context->pool_mutex);
    *pool = atomic_load_explicit(&context->pool, memory_order_relaxed);
    if (*pool == NULL) {
        status = (context->takes_fewer ? attni_thread_pool_create_some : attni_thread_pool_create)(
            &context->allocator, context->num_threads, pool);
        if (status == ATTN_OK) {
            atomic_store_explicit(&context->pool, *pool, memory_order_release);
        } else {
            attni_fail(status, "num_threads: %d threads could not be started: %s",
                       (int)context->num_threads, attn_status_text(status));
        }
    }
    pthread_mutex_unlock(&context->pool_mutex);
    return status;
}

static void run_inline(int64_t count, attni_task task, void *data) {
    for (int64_t index = 0; index < count; ++index) {
        task(data, index);
    }
}

/* The pool, made if need be; NULL where the context uses none, as in a forked child. None is made
 * while the library is being unloaded. */
static attn_status find_pool(attn_context *context, attni_thread_pool **pool) {
    *pool = NULL;
    /* One thread, as where the caller has a parallel_for. */
    if (context->num_threads == 1 || is_inherited(context)) {
        return ATTN_OK;
    }
    *pool = atomic_load(&context->pool);
    return *pool != NULL || attni_is_unloading() ? ATTN_OK : make_pool(context, pool);
}

attn_status attni_start_threads(attn_context *context) {
    attni_thread_pool *pool;
    return find_pool(context, &pool);
}

attn_status attn_context_start(attn_context *context) {
    attni_error_clear();
    ATTNI_TRY(attni_context_resolve(context, &context));
    return attni_start_threads(context);
}

static const attni_allocator *allocator_of(const attn_context *context) {
    return context != NULL ? &context->allocator : &attni_system_allocator;
}

attn_status attn_context_allocate(attn_context *context, size_t bytes, void **memory) {
    attni_error_clear();
    if (memory == NULL) {
        return attni_fail(ATTN_ERROR_NULL, "memory: expected a place for the result, got NULL");
    }
    *memory = NULL;
    if (bytes == 0) {
        return attni_fail(ATTN_ERROR_VALUE, "bytes: expected 1 or more, got 0");
    }
    *memory = attni_allocate(allocator_of(context), bytes);
    return *memory != NULL
               ? ATTN_OK
               : attni_fail(ATTN_ERROR_MEMORY, "memory: could not allocate %zu bytes", bytes);
}

void attn_context_deallocate(attn_context *context, void *memory, size_t bytes) {
    attni_deallocate(allocator_of(context), memory, bytes);
}

typedef struct callers_task {
    attni_task task;
    void *data;
} callers_task;

/* On a thread of the caller's, whose exceptions may trap. */
static void run_callers_task(void *data, int64_t index) {
    ATTNI_NO_FLOAT_TRAPS;
    const callers_task *given = data;
    given->task(given->data, index);
}

static attn_status run_on_pool(attn_context *context, int64_t count, attni_task task, void *data) {
    attni_thread_pool *pool;
    atomic_fetch_add(&context->num_users, 1);
    const attn_status status = find_pool(context, &pool);
    if (status == ATTN_OK && pool != NULL) {
        attni_thread_pool_run(pool, count, task, data);
    } else if (status == ATTN_OK) {
        run_inline(count, task, data);
    }
    atomic_fetch_sub(&context->num_users, 1);
    return status;
}

attn_status attni_parallel_for(attn_context *context, int64_t count, attni_task task, void *data) {
    if (count > 1 && context->parallel_for != NULL) {
        callers_task given = {task, data};
        const int32_t refused =
            context->parallel_for(context->parallel_for_state, count, run_callers_task, &given);
        return refused == 0
                   ? ATTN_OK
                   : attni_fail(ATTN_ERROR_THREAD,
                                "parallel_for: the caller's function returned %d", (int)refused);
    }
    if (count > 1 && context->num_threads > 1) {
        return run_on_pool(context, count, task, data);
    }
    run_inline(count, task, data);
    return ATTN_OK;
}

typedef struct shared_items {
    _Atomic int64_t next;
    int64_t count;
    attni_slot_task task;
    void *data;
} shared_items;

static void drain_items(void *data, int64_t slot) {
    shared_items *items = data;
    for (;;) {
        const int64_t index = atomic_fetch_add_explicit(&items->next, 1, memory_order_relaxed);
        if (index >= items->count) {
            return;
        }
        items->task(items->data, (int32_t)slot, index);
    }
}

attn_status attni_parallel_items(attn_context *context, int32_t num_slots, int64_t count,
                                 attni_slot_task task, void *data) {
    shared_items items = {.count = count, .task = task, .data = data};
    atomic_init(&items.next, 0);
    if (num_slots == 1) {
        drain_items(&items, 0);
        return ATTN_OK;
    }
    return attni_parallel_for(context, num_slots, drain_items, &items);
}
