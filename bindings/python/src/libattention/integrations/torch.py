# SPDX-License-Identifier: BSD-3-Clause
"""The multi-head attention of PyTorch models, computed by libattention."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from libattention._context import Context
from libattention._torch_ordinary import reason_to_ask_pytorch, wants_gradient
from libattention.integrations._install import (
    Installation,
    Report,
    install,
    report,
    uninstall,
    watch,
)
from libattention.integrations._step_dropout import step_dropout
from libattention.integrations._torch_layer import Masks, attend, masks_of

__all__ = [
    "Installation",
    "Report",
    "Survey",
    "accelerate",
    "attention_maps",
    "install",
    "is_accelerated",
    "report",
    "restore",
    "survey",
    "uninstall",
    "watch",
]

Model = TypeVar("Model", bound=nn.Module)

SUPPORTED = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Settings(NamedTuple):
    """What accelerate was told of a module."""

    trains: bool
    drops: bool
    context: Context | None


class Survey(NamedTuple):
    """What of a model's attention libattention computes.

    Attributes:
        taken: names of modules that accelerate has taken over
        left: names of modules that compute as before, each with the reason
        computed: how many calls of each module taken libattention has computed
        handed_back: how many of them PyTorch has, by reason
    """

    taken: list[str]
    left: dict[str, str]
    computed: dict[str, int]
    handed_back: dict[str, dict[str, int]]


def accelerate(
    model: Model,
    training: bool = False,
    *,
    dropout: bool = False,
    context: Context | None = None,
) -> Model:
    """Makes every torch.nn.MultiheadAttention of a model compute by libattention.

    It does so on ordinary floating-point tensors of the CPU: in inference, which is evaluation
    mode where no gradient is wanted, and with `training` in any mode and with gradients, of which
    attention's are the library's and the projections' PyTorch's. Everything else (dropout unless
    asked for, tracing, compiling, autocast, other dtypes and devices, rows that see nothing) is
    computed by the module as before, with PyTorch's numbers. Parameters are read where they lie in
    every call, so that they may change in any way.

    Taken over are modules whose forward is nn.MultiheadAttention's own: not subclasses with
    another one, nor instances that were patched. The class of a module is replaced, by a subclass
    of its own: copies, pickles and replicas are taken over too. nn.TransformerEncoderLayer calls
    its attention then, which its own fused inference goes past.

    Args:
        model: changed in place; its state_dict stays as it is
        training: whether to compute in training, too; of several calls the last one counts
        dropout: with training, whether modules with dropout are computed here, too: by weights that
            are other ones than PyTorch drops. PyTorch's default generator draws a seed for each
            call, so that torch.manual_seed says what is dropped
        context: threads, engine and kernels of attention; None: PyTorch's threads, as many as
            torch.get_num_threads() says at each call

    Returns:
        The model.
    """
    settings = Settings(training, dropout, context)
    for module in model.modules():
        if is_accelerated(module):
            if module._settings == settings:
                continue
            _restore_module(module)
        if reason_to_leave(module) is None:
            original: Any = type(module)
            module.__class__ = _accelerated_class(original)
            vars(module)["_settings"] = settings
            module.register_forward_pre_hook(_pass_on)
    return model


def restore(model: Model) -> Model:
    """Undoes accelerate: classes and hooks are those of before. What others have changed since
    stays."""
    for module in model.modules():
        if is_accelerated(module):
            _restore_module(module)
    return model


def _restore_module(module: nn.Module) -> None:
    del vars(module)["_settings"]
    module.__class__ = _without_acceleration(type(module))
    hooks = module._forward_pre_hooks
    for number in [number for number, hook in hooks.items() if hook is _pass_on]:
        del hooks[number]
    _calls.pop(module, None)


def is_accelerated(module: nn.Module) -> bool:
    """Whether accelerate has changed the module."""
    return isinstance(module, _Accelerated)


def survey(model: nn.Module) -> Survey:
    """What accelerate has taken over of a model, what not and why, and who computed since.

    Args:
        model: accelerated or not

    Returns:
        Names as in model.named_modules().
    """
    found = Survey([], {}, {}, {})
    for name, module in model.named_modules():
        if is_accelerated(module):
            found.taken.append(name)
            counts = dict(_calls.get(module, {}))
            found.computed[name] = counts.pop(_COMPUTED, 0)
            found.handed_back[name] = counts
        elif isinstance(module, nn.MultiheadAttention):
            found.left[name] = reason_to_leave(module) or "accelerate was not called"
    return found


def reason_to_leave(module: nn.Module) -> str | None:
    """Why accelerate does not take a module over; None where it does."""
    if not isinstance(module, nn.MultiheadAttention):
        return "is no torch.nn.MultiheadAttention"
    if type(module).forward is not nn.MultiheadAttention.forward:
        return f"{type(module).__name__} has a forward of its own"
    if "forward" in vars(module):
        return "its forward was replaced"
    return None


@contextlib.contextmanager
def attention_maps(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Collects the attention weights of every accelerated module of a model.

    Args:
        model: accelerated; for example an nn.TransformerEncoder, whose layers ask for no weights

    Yields:
        By the module's name the weights (N, H, L, S) of each of its calls, (H, L, S) unbatched.
    """
    maps: dict[str, list[Tensor]] = {}
    modules = {name: one for name, one in model.named_modules() if is_accelerated(one)}
    for name, module in modules.items():
        _recorded[module] = maps[name] = []
    try:
        yield maps
    finally:
        for module in modules.values():
            _recorded.pop(module, None)


# Weights asked for by attention_maps, and who computed the calls of a module.
_recorded: weakref.WeakKeyDictionary[nn.Module, list[Tensor]] = weakref.WeakKeyDictionary()
_calls: weakref.WeakKeyDictionary[nn.Module, dict[str, int]] = weakref.WeakKeyDictionary()
_COMPUTED = "computed"


def _pass_on(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Changes nothing. nn.TransformerEncoderLayer goes past its attention's forward unless there
    are hooks."""


class _Accelerated(nn.Module):
    """What the class of an accelerated module derives from, before the class it had.

    The settings are the module's, as a class lives for ever and a context need not.
    """

    _original: type[nn.MultiheadAttention]
    _settings: Settings

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """PyTorch's signature."""
        arguments = (query, key, value, key_padding_mask, need_weights, attn_mask)
        # Whoever kept this function, before restore gave the class back, calls what it has now.
        if torch.compiler.is_compiling() or not is_accelerated(self):
            theirs: Any = nn.MultiheadAttention.forward
            found: tuple[Tensor, Tensor | None] = theirs(
                self, *arguments, average_attn_weights, is_causal
            )
            return found
        return _forward(self, *arguments, average_attn_weights, is_causal)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A class made here has no name that pickle would find."""
        reduced: tuple[Any, ...] = tuple(super().__reduce_ex__(protocol))
        return (
            _new_accelerated,
            (self._original,),
            *reduced[2:],
        )


@cache
def _accelerated_class(original: Any) -> Any:
    """It has the name of the original one, by which other libraries know it."""
    named = {
        "_original": original,
        "__module__": original.__module__,
        "__doc__": original.__doc__,
    }
    made = type(original.__name__, (_Accelerated, original), named)
    made.__qualname__ = original.__qualname__
    return made


def _new_accelerated(original: Any) -> Any:
    cls = _accelerated_class(original)
    return cls.__new__(cls)


def _without_acceleration(cls: type) -> type:
    """The class as it was; one that others have derived from ours (parametrizations do) is made
    anew on the original."""
    if "_original" in vars(cls):
        return cls._original  # type: ignore[attr-defined, no-any-return]
    bases = tuple(
        _without_acceleration(base) if issubclass(base, _Accelerated) else base
        for base in cls.__bases__
    )
    own = {name: one for name, one in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(cls.__name__, bases, own)


def _forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    need_weights: bool,
    attn_mask: Tensor | None,
    average_attn_weights: bool,
    is_causal: bool,
) -> tuple[Tensor, Tensor | None]:
    recorder = _recorded.get(module)
    wants_weights = need_weights or recorder is not None
    layer = _layer_of(module)
    given = (query, key, value, key_padding_mask, attn_mask)
    reason = _reason_to_hand_back(module, layer, given)
    found = None
    if reason is None:
        masks = masks_of(layer, *given, is_causal, wants_weights)
        reason = masks if isinstance(masks, str) else None
        if isinstance(masks, Masks):
            has_gradients = wants_gradient((*given, *layer.parameters()))
            probability = module.dropout if module.training else 0.0
            dropout = step_dropout(probability) if probability > 0 else None
            results = (wants_weights, has_gradients)
            context = module._settings.context
            found = attend(layer, query, key, value, masks, *results, dropout, context)
            reason = None if found is not None else "a row sees nothing"
    _count(module, reason or _COMPUTED)
    if found is None:
        found = module._original.forward(
            module,
            query,
            key,
            value,
            key_padding_mask,
            wants_weights,
            attn_mask,
            average_attn_weights and recorder is None,
            is_causal,
        )
    output, weights = found
    if recorder is not None and weights is not None:
        recorder.append(weights)
    if not need_weights or weights is None:
        return output, None
    is_averaged = average_attn_weights and (reason is None or recorder is not None)
    return output, weights.mean(dim=-3) if is_averaged else weights


def _count(module: nn.Module, what: str) -> None:
    counts = _calls.setdefault(module, {})
    counts[what] = counts.get(what, 0) + 1


class Layer(NamedTuple):
    """What a module computes with, now."""

    num_heads: int
    batch_first: bool
    weights: tuple[Any, Any, Any]
    in_proj_bias: Tensor | None
    out_weight: Any
    out_bias: Tensor | None

    def parameters(self) -> tuple[Any, ...]:
        """All of them; a bias may be None."""
        return (*self.weights, self.out_weight, self.in_proj_bias, self.out_bias)


def _layer_of(module: Any) -> Layer:
    """Its attributes, as its own forward reads them."""
    if module._qkv_same_embed_dim:
        packed = module.in_proj_weight
        weights: Any = packed.chunk(3) if isinstance(packed, Tensor) else (None, None, None)
    else:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    out = module.out_proj
    return Layer(
        module.num_heads,
        module.batch_first,
        weights,
        module.in_proj_bias,
        out.weight,
        out.bias,
    )


def _reason_to_hand_back(module: Any, layer: Layer, given: tuple[Any, ...]) -> str | None:
    """Why PyTorch computes a call; None where libattention may."""
    trains, drops, _ = module._settings
    if module.training and not trains:
        return "training"
    if module.training and module.dropout > 0 and not (drops and module.dropout < 1):
        return "dropout"
    if module.bias_k is not None or module.bias_v is not None or module.add_zero_attn:
        return "add_bias_kv or add_zero_attn"
    needed = (*layer.weights, layer.out_weight)
    parameters = layer.parameters()
    if not all(isinstance(one, Tensor) for one in needed):
        return "parameters that are no tensors"
    reason = reason_to_ask_pytorch((*given, *parameters), may_want_gradient=trains)
    if reason is not None:
        return f"a tensor {reason}"
    if trains and given[0].is_nested and wants_gradient((*given, *parameters)):
        return "gradients of nested tensors"
    dtype = given[0].dtype
    if any(one is not None and one.device.type != "cpu" for one in (*given, *parameters)):
        return "devices"
    if any(one is not None and one.dtype != dtype for one in (*given[:3], *parameters)):
        return "dtypes differ"
    return None if dtype in SUPPORTED else f"{dtype}"
