/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_cases.c: cases from bytes, and spoiled descriptions.
 */
#include "fuzz_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bit l of beside[f][level][g]: level l of factor g may be beside this level of f. To ask the rules
 * a thousand times for each input takes longer than some calls. */
typedef struct allowed_levels {
    uint16_t beside[MAX_FACTORS][MAX_LEVELS][MAX_FACTORS];
} allowed_levels;

static void allow_beside(const factor_set *set, int f, int level, uint16_t *allowed) {
    for (int g = 0; g < set->count; ++g) {
        for (int other = 0; other < set->factors[g].num_levels && g != f; ++other) {
            const int is_allowed =
                set->is_allowed(f, level, g, other) && set->is_allowed(g, other, f, level);
            allowed[g] |= (uint16_t)(is_allowed << other);
        }
    }
}

/* A target has one or two sets. */
static const allowed_levels *allowed_levels_of(const factor_set *set) {
    enum { MOST_SETS = 2 };
    static allowed_levels tables[MOST_SETS];
    static const factor_set *owners[MOST_SETS];
    static int next;
    for (int i = 0; i < MOST_SETS; ++i) {
        if (owners[i] == set) {
            return &tables[i];
        }
    }
    allowed_levels *table = &tables[next];
    memset(table, 0, sizeof *table);
    for (int f = 0; f < set->count; ++f) {
        for (int level = 0; level < set->factors[f].num_levels; ++level) {
            allow_beside(set, f, level, table->beside[f][level]);
        }
    }
    owners[next] = set;
    next = (next + 1) % MOST_SETS;
    return table;
}

int fuzz_choose(fuzz_bytes *bytes, const factor_set *set, factor_case *chosen) {
    const allowed_levels *allowed = allowed_levels_of(set);
    for (int f = 0; f < set->count; ++f) {
        const int count = set->factors[f].num_levels;
        unsigned left = (1u << count) - 1;
        for (int other = 0; other < f; ++other) {
            left &= allowed->beside[other][chosen->level[other]][f];
        }
        if (left == 0) {
            return 0;
        }
        int level = fuzz_byte(bytes) % count;
        while (!(left >> level & 1)) {
            level = (level + 1) % count;
        }
        chosen->level[f] = (uint8_t)level;
    }
    return 1;
}

void fuzz_fail(const factor_set *set, const factor_case *chosen, uint64_t seed,
               const char *problem) {
    char options[1600];
    describe_case(set, chosen, options, sizeof options);
    fprintf(stderr, "seed %llu: %s\n    %s\n", (unsigned long long)seed, problem, options);
    abort();
}

enum spoiled_field {
    SPOILED_DTYPE,
    SPOILED_RANK,
    SPOILED_LENGTH,
    SPOILED_STRIDE,
    SPOILED_AXIS,
    SPOILED_FIELDS
};

/* The axis `axis` from the end, if it has a position; what is left lies within the tensor. */
static void drop_axis(attn_tensor *view, int axis) {
    attn_tensor part;
    if (axis < view->rank && attn_tensor_select(view, -1 - axis, 0, &part) == ATTN_OK) {
        *view = part;
    }
}

void fuzz_spoil_view(fuzz_bytes *bytes, attn_tensor *view) {
    const int axis = fuzz_byte(bytes) % ATTN_MAX_RANK;
    switch (fuzz_byte(bytes) % SPOILED_FIELDS) {
    case SPOILED_DTYPE:
        view->dtype = (int32_t)fuzz_odd_number(bytes);
        break;
    case SPOILED_RANK:
        view->rank = (int32_t)fuzz_odd_number(bytes);
        break;
    case SPOILED_AXIS:
        drop_axis(view, axis);
        break;
    case SPOILED_LENGTH:
        view->shape[axis] = fuzz_odd_number(bytes);
        break;
    default:
        view->strides[axis] = fuzz_odd_number(bytes);
        break;
    }
}
