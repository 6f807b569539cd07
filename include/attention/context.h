/* SPDX-License-Identifier: BSD-3-Clause
 *
 * context.h: the settings calls run under: threads, memory, and which engine, kernels and matrix
 * product to use.
 *
 * Every function that computes, loads or reads elements takes a context; NULL means the process's
 * default context (where only memory is wanted of it: the C library's allocator), which is made
 * on first use from the environment variables below and lives until the process ends. A context may
 * be used by any number of threads at once: a call that finds its threads busy with another call
 * computes on its own thread instead of waiting.
 *
 * Environment, read at the default context's first use, and not again once its values were good; a
 * bad one is read again by every call with the default context, which fails with ATTN_ERROR_VALUE
 * (or ATTN_ERROR_UNSUPPORTED for kernels this CPU lacks) until it is corrected:
 *   ATTN_NUM_THREADS   threads of the default context, 1 to 1024; unset or empty: as num_threads 0
 *                      below
 *   ATTN_KERNELS       kernels of the default context by name; unset or empty: the best the CPU has
 *
 * Results do not depend on num_threads. The library never changes the number of threads BLAS uses:
 * it is the caller's to set, and where a matrix product is computed by BLAS the last bits may
 * depend on it (attn_sdpa_report and attn_mha_report say so for a call). By default BLAS is left to
 * the attention of float64; a context with ATTN_GEMM_NATIVE calls no BLAS at all.
 *
 * The shared library loads its BLAS when a call first needs it (or attn_context_describe, which
 * asks it), and keeps it: from a module beside the library, attention-0/blas.so. An OpenBLAS then
 * starts as many threads as the calling thread has CPUs, in the default floating-point environment
 * and with every signal blocked. Where that cannot be (the module or the BLAS is missing; a thread
 * is refused, for which OpenBLAS would end the process) there is none for the life of the process:
 * ATTN_GEMM_AUTO takes the library's own product, ATTN_GEMM_BLAS fails with ATTN_ERROR_BLAS. The
 * static library has the BLAS that it is linked with.
 *
 * BLAS is entered by at most 64 calls at once, and by one at a time if it is an OpenBLAS without
 * threads of its own (openblas_get_parallel() is 0 at run time) or a library that does not tell;
 * the others wait for their turn. BLAS allocates buffers of its own in its first calls, which the
 * library cannot see fail: OpenBLAS 0.3.21 ends the process, or waits for ever, where there is no
 * memory for them. A first small call at start-up has them allocated while there is.
 *
 * The library's threads run on the CPUs that the thread which started them might use, and on others
 * once somebody gives them others; for the moment of its waking a thread may be kept off the CPU of
 * the caller that wakes it.
 *
 * After fork() the child computes on its calling thread only, with every context of its parent
 * (attn_selftest's own threads aside); a context it makes itself has threads of its own. fork()
 * waits until no product is inside BLAS (a pthread_atfork handler, from the first such product on).
 * A child is known by forks being counted (another handler, from the first context on), so that it
 * may have its parent's process number, as in a process namespace of its own.
 * In the child BLAS is called if it is an OpenBLAS with POSIX threads or without threads; beside
 * any other, which may wait for threads that only the parent has, products are the library's own,
 * and the last bits of float64 may differ from the parent's.
 *
 * Calls compute with the caller's rounding mode and flush-to-zero settings, on every thread, and
 * leave both as they were. Where the mode is not to nearest, u in the bounds under Numerics is 8
 * times as large; where subnormal numbers are flushed they count as 0. Where the caller, or a
 * thread of its parallel_for, lets floating-point exceptions trap (feenableexcept), none does
 * inside a call, nor in an allocator or a visit that it calls; what traps and which flags are
 * raised is afterwards as it was before. Threads of a BLAS's own trap as they were started.
 *
 * Stack: a call needs at most 32 KiB of its thread's where it computes float32 with the default
 * engine and without ATTN_GEMM_BLAS, and at most 128 KiB elsewhere: float64 (beside OpenBLAS
 * 0.3.21; another BLAS may take more for itself), other engines, attn_selftest. A caller's
 * allocator and parallel_for come on top. The library's own threads have the size that the system
 * gives threads.
 *
 * The library installs no signal handlers, and its threads block every signal, so that handlers run
 * on the caller's threads. A handler that returns changes nothing for the call it interrupts; it
 * must not call the library, nor leave a call by longjmp. A thread must not be cancelled
 * (pthread_cancel) inside a call, which would leave locks taken and memory lost: disable
 * cancellation around calls where that may happen.
 *
 * The shared library stays in the process once it is loaded. A copy of the static library inside a
 * plugin may be unloaded with it (dlclose) when no call is under way and every context that was
 * made in it has been destroyed: one hook, the only function that runs by itself, then ends the
 * default context's threads and gives back what else the copy holds, but for the error detail of
 * each thread that has failed in it and lives on (512 bytes a thread). The hook runs at exit() too,
 * waits for no call, and leaves a default context that is in use as it is; calls after it compute
 * on the calling thread, or on threads that the context has already, and keep no error detail.
 */
#ifndef ATTENTION_CONTEXT_H
#define ATTENTION_CONTEXT_H

#include <stddef.h>
#include <stdint.h>

#include <attention/export.h>
#include <attention/status.h>

ATTN_BEGIN_DECLS

/* Settings and threads. Opaque; made by attn_context_create. */
typedef struct attn_context attn_context;

/* How the attention core is computed. */
enum attn_engine {
    /* the library chooses: fused, but BLAS for float64 */
    ATTN_ENGINE_AUTO = 0,

    /* blocks of rows: scores by a matrix product, row softmax, weighted values by a matrix
     * product */
    ATTN_ENGINE_BLAS = 1,

    /* tiles of scores that never leave the cache (Milakov and Gimelshein, 2018; Dao et al., 2022),
     * on the context's threads; calls no BLAS. Not float64: attention of float64 tensors under a
     * context that forces it fails with ATTN_ERROR_UNSUPPORTED */
    ATTN_ENGINE_FUSED = 2
};

/* Who computes matrix products. */
enum attn_gemm {
    /* the faster one: native for the projections of multi-head attention; BLAS, where there is one,
     * for the products of ATTN_ENGINE_BLAS */
    ATTN_GEMM_AUTO = 0,

    /* BLAS for all of them; a layer's copied weights are then put in order anew in each call. A
     * BLAS that is not OpenBLAS does those of float64 only: BLIS, which may come without its name,
     * touches memory outside its matrices in float32 */
    ATTN_GEMM_BLAS = 1,

    /* the library's own product for all of them: the same bits whatever BLAS or thread count */
    ATTN_GEMM_NATIVE = 2
};

/* One of the pieces of work that a caller's thread pool is given. */
typedef void (*attn_task_fn)(void *data, int64_t index);

/*
 * A caller's own thread pool. Must call task(data, index) exactly once for every index in [0,
 * count), in any order and on any thread (the calling one included), and return after all of them
 * have returned: 0 then; non-zero if it has called none of them. It may be called from several
 * threads at once. It must not throw or longjmp through the library.
 */
typedef int32_t (*attn_parallel_for_fn)(void *state, int64_t count, attn_task_fn task, void *data);

/* A caller's allocator. Returns memory of `bytes` (> 0) aligned to `alignment` (a power of two) or
 * NULL; may be called from any thread. */
typedef void *(*attn_allocate_fn)(void *state, size_t bytes, size_t alignment);

/* Its other half: gets what attn_allocate_fn returned, never NULL, with the same size and
 * alignment, as C++'s sized operator delete and Rust's dealloc want them. */
typedef void (*attn_deallocate_fn)(void *state, void *memory, size_t bytes, size_t alignment);

/* Settings of a context. All zero after struct_size: the defaults. */
typedef struct attn_context_config {
    /* sizeof(attn_context_config) */
    uint64_t struct_size;

    /* 1 to 1024, the calling one included; 0: the CPUs of the affinity mask, within the cgroup's
     * quota, or as many threads as can be started when they are first needed, if only the calling
     * one. With parallel_for there are no threads of the library's: 0 */
    int32_t num_threads;

    /* with parallel_for, 1 to 1024: how many of its tasks may have work of the fused engine at a
     * time, each with scratch memory of its own; 0: as many as num_threads = 0 would start.
     * Without parallel_for: 0 */
    int32_t parallel_for_width;

    /* enum attn_engine */
    int32_t engine;

    /* enum attn_gemm */
    int32_t gemm;

    /* a name from attn_kernels_name(), or NULL for the best the CPU has; copied */
    const char *kernels;

    /* NULL: the context's own threads, started by the first call that needs them, or by
     * attn_context_start */
    attn_parallel_for_fn parallel_for;

    /* handed to parallel_for */
    void *parallel_for_state;

    /* both or neither; NULL: the C library's */
    attn_allocate_fn allocate;

    /* see allocate */
    attn_deallocate_fn deallocate;

    /* handed to both; what it points to must outlive the context and every layer made with it */
    void *allocator_state;

    /* 0: where query, key and value are bfloat16 and the kernels multiply pairs of them, the
     * weights of many rows are rounded to it; 1: weights are float32 everywhere */
    int32_t float32_weights;

    /* 0: a later version may have a meaning for it */
    int32_t reserved;
} attn_context_config;

/* What a context runs with. The caller sets struct_size; fields this version does not know become
 * 0; the strings are static memory. */
typedef struct attn_context_info {
    /* in: sizeof(attn_context_info) */
    uint64_t struct_size;

    /* how many pieces of work are under way at a time: threads, the calling one included (those
     * that were started, once they were; 1 in a forked child of who made the context), or the width
     * of the caller's parallel_for */
    int32_t num_threads;

    /* enum attn_engine, as set */
    int32_t engine;

    /* enum attn_gemm, as set */
    int32_t gemm;

    /* ATTN_GEMM_BLAS or ATTN_GEMM_NATIVE: who computes the products of ATTN_ENGINE_BLAS */
    int32_t attention_gemm;

    /* likewise those of a layer's projections */
    int32_t projection_gemm;

    /* 1 if BLAS admits one caller at a time (a serial or unknown build), else 0 */
    int32_t blas_is_serial;

    /* name of the kernels in use */
    const char *kernels;

    /* what the BLAS says of itself; "none" in a build without one, and "none, for it cannot be
     * loaded" */
    const char *blas;
} attn_context_info;

/*
 * Makes a context. config may be NULL: the defaults (the environment is not read: it belongs to the
 * default context). No thread is started yet. Free it with attn_context_destroy after the last call
 * that uses it has returned, and before a plugin with the static library inside is unloaded.
 *
 * Errors: ATTN_ERROR_NULL context; ATTN_ERROR_VALUE a number out of range, num_threads beside
 * parallel_for, parallel_for_width without it, one of allocate/deallocate without the other;
 * ATTN_ERROR_UNSUPPORTED an engine, gemm or kernels that this version, build or CPU does not have,
 * a reserved field that is set, or a newer struct; ATTN_ERROR_MEMORY; ATTN_ERROR_THREAD the system
 * has no mutex for it. On an error *context is set to NULL if `context` is not NULL. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_context_create(const attn_context_config *config,
                                                         attn_context **context);

/*
 * Starts the threads of a context (NULL: the default one) now, which the first large call would do:
 * after it, calls with a workspace allocate nothing, and none fails for want of a thread. Where the
 * number was left to the library (num_threads 0, no ATTN_NUM_THREADS) and the system grants fewer,
 * the context goes on with those, for as long as it lives: attn_context_describe tells how many.
 * Does nothing where they run already, where there is one thread or a parallel_for, and in a forked
 * child. Thread-safe. Errors: ATTN_ERROR_THREAD, ATTN_ERROR_MEMORY; for NULL those of making the
 * default context. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_context_start(attn_context *context);

/*
 * `bytes` bytes (> 0) of a context's allocator (NULL: the C library's) at 64 bytes' alignment, into
 * *memory, for companion libraries, so that what a context allocates is all its allocator's. Give
 * it back with attn_context_deallocate. Thread-safe. Errors: ATTN_ERROR_NULL memory;
 * ATTN_ERROR_VALUE bytes of 0; ATTN_ERROR_MEMORY. *memory is NULL after an error. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_context_allocate(attn_context *context, size_t bytes,
                                                           void **memory);

/* Frees what attn_context_allocate gave for the same context and bytes; NULL is allowed. Never
 * fails; any thread. Since 0.1. */
ATTN_API void attn_context_deallocate(attn_context *context, void *memory, size_t bytes);

/* Stops the context's threads and frees it. NULL is allowed. Must not run while a call uses the
 * context. Since 0.1. */
ATTN_API void attn_context_destroy(attn_context *context);

/*
 * Tells what a context (NULL: the default one) runs with. Thread-safe. Errors: ATTN_ERROR_NULL
 * info; ATTN_ERROR_VALUE info->struct_size; for NULL those of making the default context.
 * Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_context_describe(attn_context *context,
                                                           attn_context_info *info);

/*
 * The names of the kernels compiled in and runnable on this CPU, best first: attn_kernels_name(0),
 * (1), ... and NULL after the last. Static memory; never fails; any thread. Since 0.1.
 */
ATTN_API const char *attn_kernels_name(int32_t index);

ATTN_END_DECLS

#endif
