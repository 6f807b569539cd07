/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_plan.c: chooses among the schemes and asks the chosen one for its plan.
 */
#include "mpi_plan.h"

/* Lengths below it can be added and shifted without a thought. */
static const int64_t most_rows = INT64_MAX / 8;

/* With queries everywhere, as many everywhere. */
static attn_status check_equal_queries(const attni_mpi_link *link) {
    for (int rank = 1; rank < link->group.num_ranks; ++rank) {
        if (link->lengths[rank][ATTNI_MPI_QUERY_ROWS] != link->lengths[0][ATTNI_MPI_QUERY_ROWS]) {
            return attni_mpi_fail(ATTN_ERROR_VALUE,
                                  "query: expected as many rows on all ranks with "
                                  "ATTN_MPI_SCHEME_DECODE, got %lld on rank 0 and %lld on rank %d",
                                  (long long)link->lengths[0][ATTNI_MPI_QUERY_ROWS],
                                  (long long)link->lengths[rank][ATTNI_MPI_QUERY_ROWS], rank);
        }
    }
    return ATTN_OK;
}

static attn_status place_all(attni_mpi_link *link, attni_mpi_call *call) {
    call->num_keys = attni_mpi_place_rows(call->placement, link->group.num_ranks,
                                          &link->lengths[0][ATTNI_MPI_KEY_ROWS],
                                          ATTNI_MPI_NUM_LENGTHS, link->key_places);
    if (call->scheme == ATTN_MPI_SCHEME_DECODE) {
        ATTNI_MPI_TRY(check_equal_queries(link));
        call->num_rows = link->lengths[0][ATTNI_MPI_QUERY_ROWS];
        attni_mpi_place_everywhere(link->group.num_ranks, call->num_rows, link->query_places);
    } else {
        call->num_rows = attni_mpi_place_rows(call->placement, link->group.num_ranks,
                                              &link->lengths[0][ATTNI_MPI_QUERY_ROWS],
                                              ATTNI_MPI_NUM_LENGTHS, link->query_places);
    }
    if (call->num_rows > most_rows || call->num_keys > most_rows) {
        return attni_mpi_fail(ATTN_ERROR_OVERFLOW,
                              "query, key: expected fewer rows on all ranks together");
    }
    return ATTN_OK;
}

/* Where every rank has one row, or one block of rows, a mask of one may be for that or for all. */
static bool each_has_one(const attni_mpi_link *link, int64_t rows_of_one) {
    for (int rank = 0; rank < link->group.num_ranks; ++rank) {
        const int64_t rows = link->lengths[rank][ATTNI_MPI_QUERY_ROWS];
        if (rows < 1 || rows > rows_of_one) {
            return false;
        }
    }
    return link->group.num_ranks > 1;
}

/* Whether what one row of masks is for is each rank's own affair. */
static void find_masks_rows(const attni_mpi_link *link, attni_mpi_call *call) {
    call->masks_have_rows =
        call->mask_has_rows || call->bias_has_rows || call->blocks_have_rows ||
        (call->masks_have_one_row && each_has_one(link, 1)) ||
        (call->blocks_have_one_row && each_has_one(link, call->params.block_rows));
}

/* The gradient of a mask of one row is the rank's own, or the sum over all. */
static attn_status check_whose_gradient(const attni_mpi_link *link, const attni_mpi_call *call) {
    const struct {
        const char *name;
        const attn_tensor *gradient;
        bool has_rows;
    } masks[] = {{"mask", call->gradients.mask, call->mask_has_rows},
                 {"bias", call->gradients.bias, call->bias_has_rows}};
    for (int i = 0; i < 2; ++i) {
        if (call->scheme != ATTN_MPI_SCHEME_DECODE && masks[i].gradient != NULL &&
            masks[i].gradient->rank >= 2 && !masks[i].has_rows && each_has_one(link, 1)) {
            return attni_mpi_fail(ATTN_ERROR_UNSUPPORTED,
                                  "gradients.%s: expected NULL where each rank has one row, for "
                                  "one row of %s may be for that row or for all",
                                  masks[i].name, masks[i].name);
        }
    }
    return ATTN_OK;
}

attn_status attni_mpi_choose_scheme(attni_mpi_link *link, attni_mpi_call *call,
                                    attni_mpi_plan *plan) {
    *plan = (attni_mpi_plan){.reason = "it was asked for"};
    ATTNI_MPI_TRY(place_all(link, call));
    find_masks_rows(link, call);
    ATTNI_MPI_TRY(check_whose_gradient(link, call));
    plan->prediction = attni_mpi_predict(call);
    if (call->scheme == ATTN_MPI_SCHEME_HEADS && call->masks_have_rows) {
        return attni_mpi_fail(ATTN_ERROR_UNSUPPORTED,
                              "mask, bias, block_mask: expected one row for all queries with "
                              "ATTN_MPI_SCHEME_HEADS, for a rank has the rows of its own queries");
    }
    if (call->scheme != ATTN_MPI_SCHEME_AUTO) {
        return ATTN_OK;
    }
    if (call->masks_have_rows) {
        plan->reason = "a mask or bias has rows, which stay where they are in a ring only";
    } else if (link->group.num_ranks == 1) {
        plan->reason = "there is one rank, to which nothing travels";
    } else if (plan->prediction.ring_seconds <= plan->prediction.heads_seconds) {
        plan->reason = "keys and values are predicted to travel behind the computation";
    } else {
        plan->reason = "all-to-all is predicted to take less time than a ring";
        call->scheme = ATTN_MPI_SCHEME_HEADS;
        return ATTN_OK;
    }
    call->scheme = ATTN_MPI_SCHEME_RING;
    return ATTN_OK;
}

static attn_status plan_forward(const attni_mpi_call *call, attni_mpi_plan *plan) {
    switch (call->scheme) {
    case ATTN_MPI_SCHEME_HEADS:
        ATTNI_MPI_TRY(attni_mpi_heads_plan(call, &plan->layout, &plan->scheme.heads));
        plan->bytes_sent = plan->scheme.heads.dealing.bytes_sent;
        return ATTN_OK;
    case ATTN_MPI_SCHEME_DECODE:
        ATTNI_MPI_TRY(attni_mpi_decode_plan(call, &plan->layout, &plan->scheme.decode));
        plan->bytes_sent = plan->scheme.decode.bytes_sent;
        return ATTN_OK;
    default:
        ATTNI_MPI_TRY(attni_mpi_ring_plan(call, &plan->layout, &plan->scheme.ring));
        plan->bytes_sent = plan->scheme.ring.bytes_sent;
        plan->num_steps = plan->scheme.ring.num_steps;
        return ATTN_OK;
    }
}

static attn_status plan_backward(const attni_mpi_call *call, attni_mpi_plan *plan) {
    attni_mpi_layout *const layout = &plan->layout;
    const attni_mpi_sums *const sums = &plan->sums;
    ATTNI_MPI_TRY(attni_mpi_sums_plan(call, layout, &plan->sums));
    /* A slice to each of the others, and the sum of one to each. */
    plan->bytes_sent = 2 * (int64_t)(call->link->group.num_ranks - 1) * sums->slice_bytes;
    switch (call->scheme) {
    case ATTN_MPI_SCHEME_HEADS:
        ATTNI_MPI_TRY(
            attni_mpi_heads_backward_plan(call, sums, layout, &plan->scheme.heads_backward));
        plan->bytes_sent += plan->scheme.heads_backward.dealing.bytes_sent;
        return ATTN_OK;
    case ATTN_MPI_SCHEME_DECODE:
        return attni_mpi_decode_backward_plan(call, layout, &plan->scheme.decode_backward);
    default:
        ATTNI_MPI_TRY(
            attni_mpi_ring_backward_plan(call, sums, layout, &plan->scheme.ring_backward));
        plan->bytes_sent += plan->scheme.ring_backward.bytes_sent;
        plan->num_steps = plan->scheme.ring_backward.num_steps;
        return ATTN_OK;
    }
}

attn_status attni_mpi_make_plan(const attni_mpi_call *call, attni_mpi_plan *plan) {
    plan->num_steps = 1;
    return call->is_backward ? plan_backward(call, plan) : plan_forward(call, plan);
}

void attni_mpi_make_report(const attni_mpi_call *call, const attni_mpi_plan *plan,
                           attn_mpi_report *report) {
    size_t workspace_bytes = 0;
    const bool is_planned = attni_mpi_layout_bytes(&plan->layout, &workspace_bytes) == ATTN_OK;
    *report = (attn_mpi_report){.struct_size = sizeof *report,
                                .scheme = call->scheme,
                                .placement = call->placement,
                                .rank = call->link->group.rank,
                                .num_ranks = call->link->group.num_ranks,
                                .num_steps = plan->num_steps,
                                .bytes_sent = (uint64_t)plan->bytes_sent,
                                .workspace_bytes = is_planned ? workspace_bytes : 0,
                                .ring_seconds = plan->prediction.ring_seconds,
                                .heads_seconds = plan->prediction.heads_seconds,
                                .decode_seconds = plan->prediction.decode_seconds,
                                .reason = plan->reason};
}
