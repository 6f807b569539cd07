# SPDX-License-Identifier: BSD-3-Clause
"""Small calls of scaled dot-product attention, compiled (src/call_module).

It computes what comes as it mostly does and leaves the rest to the package's Python: it refuses
nothing, and knows NumPy's arrays and PyTorch's tensors only once it was given them.
"""

from collections.abc import Callable
from typing import Any

def bind_library(sdpa: int, describe_outputs: int, /) -> None:
    """Where the loaded library has attn_sdpa and attn_sdpa_describe_outputs."""

def bind_numpy(
    ndarray: type, empty: Callable[..., Any], float32: Any, float64: Any, float16: Any, /
) -> None:
    """NumPy's class, function and dtypes."""

def bind_torch(
    exchange_api: Any,
    tensor: type,
    parameter: type,
    questions: tuple[tuple[Callable[[], Any], Any], ...],
    facts: tuple[tuple[dict[str, Any], str, Any], ...],
    is_grad_enabled: Callable[[], bool],
    is_neg: Callable[[], bool],
    new_empty: Callable[..., Any],
    requires_grad: Any,
    find_context: Callable[[bool], int],
    /,
) -> bool:
    """PyTorch's classes and functions.

    Args:
        exchange_api: torch.Tensor.__dlpack_c_exchange_api__
        tensor: torch.Tensor
        parameter: torch.nn.Parameter
        questions: each with its answer where tensors may be computed with now
        facts: places in dicts, and what is there then
        is_grad_enabled: torch's
        is_neg: of some tensor
        new_empty: torch.Tensor's
        requires_grad: torch.Tensor's
        find_context: the address of the attn_context of calls without one, given whether they are
            small; that of small calls is kept

    Returns:
        Whether the interface has what is needed; without, tensors are left to Python.
    """

def bind_openmp(parallel: int, /) -> int:
    """The address of an attn_parallel_for_fn that runs on the threads of the OpenMP whose
    GOMP_parallel is there. Its state is their number."""

def sdpa(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    is_causal: Any,
    scale: Any,
    enable_gqa: Any,
    return_lse: Any,
    context: int | None,
    /,
) -> Any:
    """As libattention.scaled_dot_product_attention, with the address of an attn_context.

    Returns:
        The output, with return_lse (output, lse); NotImplemented where Python has to look, which is
        also where a call is to be refused.
    """
