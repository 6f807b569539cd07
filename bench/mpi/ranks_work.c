/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ranks_work.c: tensors of calls, and a rank's part of a call computed by itself.
 */
#include "ranks_work.h"

#include <stdio.h>
#include <stdlib.h>

#include <sys/mman.h>

#include <mpi.h>

int this_rank, num_ranks, num_heads, num_key_heads;

void fail(const char *what) {
    (void)fprintf(stderr, "rank %d: %s: %s\n", this_rank, what, attn_last_error());
    MPI_Abort(MPI_COMM_WORLD, 1);
    exit(1);
}

float *numbers(int64_t count) {
    enum { LARGE_PAGE = 2 << 20 };
    const size_t bytes = ((size_t)count * sizeof(float) + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    float *const data = aligned_alloc(LARGE_PAGE, bytes);
    if (data == NULL) {
        fail("no memory");
    }
#if defined(MADV_HUGEPAGE)
    (void)madvise(data, bytes, MADV_HUGEPAGE);
#endif
    for (int64_t i = 0; i < count; ++i) {
        data[i] = (float)((i * 7919 + this_rank) % 1009) / 1009.0f - 0.5f;
    }
    return data;
}

workspace make_workspace(size_t forward_bytes, size_t backward_bytes) {
    const size_t bytes = forward_bytes > backward_bytes ? forward_bytes : backward_bytes;
    return (workspace){numbers((int64_t)(bytes / sizeof(float)) + 1), bytes};
}

static int is_of_keys(int which) {
    return which == KEY || which == VALUE || which == OF_KEY || which == OF_VALUE;
}

void make_tensors(int64_t rows, int64_t keys, int64_t parts, int32_t is_causal,
                  call_tensors *made) {
    for (int i = 0; i < NUM_TENSORS; ++i) {
        const int64_t shape[] = {(is_of_keys(i) ? num_key_heads : num_heads) / parts,
                                 is_of_keys(i) ? keys : rows, FEATURES};
        made->data[i] = numbers(shape[0] * shape[1] * FEATURES + 1);
        if (attn_tensor_init(&made->views[i], made->data[i], ATTN_DTYPE_FLOAT32, i == LSE ? 2 : 3,
                             shape) != ATTN_OK) {
            fail("attn_tensor_init");
        }
    }
    made->params = (attn_sdpa_params){.struct_size = sizeof made->params,
                                      .enable_gqa = 1,
                                      .is_causal = is_causal,
                                      .lse = &made->views[LSE]};
    made->gradients = (attn_sdpa_gradients){.struct_size = sizeof made->gradients,
                                            .output = &made->views[GIVEN],
                                            .query = &made->views[OF_QUERY],
                                            .key = &made->views[OF_KEY],
                                            .value = &made->views[OF_VALUE]};
}

void free_tensors(call_tensors *made) {
    for (int i = 0; i < NUM_TENSORS; ++i) {
        free(made->data[i]);
    }
}

static double pairs_of(const local_part *part, int32_t is_causal) {
    return is_causal ? (double)part->rows * (double)part->first +
                           (double)part->rows * ((double)part->rows + 1) / 2
                     : (double)part->rows * (double)part->keys;
}

static workspace workspace_of(attn_context *context, const call_tensors *tensors) {
    const attn_tensor *const views = tensors->views;
    size_t forward = 0, backward = 0;
    if (attn_sdpa_workspace_bytes(context, &views[QUERY], &views[KEY], &views[VALUE],
                                  &tensors->params, &views[OUTPUT], &forward) != ATTN_OK ||
        attn_sdpa_backward_workspace_bytes(context, &views[QUERY], &views[KEY], &views[VALUE],
                                           &tensors->params, &views[OUTPUT], &tensors->gradients,
                                           &backward) != ATTN_OK) {
        fail("a part's workspace");
    }
    return make_workspace(forward, backward);
}

int make_parts(attn_context *context, const measured_call *call, local_part *parts) {
    const int is_heads = call->scheme == ATTN_MPI_SCHEME_HEADS;
    const int64_t own = call->rows / num_ranks, half = own / 2;
    int count = 1;
    parts[0] =
        (local_part){.first = is_heads ? 0 : own * this_rank, .rows = is_heads ? call->rows : own};
    if (!is_heads && call->placement == ATTN_MPI_PLACEMENT_ZIGZAG) {
        parts[0] = (local_part){.first = half * this_rank, .rows = half};
        parts[1] = (local_part){.first = half * (2 * num_ranks - 1 - this_rank), .rows = half};
        count = 2;
    }
    for (int i = 0; i < count; ++i) {
        local_part *const part = &parts[i];
        part->keys = call->is_causal ? part->first + part->rows : call->rows;
        make_tensors(part->rows, part->keys, is_heads ? num_ranks : 1, call->is_causal,
                     &part->tensors);
        if (attn_tensor_init(&part->offset, &part->first, ATTN_DTYPE_INT64, 0, NULL) != ATTN_OK) {
            fail("attn_tensor_init");
        }
        part->tensors.params.query_offset = &part->offset;
        part->memory = workspace_of(context, &part->tensors);
    }
    return count;
}

void free_parts(local_part *parts, int count) {
    for (int i = 0; i < count; ++i) {
        free(parts[i].memory.data);
        free_tensors(&parts[i].tensors);
    }
}

void compute_part(attn_context *context, local_part *part, int is_backward) {
    call_tensors *const tensors = &part->tensors;
    const attn_tensor *const views = tensors->views;
    const attn_status status =
        is_backward
            ? attn_sdpa_backward(context, &views[QUERY], &views[KEY], &views[VALUE],
                                 &tensors->params, &views[OUTPUT], &tensors->gradients,
                                 part->memory.data, part->memory.bytes)
            : attn_sdpa(context, &views[QUERY], &views[KEY], &views[VALUE], &tensors->params,
                        &views[OUTPUT], part->memory.data, part->memory.bytes);
    if (status != ATTN_OK) {
        fail("a part");
    }
}

void count_work(const measured_call *call, const local_part *parts, int count, double *products,
                double *pairs) {
    const int64_t heads = call->scheme == ATTN_MPI_SCHEME_HEADS ? num_heads / num_ranks : num_heads;
    double mine = 0;
    for (int i = 0; i < count; ++i) {
        mine += pairs_of(&parts[i], call->is_causal) * (double)heads;
    }
    MPI_Allreduce(&mine, products, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    MPI_Allreduce(&mine, pairs, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    *products *= (call->is_backward ? 5 : 2) * FEATURES;
}
