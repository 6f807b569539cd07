/* SPDX-License-Identifier: BSD-3-Clause
 *
 * covering_array.c: greedy pairwise covering, one case at a time: start from a pair still missing,
 * then give every other factor, in random order, the allowed level that covers most missing pairs.
 */
#include "covering_array.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/oracle_tensor.h"
#include "support/strength.h"

enum {
    UNSET = 255,
    CANDIDATES = 12,        /* cases tried for each one kept */
    ATTEMPTS_PER_CASE = 60, /* random orders tried before a start is given up */
    CASES_PER_SETTING = 3   /* of strength 1 */
};

enum pair_state { PAIR_FORBIDDEN, PAIR_MISSING, PAIR_COVERED };

static unsigned char *pair_at(const pair_table *table, int factor_a, int level_a, int factor_b,
                              int level_b) {
    return table->state + (table->first[factor_a] + level_a) * table->num_levels +
           table->first[factor_b] + level_b;
}

static int is_void(const factor_set *set, int f, int level) {
    return (set->factors[f].void_levels >> level) & 1;
}

pair_table pair_table_create(const factor_set *set) {
    pair_table table = {.set = set};
    for (int f = 0; f < set->count; ++f) {
        table.first[f] = table.num_levels;
        table.num_levels += set->factors[f].num_levels;
    }
    table.state = oracle_allocate((int64_t)table.num_levels * table.num_levels, 1);
    for (int a = 0; a < set->count; ++a) {
        for (int b = 0; b < set->count; ++b) {
            for (int pair = 0;
                 a != b && pair < set->factors[a].num_levels * set->factors[b].num_levels; ++pair) {
                const int level_a = pair / set->factors[b].num_levels,
                          level_b = pair % set->factors[b].num_levels;
                const int allowed = set->is_allowed(a, level_a, b, level_b) &&
                                    set->is_allowed(b, level_b, a, level_a);
                *pair_at(&table, a, level_a, b, level_b) = allowed ? PAIR_MISSING : PAIR_FORBIDDEN;
            }
        }
    }
    return table;
}

void pair_table_destroy(pair_table *table) {
    free(table->state);
    table->state = NULL;
}

/* Calls visit for every pair of the table with a factor_a < factor_b. */
typedef void (*pair_visitor)(const pair_table *table, int factor_a, int level_a, int factor_b,
                             int level_b, void *data);

static void visit_pairs(const pair_table *table, pair_visitor visit, void *data) {
    const factor *factors = table->set->factors;
    for (int a = 0; a < table->set->count; ++a) {
        for (int b = a + 1; b < table->set->count; ++b) {
            for (int pair = 0; pair < factors[a].num_levels * factors[b].num_levels; ++pair) {
                visit(table, a, pair / factors[b].num_levels, b, pair % factors[b].num_levels,
                      data);
            }
        }
    }
}

static int case_has_void(const factor_set *set, const factor_case *chosen) {
    for (int f = 0; f < set->count; ++f) {
        if (is_void(set, f, chosen->level[f])) {
            return 1;
        }
    }
    return 0;
}

/* Whether the case counts for a pair of its levels. */
static int counts_for(const factor_set *set, const factor_case *chosen, int a, int b) {
    return !case_has_void(set, chosen) || is_void(set, a, chosen->level[a]) ||
           is_void(set, b, chosen->level[b]);
}

/* Missing pairs that meet in the case. */
static int64_t num_new_pairs(const pair_table *table, const factor_case *chosen) {
    int64_t new_pairs = 0;
    for (int a = 0; a < table->set->count; ++a) {
        for (int b = a + 1; b < table->set->count; ++b) {
            new_pairs += counts_for(table->set, chosen, a, b) &&
                         *pair_at(table, a, chosen->level[a], b, chosen->level[b]) == PAIR_MISSING;
        }
    }
    return new_pairs;
}

/* Of strength 1: the state of a setting with itself counts the cases it was in, and two that were
 * in enough of them are taken to have met. */
static void count_settings(const pair_table *table, const factor_case *chosen) {
    for (int f = 0; f < table->set->count; ++f) {
        unsigned char *cases = pair_at(table, f, chosen->level[f], f, chosen->level[f]);
        if (*cases < CASES_PER_SETTING && counts_for(table->set, chosen, f, f)) {
            ++*cases;
        }
    }
    const int64_t count = table->num_levels;
    for (int64_t pair = 0; pair < count * count; ++pair) {
        const int64_t a = pair / count, b = pair % count;
        if (table->state[pair] == PAIR_MISSING &&
            table->state[a * count + a] == CASES_PER_SETTING &&
            table->state[b * count + b] == CASES_PER_SETTING) {
            table->state[pair] = PAIR_COVERED;
        }
    }
}

void pair_table_mark(pair_table *table, const factor_case *chosen) {
    for (int a = 0; a < table->set->count; ++a) {
        for (int b = 0; b < table->set->count; ++b) {
            unsigned char *state = pair_at(table, a, chosen->level[a], b, chosen->level[b]);
            if (a != b && *state == PAIR_MISSING && counts_for(table->set, chosen, a, b)) {
                *state = PAIR_COVERED;
            }
        }
    }
    if (test_strength() == 1) {
        count_settings(table, chosen);
    }
}

/* Whether the pair leaves something to compute. */
static int can_compute(const factor_set *set, int a, int level_a, int b, int level_b) {
    if (is_void(set, a, level_a) || is_void(set, b, level_b)) {
        return 0;
    }
    return set->can_compute == NULL ||
           (set->can_compute(a, level_a, b, level_b) && set->can_compute(b, level_b, a, level_a));
}

static void forbid_if_void(const pair_table *table, int factor_a, int level_a, int factor_b,
                           int level_b, void *data) {
    (void)data;
    if (!can_compute(table->set, factor_a, level_a, factor_b, level_b)) {
        *pair_at(table, factor_a, level_a, factor_b, level_b) = PAIR_FORBIDDEN;
        *pair_at(table, factor_b, level_b, factor_a, level_a) = PAIR_FORBIDDEN;
    }
}

void pair_table_forbid_void(pair_table *table) {
    visit_pairs(table, forbid_if_void, NULL);
}

/*
 * Missing pairs that giving factor f this level would cover together with the factors set so far;
 * -1 if a pair is forbidden. avoid_void: a void level is not wanted, since the case is meant for
 * pairs of others.
 */
static int64_t gain(const pair_table *table, const factor_case *partial, int f, int level,
                    int avoid_void) {
    int64_t missing = 0;
    for (int other = 0; other < table->set->count; ++other) {
        if (other == f || partial->level[other] == UNSET) {
            continue;
        }
        const unsigned char state = *pair_at(table, f, level, other, partial->level[other]);
        if (state == PAIR_FORBIDDEN) {
            return -1;
        }
        missing += state == PAIR_MISSING;
    }
    return avoid_void && is_void(table->set, f, level) ? -1 : missing;
}

static void shuffle(int count, int *items, random_state *random) {
    for (int i = count - 1; i > 0; --i) {
        const int j = (int)random_between(random, 0, i), item = items[i];
        items[i] = items[j];
        items[j] = item;
    }
}

/* The level of factor f with the largest gain, ties at random; not greedy: any allowed level. UNSET
 * if none is allowed. */
static uint8_t choose_level(const pair_table *table, const factor_case *partial, int f, int greedy,
                            int avoid_void, random_state *random) {
    int64_t best_gain = -1;
    uint8_t best = UNSET;
    int levels[MAX_LEVELS];
    const int count = table->set->factors[f].num_levels;
    for (int level = 0; level < count; ++level) {
        levels[level] = level;
    }
    shuffle(count, levels, random);
    for (int i = 0; i < count; ++i) {
        const int64_t level_gain = gain(table, partial, f, levels[i], avoid_void);
        if (level_gain > best_gain) {
            best_gain = greedy ? level_gain : INT64_MAX - 1;
            best = (uint8_t)levels[i];
        }
    }
    return best;
}

/* Gives every unset factor a level; 0 if the order drawn led to a dead end. */
static int complete_case(const pair_table *table, factor_case *partial, int greedy, int avoid_void,
                         random_state *random) {
    int order[MAX_FACTORS];
    const int count = table->set->count;
    for (int f = 0; f < count; ++f) {
        order[f] = f;
    }
    shuffle(count, order, random);
    for (int i = 0; i < count; ++i) {
        const int f = order[i];
        if (partial->level[f] == UNSET) {
            partial->level[f] = choose_level(table, partial, f, greedy, avoid_void, random);
        }
        if (partial->level[f] == UNSET) {
            return 0;
        }
    }
    return 1;
}

static factor_case empty_case(void) {
    factor_case chosen;
    memset(chosen.level, UNSET, sizeof chosen.level);
    return chosen;
}

factor_case random_case(const factor_set *set, random_state *random) {
    pair_table table = pair_table_create(set);
    const int avoid_void = random_between(random, 0, 7) > 0;
    factor_case chosen;
    do {
        chosen = empty_case();
    } while (!complete_case(&table, &chosen, 0, avoid_void, random));
    pair_table_destroy(&table);
    return chosen;
}

typedef struct pair_choice {
    random_state *random;
    int64_t num_seen;
    int factor_a, level_a, factor_b, level_b;
} pair_choice;

/* Keeps one of the missing pairs, each with the same probability. */
static void choose_missing(const pair_table *table, int factor_a, int level_a, int factor_b,
                           int level_b, void *data) {
    pair_choice *choice = data;
    if (*pair_at(table, factor_a, level_a, factor_b, level_b) != PAIR_MISSING) {
        return;
    }
    if (random_between(choice->random, 0, choice->num_seen++) == 0) {
        *choice =
            (pair_choice){choice->random, choice->num_seen, factor_a, level_a, factor_b, level_b};
    }
}

/* Greedy: the best of several cases around missing pairs. Otherwise one of them among random
 * settings. 0 also if none could be completed. */
int next_covering_case(const pair_table *table, int greedy, random_state *random,
                       factor_case *best) {
    const int wanted = greedy ? CANDIDATES : 1;
    int64_t best_gain = 0;
    for (int attempt = 0, candidates = 0; attempt < ATTEMPTS_PER_CASE && candidates < wanted;
         ++attempt) {
        pair_choice choice = {.random = random};
        visit_pairs(table, choose_missing, &choice);
        if (choice.num_seen == 0) {
            return 0;
        }
        factor_case candidate = empty_case();
        candidate.level[choice.factor_a] = (uint8_t)choice.level_a;
        candidate.level[choice.factor_b] = (uint8_t)choice.level_b;
        const int starts_void = is_void(table->set, choice.factor_a, choice.level_a) ||
                                is_void(table->set, choice.factor_b, choice.level_b);
        if (!complete_case(table, &candidate, greedy, !starts_void, random)) {
            continue;
        }
        ++candidates;
        const int64_t candidate_gain = num_new_pairs(table, &candidate);
        if (candidate_gain > best_gain) {
            best_gain = candidate_gain;
            *best = candidate;
        }
    }
    return best_gain > 0;
}

static void count_pair(const pair_table *table, int factor_a, int level_a, int factor_b,
                       int level_b, void *data) {
    pair_count *count = data;
    const unsigned char state = *pair_at(table, factor_a, level_a, factor_b, level_b);
    const factor *a = &table->set->factors[factor_a], *b = &table->set->factors[factor_b];
    count->num_forbidden += state == PAIR_FORBIDDEN;
    count->num_pairs += state != PAIR_FORBIDDEN;
    if (state == PAIR_MISSING && count->num_missing++ == 0) {
        snprintf(count->missing, sizeof count->missing, "%s=%s with %s=%s", a->name,
                 a->level_names[level_a], b->name, b->level_names[level_b]);
    }
}

pair_count pair_table_count(const pair_table *table) {
    pair_count count = {0};
    visit_pairs(table, count_pair, &count);
    return count;
}

covering_array covering_array_create(const factor_set *set, uint64_t seed) {
    covering_array array = {0};
    random_state random = random_seeded(seed);
    pair_table table = pair_table_create(set);
    const int64_t capacity = (int64_t)table.num_levels * table.num_levels;
    array.cases = oracle_allocate(capacity, sizeof *array.cases);
    while (array.num_cases < capacity &&
           next_covering_case(&table, 1, &random, &array.cases[array.num_cases])) {
        pair_table_mark(&table, &array.cases[array.num_cases++]);
    }
    pair_table_destroy(&table);

    table = pair_table_create(set);
    for (int64_t i = 0; i < array.num_cases; ++i) {
        pair_table_mark(&table, &array.cases[i]);
    }
    array.count = pair_table_count(&table);
    pair_table_destroy(&table);
    return array;
}

void covering_array_destroy(covering_array *array) {
    free(array->cases);
    *array = (covering_array){0};
}

void describe_case(const factor_set *set, const factor_case *chosen, char *text,
                   size_t text_bytes) {
    size_t used = 0;
    text[0] = '\0';
    for (int f = 0; f < set->count && used < text_bytes; ++f) {
        const factor *described = &set->factors[f];
        used += (size_t)snprintf(text + used, text_bytes - used, "%s%s=%s", f > 0 ? " " : "",
                                 described->name, described->level_names[chosen->level[f]]);
    }
}
