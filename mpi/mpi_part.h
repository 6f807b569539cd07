/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi_part.h: the attention of some of the whole's rows over some of its keys, which is one call of
 * attn_sdpa, and the place of its result among the others.
 */
#ifndef ATTNI_MPI_PART_H
#define ATTNI_MPI_PART_H

#include <attention/merge.h>

#include "mpi_call.h"
#include "mpi_memory.h"

typedef struct attni_mpi_part {
    attni_mpi_stretch rows; /* of the calling rank */
    attni_mpi_stretch keys; /* of whichever rank */
    bool counts_sinks;      /* one part of each row does */
} attni_mpi_part;

/* Whether some row of the part may see one of its keys, by causality, window and lengths. The same
 * on all ranks. */
bool attni_mpi_part_is_visible(const attni_mpi_call *call, const attni_mpi_stretch *rows,
                               const attni_mpi_stretch *keys);

/* Scratch memory that parts have one after the other. */
typedef struct attni_mpi_part_scratch {
    int64_t offsets_at, lengths_at, starts_at, workspace_at; /* in the block */
    int64_t workspace_bytes;
} attni_mpi_part_scratch;

/* The arguments of a part's call of the core library. Sinks and lse are left out of params. */
typedef struct attni_mpi_part_call {
    attn_tensor query, key, value, mask, bias, blocks, offsets, lengths, starts;
    attn_dropout dropout;
    attn_sdpa_params params;
} attni_mpi_part_call;

/* Of a part whose keys lie in key and value. Its numbers lie in the scratch memory of the block;
 * block NULL: views without data, which have the same shapes. */
void attni_mpi_part_describe(const attni_mpi_call *call, const attni_mpi_part *part,
                             const attn_tensor *key, const attn_tensor *value,
                             const attni_mpi_part_scratch *scratch, char *block,
                             attni_mpi_part_call *described);

/* The part's rows of a mask or of its gradient, where it has some for each, and with cuts_columns
 * its keys' columns. NULL of NULL, else view. */
const attn_tensor *attni_mpi_part_mask(const attn_tensor *mask, const attni_mpi_part *part,
                                       bool cuts_columns, attn_tensor *view);

/* Makes `scratch` large enough for a part whose keys lie in key and value, which hold a rank's own
 * rows or any number of them. */
attn_status attni_mpi_part_plan(const attni_mpi_call *call, const attni_mpi_part *part,
                                const attn_tensor *key, const attn_tensor *value,
                                attni_mpi_part_scratch *scratch);

/* Makes `scratch` large enough for a call with so much workspace. */
void attni_mpi_part_need(attni_mpi_part_scratch *scratch, size_t workspace_bytes);

/* Appends the scratch memory to the block, once all parts are planned. */
void attni_mpi_part_layout(const attni_mpi_call *call, attni_mpi_layout *layout,
                           attni_mpi_part_scratch *scratch);

/* The part's result to `output` (B, Hq, rows, Ev) and lse (B, Hq, rows), of the score type. */
attn_status attni_mpi_part_run(const attni_mpi_call *call, const attni_mpi_part *part,
                               const attn_tensor *key, const attn_tensor *value,
                               const attni_mpi_part_scratch *scratch, char *block,
                               const attn_tensor *output, const attn_tensor *lse);

/* Results of several parts of the same rows. */
typedef struct attni_mpi_partial {
    attn_tensor output, lse; /* lse is of no use without softmax */
} attni_mpi_partial;

/* (B, Hq, rows, Ev) of this dtype, and (B, Hq, rows) of the score type. */
attni_mpi_partial attni_mpi_partial_shape(const attni_mpi_call *call, int64_t rows, int32_t dtype);

/* The same rows of both tensors. */
attni_mpi_partial attni_mpi_partial_rows(const attni_mpi_partial *partial, int64_t first,
                                         int64_t count);

/* Adds `part` to *sum, in place. */
attn_status attni_mpi_partial_merge(const attni_mpi_call *call, const attni_mpi_partial *part,
                                    const attni_mpi_partial *sum);

/* Stores `partial` as `stored`, whose output may have another dtype. */
attn_status attni_mpi_partial_store(const attni_mpi_call *call, const attni_mpi_partial *partial,
                                    const attni_mpi_partial *stored);

/* Copies the finished results to where the caller wants them. Cannot fail. */
void attni_mpi_publish(const attni_mpi_call *call, const attni_mpi_partial *stored);

#endif
