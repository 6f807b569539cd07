/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fuzz_cases.c: cases from bytes, and spoiled descriptions.
 */
#include "fuzz_cases.h"

#include <stdio.h>
#include <stdlib.h>

static int is_allowed_so_far(const factor_set *set, const factor_case *chosen, int f, int level) {
    for (int other = 0; other < f; ++other) {
        const int other_level = chosen->level[other];
        if (!set->is_allowed(other, other_level, f, level) ||
            !set->is_allowed(f, level, other, other_level)) {
            return 0;
        }
    }
    return 1;
}

int fuzz_choose(fuzz_bytes *bytes, const factor_set *set, factor_case *chosen) {
    for (int f = 0; f < set->count; ++f) {
        const int count = set->factors[f].num_levels;
        int level = fuzz_byte(bytes) % count;
        int tried = 0;
        while (tried < count && !is_allowed_so_far(set, chosen, f, level)) {
            level = (level + 1) % count;
            tried++;
        }
        if (tried == count) {
            return 0;
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

enum spoiled_field { SPOILED_DTYPE, SPOILED_RANK, SPOILED_LENGTH, SPOILED_STRIDE, SPOILED_FIELDS };

void fuzz_spoil_view(fuzz_bytes *bytes, attn_tensor *view) {
    const int axis = fuzz_byte(bytes) % ATTN_MAX_RANK;
    switch (fuzz_byte(bytes) % SPOILED_FIELDS) {
    case SPOILED_DTYPE:
        view->dtype = (int32_t)fuzz_odd_number(bytes);
        break;
    case SPOILED_RANK:
        view->rank = (int32_t)fuzz_odd_number(bytes);
        break;
    case SPOILED_LENGTH:
        view->shape[axis] = fuzz_odd_number(bytes);
        break;
    default:
        view->strides[axis] = fuzz_odd_number(bytes);
        break;
    }
}
