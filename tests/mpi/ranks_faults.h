/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_faults.h: a call over all ranks with a fault on one of them, on each in turn: a mistake in
 * its arguments, an allocation that fails, a thread that is refused, these at each place there is.
 * Whichever it is, all ranks get its status and its line, and none has written anything.
 */
#ifndef TESTS_MPI_RANKS_FAULTS_H
#define TESTS_MPI_RANKS_FAULTS_H

#include "ranks_program.h"

/* A call that is made anew for each fault. */
typedef struct ranks_scene {
    void *call;
    void (*prepare)(void *call, int32_t scheme);
    attn_status (*run)(void *call, attn_context *context);
    /* After a failure nothing is written, after a success what is written is right. */
    void (*check)(const void *call, int has_failed);
} ranks_scene;

typedef struct ranks_spoiling {
    const char *name;
    void (*spoil)(void *call);
    attn_status status;
    const char *line; /* its beginning; %d is the rank */
} ranks_spoiling;

/* A mistake of one rank. What is a difference between ranks is left out where there is one. */
void ranks_assert_mistake_is_shared(const ranks_scene *scene, int32_t scheme,
                                    const ranks_spoiling *it);

/* Every allocation of the call fails in turn, on every rank in turn, until none is left. */
void ranks_assert_no_memory_is_shared(const ranks_scene *scene, int32_t scheme);

/* A rank's pool refuses at each time it is called in turn, while messages are under way too. */
void ranks_assert_refused_thread_is_shared(const ranks_scene *scene, int32_t scheme);

#endif
