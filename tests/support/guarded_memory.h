/* SPDX-License-Identifier: BSD-3-Clause
 *
 * guarded_memory.h: memory that touches a page without access at one end, and may be made read-only.
 * Areas are kept and taken again, since mapping pages takes longer than a small call. Any thread may
 * take and give back.
 *
 * Sanitizers that watch the heap see more: both ends, to the byte. In their builds this is malloc's
 * memory.
 */
#ifndef ATTENTION_TESTS_GUARDED_MEMORY_H
#define ATTENTION_TESTS_GUARDED_MEMORY_H

#include <stddef.h>

enum guarded_end { GUARDED_BEGIN, GUARDED_PAST };

/* Ends the program when memory is out. What the bytes hold is not defined. */
unsigned char *guarded_take(size_t bytes, enum guarded_end end);

/* Each takes an address that guarded_take gave; the whole area is meant. */
void guarded_set_read_only(const unsigned char *memory, int is_read_only);
void guarded_give_back(unsigned char *memory);

#endif
