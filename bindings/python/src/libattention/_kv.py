# SPDX-License-Identifier: BSD-3-Clause
"""Where the keys and values of sequences lie, and how new ones get there."""

from __future__ import annotations

from typing import Any, NamedTuple

from libattention._abi import ffi
from libattention._context import Context, handle_of
from libattention._dtypes import DATA, INTEGERS
from libattention._library import Error, lib, raise_last_error
from libattention._tensors import Views, integers, refuse_stand_ins


class KV(NamedTuple):
    """Where keys and values lie that are no tensors with a matrix for each batch and head: in
    caches that grow, one sequence behind the other without padding, or in pages.

    A sequence's keys are numbered from 0. What is given beside key and value says which row of
    memory has key j of sequence b:

    ========================  ===========================  =====================================
    given                     key                          key j of sequence b
    ========================  ===========================  =====================================
    neither                   (batch axes, Hk, C, E)       row j of the sequence's own
    starts                    (Hk, total, E)               row starts[b] + j
    page_table                (pages, Hk, page, E)         row j % page of page
                                                           page_table[b, j // page]
    page_table, page_starts   (pages, Hk, page, E)         row j % page of page
                                                           page_table[page_starts[b] + j // page]
    ========================  ===========================  =====================================

    Value is likewise, with Hv heads and Ev features. Strides are free: pages of any order of axes
    are views of this shape. Sequences may share pages. Nothing is copied or checked before a call
    uses it: arrays that were changed in place count as they are then.

    Attributes:
        key: float32, float64, bfloat16 or float16
        value: of any of these types, whatever key's is
        page_table: int64 or int32, (batch axes, M), or with page_starts (P): numbers of pages. One
            that no row needs may be anything
        page_starts: int64 or int32, (B + 1): sequence b has entries page_starts[b] to
            page_starts[b + 1] - 1 of the table
        starts: int64 or int32, (B + 1): sequence b has rows starts[b] to starts[b + 1] - 1
        lengths: int64 or int32, broadcastable to the batch axes: rows in use of each sequence;
            None: all

    Any number of threads may use one while none writes what it refers to. Since 0.1.
    """

    key: Any
    value: Any
    page_table: Any = None
    page_starts: Any = None
    starts: Any = None
    lengths: Any = None


# What says where sequences are.
_PLACES = ("page_table", "page_starts", "starts", "lengths")
# Views of a call with all of them: key and value too.
MOST_VIEWS = Views.MOST + len(_PLACES) + 3


def check_kv(kv: Any) -> None:
    """Refuses what is no KV."""
    if not isinstance(kv, KV):
        text = f"kv: expected a libattention.KV, got {type(kv).__name__}"
        raise Error(lib.ATTN_ERROR_VALUE, text)


def add_kv(views: Views, kv: KV, writable: bool = False) -> Any:
    """The description as an attn_kv, which has to live as long as what refers to it."""
    struct = ffi.new("attn_kv *", {"struct_size": ffi.sizeof("attn_kv")})
    struct.key = views.add_array(kv.key, "kv.key", DATA, writable)
    struct.value = views.add_array(kv.value, "kv.value", DATA, writable)
    for name in _PLACES:
        values = getattr(kv, name)
        if values is not None:
            setattr(struct, name, add_integers(views, values, f"kv.{name}"))
    return struct


def add_integers(views: Views, values: Any, name: str) -> Any:
    """As Views.add_array; numbers and lists of them are arrays, too."""
    return views.add_array(integers(values, name), name, INTEGERS)


def kv_append(
    kv: KV,
    key: Any,
    value: Any,
    *,
    starts: Any = None,
    positions: Any = None,
    context: Context | None = None,
) -> None:
    """Stores new rows of keys and values where `kv` says, in its own memory: nothing is copied but
    the rows, each number converted to the stored type, rounded once.

    Args:
        kv: where to; kv.key and kv.value are written. kv.lengths count the new rows already, and
            are not written: a step of a model advances them once, for all its layers
        key: (batch axes, Hk, L, E) with the batch axes of kv, or with starts (Hk, total, E);
            float32, float64, bfloat16 or float16, whatever it is stored as
        value: (batch axes, Hv, L, Ev) or (Hv, total, Ev)
        starts: int64 or int32, (B + 1): sequence b has new rows starts[b] to starts[b + 1] - 1
        positions: int64 or int32, broadcastable to (batch axes, L), or with starts to (total): the
            row of its sequence where a new row goes; negative: it is left out. None: row i of n
            goes to kv.lengths - n + i
        context: threads and kernels; None: the default

    Raises:
        Error: the first argument that does not fit, by name, before anything is written: shapes,
            types, lengths below the number of new rows, a position past a sequence's room, a page
            of a new row which is none, memory that cannot be written in place (read-only, lent as a
            copy), new rows that overlap where they go, PyTorch tensors that have no numbers
            (torch.compile, fake tensors) or whose gradient is wanted.

    Where two new rows have the same place, what is there afterwards is one of them, or parts of
    both. The GIL is released while storing; any number of threads may store and attend at once, to
    and from rows of their own. Since 0.1.
    """
    check_kv(kv)
    refuse_stand_ins(*kv, key, value, starts, positions, instead="store by PyTorch's operators")
    views = Views(MOST_VIEWS)
    place = add_kv(views, kv, writable=True)
    rows = views.add_array(key, "key"), views.add_array(value, "value")
    size = ffi.sizeof("attn_kv_append_params")
    params = ffi.new("attn_kv_append_params *", {"struct_size": size})
    if starts is not None:
        params.starts = add_integers(views, starts, "starts")
    if positions is not None:
        params.positions = add_integers(views, positions, "positions")
    views.finish()
    status = lib.attn_kv_append(handle_of(context), place, *rows, params)
    if status:
        raise_last_error(status, {})
