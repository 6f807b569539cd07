# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch: scaled_dot_product_attention and nn.MultiheadAttention, in the way PyTorch is fastest
at each option."""

from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from peers.cells import AVERAGED_WEIGHTS, CAUSAL, RAGGED, Cell
from peers.contestants.contestant import Contestant, Prepared
from peers.inputs import Array, Inputs, starts_of, visible_as_mask


class PyTorch(Contestant):
    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_num_threads(threads)
        # For the life of the process; a with-block around each call would be timed with it.
        self._inference = torch.inference_mode()
        self._inference.__enter__()

    def describe(self) -> dict[str, str]:
        capability = torch.backends.cpu.get_cpu_capability()
        return {
            "version": torch.__version__,
            "configuration": f"inference_mode, set_num_threads; OpenMP's defaults; {capability}",
        }

    def prepare(self, cell: Cell, inputs: Inputs) -> Prepared:
        if cell.option == RAGGED:
            return _ragged(cell, inputs)
        if cell.is_backward:
            return _backward(cell, inputs)
        return _multihead(cell, inputs) if cell.is_multihead else _sdpa(cell, inputs)


def tensor_on(array: Array) -> torch.Tensor:
    """On the array's memory; uint16 has the bits of bfloat16."""
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _sdpa(cell: Cell, inputs: Inputs) -> Prepared:
    query, key, value = (tensor_on(array) for array in (inputs.query, inputs.key, inputs.value))
    options: dict[str, Any] = {}
    mask = visible_as_mask(cell, inputs)
    if mask is not None:
        options["attn_mask"] = tensor_on(mask)
    if cell.option == CAUSAL:
        options["is_causal"] = True
    if cell.heads != cell.kv_heads:
        options["enable_gqa"] = True
    result: list[torch.Tensor] = []

    def call() -> None:
        result[:] = [scaled_dot_product_attention(query, key, value, **options)]

    how = ", ".join(
        [
            "scaled_dot_product_attention",
            *(_option_text(name, value) for name, value in options.items()),
        ]
    )
    return Prepared(call, lambda: [result[0].float().numpy()], how)


def sequences_of(cell: Cell, inputs: Inputs) -> list[list[torch.Tensor]]:
    """Query, key and value (1, heads, length, width) of each, views of the rows of all."""
    starts = starts_of(cell)
    tensors = [tensor_on(array) for array in (inputs.query, inputs.key, inputs.value)]
    return [
        [tensor[None, :, begin:end] for tensor in tensors]
        for begin, end in zip(starts[:-1], starts[1:], strict=True)
    ]


def _ragged(cell: Cell, inputs: Inputs) -> Prepared:
    """A call for each sequence."""
    sequences = sequences_of(cell, inputs)
    with_groups = cell.heads != cell.kv_heads
    results: list[torch.Tensor] = []

    def call() -> None:
        results[:] = [
            scaled_dot_product_attention(*one, enable_gqa=with_groups) for one in sequences
        ]

    how = f"scaled_dot_product_attention, a call for each of {cell.batch} sequences"
    return Prepared(call, lambda: [torch.cat(results, dim=2)[0].float().numpy()], how)


def _backward(cell: Cell, inputs: Inputs) -> Prepared:
    """The forward pass is done once, and its graph kept."""
    with torch.inference_mode(False):
        arrays = (inputs.query, inputs.key, inputs.value)
        leaves = [tensor_on(array).clone().requires_grad_() for array in arrays]
        gradient = tensor_on(inputs.gradient).clone()
        output = scaled_dot_product_attention(*leaves, is_causal=cell.option == CAUSAL)
    result: list[torch.Tensor] = []

    def call() -> None:
        with torch.inference_mode(False):
            result[:] = torch.autograd.grad(output, leaves, gradient, retain_graph=True)

    return Prepared(
        call,
        lambda: [tensor.float().numpy() for tensor in result],
        "torch.autograd.grad of scaled_dot_product_attention, the forward pass done before",
    )


def _option_text(name: str, value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{name} {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"{name}={value}"


def _multihead(cell: Cell, inputs: Inputs) -> Prepared:
    query = tensor_on(inputs.query)
    layer = torch.nn.MultiheadAttention(
        cell.embed_dim, cell.heads, batch_first=True, dtype=query.dtype
    )
    layer.load_state_dict({name: tensor_on(values) for name, values in inputs.parameters.items()})
    layer.eval()
    with_weights = cell.option == AVERAGED_WEIGHTS
    result: list[torch.Tensor | None] = []

    def call() -> None:
        result[:] = layer(query, query, query, need_weights=with_weights)

    def outputs() -> list[np.ndarray]:
        return [tensor.float().numpy() for tensor in result if tensor is not None]

    return Prepared(
        call,
        outputs,
        f"nn.MultiheadAttention, batch_first, eval, need_weights={with_weights}",
    )
