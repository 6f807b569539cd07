# SPDX-License-Identifier: BSD-3-Clause
"""A call of the library's layer whose parameters are PyTorch's tensors, read where they lie, and
its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from libattention._abi import ffi
from libattention._context import context_for, handle_of
from libattention._layer import check, new_layer
from libattention._layer_backward import (
    bytes_to_save,
    run_backward,
    save_at,
    shapes_of_gradients,
)
from libattention._layer_calls import MOST_LAYER_VIEWS, describe_layer_outputs, layer_params
from libattention._library import lib
from libattention._options import Options
from libattention._outputs import BOOL_MASK
from libattention._tensors import Views, empty_from, kind_of
from libattention._torch_options import multiplies_tiles

if TYPE_CHECKING:
    from libattention._torch_multihead import Settings, Tensors

_DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
# Names of parameters, in PyTorch's layer and in the operator.
_PARAMETERS = {
    "q_proj_weight": "q_proj_weight",
    "k_proj_weight": "k_proj_weight",
    "v_proj_weight": "v_proj_weight",
    "in_proj_bias": "in_proj_bias",
    "out_proj.weight": "out_proj_weight",
    "out_proj.bias": "out_proj_bias",
}
# Of which PyTorch's projections are faster.
_LEFT = (torch.bfloat16,) if multiplies_tiles() else ()
_PACKED = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def is_layer(tensors: Tensors, settings: Settings) -> bool:
    """Whether the library's layer computes a call on ordinary tensors."""
    inputs, weights = tensors[:3], (*tensors[3:6], tensors.out_proj_weight)
    dtype, heads = tensors.query.dtype, settings.num_heads
    parameters = [one for one in tensors[3:9] if one is not None]
    if (
        dtype not in _DTYPES
        or dtype in _LEFT
        or any(one.dtype != dtype for one in (*inputs, *parameters))
    ):
        return False
    if any(one.dim() != 3 or one.is_nested for one in inputs) or heads < 1:
        return False
    rows = [one.shape[0] for one in weights]
    mask, bias = tensors.attn_mask, tensors.bias
    return (
        (tensors.in_proj_bias is None) == (tensors.out_proj_bias is None)
        and 0 not in (*rows, *(one.shape[1] for one in weights))
        and rows[0] == rows[1]
        and rows[0] % heads == rows[2] % heads == 0
        and weights[3].shape[1] == rows[2]
        and all(one.dim() <= 4 for one in (mask, bias) if one is not None)
    )


class LayerCall:
    """A call of these tensors, whose memory it keeps."""

    def __init__(self, tensors: Tensors, settings: Settings) -> None:
        self._tensors, self._settings = tensors, settings
        self._layer = new_layer(_arguments_of(tensors, settings))
        self._bound = Views()
        pointers = {
            name: self._bound.add_array(getattr(tensors, field), name)
            for name, field in _PARAMETERS.items()
            if getattr(tensors, field) is not None
        }
        self._bound.finish()
        for name, pointer in pointers.items():
            check(lib.attn_mha_bind_parameter(self._layer, name.encode(), pointer))
        self._views = Views(MOST_LAYER_VIEWS)
        self._inputs = self._views.add_inputs(*tensors[:3])
        options = Options(
            tensors.attn_mask,
            settings.is_causal,
            bias=tensors.bias,
            key_lengths=tensors.key_lengths,
            dropout=settings.dropout,
        )
        self._params = layer_params(self._views, None, options, bool_mask=BOOL_MASK)

    def run(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Output, lse, weights of each head or nothing, and what differentiate needs."""
        query, attention = self._tensors.query, self._params.attention
        kind, views = kind_of(query, "query"), self._views
        outputs = describe_layer_outputs(self._layer, views, self._inputs, self._params)
        output, place = views.add_new(empty_from(outputs.output), kind, "output")
        lse, attention.lse = views.add_new(empty_from(outputs.lse), kind, "return_lse")
        weights = query.new_empty(0)
        if self._settings.return_weights:
            made = empty_from(outputs.weights)
            weights, attention.weights = views.add_new(made, kind, "return_weights")
        views.finish()
        context = context_for(self._settings.context, query)
        count = bytes_to_save(self._layer, self._inputs, self._params, context)
        memory = torch.empty(count, dtype=torch.uint8, device="cpu")
        save_at(self._params, memory.data_ptr(), count)
        arguments = (self._layer, *self._inputs, self._params.layer, place, ffi.NULL, 0)
        check(lib.attn_mha_forward(handle_of(context), *arguments))
        return output, lse, weights, memory

    def differentiate(
        self, memory: Tensor, gradients: list[Tensor | None], wanted: list[str]
    ) -> dict[str, Tensor]:
        """Gradients of what is wanted, by the names of Tensors.

        Args:
            memory: what run returned last
            gradients: of output, lse and weights; None: 0
            wanted: names of those that have gradients
        """
        self._views.finish()
        save_at(self._params, memory.data_ptr(), memory.numel())
        known = shapes_of_gradients(self._layer, self._inputs, self._params)
        is_packed = "in_proj_weight" in known
        names = list(dict.fromkeys(_name_in_layer(name, is_packed) for name in wanted))
        views = Views(MOST_LAYER_VIEWS)
        sources = {
            field: views.add_array(one, f"grad_{field}")
            for field, one in zip(("output", "lse", "weights"), self._given(gradients))
            if one is not None
        }
        query = self._tensors.query
        found, targets = {}, {}
        for name in names:
            # Of parameters of 16 bits, too: what PyTorch expects.
            found[name] = query.new_empty(known[name].shape, dtype=self._dtype_of(name))
            targets[name] = views.add_array(found[name], f"gradients.{name}", writable=True)
        context = context_for(self._settings.context, query)
        call = (self._layer, self._inputs, self._params)
        run_backward(*call, views, sources, targets, False, context)
        return {name: self._part(found, name, is_packed) for name in wanted}

    def _given(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        """With zeroes for an output of which only lse or weights are used."""
        output, *others = gradients
        if output is None:
            query = self._tensors.query
            shape = (*query.shape[:2], self._tensors.out_proj_weight.shape[0])
            output = query.new_zeros(()).expand(shape)
        return [output, *others]

    def _dtype_of(self, name: str) -> torch.dtype:
        option: Tensor | None = getattr(self._tensors, name, None)
        dtype: torch.dtype = self._tensors.query.dtype
        return dtype if option is None else option.dtype

    def _part(self, found: dict[str, Tensor], name: str, is_packed: bool) -> Tensor:
        """Of a packed weight the rows of query, key or value."""
        whole = found[_name_in_layer(name, is_packed)]
        if not is_packed or name not in _PACKED:
            return whole
        sizes = [weight.shape[0] for weight in self._tensors[3:6]]
        part: Tensor = whole.split(sizes)[_PACKED.index(name)]
        return part


def _arguments_of(tensors: Tensors, settings: Settings) -> dict[str, Any]:
    """Of MultiheadAttention."""
    query, _, value = weights = tensors[3:6]
    sizes = dict(zip(("qdim", "kdim", "vdim"), (one.shape[1] for one in weights)))
    return {
        **sizes,
        "embed_dim": tensors.out_proj_weight.shape[0],
        "num_heads": settings.num_heads,
        "head_dim": query.shape[0] // settings.num_heads,
        "value_head_dim": value.shape[0] // settings.num_heads,
        "bias": tensors.in_proj_bias is not None,
        "batch_first": True,
        "dtype": _DTYPES[tensors.query.dtype],
    }


def _name_in_layer(name: str, is_packed: bool) -> str:
    """What the library's layer calls one of Tensors."""
    if is_packed and name in _PACKED:
        return "in_proj_weight"
    return {field: own for own, field in _PARAMETERS.items()}.get(name, name)
