# SPDX-License-Identifier: BSD-3-Clause
"""Where the keys and values of sequences lie, and how new ones get there."""

from __future__ import annotations

from typing import Any, NamedTuple

from libattention._abi import ffi
from libattention._context import Context, context_for, handle_of
from libattention._dtypes import INTEGERS, SCALES, STORED
from libattention._library import Error, lib, raise_last_error
from libattention._tensors import Views, described, integers, note_written, refuse_stand_ins


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

    Quantised keys and values are int8 or uint8, which mean (element - zero) * scale. A scale, or
    zero, has as many axes as the array it is for, and each of its lengths divides that array's:
    element i along an axis has scale i // (the array's length // the scale's). Beside key (batch,
    Hk, C, E)

    =======================  =====================================================
    (1, 1, 1, 1)             is one for the array
    (1, Hk, 1, 1)            one for each head
    (1, Hk, 1, E)            one for each channel
    (batch, Hk, C, 1)        one for each row, which kv_append finds and writes
    (batch, Hk, C, E // 32)  one for each block of 32 elements of a row, likewise
    =======================  =====================================================

    and in pages those of rows are (pages, Hk, page, 1). A float64 query does not go with them.

    Attributes:
        key: float32, float64, bfloat16 or float16; int8, from -127 on, or uint8, see above
        value: of any of these types, whatever key's is
        page_table: int64 or int32, (batch axes, M), or with page_starts (P): numbers of pages. One
            that no row needs may be anything
        page_starts: int64 or int32, (B + 1): sequence b has entries page_starts[b] to
            page_starts[b + 1] - 1 of the table
        starts: int64 or int32, (B + 1): sequence b has rows starts[b] to starts[b + 1] - 1
        lengths: int64 or int32, broadcastable to the batch axes: rows in use of each sequence;
            None: all
        key_scale: float32, bfloat16 or float16, beside key of integers only; None: 1
        value_scale: likewise of value
        key_zero: what is subtracted from elements of key before they are scaled, of these types;
            its shape is free of key_scale's. None: 0 of int8, 128 of uint8
        value_zero: likewise of value

    Any number of threads may use one while none writes what it refers to. Since 0.1.
    """

    key: Any
    value: Any
    page_table: Any = None
    page_starts: Any = None
    starts: Any = None
    lengths: Any = None
    key_scale: Any = None
    value_scale: Any = None
    key_zero: Any = None
    value_zero: Any = None


# What says where sequences are.
_PLACES = ("page_table", "page_starts", "starts", "lengths")
# Views of a call with every field of a KV and query_starts.
MOST_VIEWS = Views.MOST + len(KV._fields) + 1


def check_kv(kv: Any) -> None:
    """Refuses what is no KV."""
    if not isinstance(kv, KV):
        text = f"kv: expected a libattention.KV, got {type(kv).__name__}"
        raise Error(lib.ATTN_ERROR_VALUE, text)


def add_kv(views: Views, kv: KV, writable: bool = False) -> Any:
    """The description as an attn_kv, which has to live as long as what refers to it."""
    struct = ffi.new("attn_kv *", {"struct_size": ffi.sizeof("attn_kv")})
    for part in ("key", "value"):
        _add_part(views, struct, kv, part, writable)
    for name in _PLACES:
        values = getattr(kv, name)
        if values is not None:
            setattr(struct, name, add_integers(views, values, f"kv.{name}"))
    return struct


def _add_part(views: Views, struct: Any, kv: KV, part: str, writable: bool) -> None:
    """Keys or values, with their scale and zero. These are written with new rows where they have as
    many as there is room for, and read where they have fewer."""
    stored = described(getattr(kv, part), f"kv.{part}", STORED, writable)
    setattr(struct, part, views.add(stored, f"kv.{part}"))
    for field in (f"{part}_scale", f"{part}_zero"):
        given, name = getattr(kv, field), f"kv.{field}"
        if given is None:
            continue
        numbers = described(given, name, SCALES)
        if writable and numbers.shape[-2:-1] == stored.shape[-2:-1]:
            numbers = described(given, name, SCALES, writable)
        setattr(struct, field, views.add(numbers, name))


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

    Where integers are stored, a scale (and zero) of each row, or of each block of one, is found
    from the row's largest number, and written: what is read back is off by half a scale at most. A
    row with an infinity or a NaN is read as NaN. A scale for more than a row is read, as one that
    was calibrated, and what exceeds the integers' range becomes the outermost one.

    Args:
        kv: where to; kv.key and kv.value are written, and scales and zeros of rows. kv.lengths
            count the new rows already, and are not written: a step of a model advances them once,
            for all its layers
        key: (batch axes, Hk, L, E) with the batch axes of kv, or with starts (Hk, total, E);
            float32, float64, bfloat16 or float16, whatever it is stored as
        value: (batch axes, Hv, L, Ev) or (Hv, total, Ev)
        starts: int64 or int32, (B + 1): sequence b has new rows starts[b] to starts[b + 1] - 1
        positions: int64 or int32, broadcastable to (batch axes, L), or with starts to (total): the
            row of its sequence where a new row goes; negative: it is left out. None: row i of n
            goes to kv.lengths - n + i
        context: threads and kernels; None: as in scaled_dot_product_attention

    Raises:
        Error: the first argument that does not fit, by name, before anything is written: shapes,
            types, lengths below the number of new rows, a position past a sequence's room, a page
            of a new row which is none, scales that do not go with what is stored, memory that
            cannot be written in place (read-only, lent as a copy), new rows that overlap where they
            go, PyTorch tensors that have no numbers (torch.compile, fake tensors) or whose gradient
            is wanted.

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
    status = lib.attn_kv_append(handle_of(context_for(context, key)), place, *rows, params)
    if status:
        raise_last_error(status, {})
    note_written(kv.key, kv.value)
