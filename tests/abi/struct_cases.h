/* SPDX-License-Identifier: BSD-3-Clause
 *
 * struct_cases.h: every function that takes a struct with struct_size, as a call that is told where
 * the struct is. A success has the right numbers.
 */
#ifndef STRUCT_CASES_H
#define STRUCT_CASES_H

#include <stddef.h>

#include <attention/attention.h>

typedef struct tail_case {
    const char *function;
    const char *name;   /* the struct, as the detail calls it */
    size_t first_bytes; /* its size in release 0.1, a number that never changes */
    size_t known_bytes; /* today's */
    const void *valid;  /* known_bytes to begin with; NULL: all zero */
    attn_status (*call)(void *given);
} tail_case;

/* Those that the library reads, and those that it fills. */
extern const tail_case tail_options[], tail_results[];
extern const size_t num_tail_options, num_tail_results;

/* What the calls need, before the first and after the last of them. */
void struct_cases_create(void);
void struct_cases_destroy(void);

#endif
