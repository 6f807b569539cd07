# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of libattention::sdpa: the operator libattention::sdpa_backward, which is the library's
own, and whose gradients, the second ones, are the formula's in PyTorch's operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from libattention._backward import Results, differentiate
from libattention._torch_eager import attend as attend_in_pytorch
from libattention._torch_library import LIBRARY, OPTIONS_SCHEMA, context_of, is_transformed
from libattention._torch_options import (
    HALVES,
    NUM_TENSORS,
    TENSORS,
    TorchOptions,
    library_call,
)
from libattention._torch_vmap import NUM_RESULTS, map_backward, map_forward

_BACKWARD = "libattention::sdpa_backward"
# wanted are places in TENSORS; the results are their gradients. output is the call's in query's
# dtype or, beside 16 bits, in float32.
LIBRARY.define(
    "sdpa_backward(Tensor grad_output, Tensor? grad_lse, Tensor? grad_weights, Tensor output, "
    f"Tensor? lse, Tensor query, Tensor key, Tensor value, {OPTIONS_SCHEMA}, "
    "int[] wanted=[0, 1, 2], int context=0) -> Tensor[]",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_DEFAULTS = (*TorchOptions(), (0, 1, 2), 0)
_NUM_GIVEN = NUM_RESULTS + 3
_NUM_ARGUMENTS = _NUM_GIVEN + len(_DEFAULTS)
# torch.autograd.grad(is_grads_batched=True) maps by a vmap which takes no rules for operators.
_is_of_older_vmap = torch._C._functorch.is_legacy_batchedtensor


def _compute(*given: Any) -> list[Tensor]:
    """On ordinary tensors, below autograd."""
    arguments: list[Any] = [
        one.detach().resolve_neg() if isinstance(one, Tensor) else one for one in _completed(given)
    ]
    grad_output, grad_lse, grad_weights, output, lse, query, key, value, *options = arguments
    *options, wanted, context = options
    names = [TENSORS[index] for index in wanted]
    found = differentiate(
        library_call(query, key, value, TorchOptions(*options)),
        Results(output, lse),
        Results(grad_output, grad_lse, grad_weights),
        names,
        context=context_of(context),
    )
    return [getattr(found, name) for name in names]


def _completed(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """With those that PyTorch left out."""
    return (*arguments, *_DEFAULTS[len(arguments) - _NUM_GIVEN :])[:_NUM_ARGUMENTS]


def _describe(*arguments: Any) -> list[Tensor]:
    """Each as what it is the gradient of."""
    arguments = _completed(arguments)
    tensors = arguments[NUM_RESULTS:]
    return [tensors[index].new_empty(tensors[index].shape) for index in arguments[-2]]


def _differentiable(*arguments: Any) -> list[Tensor]:
    """What PyTorch calls before it computes: remembers for second derivatives."""
    arguments = _completed(arguments)
    tensors = (one for one in arguments[: NUM_RESULTS + NUM_TENSORS] if one is not None)
    if torch.is_grad_enabled() and any(one.requires_grad for one in tensors):
        apply: Any = SdpaBackward.apply
        return list(apply(*arguments))
    with torch._C._AutoDispatchBelowAutograd():
        return _call(arguments)


def _call(arguments: tuple[Any, ...]) -> list[Tensor]:
    found: list[Tensor] = torch.ops.libattention.sdpa_backward(*arguments)
    return found


LIBRARY.impl("sdpa_backward", _compute, "CPU")
LIBRARY.impl("sdpa_backward", _differentiable, "Autograd")
torch.library.register_fake(_BACKWARD, _describe, lib=LIBRARY)
torch.library.register_vmap(_BACKWARD, map_backward, lib=LIBRARY)


class Sdpa(torch.autograd.Function):
    """libattention::sdpa with its gradients; its arguments are those of the schema, all of them.

    The last result is the output before it was rounded to 16 bits, or empty: from the rounded one
    gradients would not be those of the numbers that the tensors hold.
    """

    @staticmethod
    def forward(*arguments: Any) -> Any:
        found = torch.ops.libattention.sdpa(*arguments[:-2], **_keywords(arguments))
        return _rounded(found, arguments[0].dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = inputs[:NUM_TENSORS]
        rounded, lse, _, wide = output
        ctx.mark_non_differentiable(wide)
        ctx.is_given = [one is not None for one in tensors]
        result = wide if rounded.dtype in HALVES else rounded
        ctx.save_for_backward(result, lse, *(one for one in tensors if one is not None))
        ctx.options = inputs[NUM_TENSORS:-2]
        # A number in the operator's arguments, which does not keep it.
        ctx.context, ctx.kept = inputs[-1], context_of(inputs[-1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        output, lse, *saved = ctx.saved_tensors
        wanted = tuple(index for index in range(NUM_TENSORS) if ctx.needs_input_grad[index])
        found: list[Tensor | None] = [None] * (NUM_TENSORS + len(ctx.options) + 2)
        given = [
            None if one is None or (place > 0 and one.numel() == 0) else one
            for place, one in enumerate(gradients[:3])
        ]
        if all(one is None for one in given) or not wanted:
            return tuple(found)
        tensors = _restored(saved, ctx.is_given)
        if given[0] is None:
            given[0] = tensors[0].new_zeros(()).expand(output.shape)
        lse = lse if TorchOptions(*tensors[3:], *ctx.options).normalizer == "softmax" else None
        if any(one is not None and _is_of_older_vmap(one) for one in given):
            computed: Any = _by_formula([*given, *tensors], wanted, ctx.options)
        else:
            arguments = (*given, output, lse, *tensors, *ctx.options, wanted, ctx.context)
            apply: Any = SdpaBackward.apply
            computed = apply(*arguments) if is_transformed() else _call(arguments)
        for index, gradient in zip(wanted, computed):
            found[index] = gradient
        return tuple(found)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        found, axes = map_forward(info, in_dims, *arguments[:-2], **_keywords(arguments))
        wide_axis = axes[0] if found[0].dtype != arguments[0].dtype else None
        return _rounded(found, arguments[0].dtype), (*axes, wide_axis)


def _keywords(arguments: tuple[Any, ...]) -> dict[str, Any]:
    is_wide = arguments[0].dtype in HALVES
    return {"return_weights": arguments[-2], "wide_output": is_wide, "context": arguments[-1]}


def _rounded(found: Any, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The operator's results with an output of this dtype, and the output as it was if it had
    another one."""
    output, lse, weights = found
    if output.dtype == dtype:
        return output, lse, weights, output.new_empty(0)
    return output.to(dtype), lse, weights, output


class SdpaBackward(torch.autograd.Function):
    """libattention::sdpa_backward with its gradients; its arguments are those of the schema, all of
    them. Output and lse are functions of the others: no gradient is theirs."""

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return tuple(_call(arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        results, tensors = inputs[:3], inputs[NUM_RESULTS : NUM_RESULTS + NUM_TENSORS]
        given = (*results, *tensors)
        ctx.is_given = [one is not None for one in given]
        ctx.save_for_backward(*(one for one in given if one is not None))
        *ctx.options, ctx.wanted, _ = inputs[NUM_RESULTS + NUM_TENSORS :]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor | None) -> Any:
        given = _restored(ctx.saved_tensors, ctx.is_given)
        # Without output and lse, which have no gradient.
        needed = (*ctx.needs_input_grad[:3], *ctx.needs_input_grad[NUM_RESULTS:])
        changing = [index for index in range(len(given)) if needed[index]]
        used = [index for index, one in enumerate(tangents) if one is not None]
        found: list[Tensor | None] = [None] * (2 + len(given) + len(ctx.options) + 2)
        if not used or not changing:
            return tuple(found)

        def first(*values: Tensor) -> tuple[Tensor, ...]:
            computed = _by_formula(_replaced(given, changing, values), ctx.wanted, ctx.options)
            return tuple(computed[index] for index in used)

        pulled: Any = torch.func.vjp(first, *(given[index] for index in changing))
        computed = pulled[1](tuple(tangents[index] for index in used))
        for index, gradient in zip(changing, computed):
            found[index if index < 3 else index + 2] = gradient
        return tuple(found)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        found, axes = map_backward(info, in_dims, *arguments)
        return tuple(found), tuple(axes)


def _restored(saved: Any, is_given: list[bool]) -> list[Any]:
    """What was saved, and None in the places of what was not given."""
    remaining = iter(saved)
    return [next(remaining) if given else None for given in is_given]


def _replaced(tensors: list[Any], places: Any, values: Any) -> list[Any]:
    """A list with these values in these places."""
    found = list(tensors)
    for place, value in zip(places, values):
        found[place] = value
    return found


def _by_formula(given: list[Any], wanted: Any, options: Any) -> tuple[Tensor, ...]:
    """What the operator computes, by PyTorch's; given are the results' gradients, then TENSORS."""
    gradients, tensors = given[:3], given[3:]
    used = [index for index, one in enumerate(gradients) if one is not None]

    def results(*values: Tensor) -> tuple[Any, ...]:
        query, key, value, *others = _replaced(tensors, wanted, values)
        computed = attend_in_pytorch(query, key, value, TorchOptions(*others, *options))
        return tuple(computed[index] for index in used)

    pulled: Any = torch.func.vjp(results, *(tensors[index] for index in wanted))
    computed: tuple[Tensor, ...] = pulled[1](tuple(gradients[index] for index in used))
    return computed
