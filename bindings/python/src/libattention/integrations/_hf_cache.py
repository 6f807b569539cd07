# SPDX-License-Identifier: BSD-3-Clause
"""A cache for models of transformers, whose keys and values libattention stores and reads."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    Cache,
    DynamicCache,
    get_layer_types_and_kwargs,
)

from libattention._cache_checks import size_from
from libattention._cache_memory import elements_of
from libattention._library import unsupported
from libattention.integrations._hf_layers import AttentionLayer, HybridLayer

# Types of transformers' layers. A chunk sees no more than a window does: a mask tells them apart.
_KINDS = {
    "full_attention": AttentionLayer,
    "sliding_attention": AttentionLayer,
    "chunked_attention": AttentionLayer,
    "hybrid": HybridLayer,
    "hybrid_sliding": HybridLayer,
}
# Those that keep no keys and values, which transformers' own classes are for.
_WITHOUT_ROWS = frozenset({"conv", "linear_attention", "dummy"})


class AttentionCache(DynamicCache):
    """Keys and values of a model of transformers, in the place of DynamicCache.

        cache = AttentionCache(model.config, dtype=torch.int8)
        model.generate(**inputs, cache=cache)

    New rows are stored in memory that has room for them: nothing is copied with every token. With
    the model's own dtype any attention implementation reads views of it. Others, int8 among them,
    "libattention" reads where they are stored, and for the rest keys and values are made anew,
    layer by layer, in the model's dtype.

    Layers with a sliding window keep the rows that the next one sees. An encoder-decoder model has
    an EncoderDecoderCache(AttentionCache(), AttentionCache()). Gradients are refused, as are layers
    that keep more than keys and values. Since 0.1.

    Args:
        config: the model's, which knows of sliding windows; None: every layer keeps all rows
        dtype: what is stored: a torch.dtype that attention has, or torch.int8, with a scale of
            float32 for each row and head: what is read is off by half of it at most, the largest
            number of the row / 254. None: what the model computes with
        max_length: rows that a layer without window may have, for which memory is made at once;
            None: any number, and memory of an eighth more
        offloading: must be False. T5Gemma's models make the cache of their cross-attention
            themselves, of the given one's class, with config and this

    Raises:
        Error: a dtype that is not stored, a size that is none, a layer that is not supported.
    """

    def __init__(
        self,
        config: Any = None,
        *,
        dtype: torch.dtype | None = None,
        max_length: int | None = None,
        offloading: bool = False,
    ) -> None:
        if offloading:
            text = "offloading: expected False, since all rows are in the CPU's memory"
            raise unsupported(f"{text}; use transformers' DynamicCache")
        if dtype is not None:
            elements_of(dtype)
        if max_length is not None:
            max_length = size_from("max_length", max_length)
        options: dict[str, Any] = {"dtype": dtype, "max_length": max_length}
        if config is None:
            every_layer: Any = partial(AttentionLayer, **options)
            Cache.__init__(self, layer_class_to_replicate=every_layer)
            return
        kinds, given = get_layer_types_and_kwargs(config.get_text_config(decoder=True))
        layers = [_layer(number, options, *one) for number, one in enumerate(zip(kinds, given))]
        Cache.__init__(self, layers=layers)

    @property
    def nbytes(self) -> int:
        """Bytes of memory of keys and values, room for further rows included."""
        return sum(layer.nbytes for layer in self.layers if isinstance(layer, AttentionLayer))


def _layer(number: int, options: dict[str, Any], kind: str, given: dict[str, Any]) -> Any:
    """The layer of a type of transformers', for which it has given some options itself."""
    ours = _KINDS.get(kind)
    if ours is not None:
        return ours(**options, **given)
    if kind in _WITHOUT_ROWS:
        return DYNAMIC_LAYER_TYPE_MAPPING[kind](**given)
    raise unsupported(
        f"config: layer {number} is of type {kind}, which keeps more than keys and values; use "
        "transformers' DynamicCache"
    )
