# SPDX-License-Identifier: BSD-3-Clause
"""Attention over keys that were attended in parts, put together again."""

from __future__ import annotations

from typing import Any, NamedTuple

from libattention._abi import ffi
from libattention._by_rows import new_params
from libattention._context import Context, context_for, handle_of
from libattention._dtypes import DATA, FLOAT32, FLOAT64
from libattention._library import Error, lib, raise_last_error
from libattention._tensors import (
    Empty,
    Views,
    described,
    floats,
    kind_of,
    refuse_stand_ins,
    wants_gradient,
)

_NAMES = {"output": "out", "lse": "return_lse", "count": "outputs"}


class Parts(NamedTuple):
    """What is merged, and what is wanted."""

    outputs: list[Any]
    lses: list[Any] | None
    sinks: Any
    return_lse: bool


def merge(
    outputs: Any,
    lses: Any = None,
    *,
    sinks: Any = None,
    return_lse: bool = False,
    out: Any = None,
    context: Context | None = None,
) -> Any:
    """Computes lse = log(sum_i exp(lses_i)) and output = sum_i exp(lses_i - lse) * outputs_i.

    A part is a call of scaled_dot_product_attention over some of the keys, with return_lse. Rows
    that see the keys of all parts get what one call over all of them gives: a prefix that many
    sequences share is attended once, keys come in turn.

    Args:
        outputs: a sequence of arrays (..., L, Ev), ranks 2 to 8, of one shape; each float32,
            bfloat16 or float16, or all float64
        lses: as many arrays (..., L), float32, or float64 beside float64; None: outputs are added
            as they are, which is how parts of the normalizers "sigmoid" and "linear" are merged
        sinks: (H), H the axis -3 of outputs, or (1): one more logit of each row that no part has
            counted
        return_lse: also return lse (..., L), to merge further
        out: where to put the output; of outputs' shape, any dtype that they may have. It may be
            one of outputs itself, but else must not overlap an input
        context: threads and kernels; None: as in scaled_dot_product_attention

    Returns:
        The output, of the kind, dtype and shape of outputs[0], or with return_lse (output, lse).
        Sums are float32's beside 16 bits, and rounded once.

    A part whose lse is -inf has seen nothing in that row, and what its output holds there does not
    enter. The GIL is released while computing. Since 0.1.

    Of PyTorch tensors that require grad, whichever of outputs, lses and sinks, there are gradients
    of any order, computed by PyTorch's operators in the type of the sums.

    Raises:
        Error: the first argument that does not fit, by name (outputs[2]): PyTorch tensors, too,
            that have no numbers (torch.compile, vmap, fake tensors), and out where a gradient is
            wanted.
    """
    parts = _several(outputs, "outputs")
    logits = None if lses is None else _several(lses, "lses")
    if logits is not None and len(logits) != len(parts):
        text = f"lses: expected one for each of {len(parts)} outputs, got {len(logits)}"
        raise Error(lib.ATTN_ERROR_VALUE, text)
    if not parts:
        raise Error(lib.ATTN_ERROR_VALUE, "outputs: expected one array or more, got none")
    refuse_stand_ins(*parts, *(logits or ()), sinks, instead="merge by PyTorch's operators")
    if sinks is not None:
        sinks = floats(sinks, "sinks")
    call = Parts(parts, logits, sinks, return_lse)
    if wants_gradient(*parts, *(logits or ()), sinks):
        from libattention._torch_merge import merged_with_gradient

        return merged_with_gradient(call, out, context)
    return merged(call, out, context)


def merged(call: Parts, out: Any, context: Context | None) -> Any:
    """See merge."""
    outputs, lses, sinks, return_lse = call
    views = Views(2 * len(outputs) + 3)
    kind = kind_of(outputs[0], "outputs[0]")
    first = described(outputs[0], "outputs[0]", DATA)
    arrays = _side_by_side(views, outputs, "outputs")
    lse_arrays = ffi.NULL if lses is None else _side_by_side(views, lses, "lses")
    params = new_params("attn_merge_params")
    if sinks is not None:
        params.sinks = views.add_array(sinks, "sinks")
    if out is None:
        output, target = views.add_new(Empty(first.dtype, first.shape), kind, "out")
    else:
        output, target = out, views.add_array(out, "out", writable=True)
    lse, lse_target = None, ffi.NULL
    if return_lse:
        score_dtype = FLOAT64 if first.dtype == FLOAT64 else FLOAT32
        lse, lse_target = views.add_new(Empty(score_dtype, first.shape[:-1]), kind, "return_lse")
    views.finish()
    handle = handle_of(context_for(context, outputs[0]))
    status = lib.attn_sdpa_merge(
        handle, len(outputs), arrays, lse_arrays, params, target, lse_target
    )
    if status:
        raise_last_error(status, _NAMES)
    output = output if out is not None else kind.finished(output, outputs[0])
    return (output, kind.finished(lse, outputs[0])) if return_lse else output


def _several(arrays: Any, name: str) -> list[Any]:
    try:
        return list(arrays)
    except TypeError as error:
        text = f"{name}: expected a sequence of arrays, got {type(arrays).__name__}"
        raise Error(lib.ATTN_ERROR_VALUE, text) from error


def _side_by_side(views: Views, arrays: list[Any], name: str) -> Any:
    """A pointer to the first of their structs."""
    first, *_ = [views.add_array(one, f"{name}[{index}]") for index, one in enumerate(arrays)]
    return first
