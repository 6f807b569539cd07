# SPDX-License-Identifier: BSD-3-Clause
"""What a cache hands to a model where it stores other elements than the model computes with."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from libattention._kv import KV
from libattention._library import Error, unsupported

# Queries of float64 go with keys of float64 alone.
_READS_EVERY_STORED_TYPE = (torch.float32, torch.bfloat16, torch.float16)


class StoredRows(torch.Tensor):
    """Keys or values (N, Hk, S, E) where they are stored, of another type than the model's.

    libattention reads them in place. For everything else this is a tensor of the model's dtype:
    each operation of PyTorch's gets the numbers, made for it. There is nothing to write to.

    Args:
        stored: the elements (N, Hk, S, E)
        scale: float32, (N, Hk, S, 1), what an element of integers is multiplied with; else None
        dtype: the model's

    Attributes:
        stored: as given
        scale: as given
    """

    stored: torch.Tensor
    scale: torch.Tensor | None

    # PyTorch's functions are not asked, only its operators.
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(
        cls: type[StoredRows],
        stored: torch.Tensor,
        scale: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> StoredRows:
        made: Any = torch.Tensor._make_wrapper_subclass(cls, stored.shape, dtype=dtype)
        made.stored, made.scale = stored, scale
        found: StoredRows = made
        return found

    def __repr__(self) -> str:  # type: ignore[override]
        return f"StoredRows(shape={tuple(self.shape)}, {self.stored.dtype} for {self.dtype})"

    def __setitem__(self, index: Any, numbers: Any) -> None:
        raise _would_be_lost()

    def __dlpack__(self, **options: Any) -> Any:
        return self.numbers().__dlpack__(**options)

    def numbers(self) -> torch.Tensor:
        """The tensor that this stands for, new."""
        if self.scale is None:
            return self.stored.to(self.dtype)
        wide = torch.promote_types(self.dtype, self.scale.dtype)
        return (self.stored.to(wide) * self.scale).to(self.dtype)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operator: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        options = options or {}
        for parameter, given in zip(operator._schema.arguments, arguments):
            _refuse_writing(parameter, given)
        for parameter in operator._schema.arguments:
            _refuse_writing(parameter, options.get(parameter.name))
        arguments, options = pytree.tree_map_only(
            StoredRows, StoredRows.numbers, (arguments, options)
        )
        return operator(*arguments, **options)


def _refuse_writing(parameter: Any, given: Any) -> None:
    info = parameter.alias_info
    if info is not None and info.is_write and isinstance(given, StoredRows):
        raise _would_be_lost()


def _would_be_lost() -> Error:
    return unsupported(
        "cache: keys or values that it stores in another dtype than the model's were to be written "
        "over; use one of the model's own dtype, dtype=None"
    )


def numbers_of(tensor: torch.Tensor) -> torch.Tensor:
    """An ordinary tensor with the same numbers."""
    return tensor.numbers() if isinstance(tensor, StoredRows) else tensor


def memory_of(tensor: torch.Tensor) -> torch.Tensor:
    """An ordinary tensor with the memory that is read."""
    return tensor.stored if isinstance(tensor, StoredRows) else tensor


def places(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> dict[str, Any]:
    """Key and value as options of scaled_dot_product_attention: read where they are stored."""
    if query.dtype not in _READS_EVERY_STORED_TYPE:
        return {"key": numbers_of(key), "value": numbers_of(value)}
    if not isinstance(key, StoredRows) and not isinstance(value, StoredRows):
        return {"key": key, "value": value}
    return {
        "kv": KV(
            memory_of(key),
            memory_of(value),
            key_scale=getattr(key, "scale", None),
            value_scale=getattr(value, "scale", None),
        )
    }
