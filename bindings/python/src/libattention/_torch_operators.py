# SPDX-License-Identifier: BSD-3-Clause
"""Attention as operators of PyTorch's: libattention::sdpa and libattention::multihead.

So compile, export, trace, vmap, autocast and gradients work by PyTorch's own rules, and a tensor
that only stands for numbers never reaches the library. Results and gradients are the library's;
tangents and second derivatives are computed by PyTorch, from the formula anew.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from libattention import _torch_multihead
from libattention._attention import attend_at_once, attend_sequences_at_once
from libattention._context import Context
from libattention._library import unsupported
from libattention._options import Options, make_params
from libattention._outputs import BOOL_MASK
from libattention._small_calls import attend as attend_small
from libattention._tensors import Views
from libattention._torch_arrays import ARRAYS, integer_tensor, tensor_of, with_tensors
from libattention._torch_eager import attend as attend_in_pytorch
from libattention._torch_gradients import Sdpa
from libattention._torch_library import (
    LIBRARY,
    OPTIONS_SCHEMA,
    context_of,
    is_transformed,
    number_of_context,
)
from libattention._torch_options import (
    DEFAULTS,
    NUM_TENSORS,
    TorchOptions,
    library_call,
    score_dtype,
    torch_options,
)
from libattention._torch_shapes import shape_of_scores
from libattention._torch_vmap import map_forward

_SDPA = "libattention::sdpa"
# lse and weights are empty where they are not wanted or not defined. wide_output: of 16 bits the
# output is float32.
LIBRARY.define(
    f"sdpa(Tensor query, Tensor key, Tensor value, {OPTIONS_SCHEMA}, *, bool return_weights=False, "
    "bool wide_output=False, int context=0) -> (Tensor output, Tensor lse, Tensor weights)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    options: Options,
    return_lse: bool,
    return_weights: bool,
    context: Context | None,
    query_starts: Any = None,
    key_starts: Any = None,
) -> Any:
    """scaled_dot_product_attention by the operator, for tensors that have to go through PyTorch."""
    if not torch.compiler.is_compiling():
        # What is no tensor is refused in the library's words, not in those of a schema.
        none: dict[str, Any] = dict.fromkeys(ARRAYS)
        make_params(options._replace(**none), Views(), BOOL_MASK)
    key, value = tensor_of(key, "key"), tensor_of(value, "value")
    given = torch_options(
        with_tensors(options),
        integer_tensor(query_starts, "query_starts"),
        integer_tensor(key_starts, "kv.starts"),
    )
    arguments = (query, key, value, *given, return_weights, number_of_context(context))
    if not is_transformed():
        output, lse, weights = _call(arguments)
    elif forward_ad._current_level >= 0:
        output, lse, weights = _by_formula(arguments[:-2], return_weights)
    else:
        apply: Any = Sdpa.apply
        output, lse, weights, _ = apply(*arguments)
    found = (output, *([lse] if return_lse else []), *([weights] if return_weights else []))
    return found[0] if len(found) == 1 else found


# ---- computing ----


def _compute(
    *arguments: Any, return_weights: bool = False, wide_output: bool = False, context: int = 0
) -> tuple[Tensor, ...]:
    """On ordinary tensors, below autograd."""
    small = _compute_small(arguments, return_weights or wide_output, context)
    if small is not None:
        return small
    given: list[Any] = [one.detach() if isinstance(one, Tensor) else one for one in arguments]
    query, key, value, *given = given
    options = TorchOptions(*given)
    is_softmax = options.normalizer == "softmax"
    call = library_call(query, key, value, options)
    results = (None, is_softmax, return_weights, None)
    if call.kv is None and call.query_starts is None:
        found = attend_at_once(*call[:4], *results, context_of(context), wide_output)
    else:
        found = attend_sequences_at_once(*call, results, context_of(context), wide_output)
    nothing = query.new_empty(0)
    output, *others = found if isinstance(found, tuple) else (found,)
    lse = others.pop(0) if is_softmax else nothing
    return output, lse, others[0] if return_weights else nothing.clone()


def _compute_small(
    arguments: tuple[Any, ...], has_further: bool, context: int
) -> tuple[Tensor, ...] | None:
    """By the compiled module, past what else PyTorch would do with ordinary tensors of which no
    gradient is wanted: None if they are not, or have options that the module does not know."""
    if len(arguments) > _NUM_USUAL or has_further or context != 0:
        return None
    query, key, value, mask, *arrays, is_causal, scale, enable_gqa = (
        arguments + DEFAULTS[len(arguments) : _NUM_USUAL]
    )
    if any(one is not None for one in arrays) or torch.compiler.is_compiling():
        return None
    found = attend_small(query, key, value, mask, is_causal, scale, enable_gqa, True, None)
    if found is NotImplemented:
        return None
    output, lse = found
    return output, lse, query.new_empty(0)


LIBRARY.impl("sdpa", _compute, "CPU")


def _describe(
    query: Tensor, key: Tensor, value: Tensor, *arguments: Any, **further: Any
) -> tuple[Tensor, ...]:
    """Shapes, and lse and weights where there are such."""
    options = TorchOptions(*arguments)
    shape, keys = shape_of_scores(query, key, value, options)
    is_wide = further.get("wide_output", False)
    dtype = score_dtype(query.dtype) if is_wide else query.dtype
    output = query.new_empty((*shape, value.shape[-1]), dtype=dtype)
    is_softmax = options.normalizer == "softmax"
    lse = query.new_empty(0)
    if is_softmax:
        lse = query.new_empty(shape, dtype=score_dtype(query.dtype))
    has_weights = further.get("return_weights", False)
    return output, lse, query.new_empty((*shape, keys) if has_weights else (0,))


torch.library.register_fake(_SDPA, _describe, lib=LIBRARY)

# ---- gradients ----


def _call(arguments: tuple[Any, ...]) -> Any:
    """The operator, by arguments in one row."""
    *usual, return_weights, context = arguments
    further = {"return_weights": return_weights, "context": context}
    return torch.ops.libattention.sdpa(*usual, **further)


def _differentiable(
    *arguments: Any, return_weights: bool = False, wide_output: bool = False, context: int = 0
) -> tuple[Tensor, ...]:
    """What PyTorch calls before it computes: remembers for gradients. A tangent is carried on by
    the formula in PyTorch's operators, which knows how."""
    small = _compute_small(arguments, return_weights or wide_output, context)
    if small is not None:
        return small
    arguments = (*arguments, *DEFAULTS[len(arguments) :])
    tensors = [one for one in arguments[:NUM_TENSORS] if one is not None]
    if forward_ad._current_level >= 0 and any(map(_has_tangent, tensors)):
        return _by_formula(arguments, return_weights)
    if torch.is_grad_enabled() and any(one.requires_grad for one in tensors):
        if wide_output:
            raise unsupported("wide_output: cannot be given where a tensor requires grad")
        apply: Any = Sdpa.apply
        output, lse, weights, _ = apply(*arguments, return_weights, context)
        return output, lse, weights
    further = {
        "return_weights": return_weights,
        "wide_output": wide_output,
        "context": context,
    }
    with torch._C._AutoDispatchBelowAutograd():
        below: tuple[Tensor, ...] = torch.ops.libattention.sdpa(*arguments, **further)
        return below


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


LIBRARY.impl("sdpa", _differentiable, "Autograd")


torch.library.register_vmap(_SDPA, map_forward, lib=LIBRARY)

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


LIBRARY.impl("sdpa", _autocast, "AutocastCPU")


# ---- multi-head ----

LIBRARY.define(_torch_multihead.SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
LIBRARY.impl("multihead", _torch_multihead.multihead, "CompositeImplicitAutograd")
