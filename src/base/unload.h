/* SPDX-License-Identifier: BSD-3-Clause
 *
 * unload.h: what the library takes back when its code leaves the process, which a copy of the
 * static library inside a plugin does at dlclose. Who has something to take back adds a step at the
 * moment there is; the one hook, the library's only constructor or destructor, runs them.
 *
 * It runs at exit() too, while other threads may be inside calls: a step may neither wait for a
 * call nor free what one may still use. Calls that come after it work without what was taken back.
 */
#ifndef ATTNI_BASE_UNLOAD_H
#define ATTNI_BASE_UNLOAD_H

#include <stdbool.h>

/* In static memory; added once at most. */
typedef struct attni_unload_step {
    void (*run)(struct attni_unload_step *step);
    struct attni_unload_step *next;
} attni_unload_step;

/* The last step added runs first. */
void attni_at_unload(attni_unload_step *step);

/* Whether the hook has begun: nothing that would have to be taken back may be made any more. */
bool attni_is_unloading(void);

#endif
