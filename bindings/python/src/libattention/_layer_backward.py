# SPDX-License-Identifier: BSD-3-Clause
"""The gradients of a layer's calls: what a call leaves for them, and how they are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from libattention._abi import ffi
from libattention._context import Context, context_for, handle_of
from libattention._dtypes import BFLOAT16, FLOAT16, FLOAT32
from libattention._layer import NAMES as LAYER_NAMES
from libattention._layer import parameters_of
from libattention._layer_calls import MOST_LAYER_VIEWS, Params
from libattention._library import Error, lib, raise_last_error
from libattention._tensors import Empty, Kind, Views, address_of, empty_from, note_written

INPUTS = ("query", "key", "value")
# Options that have gradients, and what C calls them.
OPTIONS = {
    "attn_mask": "mask",
    **{name: name for name in ("bias", "position_bias", "alibi_slopes", "sinks")},
}
# What C calls otherwise.
_NAMES = {
    **LAYER_NAMES,
    "saved": "return_saved",
    "gradients.output": "grad_output",
    "gradients.attention.lse": "grad_lse",
    "gradients.attention.weights": "grad_weights",
    **{f"gradients.attention.{field}": f"gradients.{name}" for name, field in OPTIONS.items()},
}
_ALIGNMENT = 64


class SavedCall:
    """What a call of a MultiheadAttention leaves for its gradients, beside the arrays that it was
    given, which it keeps and which must not change until then.

    A layer that loads other parameters meanwhile changes nothing of it. Several calls may be under
    way, and each may be used any number of times, by any number of threads.
    """

    __slots__ = ("_inputs", "_kind", "_layer", "_like", "_memory", "_params", "_views")

    def __init__(
        self,
        layer: Any,
        kind: Kind,
        like: Any,
        views: Views,
        inputs: tuple[Any, ...],
        params: Params,
        context: Context | None,
    ) -> None:
        """Of a call of a layer of the C library, whose views are finished; like is its query."""
        self._layer, self._kind, self._like = layer, kind, like
        self._views, self._inputs, self._params = views, inputs, params
        count = bytes_to_save(layer, inputs, params, context)
        self._memory = np.empty(count + _ALIGNMENT, np.uint8)
        address = address_of(self._memory)
        save_at(params, address + -address % _ALIGNMENT, count)

    def __repr__(self) -> str:
        return f"SavedCall(bytes={self._memory.nbytes})"

    def differentiate(
        self,
        grad_output: Any,
        grad_lse: Any,
        grad_weights: Any,
        wanted: Sequence[str] | None,
        places: Mapping[str, Any],
        accumulate: bool,
        context: Context | None,
    ) -> dict[str, Any]:
        """MultiheadAttention.backward."""
        known = shapes_of_gradients(self._layer, self._inputs, self._params)
        names = _names(known, wanted, places)
        views = Views(MOST_LAYER_VIEWS + len(known))
        given = {"output": grad_output, "lse": grad_lse, "weights": grad_weights}
        sources = {
            field: views.add_array(one, f"grad_{field}")
            for field, one in given.items()
            if one is not None
        }
        found, made = dict(places), []
        targets = {}
        for name in names:
            if name in places:
                targets[name] = views.add_array(places[name], f"out[{name!r}]", writable=True)
            else:
                found[name], targets[name] = views.add_new(
                    known[name], self._kind, f"gradients.{name}"
                )
                made.append(name)
        for name in made if accumulate else ():
            found[name][...] = 0
        context = context_for(context, self._like)
        run_backward(
            self._layer, self._inputs, self._params, views, sources, targets, accumulate, context
        )
        note_written(*places.values())
        for name in made:
            found[name] = self._kind.finished(found[name], self._like)
        return {name: found[name] for name in names}


def bytes_to_save(
    layer: Any, inputs: tuple[Any, ...], params: Params, context: Context | None
) -> int:
    """What a call of these, in finished views, leaves for its gradients."""
    count = ffi.new("size_t *")
    arguments = (layer, *inputs, params.layer, count)
    _check(lib.attn_mha_saved_bytes(handle_of(context), *arguments))
    return int(count[0])


def save_at(params: Params, address: int, count: int) -> None:
    """Has a call leave it there."""
    params.layer.saved, params.layer.saved_bytes = ffi.cast("void *", address), count


def shapes_of_gradients(layer: Any, inputs: tuple[Any, ...], params: Params) -> dict[str, Empty]:
    """By the names of a call's inputs, parameters and options, as far as it has them. Those of
    parameters of 16 bits are float32."""
    found = {name: empty_from(view[0]) for name, view in zip(INPUTS, inputs) if view}
    for name, dtype, shape in parameters_of(layer):
        found[name] = Empty(FLOAT32 if dtype in (BFLOAT16, FLOAT16) else dtype, shape)
    for name, field in OPTIONS.items():
        view = getattr(params.attention, field)
        if view:
            found[name] = empty_from(view[0])
    return found


def _names(
    known: Mapping[str, Empty], wanted: Sequence[str] | None, places: Mapping[str, Any]
) -> list[str]:
    """In the order of what is known; None: inputs and parameters."""
    if isinstance(wanted, str):
        wanted = (wanted,)
    asked = [one for one in known if one not in OPTIONS] if wanted is None else list(wanted)
    for name in (*asked, *places):
        if name not in known:
            expected = ", ".join(known)
            text = f"wanted: expected some of what the call has, {expected}; got {name!r:.100}"
            raise Error(lib.ATTN_ERROR_VALUE, text)
    return [name for name in known if name in asked or name in places]


def run_backward(
    layer: Any,
    inputs: tuple[Any, ...],
    params: Params,
    views: Views,
    sources: Mapping[str, Any],
    targets: Mapping[str, Any],
    accumulate: bool,
    context: Context | None,
) -> None:
    """attn_mha_backward.

    Args:
        layer: of the C library
        inputs: of the call
        params: of the call
        views: not finished; those of sources and targets
        sources: gradients of output, lse and weights
        targets: by the names of shapes_of_gradients
        accumulate: whether they are added to what is there
        context: threads and kernels; None: the default
    """
    size = ffi.sizeof("attn_sdpa_gradients")
    attention = ffi.new("attn_sdpa_gradients *", {"struct_size": size})
    gradients = ffi.new(
        "attn_mha_gradients *",
        {
            "struct_size": ffi.sizeof("attn_mha_gradients"),
            "accumulate": bool(accumulate),
            "attention": attention,
        },
    )
    for field, view in sources.items():
        setattr(gradients if field == "output" else attention, field, view)
    for name, view in targets.items():
        if name in INPUTS:
            setattr(gradients, name, view)
        elif name in OPTIONS:
            setattr(attention, OPTIONS[name], view)
    views.finish()
    names = [name for name, _, _ in parameters_of(layer)]
    wanted = [name for name in names if name in targets]
    if wanted:
        parameters = ffi.new("attn_tensor[]", len(names))
        for name in wanted:
            parameters[names.index(name)] = targets[name][0]
        gradients.parameters, gradients.num_parameters = parameters, len(names)
    arguments = (layer, *inputs, params.layer, gradients, ffi.NULL, 0)
    _check(lib.attn_mha_backward(handle_of(context), *arguments))


def _check(status: int) -> None:
    if status:
        raise_last_error(status, _NAMES)
