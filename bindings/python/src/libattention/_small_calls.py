# SPDX-License-Identifier: BSD-3-Clause
"""Calls that come as most do, by the compiled module, which is past everything that costs
microseconds.

There is none where Python has no limited API (PyPy, free-threaded, older than 3.11) or had no
headers when the package was built. Plans then do what they can (_planned_calls).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from libattention._abi import ffi
from libattention._library import lib


def _address(function: str) -> int:
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, function)))


def _leave_to_python(*_: Any) -> Any:
    return NotImplemented


# Attention as _call.pyi tells it.
attend: Callable[..., Any] = _leave_to_python
try:
    import libattention._call as _module
except ModuleNotFoundError:
    IS_COMPILED = False
else:
    IS_COMPILED = True
    attend = _module.sdpa
    _module.bind_library(_address("attn_sdpa"), _address("attn_sdpa_describe_outputs"))
    _module.bind_numpy(
        np.ndarray, np.empty, np.dtype("float32"), np.dtype("float64"), np.dtype("float16")
    )


def bind_openmp(parallel: int) -> int | None:
    """The address of an attn_parallel_for_fn, given that of an OpenMP's GOMP_parallel; its state
    is the number of threads. None without a compiled module."""
    return _module.bind_openmp(parallel) if IS_COMPILED else None


def bind_torch(
    torch: Any,
    questions: tuple[tuple[Callable[[], Any], Any], ...],
    facts: tuple[tuple[dict[str, Any], str, Any], ...],
    find_context: Callable[[bool], int],
) -> bool:
    """Lets attend take PyTorch's tensors.

    Args:
        torch: the module
        questions: each with its answer where ordinary tensors hold numbers, now
        facts: places in dicts, and what is there then
        find_context: as _call.pyi tells it

    Returns:
        Whether it does.
    """
    # DLPack's functions in C, which older releases of PyTorch do not have.
    exchange_api = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if not IS_COMPILED or exchange_api is None:
        return False
    return _module.bind_torch(
        exchange_api,
        torch.Tensor,
        torch.nn.Parameter,
        questions,
        facts,
        torch.is_grad_enabled,
        torch.Tensor().is_neg,
        torch.Tensor.new_empty,
        torch.Tensor.requires_grad,
        find_context,
    )
