# SPDX-License-Identifier: BSD-3-Clause
"""One call of a torch.nn.MultiheadAttention on ordinary tensors: its masks in one form, and the
computation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from libattention import _torch_operators  # noqa: F401, which registers them
from libattention._attention import attend_at_once
from libattention._context import Context
from libattention._dropout import Dropout
from libattention._options import Options
from libattention._torch_multihead import Settings, Tensors, compute

if TYPE_CHECKING:
    from libattention.integrations.torch import Layer


class Masks(NamedTuple):
    """What rows see, as attention's own function takes it."""

    attn_mask: Tensor | None = None  # True takes part, or added
    bias: Tensor | None = None  # added
    is_causal: bool = False


def masks_of(
    layer: Layer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
    is_causal: bool,
    wants_weights: bool,
) -> Masks | str:
    """The masks of a call.

    Returns:
        Masks; or a reason to leave the call to PyTorch, which has an error for it, or a rule.
    """
    if is_causal and attn_mask is None:
        return "is_causal without attn_mask"
    if query.is_nested or key.is_nested or value.is_nested:
        is_known = query is key is value and layer.batch_first and not wants_weights
        if not is_known or key_padding_mask is not None or attn_mask is not None:
            return "nested tensors but one for self-attention alone"
        return Masks()
    rank = query.dim()
    axis = 1 if layer.batch_first else 0
    if not _fits(layer, query, key, value, axis):
        return "shapes that PyTorch refuses"
    rows, keys = (one.shape[axis] if rank == 3 else one.shape[0] for one in (query, key))
    batch = query.shape[1 - axis] if rank == 3 else None
    dtypes = {one.dtype for one in (key_padding_mask, attn_mask) if one is not None}
    padding = _padding(key_padding_mask, batch, keys)
    pairs = _pairs(attn_mask, batch, layer.num_heads, rows, keys)
    if not dtypes <= {torch.bool, query.dtype}:
        return "masks of other dtypes"
    if isinstance(padding, str) or isinstance(pairs, str):
        return "masks that PyTorch refuses"
    if is_causal and padding is None and not wants_weights:
        # The hint is taken at its word there, and the mask not read.
        return Masks(is_causal=True)
    if padding is not None and pairs is not None:
        return Masks(_inverted(padding), _added(pairs, query.dtype))
    one = padding if pairs is None else pairs
    return Masks() if one is None else Masks(_inverted(one))


def _fits(layer: Layer, query: Tensor, key: Tensor, value: Tensor, axis: int) -> bool:
    """Whether the module takes these shapes."""
    rank = query.dim()
    features = [one.shape[1] for one in layer.weights]
    return (
        rank in (2, 3)
        and key.dim() == rank
        and key.shape[:-1] == value.shape[:-1]
        and (rank == 2 or query.shape[1 - axis] == key.shape[1 - axis])
        and [one.shape[-1] for one in (query, key, value)] == features
        and layer.weights[0].shape[0] % layer.num_heads == 0
    )


def _padding(mask: Tensor | None, batch: int | None, keys: int) -> Tensor | str | None:
    """(N, 1, 1, S), or (1, 1, S) unbatched; True is left out, or added."""
    if mask is None:
        return None
    expected = (keys,) if batch is None else (batch, keys)
    if tuple(mask.shape) != expected:
        return "shape"
    return mask[..., None, None, :]


def _pairs(
    mask: Tensor | None, batch: int | None, heads: int, rows: int, keys: int
) -> Tensor | str | None:
    """(L, S), or (N, H, L, S); True is left out, or added."""
    if mask is None:
        return None
    if tuple(mask.shape) == (rows, keys):
        return mask
    if tuple(mask.shape) != (heads * (1 if batch is None else batch), rows, keys):
        return "shape"
    return mask if batch is None else mask.unflatten(0, (batch, heads))


def _inverted(mask: Tensor) -> Tensor:
    """This function's bool masks say what takes part."""
    return mask.logical_not() if mask.dtype == torch.bool else mask


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device="cpu").masked_fill_(mask, -torch.inf)


def attend(
    layer: Layer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    masks: Masks,
    wants_weights: bool,
    has_gradients: bool,
    dropout: Dropout | None = None,
    context: Context | None = None,
) -> tuple[Tensor, Tensor | None] | None:
    """The module's result; weights are (N, H, L, S).

    Returns:
        None where a row sees nothing: what becomes of it is PyTorch's to say.
    """
    with torch.set_grad_enabled(has_gradients):
        if query.is_nested:
            return _attend_nested(layer, query, dropout, context)
        is_batched = query.dim() == 3
        inputs = (query, key, value)
        if is_batched and not layer.batch_first:
            inputs = tuple(one.transpose(0, 1) for one in inputs)  # type: ignore[assignment]
        found = _attend(layer, inputs, masks, None, wants_weights, dropout, context)
        if found is None:
            return None
        output, weights = found
        if is_batched and not layer.batch_first:
            output = output.transpose(0, 1)
        return output, weights


def _attend(
    layer: Layer,
    inputs: Any,
    masks: Masks,
    lengths: Tensor | None,
    wants_weights: bool,
    dropout: Dropout | None,
    context: Context | None,
) -> tuple[Tensor, Tensor | None] | None:
    if torch.is_grad_enabled():
        return _attend_with_gradients(layer, inputs, masks, wants_weights, dropout, context)
    query, key, value = _project(layer, *inputs)
    options = Options(
        masks.attn_mask, masks.is_causal, bias=masks.bias, key_lengths=lengths, dropout=dropout
    )
    may_be_empty = _may_be_empty(masks, value.shape[-2])
    results = (may_be_empty, wants_weights)
    joined, *others = _side_by_side(query, key, value, options, results, context)
    if may_be_empty and bool(torch.isneginf(others.pop(0)).any()):
        return None
    output = linear(joined.flatten(-2), layer.out_weight, layer.out_bias)
    return output, others[0] if wants_weights else None


def _may_be_empty(masks: Masks, keys: int) -> bool:
    return masks.attn_mask is not None or masks.bias is not None or keys == 0


def _attend_with_gradients(
    layer: Layer,
    inputs: Any,
    masks: Masks,
    wants_weights: bool,
    dropout: Dropout | None,
    context: Context | None,
) -> tuple[Tensor, Tensor | None] | None:
    """The layer as one function, which PyTorch differentiates."""
    is_batched = inputs[0].dim() == 3
    query, key, value = inputs if is_batched else (one[None] for one in inputs)
    parameters = (*layer.weights, layer.in_proj_bias, layer.out_weight, layer.out_bias)
    tensors = Tensors(query, key, value, *parameters, masks.attn_mask, masks.bias)
    settings = Settings(layer.num_heads, masks.is_causal, wants_weights, dropout, context)
    output, lse, weights = compute(tensors, settings)
    if _may_be_empty(masks, key.shape[1]) and bool(torch.isneginf(lse).any()):
        return None
    found = (output, weights) if is_batched else (output[0], weights[0] if wants_weights else None)
    return found if wants_weights else (found[0], None)


def _side_by_side(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    options: Options,
    results: tuple[bool, bool],
    context: Context | None,
) -> tuple[Tensor, ...]:
    """Rows of all heads side by side, (..., L, H, D), as the next product reads them; then lse and
    weights, if results say so."""
    shape = (*query.shape[:-3], query.shape[-2], query.shape[-3], value.shape[-1])
    joined = query.new_empty(shape)
    out = joined.transpose(-3, -2)
    found = attend_at_once(query, key, value, options, out, *results, context=context)
    return (joined, *_as_tuple(found)[1:])


def _as_tuple(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def _project(layer: Layer, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Heads (..., H, L, D), not copied."""
    biases: Any = (None,) * 3 if layer.in_proj_bias is None else layer.in_proj_bias.chunk(3)
    projected = [
        linear(one, weight, bias)
        for one, weight, bias in zip((query, key, value), layer.weights, biases)
    ]
    return [one.unflatten(-1, (layer.num_heads, -1)).transpose(-3, -2) for one in projected]


def _attend_nested(
    layer: Layer, x: Tensor, dropout: Dropout | None, context: Context | None
) -> tuple[Tensor, Tensor | None] | None:
    """Self-attention of sequences of different lengths, as nn.TransformerEncoder makes them of
    padding."""
    lengths = torch.tensor([len(one) for one in x.unbind()], device="cpu")
    padded = x.to_padded_tensor(0.0)
    found = _attend(layer, (padded,) * 3, Masks(), lengths, False, dropout, context)
    if found is None:
        return None
    exists = torch.arange(padded.shape[1], device="cpu") < lengths[:, None]
    return torch._nested_tensor_from_mask(found[0], exists, mask_check=False), None
