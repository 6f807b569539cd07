/* SPDX-License-Identifier: BSD-3-Clause
 *
 * unload.c: see unload.h. The hook stands beside the function that adds to its list, so that a
 * program linked with a few members of the static library has it whenever it has something to do.
 */
#include "base/unload.h"

#include <stdatomic.h>
#include <stddef.h>

/* Without a lock: a forked child finds the list whole. */
static _Atomic(attni_unload_step *) last_step;
static atomic_bool is_unloading;

void attni_at_unload(attni_unload_step *step) {
    step->next = atomic_load(&last_step);
    while (!atomic_compare_exchange_weak(&last_step, &step->next, step)) {
    }
}

bool attni_is_unloading(void) {
    return atomic_load(&is_unloading);
}

__attribute__((destructor)) static void unload(void) {
    atomic_store(&is_unloading, true);
    attni_unload_step *step = atomic_exchange(&last_step, NULL);
    while (step != NULL) {
        attni_unload_step *const next = step->next;
        step->run(step);
        step = next;
    }
}
