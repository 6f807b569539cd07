# SPDX-License-Identifier: BSD-3-Clause
"""A call of a layer as the C structs: inputs, options, what comes out."""

from __future__ import annotations

from typing import Any, NamedTuple

from libattention._abi import ffi
from libattention._kv import KV, MOST_VIEWS, add_kv
from libattention._layer import check
from libattention._library import Error, lib
from libattention._options import Options, add_mask, make_params
from libattention._rope import Rotation, rope_params
from libattention._tensors import Views

# PyTorch's polarity for this layer: a bool mask says what is left out.
BOOL_MASK: int = lib.ATTN_MASK_BOOL_EXCLUDE
# Of a call with every field of a KV and of a Rotation.
MOST_LAYER_VIEWS = MOST_VIEWS + len(Rotation._fields)


class Params(NamedTuple):
    """Options of a call: attn_mha_params, and the structs that it refers to."""

    layer: Any
    attention: Any
    cache: Any
    rope: Any


def checked_cache(cache: Any) -> KV | None:
    """Refuses what is neither kind of cache."""
    if cache is not None and not isinstance(cache, KV):
        text = f"cache: expected a libattention.KV or KVCache, got {type(cache).__name__}"
        raise Error(lib.ATTN_ERROR_VALUE, text)
    return cache


def add_inputs(
    views: Views, query: Any, key: Any, value: Any, place: KV | None
) -> tuple[Any, Any, Any]:
    """The three of a call; beside a cache key and value may both be missing."""
    if place is None or key is not None or value is not None:
        return views.add_inputs(query, key, value)
    return views.add_array(query, "query"), ffi.NULL, ffi.NULL


def layer_params(
    views: Views,
    key_padding_mask: Any,
    options: Options,
    place: KV | None = None,
    rotation: Rotation | None = None,
    bool_mask: int = BOOL_MASK,
) -> Params:
    """Bool masks mean `bool_mask`, an attn_mask_kind."""
    layer = ffi.new("attn_mha_params *")
    layer.struct_size = ffi.sizeof("attn_mha_params")
    if key_padding_mask is not None:
        layer.key_padding_mask, layer.key_padding_mask_kind = add_mask(
            views, key_padding_mask, "key_padding_mask", bool_mask
        )
    layer.attention = attention = make_params(options, views, bool_mask)
    cache = ffi.NULL if place is None else add_kv(views, place, writable=True)
    rope = ffi.NULL if rotation is None else rope_params(rotation, views)
    layer.cache, layer.rope = cache, rope
    return Params(layer, attention, cache, rope)


def describe_layer_outputs(
    layer: Any, views: Views, inputs: tuple[Any, ...], params: Params
) -> Any:
    """Shapes and types of what comes out, in an attn_mha_outputs."""
    views.finish()
    outputs = ffi.new("attn_mha_outputs *")
    outputs.struct_size = ffi.sizeof("attn_mha_outputs")
    check(lib.attn_mha_describe_outputs(layer, *inputs, params.layer, outputs))
    return outputs
