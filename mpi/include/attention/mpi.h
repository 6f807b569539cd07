/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mpi.h: exact attention whose queries, keys and values lie on many ranks of an MPI communicator.
 *
 *     output = attn_sdpa(all queries, all keys, all values), each rank keeping the rows of its own
 *     queries
 *     gradients = attn_sdpa_backward of that call, each rank keeping the rows of its own queries,
 *     keys and values
 *
 * It is a companion library of libattention, one for each MPI (libattention-mpi-openmpi and
 * libattention-mpi-mpich), because the types of two MPIs have nothing in common. This header
 * includes that of the MPI a program is compiled with, and the program links the library of the
 * same one. attention/attention.h does not include it.
 *
 * Shapes. On each rank query is (..., Hq, L, E), key (..., Hk, S, E), value (..., Hv, S, Ev) and
 * output (..., Hq, L, Ev), as at attn_sdpa. L and S are the rank's own and may differ between
 * ranks, 0 too; all other lengths, ranks of tensors and types are the same everywhere. "All
 * queries" are those of all ranks, one behind the other along axis -2 in the order of the
 * placement, and likewise all keys with their values. Positions, key_lengths, query_offset,
 * mask_start and the columns of masks count within all queries and all keys.
 *
 * Placement. What of the whole is whose follows from the ranks' lengths alone.
 *   contiguous   rank r's rows stand behind those of rank r - 1
 *   zigzag       a rank's rows are two stretches, the first ceil(L / 2) and the others. The first
 *                ones stand in the order of the ranks, then the second ones in the opposite order:
 *                with P ranks, rank r has stretches r and 2 P - 1 - r of 2 P. Under causality all
 *                ranks then have the same work
 * Queries and keys have the same placement, each by lengths of their own.
 *
 * Schemes. All of them are exact: they differ in what travels.
 *   ring     keys and values go round, from each rank to the next, while those at hand are
 *            attended; partial results are merged by attn_sdpa_merge. Grouped heads send their key
 *            heads only. Blocks that no rank's rows can see, by causality, window or key_lengths,
 *            are not computed, and the ring ends with the last block that some rank needs
 *   heads    all-to-all: each rank gets all rows of some heads, attends, and gives them back
 *   decode   every rank has the same queries and all of their output; keys and values lie on the
 *            ranks, as a cache does that is larger than a machine. Each rank attends its own, and
 *            all merge the partial results of all
 *
 * In a backward pass of the ring keys and values go round once more, the sums of their gradients
 * one step behind them, to which each rank adds its share, and come home; the scheme heads gives
 * output, lse and their gradients away too, and gets gradients back; decode leaves all where it is
 * and adds up the gradients of the queries.
 *
 * Options are those of attn_sdpa_params and compose as there. mask and bias have the rank's own
 * rows and a column for each of all keys (or 1; or with mask_start any number), block_mask a row
 * for each block of the rank's own rows, which begin at block 0, and a column for each block of all
 * keys; lse has the rank's own rows; sinks count once. dropout drops what the one call drops.
 * Refused with ATTN_ERROR_UNSUPPORTED: weights, scores, report, kv and query_starts; in the scheme
 * heads a mask, bias or block_mask with rows, which would have to travel too; in the others a
 * block_mask unless, if it has rows, a rank's second stretch begins at a multiple of block_rows
 * among the rank's rows, and, if it has columns, each rank's stretches of keys do at one of
 * block_columns among all.
 * Options, their presence and the numbers in key_lengths and query_offset must be the same on all
 * ranks. What masks, slopes, sinks and tables of biases hold is each rank's own affair and not
 * compared: for the results above it must be the same, or of masks the rank's rows of the same.
 *
 * Agreement. The functions that take a communicator are collective: all of its ranks call them, in
 * the same order as other collective functions. They return the same status on all ranks, whatever
 * went wrong on whichever, and the same line of detail (attn_last_error), which begins with the
 * lowest rank that failed: "rank 2: mask: expected ...". Nobody waits for a rank that has failed,
 * no message stays under way, and after an error no rank has touched its outputs. Two cases are
 * left out, because no agreement can be had: ATTN_MPI_ERROR_STATE of a communicator that is none,
 * and failures of MPI itself, see ATTN_MPI_ERROR_MPI.
 *
 * MPI. The library never calls MPI_Init or MPI_Finalize. It duplicates a communicator once, at the
 * first call with it, and keeps the duplicate and a table of lengths (112 bytes a rank, of the C
 * library's malloc) as an attribute, until the communicator is freed. It calls MPI on the calling
 * thread only, so MPI_THREAD_FUNNELED is enough; a context of one thread needs MPI_THREAD_SINGLE
 * only. It uses the communicator's error handler, which by default ends the program:
 * MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN) makes failures a status.
 */
#ifndef ATTENTION_MPI_H
#define ATTENTION_MPI_H

#include <stddef.h>
#include <stdint.h>

#include <mpi.h>

#include <attention/backward.h>
#include <attention/context.h>
#include <attention/export.h>
#include <attention/sdpa.h>
#include <attention/status.h>
#include <attention/tensor.h>

ATTN_BEGIN_DECLS

/* What these functions return beside the core library's statuses. The values are pinned. */
enum attn_mpi_status_code {
    /* MPI is not initialised, or finalised already; the communicator is MPI_COMM_NULL or one
     * between two groups */
    ATTN_MPI_ERROR_STATE = 1000,

    /* a function of MPI failed where its errors are returned; the detail has its name and MPI's
     * words. MPI does not say what state it is in afterwards: the other ranks may have the same
     * status, or wait for ever */
    ATTN_MPI_ERROR_MPI = 1001,

    /* ranks have called with different shapes, types or options: the detail names the first that
     * differs and the ranks that differ from rank 0 */
    ATTN_MPI_ERROR_DISAGREE = 1002,

    /* MPI was initialised for fewer threads than the context has, or for its main thread only, and
     * this is another */
    ATTN_MPI_ERROR_THREAD_LEVEL = 1003
};

/* The name of a status, "ATTN_MPI_ERROR_MPI", those of the core library too. Static memory; never
 * fails. Since 0.1. */
ATTN_API const char *attn_mpi_status_name(attn_status status);

/* What travels: see the top of this file. */
enum attn_mpi_scheme {
    /* ring or heads, whichever the cost model predicts to be faster; decode, where queries mean
     * something else, has to be asked for */
    ATTN_MPI_SCHEME_AUTO = 0,
    ATTN_MPI_SCHEME_RING = 1,
    ATTN_MPI_SCHEME_HEADS = 2,
    ATTN_MPI_SCHEME_DECODE = 3
};

/* Which rows of the whole a rank has: see the top of this file. */
enum attn_mpi_placement { ATTN_MPI_PLACEMENT_CONTIGUOUS = 0, ATTN_MPI_PLACEMENT_ZIGZAG = 1 };

/*
 * What a call runs, why, and what it should cost. Filled by attn_mpi_sdpa_explain before the call
 * and by the run itself through attn_mpi_params.report. The caller sets struct_size; fields this
 * version does not know become 0; strings are static memory.
 *
 * The model. A rank multiplies and adds c times a second, a message of b bytes takes latency + b /
 * bandwidth, whatever else is under way, and work is visible pairs * heads * (E + Ev), by causality
 * and window. ring: P - 1 times the longer of a P-th of the busiest rank's work and a message, and
 * that P-th once more. heads: 2 (P - 1) latencies, the bytes of one rank's share, and the work of
 * the rank with most heads. decode: log2(P) latencies, P - 1 partial results, and the busiest
 * rank's work.
 */
typedef struct attn_mpi_report {
    /* in: sizeof(attn_mpi_report) */
    uint64_t struct_size;

    /* enum attn_mpi_scheme, never ATTN_MPI_SCHEME_AUTO */
    int32_t scheme;

    /* enum attn_mpi_placement */
    int32_t placement;

    /* the calling rank */
    int32_t rank;

    /* ranks of the communicator */
    int32_t num_ranks;

    /* of the ring: blocks of keys that come to each rank, its own included; else 1 */
    int64_t num_steps;

    /* queries, keys and values, or results, that this rank sends to others */
    uint64_t bytes_sent;

    /* as attn_mpi_sdpa_workspace_bytes on this rank */
    uint64_t workspace_bytes;

    /* predicted, of the scheme ring; infinite where it cannot serve the call */
    double ring_seconds;

    /* likewise of heads */
    double heads_seconds;

    /* likewise of decode */
    double decode_seconds;

    /* one sentence: why this scheme */
    const char *reason;
} attn_mpi_report;

/* Options of the calls below. All zero after struct_size: the scheme that is predicted to be
 * faster, contiguous placement. Grows at its end only; pass by pointer only. */
typedef struct attn_mpi_params {
    /* sizeof(attn_mpi_params) */
    uint64_t struct_size;

    /* enum attn_mpi_scheme */
    int32_t scheme;

    /* enum attn_mpi_placement */
    int32_t placement;

    /* for the cost model: of a message between two ranks; 0: 2e-6 */
    double latency_seconds;

    /* likewise; 0: 1e10 */
    double bytes_per_second;

    /* multiply-adds of a rank; 0: 2e10 for each thread of the context that has fewest */
    double products_per_second;

    /* out: what ran */
    attn_mpi_report *report;
} attn_mpi_params;

/*
 * Scaled dot-product attention over the ranks of a communicator, forward. Collective.
 *
 * Arguments  context NULL: the default one; each rank has its own, and they need not be alike. comm
 *            an intracommunicator. params, mpi_params NULL: all defaults. workspace NULL: the call
 *            makes one allocation of the context's; else at least attn_mpi_sdpa_workspace_bytes
 *            bytes at any alignment. Some ranks may give one and others none.
 * Shapes     see the top of this file, as for placement and options; types are attn_sdpa's.
 * Layout     any strides; 0 too in inputs.
 * Aliasing   outputs are written when all inputs have been read, so output and lse may overlap
 *            inputs. Neither may overlap itself or the other, nor workspace any tensor.
 * Numerics   partial results are of the score type (float32; float64 where query is that), and the
 *            result is rounded to output's type once. A ring's or decode's result with n parts is
 *            off by at most what is told at attn_sdpa for each part, of w |v| over the keys of that
 *            part, by what merge.h tells of errors in the parts' lse, and by n times the merge's
 *            own (2 m + 16) u sum w |v|. The scheme heads makes one call of attn_sdpa for the heads
 *            of a rank and adds nothing to its bound. Where a rank's keys are hidden from a row
 *            they do not enter it, whatever they hold.
 * Bits       the same from run to run with the same ranks, lengths, scheme and kernels: parts are
 *            merged in an order that depends on these alone, in the ring from the rank's own keys
 *            backwards, in decode by rank. They differ between schemes and numbers of ranks. The
 *            outputs of decode are the same on all ranks whose kernels are.
 * Errors     as attn_sdpa, with the rank in front, and those of enum attn_mpi_status_code.
 *            ATTN_ERROR_VALUE also a scheme or cost out of range, or in decode different L;
 *            ATTN_ERROR_UNSUPPORTED also what is refused at the top of this file; ATTN_ERROR_THREAD
 *            and ATTN_ERROR_MEMORY of any rank. Outputs are untouched after an error on every rank,
 *            also where a parallel_for refuses.
 * Threads    calls with communicators of their own may run at once where MPI allows it
 *            (MPI_THREAD_MULTIPLE); with one communicator one at a time, as MPI asks of all
 *            collective functions. The thread makes no other call of MPI meanwhile.
 * Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa(
    attn_context *context, MPI_Comm comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, void *workspace, size_t workspace_bytes);

/*
 * The gradients of a call of attn_mpi_sdpa. Collective.
 *
 * Arguments  those of the forward call, and gradients, as attn_sdpa_backward has them. params.lse,
 *            which softmax needs, and output are what that call wrote on this rank and are only
 *            read, mpi_params.report is filled. workspace as at attn_mpi_sdpa.
 * Shapes     of gradients as at attn_sdpa_backward, of the rank's own tensors: those of output, lse
 *            and query have the rows of its queries, those of key and value of its keys.
 * Shared     what all ranks have alike has one gradient, the sum over all rows of all ranks, and
 *            each rank gets all of it: those of alibi_slopes, sinks and position_bias, of mask and
 *            bias where on all ranks they have one row or none, and in decode also of query, mask
 *            and bias. Each rank then gives tensors of the same shape. A mask or bias that has rows
 *            on some rank is each rank's own, and so is its gradient. In decode the gradients of
 *            output and lse are the same on all ranks, as these are: they are of one result, and
 *            count once.
 * Refused    beside what attn_mpi_sdpa does, with ATTN_ERROR_UNSUPPORTED: gradients.weights;
 *            gradients.mask and gradients.bias where each of several ranks has one row, and a mask
 *            of one row may be for that row or for all, but not in decode.
 * Layout     any strides; 0 too in what is only read.
 * Aliasing   gradients are written when all else has been read, so what is wanted may overlap
 *            inputs. None may overlap itself or another, nor workspace any tensor.
 * Numerics   as attn_sdpa_backward with the whole call's output and lse: sums are of the score type
 *            (float32; float64 where query is that), of the same terms in another order, and a
 *            gradient of 16 bits is rounded once. accumulate adds what the tensors hold last; of
 *            what is shared each rank's own tensor.
 * Bits       the same from run to run with the same ranks, lengths, scheme and kernels, for any
 *            number of threads of a rank. A key's sum has the terms of its own rank's rows first,
 *            then those of the next rank; what is shared is added by rank, and is the same on all.
 * Errors     as attn_sdpa_backward, with the rank in front, and as attn_mpi_sdpa. Ranks that want
 *            different gradients, or of which some call attn_mpi_sdpa, disagree. What is wanted is
 *            untouched after an error on every rank.
 * Threads    as attn_mpi_sdpa.
 * Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa_backward(
    attn_context *context, MPI_Comm comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, const attn_sdpa_gradients *gradients, void *workspace,
    size_t workspace_bytes);

/*
 * Bytes of workspace attn_mpi_sdpa needs on this rank for the same context and arguments, into
 * *bytes. Collective, for they depend on all ranks' lengths; never on values. Data pointers are not
 * looked at and may be NULL. Errors: as attn_mpi_sdpa but for data, key lengths and overlap;
 * ATTN_ERROR_NULL bytes. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa_workspace_bytes(
    attn_context *context, MPI_Comm comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, size_t *bytes);

/*
 * Fills *report with what attn_mpi_sdpa would run for the same context and arguments, why, and what
 * each scheme should cost, without running it. Collective. Data pointers are not looked at, so a
 * ring that key_lengths or query_offset would shorten is told at its longest. Errors: as
 * attn_mpi_sdpa_workspace_bytes; ATTN_ERROR_NULL report; ATTN_ERROR_VALUE report->struct_size.
 * Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa_explain(
    attn_context *context, MPI_Comm comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, attn_mpi_report *report);

/* Bytes of workspace attn_mpi_sdpa_backward needs on this rank for the same context and arguments,
 * into *bytes. Collective. Errors: as attn_mpi_sdpa_backward but for data, key lengths and overlap;
 * ATTN_ERROR_NULL bytes. Since 0.1. */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa_backward_workspace_bytes(
    attn_context *context, MPI_Comm comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, const attn_sdpa_gradients *gradients, size_t *bytes);

/* Fills *report with what attn_mpi_sdpa_backward would run, as attn_mpi_sdpa_explain does. Since
 * 0.1. */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa_backward_explain(
    attn_context *context, MPI_Comm comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, const attn_sdpa_gradients *gradients, attn_mpi_report *report);

/* attn_mpi_sdpa for languages that know a communicator by its Fortran handle (MPI_Comm_c2f; mpi4py's
 * comm.py2f()). A handle that is none is whatever MPI makes of it. Since 0.1. */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa_f(
    attn_context *context, MPI_Fint comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, void *workspace, size_t workspace_bytes);

/* Likewise attn_mpi_sdpa_workspace_bytes. Since 0.1. */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa_workspace_bytes_f(
    attn_context *context, MPI_Fint comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, size_t *bytes);

/* Likewise attn_mpi_sdpa_explain. Since 0.1. */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa_explain_f(
    attn_context *context, MPI_Fint comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, attn_mpi_report *report);

/* Likewise attn_mpi_sdpa_backward. Since 0.1. */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa_backward_f(
    attn_context *context, MPI_Fint comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, const attn_sdpa_gradients *gradients, void *workspace,
    size_t workspace_bytes);

/* Likewise attn_mpi_sdpa_backward_workspace_bytes. Since 0.1. */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa_backward_workspace_bytes_f(
    attn_context *context, MPI_Fint comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, const attn_sdpa_gradients *gradients, size_t *bytes);

/* Likewise attn_mpi_sdpa_backward_explain. Since 0.1. */
ATTN_API ATTN_MUST_CHECK attn_status attn_mpi_sdpa_backward_explain_f(
    attn_context *context, MPI_Fint comm, const attn_tensor *query, const attn_tensor *key,
    const attn_tensor *value, const attn_sdpa_params *params, const attn_mpi_params *mpi_params,
    const attn_tensor *output, const attn_sdpa_gradients *gradients, attn_mpi_report *report);

ATTN_END_DECLS

#endif
