# SPDX-License-Identifier: BSD-3-Clause
"""Calls over the ranks of an MPI communicator: the library of its MPI, and agreement on what a rank
finds wrong before it gets there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from libattention._abi import ffi
from libattention._backward import (
    BACKWARD_NAMES,
    Call,
    Gradients,
    Results,
    finished,
    prepare,
    wanted_names,
)
from libattention._dtypes import BFLOAT16, FLOAT16, FLOAT32
from libattention._library import Error, lib, unsupported
from libattention._options import make_params
from libattention._outputs import BOOL_MASK, outputs_of
from libattention._tensors import Views, kind_of, note_written, refuse_stand_ins

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


class Ranks(NamedTuple):
    """Whose rows are attended together, and how."""

    comm: Any
    scheme: Any
    placement: Any


class _Ready(NamedTuple):
    """A rank's call before it is made."""

    library: Any
    mpi_params: _MpiParams
    pointers: tuple[int, ...]
    wanted: tuple[str, ...]  # names of Gradients
    results: Any
    kept: Any


def attend(
    ranks: Ranks,
    call: Call,
    return_lse: bool,
    out: Any = None,
    wanted: Sequence[str] = (),
) -> Any:
    """Forward. Collective: every rank comes here, whatever is wrong.

    Args:
        ranks: all of them
        call: of this rank, of arrays that hold their numbers
        return_lse: also compute it
        out: where to put the output
        wanted: whose gradients are wanted later, for which an output of 16 bits is left in float32

    Returns:
        Output and lse, or None.
    """

    def prepared() -> _Ready:
        refuse_stand_ins(*call.arrays(), out, instead="attend on one rank")
        if wanted and out is not None:
            raise unsupported("out: expected None where a gradient is wanted")
        library, mpi_params = _library(), _mpi_params(ranks)
        views = Views()
        kind = kind_of(call.query, "query")
        inputs = views.add_inputs(call.query, call.key, call.value)
        described = outputs_of(bool(call.options.enable_gqa), *views.layouts())
        params = make_params(call.options, views, BOOL_MASK)
        output, lse = out, None
        if out is None:
            made = described.output
            if wanted and made.dtype in (BFLOAT16, FLOAT16):
                made = made._replace(dtype=FLOAT32)
            output, target = views.add_new(made, kind, "out")
        else:
            target = views.add_array(out, "out", writable=True)
        if return_lse:
            lse, params.lse = views.add_new(described.lse, kind, "return_lse")
        views.finish()
        pointers = _addresses(*inputs, params, target)
        results = (kind, output, lse)
        return _Ready(library, mpi_params, pointers, tuple(wanted), results, (views, params))

    ready = _agreed(ranks.comm, prepared)
    status = ready.library.attn_mpi_sdpa_f(
        None,
        ranks.comm.py2f(),
        *ready.pointers[:4],
        ctypes.byref(ready.mpi_params),
        ready.pointers[4],
        None,
        0,
    )
    if status:
        _raise(ready.library, status)
    note_written(out)
    kind, output, lse = ready.results
    return (
        output if out is not None else kind.finished(output, call.query),
        None if lse is None else kind.finished(lse, call.query),
    )


def differentiate(
    ranks: Ranks,
    call: Call,
    results: Results,
    gradients: Results,
    wanted: Sequence[str],
    out: Mapping[str, Any] | None = None,
    accumulate: bool = False,
) -> Gradients:
    """Backward. Collective, as attend."""

    def prepared() -> _Ready:
        places = dict(out or {})
        arrays = (*call.arrays(), *results, *gradients, *places.values())
        refuse_stand_ins(*arrays, instead="let PyTorch differentiate attention")
        library, mpi_params = _library(), _mpi_params(ranks)
        names = wanted_names(wanted, places)
        made = prepare(call, results, gradients, names, places, accumulate)
        pointers = _addresses(*made.inputs, *made[1:4])
        return _Ready(library, mpi_params, pointers, tuple(names), (made.found, places), made)

    ready = _agreed(ranks.comm, prepared)
    status = ready.library.attn_mpi_sdpa_backward_f(
        None,
        ranks.comm.py2f(),
        *ready.pointers[:4],
        ctypes.byref(ready.mpi_params),
        *ready.pointers[4:],
        None,
        0,
    )
    if status:
        _raise(ready.library, status)
    found, places = ready.results
    note_written(*places.values())
    return finished(call, found, places)


def _agreed(comm: Any, prepared: Callable[[], _Ready]) -> _Ready:
    """What a rank prepares; the lowest rank's error on all ranks if any cannot, or wants other
    gradients than rank 0."""
    ready, problem = None, None
    try:
        ready = prepared()
    except Error as error:
        problem = (error.status, str(error))
    except Exception as error:  # Whatever it is, the other ranks must not wait for this one.
        problem = (lib.ATTN_ERROR_VALUE, f"{type(error).__name__}: {error}")
    said = comm.allgather((problem, ready.wanted if ready is not None else ()))
    for rank, (found, _) in enumerate(said):
        if found is not None:
            raise Error(found[0], f"rank {rank}: {found[1]}")
    first = said[0][1]
    for rank, (_, others) in enumerate(said):
        if others != first:
            text = f"gradients: expected the same to be wanted on all ranks, got {_listed(first)} "
            text += f"on rank 0 and {_listed(others)} on rank {rank}"
            raise Error(lib.ATTN_ERROR_VALUE, text)
    assert ready is not None
    return ready


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"


def _addresses(*pointers: Any) -> tuple[int, ...]:
    return tuple(int(ffi.cast("uintptr_t", pointer)) for pointer in pointers)


def _mpi_params(ranks: Ranks) -> _MpiParams:
    return _MpiParams(
        ctypes.sizeof(_MpiParams),
        _number("scheme", ranks.scheme, _SCHEMES),
        _number("placement", ranks.placement, _PLACEMENTS),
    )


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
    pointer = ctypes.c_void_p
    head = (pointer, ctypes.c_int, *[pointer] * 6)
    library.attn_mpi_sdpa_f.argtypes = (*head, pointer, ctypes.c_size_t)
    library.attn_mpi_sdpa_f.restype = ctypes.c_int32
    library.attn_mpi_sdpa_backward_f.argtypes = (*head, pointer, pointer, ctypes.c_size_t)
    library.attn_mpi_sdpa_backward_f.restype = ctypes.c_int32
    library.attn_last_error.restype = ctypes.c_char_p
    library.attn_mpi_status_name.restype = ctypes.c_char_p
    return library


def _raise(library: Any, status: int) -> None:
    """The thread's last failure. Its line begins with "rank 2: " and an argument's name in C."""
    text = library.attn_last_error().decode().replace("NULL", "None")
    head, _, rest = text.partition(": ")
    if head.startswith("rank "):
        argument, colon, rest = rest.partition(":")
        text = f"{head}: {BACKWARD_NAMES.get(argument, argument)}{colon}{rest}"
    error = Error(status, text)
    error.name = library.attn_mpi_status_name(status).decode()
    raise error
