# SPDX-License-Identifier: BSD-3-Clause
"""Attention whose queries, keys and values lie on the ranks of an MPI communicator, by mpi4py.

The work is done by libattention-mpi-openmpi or libattention-mpi-mpich, whichever belongs to the MPI
that mpi4py runs on; it is not part of this package. It is found where the system's loader finds
libraries, or where the environment variable LIBATTENTION_MPI says, a path. It brings the system's
libattention, whose threads are its own: ATTN_NUM_THREADS says how many.

This module needs mpi4py when it is called, not when it is imported.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from libattention._abi import ffi
from libattention._library import Error, lib, unsupported
from libattention._options import EVERY_KEY, NO_SOFTCAP, Normalizer, Options, make_params
from libattention._outputs import BOOL_MASK, NAMES, outputs_of
from libattention._tensors import Kind, Views, kind_of, refuse_stand_ins

__all__ = ["Placement", "Scheme", "attention"]

Scheme = Literal["auto", "ring", "heads", "decode"]
Placement = Literal["contiguous", "zigzag"]

_SCHEMES = {"auto": 0, "ring": 1, "heads": 2, "decode": 3}
_PLACEMENTS = {"contiguous": 0, "zigzag": 1}
_LIBRARIES = {"Open MPI": "openmpi", "MPICH": "mpich"}


class _MpiParams(ctypes.Structure):
    """attn_mpi_params."""

    _fields_ = (
        ("struct_size", ctypes.c_uint64),
        ("scheme", ctypes.c_int32),
        ("placement", ctypes.c_int32),
        ("latency_seconds", ctypes.c_double),
        ("bytes_per_second", ctypes.c_double),
        ("products_per_second", ctypes.c_double),
        ("report", ctypes.c_void_p),
    )


class _Call(NamedTuple):
    """One rank's, ready to be made. `kept` lives as long as what the pointers point to has to."""

    library: Any
    pointers: tuple[int, ...]
    mpi_params: _MpiParams
    kind: Kind
    output: Any
    lse: Any
    kept: Any


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
    bias: Any = None,
    query_offset: Any = None,
    key_lengths: Any = None,
    align_end: bool = False,
    window: tuple[int, int] = EVERY_KEY,
    softcap: float = NO_SOFTCAP,
    sinks: Any = None,
    alibi_slopes: Any = None,
    normalizer: Normalizer = "softmax",
    mask_start: Any = None,
    position_bias: Any = None,
    return_lse: bool = False,
    out: Any = None,
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
        bias: as attn_mask
        query_offset: as in scaled_dot_product_attention
        key_lengths: likewise
        align_end: likewise
        window: likewise
        softcap: likewise
        sinks: likewise
        alibi_slopes: likewise
        normalizer: likewise
        mask_start: likewise
        position_bias: likewise
        return_lse: also return (..., Hq, L)
        out: where to put the output

    Returns:
        The output (..., Hq, L, Ev), of the kind and dtype of query, or with return_lse a tuple of
        it and lse.

    What is wrong on one rank is raised on all of them, and no rank waits for another that has
    failed. The GIL is released while computing. Since 0.1.

    Raises:
        Error: the first argument that does not fit, by its rank and name. Gradients are not there
            yet: PyTorch tensors that require grad are refused.
    """
    options = Options(
        attn_mask,
        is_causal,
        scale,
        enable_gqa,
        bias,
        query_offset,
        key_lengths,
        align_end,
        window,
        softcap,
        sinks,
        alibi_slopes,
        normalizer,
        mask_start,
        position_bias,
    )
    call, problem = None, None
    try:
        call = _prepared(query, key, value, options, scheme, placement, return_lse, out)
    except Error as error:
        problem = (error.status, str(error))
    except Exception as error:  # Whatever it is, the other ranks must not wait for this one.
        problem = (lib.ATTN_ERROR_VALUE, f"{type(error).__name__}: {error}")
    for rank, found in enumerate(comm.allgather(problem)):
        if found is not None:
            raise Error(found[0], f"rank {rank}: {found[1]}")
    assert call is not None
    status = call.library.attn_mpi_sdpa_f(
        None,
        comm.py2f(),
        *call.pointers[:4],
        ctypes.byref(call.mpi_params),
        call.pointers[4],
        None,
        0,
    )
    if status:
        _raise(call.library, status)
    output = call.output if out is not None else call.kind.finished(call.output, query)
    return (output, call.kind.finished(call.lse, query)) if return_lse else output


def _prepared(
    query: Any,
    key: Any,
    value: Any,
    options: Options,
    scheme: str,
    placement: str,
    return_lse: bool,
    out: Any,
) -> _Call:
    """Everything that a rank can find wrong by itself."""
    refuse_stand_ins(query, key, value, *options, out, instead="attend on one rank")
    mpi_params = _MpiParams(
        ctypes.sizeof(_MpiParams),
        _number("scheme", scheme, _SCHEMES),
        _number("placement", placement, _PLACEMENTS),
    )
    library = _library()
    views = Views()
    kind = kind_of(query, "query")
    inputs = views.add_inputs(query, key, value)
    described = outputs_of(bool(options.enable_gqa), *views.layouts())
    params = make_params(options, views, BOOL_MASK)
    output, lse = out, None
    if out is None:
        output, target = views.add_new(described.output, kind, "out")
    else:
        target = views.add_array(out, "out", writable=True)
    if return_lse:
        lse, params.lse = views.add_new(described.lse, kind, "return_lse")
    views.finish()
    pointers = (*inputs, params, target)
    addresses = tuple(int(ffi.cast("uintptr_t", pointer)) for pointer in pointers)
    return _Call(library, addresses, mpi_params, kind, output, lse, (views, params))


def _number(name: str, value: Any, numbers: dict[str, int]) -> int:
    if not isinstance(value, str) or value not in numbers:
        text = f"{name}: expected one of {', '.join(map(repr, numbers))}, got {value!r:.100}"
        raise Error(lib.ATTN_ERROR_VALUE, text)
    return numbers[value]


@lru_cache(maxsize=1)
def _library() -> Any:
    """The library of the MPI that mpi4py runs on."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise unsupported(f"mpi4py: cannot be imported: {error}") from error
    vendor, _version = MPI.get_vendor()
    if vendor not in _LIBRARIES:
        raise unsupported(f"comm: expected one of Open MPI or MPICH, got one of {vendor}")
    path = os.environ.get("LIBATTENTION_MPI") or f"libattention-mpi-{_LIBRARIES[vendor]}.so.0"
    try:
        library: Any = ctypes.CDLL(path)
    except OSError as error:
        raise unsupported(f"libattention-mpi: cannot be loaded: {error}") from error
    pointers = [ctypes.c_void_p] * 6
    library.attn_mpi_sdpa_f.argtypes = (
        ctypes.c_void_p,
        ctypes.c_int,
        *pointers,
        ctypes.c_void_p,
        ctypes.c_size_t,
    )
    library.attn_mpi_sdpa_f.restype = ctypes.c_int32
    library.attn_last_error.restype = ctypes.c_char_p
    library.attn_mpi_status_name.restype = ctypes.c_char_p
    return library


def _raise(library: Any, status: int) -> None:
    """The thread's last failure. Its line begins with "rank 2: " and an argument's name in C."""
    text = library.attn_last_error().decode().replace("NULL", "None")
    head, _, rest = text.partition(": ")
    if head.startswith("rank "):
        argument, colon, rest = rest.partition(":")
        text = f"{head}: {NAMES.get(argument, argument)}{colon}{rest}"
    error = Error(status, text)
    error.name = library.attn_mpi_status_name(status).decode()
    raise error
