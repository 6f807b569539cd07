# SPDX-License-Identifier: BSD-3-Clause
"""The threads that PyTorch computes with, for calls on its tensors.

PyTorch's threads are OpenMP's, as a rule, and spin for milliseconds after each of its operators.
Beside them a pool of the library's own would wait for a processor, so that calls run on these
threads themselves. Where there is no such way in (no compiled module, PyTorch without OpenMP, a
forked child, whose parent has the threads) contexts have as many threads of their own.
"""

from __future__ import annotations

import ctypes
import os

import torch

from libattention._context import Context, context_on
from libattention._small_calls import bind_openmp

MOST_THREADS = 1024


def context_now() -> Context:
    """Of as many threads as torch.get_num_threads() says, and no more: a BLAS would bring its
    own. Results do not depend on their number."""
    return _context_of(min(torch.get_num_threads(), MOST_THREADS))


def address_of_context(is_small: bool) -> int:
    """As context_now, for the compiled module: of small calls, which one thread computes, for as
    long as the process lives."""
    return (_context_of(1) if is_small else context_now())._address


def _context_of(count: int) -> Context:
    return _contexts.get(count) or _contexts.setdefault(count, _new_context(count))


def _new_context(count: int) -> Context:
    # As in the default context.
    kernels = os.environ.get("ATTN_KERNELS") or None
    if count == 1 or _parallel_for is None:
        return Context(count, gemm="native", kernels=kernels)
    return context_on(_parallel_for, count, gemm="native", kernels=kernels)


def _bind_openmp() -> int | None:
    """An attn_parallel_for_fn on PyTorch's OpenMP; None where there is none."""
    if not torch.backends.openmp.is_available():
        return None
    # That of what PyTorch is linked with: a process may have several.
    parallel = getattr(ctypes.CDLL(torch._C.__file__), "GOMP_parallel", None)
    address = ctypes.cast(parallel, ctypes.c_void_p).value if parallel is not None else None
    return None if address is None else bind_openmp(address)


def _forget_threads() -> None:
    """In a forked child: of the parent's threads OpenMP waits for ever."""
    global _contexts, _parallel_for
    _contexts = {count: one for count, one in _contexts.items() if count == 1}
    _parallel_for = None


_contexts: dict[int, Context] = {}
_parallel_for = _bind_openmp()
os.register_at_fork(after_in_child=_forget_threads)
