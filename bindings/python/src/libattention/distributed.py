# SPDX-License-Identifier: BSD-3-Clause
"""Attention whose queries, keys and values lie on the ranks of an MPI communicator, by mpi4py.

The work is done by libattention-mpi-openmpi or libattention-mpi-mpich, whichever belongs to the MPI
that mpi4py runs on; it is not part of this package. It is found where the system's loader finds
libraries, or where the environment variable LIBATTENTION_MPI says, a path. It brings the system's
libattention, whose threads are its own: ATTN_NUM_THREADS says how many.

This module needs mpi4py when it is called, not when it is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from libattention._backward import USUAL, Call, Gradients, Results
from libattention._options import FurtherOptions, Options
from libattention._ranks import Placement, Ranks, Scheme, attend, differentiate
from libattention._tensors import wants_gradient

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Placement", "Scheme", "attention", "attention_backward"]


def attention(
    query: Any,
    key: Any,
    value: Any,
    comm: Any,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    scheme: Scheme = "auto",
    placement: Placement = "contiguous",
    return_lse: bool = False,
    out: Any = None,
    **options: Unpack[FurtherOptions],
) -> Any:
    """Computes scaled_dot_product_attention of the queries, keys and values of all ranks.

    Every rank of the communicator calls it, with its own rows, of which ranks may have different
    numbers, and gets the output of these. Rows of all ranks stand one behind the other, by rank, or
    as `placement` says; positions, key_lengths and the columns of masks count among all of them.

    Args:
        query: (..., Hq, L, E), as in scaled_dot_product_attention; L is the rank's own
        key: (..., Hk, S, E); S is the rank's own
        value: (..., Hv, S, Ev)
        comm: an mpi4py communicator
        attn_mask: the rank's own rows, or one for all, and a column for each of all keys
        is_causal: row i sees keys up to i, both counted among all
        scale: of the scores; None: 1 / sqrt(E)
        enable_gqa: Hq is a multiple of Hk and of Hv
        scheme: what travels. "ring": keys and values, from rank to rank; "heads": an all-to-all, so
            that each rank has all rows of some heads; "decode": every rank has the same query and
            gets all of its output, and only the keys are the ranks' own; "auto": ring or heads
        placement: "zigzag": a rank's rows are two stretches, r and 2 P - 1 - r of 2 P, so that
            under causality all ranks have the same work
        return_lse: also return (..., Hq, L)
        out: where to put the output
        options: as in scaled_dot_product_attention, from bias to dropout; bias has rows and columns
            as attn_mask has, block_mask those of blocks of the rank's own rows and of all keys

    Returns:
        The output (..., Hq, L, Ev), of the kind and dtype of query, or with return_lse a tuple of
        it and lse.

    PyTorch differentiates it, once: backward is collective as well, so all ranks call it, where all
    have the same tensors that require grad. What all ranks have alike gets the gradient over all
    ranks on each: slopes, sinks, tables, and masks of one row; the others are of the rank's rows.
    What is wrong on one rank is raised on all of them, and no rank waits for another that has
    failed. The GIL is released while computing. Since 0.1.

    Raises:
        Error: the first argument that does not fit, by its rank and name, or that requires grad on
            some ranks only.
    """
    ranks = Ranks(comm, scheme, placement)
    call = Call(query, key, value, Options(attn_mask, is_causal, scale, enable_gqa, **options))
    if wants_gradient(*call.arrays()):
        from libattention._torch_ranks import attend_with_gradients

        output, lse = attend_with_gradients(ranks, call, return_lse, out)
    else:
        output, lse = attend(ranks, call, return_lse, out)
    return (output, lse) if return_lse else output


def attention_backward(
    grad_output: Any,
    query: Any,
    key: Any,
    value: Any,
    output: Any,
    lse: Any,
    comm: Any,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    scheme: Scheme = "auto",
    placement: Placement = "contiguous",
    grad_lse: Any = None,
    wanted: Sequence[str] = USUAL,
    out: Mapping[str, Any] | None = None,
    accumulate: bool = False,
    **options: Unpack[FurtherOptions],
) -> Gradients:
    """Computes the gradients of a call of attention, as scaled_dot_product_attention_backward does.

    Every rank calls it, with its own rows of everything. PyTorch differentiates attention itself by
    this function.

    Args:
        grad_output: the gradient of the rank's output
        query: as in the call
        key: as there
        value: as there
        output: what the call returned on this rank
        lse: what it returned beside with return_lse, which softmax needs; else None
        comm: as there
        attn_mask: as there
        is_causal: as there
        scale: as there
        enable_gqa: as there
        scheme: as there
        placement: as there
        grad_lse: the gradient of lse; None: 0
        wanted: as in scaled_dot_product_attention_backward, the same on all ranks
        out: as there
        accumulate: as there
        options: as in the call

    Returns:
        Gradients, by name: of query, key, value and of masks with rows those of the rank's rows; of
        what all ranks have alike the sum over all of them, on each. Since 0.1.

    Raises:
        Error: the first argument that does not fit, by its rank and name.
    """
    call = Call(query, key, value, Options(attn_mask, is_causal, scale, enable_gqa, **options))
    return differentiate(
        Ranks(comm, scheme, placement),
        call,
        Results(output, lse),
        Results(grad_output, grad_lse),
        wanted,
        out,
        accumulate,
    )
