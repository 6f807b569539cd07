# SPDX-License-Identifier: BSD-3-Clause
"""zentorch, AMD's plug-in of PyTorch: its operator for attention, called as its compiled programs
call it. It runs on any CPU that it has kernels for."""

from typing import Any

import torch
import zentorch

from peers.cells import CAUSAL, FLOAT16, RAGGED, Cell
from peers.contestants.contestant import Contestant, NotOffered, Prepared
from peers.contestants.contestant_torch import sequences_of, tensor_on
from peers.inputs import Inputs, visible_as_mask

NO_DROPOUT = 0.0


class Zentorch(Contestant):
    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_num_threads(threads)
        self._inference = torch.inference_mode()
        self._inference.__enter__()

    def describe(self) -> dict[str, str]:
        return {
            "version": zentorch.__version__,
            "configuration": "zentorch_sdpa, inference_mode, set_num_threads",
        }

    def prepare(self, cell: Cell, inputs: Inputs) -> Prepared:
        if cell.is_backward:
            raise NotOffered("it does not train")
        if cell.is_multihead:
            raise NotOffered("its operator is attention without projections")
        if cell.dtype == FLOAT16:
            raise NotOffered("its operator has float32 and bfloat16")
        if cell.option == RAGGED:
            return _ragged(cell, inputs)
        return _sdpa(cell, inputs)


def _attention(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
    """Grouped queries follow from the shapes."""
    is_causal = options.pop("is_causal", False)
    return torch.ops.zentorch.zentorch_sdpa(
        *tensors, NO_DROPOUT, is_causal, attn_mask=options.get("mask"), scale=None
    )[0]


def _sdpa(cell: Cell, inputs: Inputs) -> Prepared:
    tensors = [tensor_on(array) for array in (inputs.query, inputs.key, inputs.value)]
    options: dict[str, Any] = {"is_causal": cell.option == CAUSAL}
    how = f"zentorch_sdpa, is_causal={cell.option == CAUSAL}"
    visible = visible_as_mask(cell, inputs)
    if visible is not None:
        options["mask"] = _additive(tensor_on(visible), tensors[0].dtype)
        how += f", mask {tuple(visible.shape)} of query's type"
    result: list[torch.Tensor] = []

    def call() -> None:
        result[:] = [_attention(*tensors, **options)]

    return Prepared(call, lambda: [result[0].float().numpy()], how)


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, float("-inf"))


def _ragged(cell: Cell, inputs: Inputs) -> Prepared:
    sequences = sequences_of(cell, inputs)
    results: list[torch.Tensor] = []

    def call() -> None:
        results[:] = [_attention(*one) for one in sequences]

    how = f"zentorch_sdpa, a call for each of {cell.batch} sequences"
    return Prepared(call, lambda: [torch.cat(results, dim=2)[0].float().numpy()], how)
