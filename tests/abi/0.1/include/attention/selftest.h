/* SPDX-License-Identifier: BSD-3-Clause
 *
 * selftest.h: does this machine compute what it should? A check of the BLAS found at run time and
 * of the kernels chosen for this CPU, for a program to run at its start, an installer, or a report
 * of a problem. The attn program has it as "attn selftest".
 */
#ifndef ATTENTION_SELFTEST_H
#define ATTENTION_SELFTEST_H

#include <stdint.h>

#include <attention/context.h>
#include <attention/export.h>
#include <attention/status.h>

ATTN_BEGIN_DECLS

/* Told of every check of attn_selftest when it has ended: its name, static memory; its status; and
 * its detail, as attn_last_error would have it, "" for ATTN_OK and valid until the function
 * returns. It may call the library, and must not throw or longjmp through it. */
typedef void (*attn_selftest_visit_fn)(void *state, const char *check, attn_status status,
                                       const char *detail);

/* Options of attn_selftest. All zero after struct_size: nobody is told. */
typedef struct attn_selftest_params {
    /* sizeof(attn_selftest_params) */
    uint64_t struct_size;

    /* told of each check on the calling thread; NULL: nobody */
    attn_selftest_visit_fn visit;

    /* handed to visit */
    void *visit_state;
} attn_selftest_params;

/*
 * Computes what has a known result, with the context's engine, kernels, matrix product and threads
 * (NULL: the default context), and compares. All checks are run, whatever fails before:
 *   products    of small integers, which every order of summation gets exactly: float32 and
 *               float64, matrices stored either way (NN, NT, TN, TT), results that are added to and
 *               results that overwrite NaN (beta = 0), nothing written beside them; by the
 *               library's own product, empty sums (k = 0) included, and by BLAS, for the types and
 *               in the engines for which the context calls it: ATTN_GEMM_BLAS has all of it checked
 *   attention   of small integers with linear weights, exactly: blocks of rows, decoding, grouped
 *               heads, causality, window, lengths and mask
 *   caches      the same over keys and values of every quantised type, exactly
 *   weights     softmax and attention of scores log(1), log(2), ..., whose weights are fractions
 *   layer       multi-head attention with padding and every weight known
 *   gradients   of linear weights and, where scores are 0, of softmax, sigmoid and softcap, exactly
 *   concurrent  all of these by four threads at once
 * params may be NULL: nobody is told of them.
 *
 * Takes a few tenths of a second, up to some 20 megabytes from the context's allocator, and, in a
 * forked child too, three threads of its own for as long, which block every signal. A caller's
 * allocator and parallel_for are called on them, up to four at once. Numerics: integers are
 * compared exactly, the others with the bounds stated under Numerics of each function for rounding
 * modes other than to nearest.
 *
 * Returns ATTN_OK if all checks passed. Else the status and detail of the first that found a wrong
 * result, ATTN_ERROR_SELFTEST, or, if none did, of the first that could not be run: ATTN_ERROR_BLAS
 * the BLAS cannot be used; ATTN_ERROR_MEMORY; ATTN_ERROR_THREAD; for a NULL context those of
 * making the default one. Before any check: ATTN_ERROR_VALUE struct_size; ATTN_ERROR_UNSUPPORTED a
 * newer params struct. Thread-safe. Since 0.1.
 */
ATTN_API ATTN_MUST_CHECK attn_status attn_selftest(attn_context *context,
                                                   const attn_selftest_params *params);

ATTN_END_DECLS

#endif
