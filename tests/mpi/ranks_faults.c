/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_faults.c: faults of one rank, each followed by the status of all.
 */
#include "ranks_faults.h"

#include <stdio.h>
#include <string.h>

#include "errors/counting_allocator.h"

/* All ranks have the line of the first. */
static void assert_same_line(const char *name) {
    char first[512];
    snprintf(first, sizeof first, "%s", attn_last_error());
    MPI_Bcast(first, sizeof first, MPI_CHAR, 0, MPI_COMM_WORLD);
    RANKS_ASSERT(strcmp(first, attn_last_error()) == 0, "%s: rank 0 has \"%s\", this one \"%s\"",
                 name, first, attn_last_error());
}

void ranks_assert_mistake_is_shared(const ranks_scene *scene, int32_t scheme,
                                    const ranks_spoiling *it) {
    if (it->status == ATTN_MPI_ERROR_DISAGREE && ranks_count() == 1) {
        return;
    }
    for (int rank = 0; rank < ranks_count(); ++rank) {
        char line[128];
        scene->prepare(scene->call, scheme);
        if (rank == ranks_rank()) {
            it->spoil(scene->call);
        }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(line, sizeof line, it->line, rank);
#pragma GCC diagnostic pop
        RANKS_ASSERT_STATUS(scene->run(scene->call, NULL), it->status, line);
        assert_same_line(it->name);
        scene->check(scene->call, 1);
    }
}

/* Runs the call, in which `rank` may fail; returns whether it did, as its *faults says then. */
static int run_with_fault(const ranks_scene *scene, int32_t scheme, attn_context *context, int rank,
                          attn_status status_of_fault, const int64_t *faults) {
    char line[32];
    scene->prepare(scene->call, scheme);
    const attn_status status = scene->run(scene->call, context);
    int failed = *faults != 0;
    MPI_Bcast(&failed, 1, MPI_INT, rank, MPI_COMM_WORLD);
    snprintf(line, sizeof line, "rank %d: ", rank);
    RANKS_ASSERT_STATUS(status, failed ? status_of_fault : ATTN_OK, failed ? line : "");
    scene->check(scene->call, failed);
    return failed;
}

/* Whether there was an n-th allocation to fail. */
static int fail_allocation(const ranks_scene *scene, int32_t scheme, int rank, int64_t n) {
    counting_allocator allocator;
    attn_context *context;
    attn_context_config config = {.struct_size = sizeof config, .num_threads = 2};
    counting_allocator_init(&allocator);
    counting_allocator_use(&allocator, &config);
    RANKS_ASSERT(attn_context_create(&config, &context) == ATTN_OK, "%s", attn_last_error());
    counting_allocator_fail(&allocator, rank == ranks_rank() ? n : 0, false);
    const int has_failed =
        run_with_fault(scene, scheme, context, rank, ATTN_ERROR_MEMORY, &allocator.failures);
    attn_context_destroy(context);
    RANKS_ASSERT(allocator.live_blocks == 0 && allocator.mistakes == 0, "memory leaks");
    return has_failed;
}

void ranks_assert_no_memory_is_shared(const ranks_scene *scene, int32_t scheme) {
    for (int rank = 0; rank < ranks_count(); ++rank) {
        int64_t n = 1;
        while (fail_allocation(scene, scheme, rank, n)) {
            ++n;
        }
        RANKS_ASSERT(n > 1, "no allocation to fail");
    }
}

/* Refuses once it has been called so often. */
typedef struct refusing_pool {
    int calls_left;
    int64_t refusals;
} refusing_pool;

static int32_t refuse_later(void *state, int64_t count, attn_task_fn task, void *data) {
    refusing_pool *const pool = state;
    if (pool->calls_left-- == 0) {
        ++pool->refusals;
        return 1;
    }
    for (int64_t i = 0; i < count; ++i) {
        task(data, i);
    }
    return 0;
}

/* Whether the pool was called so often. */
static int refuse_thread(const ranks_scene *scene, int32_t scheme, int rank, int calls) {
    refusing_pool pool = {.calls_left = rank == ranks_rank() ? calls : -1};
    attn_context *context;
    const attn_context_config config = {.struct_size = sizeof config,
                                        .parallel_for = refuse_later,
                                        .parallel_for_state = &pool,
                                        .parallel_for_width = 2};
    RANKS_ASSERT(attn_context_create(&config, &context) == ATTN_OK, "%s", attn_last_error());
    const int has_refused =
        run_with_fault(scene, scheme, context, rank, ATTN_ERROR_THREAD, &pool.refusals);
    attn_context_destroy(context);
    return has_refused;
}

void ranks_assert_refused_thread_is_shared(const ranks_scene *scene, int32_t scheme) {
    for (int rank = 0; rank < ranks_count(); ++rank) {
        int calls = 0;
        while (refuse_thread(scene, scheme, rank, calls)) {
            ++calls;
        }
        RANKS_ASSERT(calls > 0, "the pool was never called");
    }
}
