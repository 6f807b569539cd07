# SPDX-License-Identifier: BSD-3-Clause
"""The multi-head attention of PyTorch models, computed by libattention in inference."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from libattention._multihead import MultiheadAttention

Model = TypeVar("Model", bound=nn.Module)

SUPPORTED = (torch.float32, torch.float64)

# The layer of a module, and which parameters it has copies of.
_layers: weakref.WeakKeyDictionary[nn.Module, tuple[Any, MultiheadAttention]] = (
    weakref.WeakKeyDictionary()
)


def accelerate(model: Model) -> Model:
    """Makes every torch.nn.MultiheadAttention of a model compute by libattention in inference.

    Inference is evaluation mode without gradients: under torch.no_grad() or
    torch.inference_mode(), or where neither inputs nor parameters require them. In training, on
    other devices and with other dtypes than float32 and float64 the module computes as before.
    Parameters may change: they are copied anew when they have. A row that sees nothing gives
    out_proj.bias where PyTorch gives NaN.

    Args:
        model: changed in place; its state_dict stays as it is

    Returns:
        The model.
    """
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and not is_accelerated(module):
            # Not a method: copied or pickled with the model, it belongs to the copy.
            module.forward = partial(_forward, module)  # type: ignore[method-assign]
            # nn.TransformerEncoderLayer goes past its attention's forward unless there are hooks.
            module.register_forward_pre_hook(_pass_on)
    return model


def restore(model: Model) -> Model:
    """Undoes accelerate."""
    for module in model.modules():
        if is_accelerated(module):
            del module.forward
            hooks = module._forward_pre_hooks
            for number in [number for number, hook in hooks.items() if hook is _pass_on]:
                del hooks[number]
            _layers.pop(module, None)
    return model


def is_accelerated(module: nn.Module) -> bool:
    """Whether accelerate has changed the module."""
    return getattr(vars(module).get("forward"), "func", None) is _forward


def _pass_on(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Change nothing."""


def _forward(
    self: nn.MultiheadAttention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_padding_mask: torch.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """PyTorch's signature. is_causal only repeats what attn_mask says, so that it is left out."""
    options = (key_padding_mask, need_weights, attn_mask, average_attn_weights)
    hint_without_mask = is_causal and attn_mask is None
    if hint_without_mask or not _is_inference(self, query, key, value):
        return type(self).forward(self, query, key, value, *options, is_causal)
    with torch.no_grad():
        found: tuple[torch.Tensor, torch.Tensor | None] = _layer_of(self)(
            query, key, value, *options
        )
    return found


def _is_inference(module: nn.MultiheadAttention, *inputs: torch.Tensor) -> bool:
    tensors = (*inputs, *module.parameters())
    return (
        not module.training
        and not (torch.is_grad_enabled() and any(one.requires_grad for one in tensors))
        and all(
            one.device.type == "cpu" and one.dtype in SUPPORTED and not one.is_nested
            for one in tensors
        )
    )


def _layer_of(module: nn.MultiheadAttention) -> MultiheadAttention:
    """Parameters that were written have another version, those that were replaced another
    address.
    """
    seen = tuple((one.data_ptr(), one._version) for one in module.parameters())
    known = _layers.get(module)
    if known is not None and known[0] == seen:
        return known[1]
    layer = MultiheadAttention.from_torch(module)
    _layers[module] = (seen, layer)
    return layer
