/* SPDX-License-Identifier: BSD-3-Clause
 *
 * covering_array.h: a small set of cases in which every two levels of every two factors meet.
 *
 * A factor is an option, a level one of its settings; a case gives each factor a level. Most errors
 * need no more than two options to show, so a set of cases that holds every pair finds them without
 * the product of all options. The array is made by a greedy algorithm at run time, the same for the
 * same seed; whether it really covers is counted anew afterwards.
 *
 * Of strength 1 (support/strength.h) each level is in three cases among others, and two levels that
 * are have met as far as the functions below tell: far fewer cases.
 *
 * A void level (a length of 0) leaves nothing to compute. A case with void levels counts only for
 * the pairs one of them belongs to: the others must meet in a case that computes something.
 */
#ifndef ATTENTION_TESTS_COVERING_ARRAY_H
#define ATTENTION_TESTS_COVERING_ARRAY_H

#include <stddef.h>
#include <stdint.h>

#include "support/random.h"

enum { MAX_FACTORS = 64, MAX_LEVELS = 16 };

typedef struct factor {
    const char *name;
    int num_levels;
    const char *const *level_names;
    uint32_t void_levels; /* bit l: level l is void */
} factor;

/* Tells whether two levels of two different factors may be in one case. Symmetric. */
typedef int (*pair_rule)(int factor_a, int level_a, int factor_b, int level_b);

typedef struct factor_set {
    factor factors[MAX_FACTORS];
    int count;
    pair_rule is_allowed;
    pair_rule can_compute; /* NULL, or 0 for two settings that together leave nothing to compute */
} factor_set;

typedef struct factor_case {
    uint8_t level[MAX_FACTORS];
} factor_case;

/* Which pairs of levels have met. */
typedef struct pair_table {
    const factor_set *set;
    int first[MAX_FACTORS]; /* number of the factor's level 0 among all levels */
    int num_levels;
    unsigned char *state; /* num_levels * num_levels, symmetric */
} pair_table;

typedef struct pair_count {
    int64_t num_pairs;     /* allowed ones */
    int64_t num_forbidden; /* pairs the rule forbids */
    int64_t num_missing;   /* allowed pairs that have not met */
    char missing[160];     /* the first of them */
} pair_count;

/* No pair has met. `set` must outlive the table. */
pair_table pair_table_create(const factor_set *set);
void pair_table_destroy(pair_table *table);

/* The pairs of the case have met. */
void pair_table_mark(pair_table *table, const factor_case *chosen);

/* From now on void levels, and pairs that leave nothing to compute, are forbidden. */
void pair_table_forbid_void(pair_table *table);

pair_count pair_table_count(const pair_table *table);

/* A case in which pairs meet that have not yet: many of them if greedy, else at least one, among
 * random settings; 0 if there is none. Marks nothing. */
int next_covering_case(const pair_table *table, int greedy, random_state *random,
                       factor_case *chosen);

typedef struct covering_array {
    factor_case *cases;
    int64_t num_cases;
    pair_count count; /* by counting the finished array */
} covering_array;

covering_array covering_array_create(const factor_set *set, uint64_t seed);
void covering_array_destroy(covering_array *array);

/* A case at random in which every pair of levels is allowed; in seven of eight no level is void. */
factor_case random_case(const factor_set *set, random_state *random);

/* "dtype=float32 rank=4 ...", cut to text_bytes. */
void describe_case(const factor_set *set, const factor_case *chosen, char *text, size_t text_bytes);

#endif
