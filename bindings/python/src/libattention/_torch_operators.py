# SPDX-License-Identifier: BSD-3-Clause
"""Attention as operators of PyTorch's: libattention::sdpa and libattention::multihead.

So compile, export, trace, vmap, autocast and gradients work by PyTorch's own rules, and a tensor
that only stands for numbers never reaches the library. Results are the library's; gradients are
computed by PyTorch, from the formula anew.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from libattention import _torch_multihead
from libattention._attention import attend_at_once
from libattention._context import Context
from libattention._library import unsupported
from libattention._options import Options, make_params
from libattention._outputs import BOOL_MASK
from libattention._small_calls import attend as attend_small
from libattention._tensors import Views
from libattention._torch_arrays import ARRAYS, tensor_of, with_tensors
from libattention._torch_eager import TorchOptions, score_dtype
from libattention._torch_eager import attend as attend_in_pytorch
from libattention._torch_written_out import refuse_misfits, written_out

_LIBRARY = torch.library.Library("libattention", "DEF")
_SDPA = "libattention::sdpa"
# In the order of TorchOptions. lse and weights are empty where they are not wanted or not defined.
_LIBRARY.define(
    "sdpa(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, Tensor? bias=None, "
    "Tensor? query_offset=None, Tensor? key_lengths=None, Tensor? sinks=None, "
    "Tensor? alibi_slopes=None, bool is_causal=False, float? scale=None, bool enable_gqa=False, "
    "bool align_end=False, SymInt window_left=-1, SymInt window_right=-1, float softcap=0.0, "
    "str normalizer='softmax', *, bool return_weights=False, int context=0) "
    "-> (Tensor output, Tensor lse, Tensor weights)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
NUM_TENSORS = 9
_peek_transform = torch._C._functorch.peek_interpreter_stack
_contexts: weakref.WeakValueDictionary[int, Context] = weakref.WeakValueDictionary()


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    options: Options,
    return_lse: bool,
    return_weights: bool,
    context: Context | None,
) -> Any:
    """scaled_dot_product_attention by the operator, for tensors that have to go through PyTorch."""
    if not torch.compiler.is_compiling():
        # What is no tensor is refused in the library's words, not in those of a schema.
        none: dict[str, Any] = dict.fromkeys(ARRAYS)
        make_params(options._replace(**none), Views(), BOOL_MASK)
    key, value = tensor_of(key, "key"), tensor_of(value, "value")
    options = with_tensors(options)
    if not all(getattr(options, name) is None for name in _NOT_IN_SCHEMA):
        if not torch.compiler.is_compiling():
            refuse_misfits(query, key, value, options)
        options = written_out(query, key, options)
    number = 0
    if context is not None:
        number = id(context)
        _contexts[number] = context
    before, after = options.window
    arguments = (
        query,
        key,
        value,
        options.attn_mask,
        options.bias,
        options.query_offset,
        options.key_lengths,
        options.sinks,
        options.alibi_slopes,
        options.is_causal,
        options.scale,
        options.enable_gqa,
        options.align_end,
        before,
        after,
        options.softcap,
        options.normalizer,
        return_weights,
        number,
    )
    # torch.func takes a Function where it does not take an operator's gradients.
    is_transformed = not torch.compiler.is_compiling() and _peek_transform() is not None
    if is_transformed and forward_ad._current_level >= 0:
        output, lse, weights = _by_formula(arguments[:-2], return_weights)
    else:
        output, lse, weights = (_Sdpa.apply if is_transformed else _of_row)(*arguments)
    found = (output, *([lse] if return_lse else []), *([weights] if return_weights else []))
    return found[0] if len(found) == 1 else found


def _of_row(*arguments: Any) -> Any:
    return _call(arguments)


# Options that are not in the operator's schema: they are written out.
_NOT_IN_SCHEMA = ("mask_start", "position_bias", "block_mask", "block_size")


# ---- computing ----


def _compute(*arguments: Any, return_weights: bool = False, context: int = 0) -> tuple[Tensor, ...]:
    """On ordinary tensors, below autograd."""
    small = _compute_small(arguments, return_weights, context)
    if small is not None:
        return small
    given: list[Any] = [one.detach() if isinstance(one, Tensor) else one for one in arguments]
    query, key, value, *given = given
    options = TorchOptions(*given)
    is_softmax = options.normalizer == "softmax"
    found = attend_at_once(
        query,
        key,
        value,
        Options(
            **{name: getattr(options, name) for name in _SHARED},
            window=(options.window_left, options.window_right),
        ),
        return_lse=is_softmax,
        return_weights=return_weights,
        context=_context_of(context),
    )
    nothing = query.new_empty(0)
    output, *others = found if isinstance(found, tuple) else (found,)
    lse = others.pop(0) if is_softmax else nothing
    return output, lse, others[0] if return_weights else nothing.clone()


def _compute_small(
    arguments: tuple[Any, ...], return_weights: bool, context: int
) -> tuple[Tensor, ...] | None:
    """By the compiled module, past what else PyTorch would do with ordinary tensors of which no
    gradient is wanted: None if they are not, or have options that the module does not know."""
    if len(arguments) > _NUM_USUAL or return_weights or context != 0:
        return None
    query, key, value, mask, bias, offset, lengths, sinks, slopes, is_causal, scale, enable_gqa = (
        arguments + _DEFAULTS[len(arguments) : _NUM_USUAL]
    )
    has_no_arrays = (
        bias is None and offset is None and lengths is None and sinks is None and slopes is None
    )
    if not has_no_arrays or torch.compiler.is_compiling():
        return None
    found = attend_small(query, key, value, mask, is_causal, scale, enable_gqa, True, None)
    if found is NotImplemented:
        return None
    output, lse = found
    return output, lse, query.new_empty(0)


_SHARED = [name for name in TorchOptions._fields if not name.startswith("window")]


def _context_of(number: int) -> Context | None:
    if number == 0:
        return None
    found = _contexts.get(number)
    if found is None:
        raise unsupported("context: the context that this program was made with is gone; keep it")
    return found


_LIBRARY.impl("sdpa", _compute, "CPU")


def _describe(
    query: Tensor, key: Tensor, value: Tensor, *arguments: Any, **further: Any
) -> tuple[Tensor, ...]:
    """Shapes: batch and head axes broadcast."""
    options = TorchOptions(*arguments)
    leading: list[Any] = [one.shape[:-2] for one in (query, key, value)]
    if options.enable_gqa:
        leading[1:] = [(*one[:-1], query.shape[-3]) for one in leading[1:]]
    shape = torch.broadcast_shapes(*leading)
    rows = query.shape[-2]
    output = query.new_empty(*shape, rows, value.shape[-1])
    is_softmax = options.normalizer == "softmax"
    lse = query.new_empty(0)
    if is_softmax:
        lse = query.new_empty((*shape, rows), dtype=score_dtype(query.dtype))
    has_weights = further.get("return_weights", False)
    return output, lse, query.new_empty((*shape, rows, key.shape[-2]) if has_weights else (0,))


torch.library.register_fake(_SDPA, _describe, lib=_LIBRARY)

# ---- gradients ----


class _Sdpa(torch.autograd.Function):
    """The operator with its gradients; its arguments are those of the schema, all of them."""

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return _call(arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*(one for one in inputs[:NUM_TENSORS] if one is not None))
        ctx.is_given = [one is not None for one in inputs[:NUM_TENSORS]]
        ctx.further = inputs[NUM_TENSORS:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """Of the results computed anew by PyTorch, so that gradients of gradients are right too."""
        saved = iter(ctx.saved_tensors)
        tensors = [next(saved) if given else None for given in ctx.is_given]
        wanted = [index for index in range(NUM_TENSORS) if ctx.needs_input_grad[index]]
        given = [
            index
            for index, one in enumerate(gradients)
            if one is not None and (index == 0 or one.numel() > 0)
        ]
        found: list[Tensor | None] = [None] * (NUM_TENSORS + len(ctx.further))
        if not given:
            return tuple(found)

        def results(*changing: Tensor) -> tuple[Tensor | None, ...]:
            for index, one in zip(wanted, changing):
                tensors[index] = one
            computed = _recompute(tensors, ctx.further[:-2], given)
            return tuple(computed[index] for index in given)

        pulled: Any = torch.func.vjp(results, *(tensors[index] for index in wanted))
        computed = pulled[1](tuple(gradients[index] for index in given))
        for index, gradient in zip(wanted, computed):
            found[index] = gradient
        return tuple(found)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return _map(info, in_dims, *arguments[:-2], **_keywords(arguments))


def _keywords(arguments: tuple[Any, ...]) -> dict[str, Any]:
    return {"return_weights": arguments[-2], "context": arguments[-1]}


def _call(arguments: tuple[Any, ...]) -> Any:
    """The operator, by arguments in one row."""
    return torch.ops.libattention.sdpa(*arguments[:-2], **_keywords(arguments))


def _differentiable(
    *arguments: Any, return_weights: bool = False, context: int = 0
) -> tuple[Tensor, ...]:
    """What PyTorch calls before it computes: remembers for gradients. A tangent is carried on by
    the formula in PyTorch's operators, which knows how."""
    small = _compute_small(arguments, return_weights, context)
    if small is not None:
        return small
    arguments = (*arguments, *_DEFAULTS[len(arguments) :])
    tensors = [one for one in arguments[:NUM_TENSORS] if one is not None]
    if forward_ad._current_level >= 0 and any(map(_has_tangent, tensors)):
        return _by_formula(arguments, return_weights)
    if torch.is_grad_enabled() and any(one.requires_grad for one in tensors):
        apply: Any = _Sdpa.apply
        found: tuple[Tensor, ...] = apply(*arguments, return_weights, context)
        return found
    with torch._C._AutoDispatchBelowAutograd():
        below: tuple[Tensor, ...] = _call((*arguments, return_weights, context))
        return below


# Of the schema, by which PyTorch leaves arguments out that are like them.
_DEFAULTS = (None, None, None, *TorchOptions())
# Those before what the compiled module does not know, arrays aside: query to enable_gqa.
_NUM_USUAL = NUM_TENSORS + 3


def _has_tangent(one: Tensor) -> bool:
    return forward_ad.unpack_dual(one).tangent is not None


def _by_formula(arguments: tuple[Any, ...], return_weights: bool) -> tuple[Tensor, ...]:
    query, key, value, *options = arguments
    found = attend_in_pytorch(query, key, value, TorchOptions(*options))
    nothing = query.new_empty(0)
    lse = nothing if found.lse is None else found.lse
    return found.output, lse, found.weights if return_weights else nothing.clone()


_LIBRARY.impl("sdpa", _differentiable, "Autograd")


def _recompute(tensors: list[Any], further: Any, wanted: list[int]) -> tuple[Tensor | None, ...]:
    """Through PyTorch's fused attention where it has the options, else through the formula."""
    query, key, value, *_ = tensors
    options = TorchOptions(*tensors[3:], *further)
    plain = TorchOptions(
        options.attn_mask,
        is_causal=options.is_causal,
        scale=options.scale,
        enable_gqa=options.enable_gqa,
    )
    is_plain = _equals(options, plain)
    has_one_mask = options.attn_mask is None or not options.is_causal
    has_one_dtype = query.dtype == key.dtype == value.dtype
    if is_plain and has_one_mask and has_one_dtype and wanted == [0]:
        output = torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            options.attn_mask,
            is_causal=options.is_causal,
            scale=options.scale,
            enable_gqa=options.enable_gqa,
        )
        return output, None, None
    return attend_in_pytorch(query, key, value, options)


def _equals(options: TorchOptions, other: TorchOptions) -> bool:
    """Tensors by identity."""
    return all(one is another or _same(one, another) for one, another in zip(options, other))


def _same(one: Any, another: Any) -> bool:
    return not isinstance(one, Tensor) and not isinstance(another, Tensor) and one == another


# ---- vmap ----


def _map(info: Any, in_dims: tuple[Any, ...], *arguments: Any, **further: Any) -> Any:
    """One more batch axis before the others, and an axis of heads where there was none."""
    arguments = (*arguments, *_DEFAULTS[len(arguments) :])
    in_dims = (*in_dims, *(None,) * (len(arguments) - len(in_dims)))
    tensors = [
        one if one is None or axis is None else one.movedim(axis, 0)
        for one, axis in zip(arguments[:NUM_TENSORS], in_dims)
    ]
    is_mapped = [axis is not None for axis in in_dims[:NUM_TENSORS]]
    if is_mapped[7] or is_mapped[8]:
        raise unsupported("sinks, alibi_slopes: cannot be mapped over by vmap; call in a loop")
    ranks = [one.dim() - mapped for one, mapped in zip(tensors[:3], is_mapped)]
    rank = max(3, *ranks)
    for index, one in enumerate(tensors[:5]):
        if one is not None:
            tensors[index] = _with_batch(one, is_mapped[index], rank, info.batch_size, index < 3)
    for index in (5, 6):
        one = tensors[index]
        if one is not None and is_mapped[index]:
            tensors[index] = one.reshape(
                one.shape[:1] + (1,) * (rank - 2 - one.dim()) + one.shape[1:]
            )
    output, lse, weights = torch.ops.libattention.sdpa(
        *tensors, *arguments[NUM_TENSORS:], **further
    )
    if max(ranks) < 3:
        output, lse, weights = (_without_heads(one) for one in (output, lse, weights))
    is_there = [one.dim() > 1 for one in (output, lse, weights)]
    return (output, lse, weights), tuple(0 if there else None for there in is_there)


torch.library.register_vmap(_SDPA, _map, lib=_LIBRARY)


def _with_batch(one: Tensor, is_mapped: bool, rank: int, size: int, is_input: bool) -> Tensor:
    """(batch, axes of rank `rank`); what is not mapped over is shared."""
    shape = one.shape[1:] if is_mapped else one.shape
    padded = one.reshape((one.shape[0] if is_mapped else 1, *(1,) * (rank - len(shape)), *shape))
    return padded.expand(size, *padded.shape[1:]) if is_input else padded


def _without_heads(one: Tensor) -> Tensor:
    return one.squeeze(1) if one.dim() > 1 else one


# ---- autocast ----


def _autocast(*arguments: Any, **further: Any) -> tuple[Tensor, ...]:
    """In the narrow dtype that was asked for, as PyTorch's function; float64 stays."""
    dtype = torch.get_autocast_dtype("cpu")
    cast = [
        one.to(dtype)
        if isinstance(one, Tensor) and one.is_floating_point() and one.dtype != torch.float64
        else one
        for one in arguments
    ]
    here = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    with torch._C._ExcludeDispatchKeyGuard(here):
        found: tuple[Tensor, ...] = torch.ops.libattention.sdpa(*cast, **further)
        return found


_LIBRARY.impl("sdpa", _autocast, "AutocastCPU")


# ---- multi-head ----

_LIBRARY.define(_torch_multihead.SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
_LIBRARY.impl("multihead", _torch_multihead.multihead, "CompositeImplicitAutograd")
