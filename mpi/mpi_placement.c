/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_placement.c: deals the whole's rows out to the ranks.
 */
#include "mpi_placement.h"

#include <stdbool.h>

#include <attention/mpi.h>

static int64_t first_stretch_length(int32_t placement, int64_t length) {
    return placement == ATTN_MPI_PLACEMENT_ZIGZAG ? length - length / 2 : length;
}

int64_t attni_mpi_place_rows(int32_t placement, int num_ranks, const int64_t *lengths, int step,
                             attni_mpi_place *places) {
    int64_t at = 0;
    bool overflows = false;
    for (int rank = 0; rank < num_ranks; ++rank) {
        const int64_t count = first_stretch_length(placement, lengths[(int64_t)rank * step]);
        places[rank].stretches[0] = (attni_mpi_stretch){.first = at, .local = 0, .count = count};
        overflows |= __builtin_add_overflow(at, count, &at);
    }
    for (int rank = num_ranks - 1; rank >= 0; --rank) {
        const int64_t local = places[rank].stretches[0].count;
        const int64_t count = lengths[(int64_t)rank * step] - local;
        places[rank].stretches[1] =
            (attni_mpi_stretch){.first = at, .local = local, .count = count};
        overflows |= __builtin_add_overflow(at, count, &at);
    }
    return overflows ? INT64_MAX : at;
}

void attni_mpi_place_everywhere(int num_ranks, int64_t length, attni_mpi_place *places) {
    for (int rank = 0; rank < num_ranks; ++rank) {
        places[rank] =
            (attni_mpi_place){.stretches = {{.count = length}, {.first = length, .local = length}}};
    }
}
