/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_sums.c: lays sums out, adds them up over the ranks, stores them.
 */
#include "mpi_sums.h"

#include <string.h>

#include <attention/merge.h>

#include "mpi_copy.h"
#include "mpi_exchange.h"

const attn_tensor *attni_mpi_wanted(const attni_mpi_call *call, enum attni_mpi_gradient which) {
    const attn_sdpa_gradients *const gradients = &call->gradients;
    const attn_tensor *const wanted[ATTNI_MPI_NUM_GRADIENTS] = {
        gradients->query, gradients->key,           gradients->value,        gradients->mask,
        gradients->bias,  gradients->position_bias, gradients->alibi_slopes, gradients->sinks};
    return wanted[which];
}

/* Queries of decode are everywhere, and so is a mask there; else a mask with rows is a rank's. */
static bool is_shared(const attni_mpi_call *call, enum attni_mpi_gradient which) {
    const bool is_everywhere = call->scheme == ATTN_MPI_SCHEME_DECODE;
    if (call->link->group.num_ranks == 1) {
        return false;
    }
    switch (which) {
    case ATTNI_MPI_OF_KEY:
    case ATTNI_MPI_OF_VALUE:
        return false;
    case ATTNI_MPI_OF_QUERY:
        return is_everywhere;
    case ATTNI_MPI_OF_MASK:
        return is_everywhere || !call->mask_has_rows;
    case ATTNI_MPI_OF_BIAS:
        return is_everywhere || !call->bias_has_rows;
    default:
        return true;
    }
}

/* A gradient has its input's shape. */
static attn_tensor sum_shape(const attni_mpi_call *call, enum attni_mpi_gradient which) {
    return attni_mpi_contiguous(attni_mpi_wanted(call, which), call->score_dtype, NULL);
}

static int64_t count_of(const attn_tensor *contiguous) {
    int64_t count = 1;
    for (int32_t axis = 0; axis < contiguous->rank; ++axis) {
        count *= contiguous->shape[axis];
    }
    return count;
}

/* Of those that are shared, or of the others. */
static void plan_sums(const attni_mpi_call *call, bool of_shared, attni_mpi_layout *layout,
                      attni_mpi_sums *sums) {
    for (int i = 0; i < ATTNI_MPI_NUM_GRADIENTS; ++i) {
        const enum attni_mpi_gradient which = (enum attni_mpi_gradient)i;
        attni_mpi_sum *const sum = &sums->of[which];
        if (attni_mpi_wanted(call, which) == NULL || is_shared(call, which) != of_shared) {
            continue;
        }
        const attn_tensor shape = sum_shape(call, which);
        sum->is_shared = of_shared;
        sum->at = attni_mpi_layout_add_tensor(layout, &shape);
        sums->shared_counts[which] = of_shared && !layout->overflows ? count_of(&shape) : 0;
    }
}

attn_status attni_mpi_sums_plan(const attni_mpi_call *call, attni_mpi_layout *layout,
                                attni_mpi_sums *sums) {
    const int64_t num_ranks = call->link->group.num_ranks;
    int units;
    *sums = (attni_mpi_sums){.first_at = layout->bytes};
    plan_sums(call, false, layout, sums);
    sums->shared_at = layout->bytes;
    plan_sums(call, true, layout, sums);
    /* Rounded up to as many units for each rank. */
    const int64_t shared_units = (layout->bytes - sums->shared_at) / ATTNI_MPI_UNIT_BYTES;
    const int64_t slice_units = shared_units / num_ranks + (shared_units % num_ranks != 0);
    sums->slice_bytes = slice_units * ATTNI_MPI_UNIT_BYTES;
    ATTNI_MPI_TRY(attni_mpi_units(sums->slice_bytes, &units));
    attni_mpi_layout_add(layout, slice_units * num_ranks - shared_units, ATTNI_MPI_UNIT_BYTES);
    sums->end_at = layout->bytes;
    sums->slices_at = attni_mpi_layout_add(layout, num_ranks, sums->slice_bytes);
    for (int i = 0; i < ATTNI_MPI_NUM_GRADIENTS; ++i) {
        const attn_tensor *const wanted = attni_mpi_wanted(call, (enum attni_mpi_gradient)i);
        sums->of[i].stored_at = sums->of[i].at;
        if (wanted != NULL && wanted->dtype != call->score_dtype) {
            sums->of[i].stored_at = attni_mpi_layout_add_tensor(layout, wanted);
        }
    }
    return ATTN_OK;
}

void attni_mpi_sums_clear(const attni_mpi_sums *sums, char *block) {
    memset(block + sums->first_at, 0, (size_t)(sums->end_at - sums->first_at));
}

const attn_tensor *attni_mpi_sum_view(const attni_mpi_call *call, const attni_mpi_sums *sums,
                                      char *block, enum attni_mpi_gradient which,
                                      attn_tensor *view) {
    if (attni_mpi_wanted(call, which) == NULL) {
        return NULL;
    }
    *view = sum_shape(call, which);
    view->data = block != NULL ? block + sums->of[which].at : NULL;
    return view;
}

attn_status attni_mpi_sums_share(const attni_mpi_call *call, const attni_mpi_sums *sums,
                                 char *block) {
    const attni_mpi_link *const link = call->link;
    const int units = (int)(sums->slice_bytes / ATTNI_MPI_UNIT_BYTES);
    char *const shared = block + sums->shared_at, *const slices = block + sums->slices_at;
    char *const own = shared + link->group.rank * sums->slice_bytes;
    if (units == 0) {
        return ATTN_OK;
    }
    ATTNI_MPI_TRY(
        attni_mpi_result("MPI_Alltoall", MPI_Alltoall(shared, units, link->unit, slices, units,
                                                      link->unit, link->group.comm)));
    memcpy(own, slices, (size_t)sums->slice_bytes);
    for (int64_t rank = 1; rank < link->group.num_ranks; ++rank) {
        attni_mpi_add_flat(slices + rank * sums->slice_bytes, call->score_dtype, sums->slice_bytes,
                           own);
    }
    return attni_mpi_result("MPI_Allgather", MPI_Allgather(MPI_IN_PLACE, 0, link->unit, shared,
                                                           units, link->unit, link->group.comm));
}

/* A view of one axis or none with one more before it, which the merge wants. */
static attn_tensor with_two_axes(const attn_tensor *tensor) {
    attn_tensor view = *tensor;
    while (view.rank < 2) {
        for (int32_t axis = view.rank; axis > 0; --axis) {
            view.shape[axis] = view.shape[axis - 1];
            view.strides[axis] = view.strides[axis - 1];
        }
        view.shape[0] = 1;
        view.strides[0] = 1;
        ++view.rank;
    }
    return view;
}

/* Beside float64 an option may be float32. `stored` holds what the sum is added to, or zeroes. */
static void round_to_float(const double *sum, int64_t count, float *stored) {
    for (int64_t i = 0; i < count; ++i) {
        stored[i] = (float)((double)stored[i] + sum[i]);
    }
}

static attn_status store_sum(const attni_mpi_call *call, const attn_tensor *sum,
                             const attn_tensor *stored, const attn_tensor *wanted) {
    const bool accumulates = call->gradients.accumulate != 0;
    if (!accumulates && stored->data == sum->data) {
        return ATTN_OK;
    }
    if (sum->dtype == ATTN_DTYPE_FLOAT64 && stored->dtype == ATTN_DTYPE_FLOAT32) {
        memset(stored->data, 0, (size_t)count_of(stored) * sizeof(float));
        if (accumulates) {
            attni_mpi_copy(wanted, stored);
        }
        round_to_float(sum->data, count_of(sum), stored->data);
        return ATTN_OK;
    }
    const attn_tensor parts[] = {with_two_axes(sum), with_two_axes(wanted)};
    const attn_tensor result = with_two_axes(stored);
    return attn_sdpa_merge(call->context, accumulates ? 2 : 1, parts, NULL, NULL, &result, NULL);
}

static attn_tensor stored_view(const attni_mpi_call *call, const attni_mpi_sums *sums, char *block,
                               enum attni_mpi_gradient which) {
    const attn_tensor *const wanted = attni_mpi_wanted(call, which);
    return attni_mpi_contiguous(wanted, wanted->dtype, block + sums->of[which].stored_at);
}

attn_status attni_mpi_sums_store(const attni_mpi_call *call, const attni_mpi_sums *sums,
                                 char *block) {
    for (int i = 0; i < ATTNI_MPI_NUM_GRADIENTS; ++i) {
        const enum attni_mpi_gradient which = (enum attni_mpi_gradient)i;
        const attn_tensor *const wanted = attni_mpi_wanted(call, which);
        if (wanted != NULL) {
            const attn_tensor sum =
                attni_mpi_contiguous(wanted, call->score_dtype, block + sums->of[which].at);
            const attn_tensor stored = stored_view(call, sums, block, which);
            ATTNI_MPI_TRY(store_sum(call, &sum, &stored, wanted));
        }
    }
    return ATTN_OK;
}

void attni_mpi_sums_publish(const attni_mpi_call *call, const attni_mpi_sums *sums, char *block) {
    for (int i = 0; i < ATTNI_MPI_NUM_GRADIENTS; ++i) {
        const enum attni_mpi_gradient which = (enum attni_mpi_gradient)i;
        if (attni_mpi_wanted(call, which) != NULL) {
            const attn_tensor stored = stored_view(call, sums, block, which);
            attni_mpi_copy(&stored, attni_mpi_wanted(call, which));
        }
    }
}
