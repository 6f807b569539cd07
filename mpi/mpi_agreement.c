/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_agreement.c: statuses and facts of all ranks, reduced. What is rare, a failure or a
 * difference, takes further messages; what is common takes one reduction.
 */
#include "mpi_agreement.h"

#include <stdio.h>
#include <string.h>

/* A failure as its rank tells the others. */
typedef struct told_failure {
    int32_t status;
    char detail[ATTNI_MPI_DETAIL_BYTES];
} told_failure;

static attn_status reduce_to_least(const attni_mpi_group *group, const int64_t *mine,
                                   int64_t *least, int count) {
    return attni_mpi_result("MPI_Allreduce",
                            MPI_Allreduce(mine, least, count, MPI_INT64_T, MPI_MIN, group->comm));
}

/* What the lowest rank that has failed says of it. `status` is the calling rank's own. */
static attn_status tell_failure(const attni_mpi_group *group, int failed, attn_status status) {
    told_failure failure = {.status = status};
    if (group->rank == failed) {
        char detail[ATTNI_MPI_DETAIL_BYTES];
        attn_last_error_copy(detail, sizeof detail);
        const int head = snprintf(failure.detail, sizeof failure.detail, "rank %d: ", failed);
        memcpy(failure.detail + head, detail, sizeof failure.detail - (size_t)head);
        failure.detail[sizeof failure.detail - 1] = '\0';
    }
    ATTNI_MPI_TRY(attni_mpi_result(
        "MPI_Bcast", MPI_Bcast(&failure, sizeof failure, MPI_BYTE, failed, group->comm)));
    return attn_error_set(failure.status, failure.detail);
}

/* What one rank has to say in the reduction: the rank if it has failed, else a number above all. */
static int64_t failed_rank(const attni_mpi_group *group, attn_status status) {
    return status == ATTN_OK ? group->num_ranks : group->rank;
}

attn_status attni_mpi_agree(const attni_mpi_group *group, attn_status status) {
    const int64_t mine = failed_rank(group, status);
    int64_t lowest;
    ATTNI_MPI_TRY(reduce_to_least(group, &mine, &lowest, 1));
    return lowest == group->num_ranks ? ATTN_OK : tell_failure(group, (int)lowest, status);
}

/* The ranks of a set of bits as "1, 3-5" into `text`; what finds no room is left out. */
static void list_ranks(const unsigned char *bits, int count, char *text, size_t text_bytes) {
    size_t used = 0;
    text[0] = '\0';
    for (int rank = 0; rank < count && used + 32 < text_bytes; ++rank) {
        int last = rank;
        if (!(bits[rank / 8] >> rank % 8 & 1)) {
            continue;
        }
        while (last + 1 < count && bits[(last + 1) / 8] >> (last + 1) % 8 & 1) {
            ++last;
        }
        used += (size_t)snprintf(text + used, text_bytes - used, used == 0 ? "%d" : ", %d", rank);
        if (last > rank) {
            used += (size_t)snprintf(text + used, text_bytes - used, "-%d", last);
        }
        rank = last;
    }
}

static void write_value(const attni_mpi_fact *fact, int64_t value, char *text, size_t text_bytes) {
    if (fact->is_real) {
        double real;
        memcpy(&real, &value, sizeof real);
        (void)snprintf(text, text_bytes, "%.17g", real);
    } else {
        (void)snprintf(text, text_bytes, "%lld", (long long)value);
    }
}

/* Names the fact, rank 0's value and the ranks that have another; of more ranks than the set has
 * room for, the first. */
static attn_status tell_difference(const attni_mpi_group *group, const attni_mpi_fact *fact) {
    unsigned char mine[128] = {0}, differing[128];
    const int capacity = 8 * (int)sizeof mine;
    int64_t value = fact->value;
    ATTNI_MPI_TRY(attni_mpi_result("MPI_Bcast", MPI_Bcast(&value, 1, MPI_INT64_T, 0, group->comm)));
    if (fact->value != value && group->rank < capacity) {
        mine[group->rank / 8] = (unsigned char)(1u << group->rank % 8);
    }
    ATTNI_MPI_TRY(attni_mpi_result("MPI_Allreduce", MPI_Allreduce(mine, differing, (int)sizeof mine,
                                                                  MPI_BYTE, MPI_BOR, group->comm)));
    char ranks[256], text[40];
    list_ranks(differing, group->num_ranks < capacity ? group->num_ranks : capacity, ranks,
               sizeof ranks);
    write_value(fact, value, text, sizeof text);
    return attni_mpi_fail(ATTN_MPI_ERROR_DISAGREE,
                          "%s: expected the same on all ranks, got %s on rank 0 and not on ranks "
                          "%s",
                          fact->name, text, ranks);
}

attn_status attni_mpi_agree_on(const attni_mpi_group *group, attn_status status,
                               const attni_mpi_fact *facts, int count, int64_t *least,
                               int num_least) {
    /* The greatest x is the complement of the least ~x, so one reduction tells both. */
    int64_t mine[1 + 2 * ATTNI_MPI_MOST_FACTS + ATTNI_MPI_MOST_LEAST];
    int64_t all[sizeof mine / sizeof mine[0]];
    int64_t *const own_least = &mine[1 + 2 * count];
    mine[0] = failed_rank(group, status);
    for (int i = 0; i < count; ++i) {
        mine[1 + 2 * i] = facts[i].value;
        mine[2 + 2 * i] = ~facts[i].value;
    }
    for (int i = 0; i < num_least; ++i) {
        own_least[i] = least[i];
    }
    ATTNI_MPI_TRY(reduce_to_least(group, mine, all, 1 + 2 * count + num_least));
    if (all[0] < group->num_ranks) {
        return tell_failure(group, (int)all[0], status);
    }
    for (int i = 0; i < count; ++i) {
        if (all[1 + 2 * i] != ~all[2 + 2 * i]) {
            return tell_difference(group, &facts[i]);
        }
    }
    for (int i = 0; i < num_least; ++i) {
        least[i] = all[1 + 2 * count + i];
    }
    return ATTN_OK;
}
