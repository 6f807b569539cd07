# SPDX-License-Identifier: BSD-3-Clause
"""Arrays of any kind as PyTorch's tensors, for a call that goes through its operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from libattention._library import unsupported
from libattention._options import Options
from libattention._tensors import floats, integers, kind_of

# Options that are arrays, and how those are made of numbers which may be in their place.
ARRAYS: dict[str, Callable[[Any, str], Any] | None] = {
    **dict.fromkeys(("attn_mask", "bias", "position_bias", "block_mask")),
    **dict.fromkeys(("query_offset", "key_lengths", "mask_start"), integers),
    **dict.fromkeys(("sinks", "alibi_slopes"), floats),
}


def with_tensors(options: Options) -> Options:
    """The options, with a tensor for each array and each number in an array's place."""
    arrays: dict[str, Any] = {
        name: _number_or_tensor(getattr(options, name), name, as_array)
        for name, as_array in ARRAYS.items()
    }
    return options._replace(**arrays)


def integer_tensor(values: Any, name: str) -> Any:
    """Integers that may also be a list of them."""
    return None if values is None else _number_or_tensor(values, name, integers)


def tensor_of(array: Any, name: str) -> Any:
    """An array of any kind, in the memory that it has; masked ones are refused."""
    if array is None:
        return None
    kind_of(array, name)
    if isinstance(array, Tensor):
        return array
    if isinstance(array, np.ndarray) and torch.compiler.is_compiling():
        return torch.as_tensor(array)  # DLPack is nothing that the compiler knows
    if isinstance(array, np.ndarray) and min(array.strides, default=0) < 0:
        array = array.copy()  # no tensor has negative strides, and PyTorch ends the process
    try:
        return from_dlpack(array)
    except BufferError as error:
        raise unsupported(f"{name}: cannot be read through DLPack: {error}") from error


def _number_or_tensor(values: Any, name: str, as_array: Callable[[Any, str], Any] | None) -> Any:
    if as_array is None:
        return tensor_of(values, name)
    if torch.compiler.is_compiling() and isinstance(values, (int, list, tuple)):
        several = (values,) if isinstance(values, int) else values
        if all(isinstance(one, int) for one in several):
            return torch.tensor(values, dtype=torch.int64, device="cpu")
    found = as_array(values, name)
    # A new array is made a fake tensor where the others are, which DLPack would not do.
    return tensor_of(found, name) if found is values else torch.as_tensor(found, device="cpu")
