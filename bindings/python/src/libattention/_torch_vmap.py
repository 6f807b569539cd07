# SPDX-License-Identifier: BSD-3-Clause
"""The operators of libattention under vmap: one more batch axis before the others, and an axis of
heads where there was none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from libattention._library import unsupported
from libattention._torch_options import DEFAULTS, NUM_TENSORS, TENSORS, TorchOptions


def _places_of(*names: str) -> tuple[int, ...]:
    return tuple(map(TENSORS.index, names))


# Of the operator's tensors those of every call, ...
_INPUTS = _places_of("query", "key", "value")
# ... masks beside the scores, ...
_MASKS = _places_of("attn_mask", "bias", "block_mask")
# ... numbers over the batch axes, ...
_BY_BATCH = _places_of("query_offset", "key_lengths", "mask_start")
# ... and what has no batch axes.
_FOR_ALL = _places_of("sinks", "alibi_slopes", "position_bias")
# Before the operator's tensors the backward's has gradients of output, lse and weights, and output
# and lse.
NUM_RESULTS = 5


def map_forward(info: Any, in_dims: tuple[Any, ...], *arguments: Any, **further: Any) -> Any:
    """The rule of libattention::sdpa."""
    arguments = (*arguments, *DEFAULTS[len(arguments) :])
    in_dims = (*in_dims, *(None,) * (len(arguments) - len(in_dims)))
    given, options = arguments[:NUM_TENSORS], arguments[NUM_TENSORS:]
    if _differs_alone(arguments):
        _refuse_different(info, arguments)
        return _each_forward(info.batch_size, in_dims, given, options, further)
    tensors, is_mapped = _axes_first(given, in_dims)
    if any(is_mapped[index] for index in _FOR_ALL):
        raise unsupported(
            "sinks, alibi_slopes, position_bias: cannot be mapped over by vmap; call in a loop"
        )
    ranks = _ranks(tensors, is_mapped)
    _pad(tensors, is_mapped, max(3, *ranks), info.batch_size, _INPUTS)
    found = torch.ops.libattention.sdpa(*tensors, *options, **further)
    if max(ranks) < 3:
        found = tuple(_without_heads(one) for one in found)
    return tuple(found), tuple(0 if one.dim() > 1 else None for one in found)


def map_backward(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
    """The rule of libattention::sdpa_backward."""
    given = arguments[: NUM_RESULTS + NUM_TENSORS]
    *options, wanted, context = arguments[len(given) :]
    axes = [None if one is None else axis for one, axis in zip(given, in_dims)]
    has_own = any(index in wanted or axes[NUM_RESULTS + index] is not None for index in _FOR_ALL)
    if has_own or _differs_alone((*given[NUM_RESULTS:], *options)):
        return _each_backward(info.batch_size, axes, given, (*options, wanted, context))
    moved, were_mapped = _axes_first(given, axes)
    results, tensors = moved[:NUM_RESULTS], moved[NUM_RESULTS:]
    is_mapped = were_mapped[NUM_RESULTS:]
    shapes = [
        None if one is None else one.shape[mapped:] for one, mapped in zip(tensors, is_mapped)
    ]
    rank, size = max(3, *_ranks(tensors, is_mapped)), info.batch_size
    _pad(tensors, is_mapped, rank, size, {*_INPUTS, *wanted})
    for index, one in enumerate(results):
        if one is not None:
            axes_of_one = rank - (index in (1, 4))  # those of lse
            results[index] = _with_batch(one, were_mapped[index], axes_of_one, size, True)
    found = torch.ops.libattention.sdpa_backward(*results, *tensors, *options, wanted, context)
    back: list[Any] = [one.reshape(size, *shapes[index]) for one, index in zip(found, wanted)]
    return back, [0] * len(back)


def _differs_alone(arguments: tuple[Any, ...]) -> bool:
    """Whether a call that is mapped over is no batch of a larger one: what is dropped depends on
    the number of a batch, and ragged rows have no batch axes."""
    options = TorchOptions(*arguments[len(_INPUTS) :])
    starts = (options.query_starts, options.key_starts)
    return bool(options.dropout) or any(one is not None for one in starts)


def _refuse_different(info: Any, arguments: tuple[Any, ...]) -> None:
    """Each call drops the same, as in a loop, which is not what was asked for then."""
    if info.randomness == "different" and TorchOptions(*arguments[len(_INPUTS) :]).dropout:
        raise unsupported(
            'dropout: drops the same weights in each call, where vmap has randomness="different"; '
            "call in a loop, each with a Dropout of its own"
        )


def _each_forward(
    size: int, axes: Any, given: tuple[Any, ...], options: tuple[Any, ...], further: dict[str, Any]
) -> Any:
    """One call after the other."""
    each = [
        torch.ops.libattention.sdpa(*one, *options, **further)
        for one in _one_by_one(size, axes, given)
    ]
    has_lse = TorchOptions(*given[len(_INPUTS) :], *options).normalizer == "softmax"
    are_there = (True, has_lse, further.get("return_weights", False))
    found = zip(are_there, zip(*each))
    return (
        tuple(torch.stack(several) if is_there else several[0] for is_there, several in found),
        tuple(0 if is_there else None for is_there in are_there),
    )


def _each_backward(size: int, axes: Any, given: tuple[Any, ...], further: tuple[Any, ...]) -> Any:
    each = [
        torch.ops.libattention.sdpa_backward(*one, *further)
        for one in _one_by_one(size, axes, given)
    ]
    return [torch.stack(several) for several in zip(*each)], [0] * len(each[0])


def _one_by_one(size: int, axes: Any, given: tuple[Any, ...]) -> Iterator[list[Any]]:
    """The tensors of each call."""
    for place in range(size):
        yield [
            one if one is None or axis is None else one.select(axis, place)
            for one, axis in zip(given, axes)
        ]


def _axes_first(given: Any, in_dims: Any) -> tuple[list[Any], list[bool]]:
    """Tensors with the axis that is mapped over before the others, and whether there is one."""
    tensors = [
        one if one is None or axis is None else one.movedim(axis, 0)
        for one, axis in zip(given, in_dims)
    ]
    is_mapped = [one is not None and axis is not None for one, axis in zip(given, in_dims)]
    return tensors, is_mapped


def _ranks(tensors: list[Any], is_mapped: list[bool]) -> list[int]:
    """Of query, key and value of each call."""
    return [tensors[index].dim() - is_mapped[index] for index in _INPUTS]


def _pad(tensors: list[Any], is_mapped: list[bool], rank: int, size: int, repeated: Any) -> None:
    """Gives them a batch axis before `rank` others, in place; of those that are repeated it has its
    full length."""
    for index in (*_INPUTS, *_MASKS):
        if tensors[index] is not None:
            is_repeated = index in repeated
            tensors[index] = _with_batch(tensors[index], is_mapped[index], rank, size, is_repeated)
    for index in _BY_BATCH:
        one = tensors[index]
        if is_mapped[index]:
            padding = (1,) * (rank - 2 - one.dim())
            tensors[index] = one.reshape(one.shape[:1] + padding + one.shape[1:])


def _with_batch(one: Tensor, is_mapped: bool, rank: int, size: int, is_repeated: bool) -> Tensor:
    """(batch, axes of rank `rank`); what is not mapped over is shared."""
    shape = one.shape[1:] if is_mapped else one.shape
    padded = one.reshape((one.shape[0] if is_mapped else 1, *(1,) * (rank - len(shape)), *shape))
    return padded.expand(size, *padded.shape[1:]) if is_repeated else padded


def _without_heads(one: Tensor) -> Tensor:
    return one.squeeze(1) if one.dim() > 1 else one
