# SPDX-License-Identifier: BSD-3-Clause
"""Settings that calls run under."""

from __future__ import annotations

import sys
from typing import Any, Literal

from libattention._abi import ffi
from libattention._library import Error, assign, lib, raise_last_error, string

ENGINES = {
    "auto": lib.ATTN_ENGINE_AUTO,
    "blas": lib.ATTN_ENGINE_BLAS,
    "fused": lib.ATTN_ENGINE_FUSED,
}
GEMMS = {"auto": lib.ATTN_GEMM_AUTO, "blas": lib.ATTN_GEMM_BLAS, "native": lib.ATTN_GEMM_NATIVE}
ENGINE_NAMES = {number: name for name, number in ENGINES.items()}
GEMM_NAMES = {number: name for name, number in GEMMS.items()}


class Context:
    """Threads, engine and kernels of the calls it is given to; without one the process's default.
    Calls on PyTorch's tensors without one compute on PyTorch's threads, as many as
    torch.get_num_threads() says.

    Results do not depend on the number of threads. A context may be used by several threads at
    once. After a fork the child computes on its calling thread.

    Args:
        num_threads: 1 to 1024; None: as many as there are CPUs for this process
        engine: "auto", "fused" (float32 only) or "blas"
        kernels: one of info()["kernels_here"]; None: the best
        gemm: who multiplies matrices: "auto", "native" or "blas"
        float32_weights: never round weights to bfloat16, as kernels do that multiply pairs of it
            where query, key and value have that type and rows are many
    """

    def __init__(
        self,
        num_threads: int | None = None,
        engine: Literal["auto", "blas", "fused"] = "auto",
        kernels: str | None = None,
        gemm: Literal["auto", "blas", "native"] = "auto",
        float32_weights: bool = False,
    ) -> None:
        self._make(
            {"num_threads": 0 if num_threads is None else num_threads},
            engine,
            kernels,
            gemm,
            float32_weights,
        )
        self._arguments = (num_threads, engine, kernels, gemm, bool(float32_weights))

    def _make(
        self, threads: dict[str, Any], engine: str, kernels: str | None, gemm: str, is_wide: bool
    ) -> None:
        """With these fields of an attn_context_config that say who computes."""
        name = ffi.NULL if kernels is None else ffi.new("char[]", kernels.encode())
        config = ffi.new(
            "attn_context_config *",
            {
                "struct_size": ffi.sizeof("attn_context_config"),
                "engine": number_of("engine", engine, ENGINES),
                "gemm": number_of("gemm", gemm, GEMMS),
                "kernels": name,
                **threads,
            },
        )
        assign(config, "float32_weights", is_wide, "float32_weights", "True or False")
        made = ffi.new("attn_context **")
        status = lib.attn_context_create(config, made)
        if status:
            raise_last_error(status, {})
        self._handle = ffi.gc(made[0], lib.attn_context_destroy)
        self._address = int(ffi.cast("uintptr_t", made[0]))

    def __reduce__(self) -> tuple[type[Context], tuple[Any, ...]]:
        """Copies are contexts of their own with the same settings."""
        return type(self), self._arguments

    def __repr__(self) -> str:
        found = self.info()
        found["float32_weights"] = self._arguments[-1]
        shown = ("num_threads", "engine", "kernels", "gemm", "float32_weights")
        return f"Context({', '.join(f'{name}={found[name]!r}' for name in shown)})"

    def start(self) -> None:
        """Starts the threads now, which the first large call would do."""
        start(self)

    def info(self) -> dict[str, Any]:
        """What calls run with.

        Returns:
            num_threads, engine and gemm as set; attention_gemm and projection_gemm, who computes
            the products of engine "blas" and of a layer's projections; kernels; blas, what it says
            of itself; and blas_is_serial, whether it admits one caller at a time.
        """
        return described_context(self._handle)


def context_on(
    parallel_for: int,
    num_threads: int,
    gemm: Literal["auto", "blas", "native"],
    kernels: str | None,
) -> Context:
    """A context on threads that are not the library's; copies of it have their own.

    Args:
        parallel_for: the address of an attn_parallel_for_fn, whose state is num_threads
        num_threads: how many there are
        gemm: as in Context
        kernels: as in Context
    """
    threads = {
        "parallel_for": ffi.cast("attn_parallel_for_fn", parallel_for),
        "parallel_for_state": ffi.cast("void *", num_threads),
        "parallel_for_width": num_threads,
    }
    made = Context.__new__(Context)
    made._make(threads, "auto", kernels, gemm, False)
    made._arguments = (num_threads, "auto", kernels, gemm, False)
    return made


def context_for(context: Context | None, array: Any) -> Context | None:
    """What a call runs with whose first array this is: without a context PyTorch's tensors are
    computed on PyTorch's threads, everything else by the default one."""
    torch: Any = sys.modules.get("torch")
    if context is None and torch is not None and isinstance(array, torch.Tensor):
        from libattention._torch_threads import context_now

        return context_now()
    return context


def handle_of(context: Context | None) -> Any:
    """The C context; NULL is the default one."""
    return ffi.NULL if context is None else context._handle


def start(context: Context | None = None) -> None:
    """Starts the threads of a context, of the default one without, now, which the first large call
    would do."""
    status = lib.attn_context_start(handle_of(context))
    if status:
        raise_last_error(status, {})


def described_context(handle: Any) -> dict[str, Any]:
    """See Context.info."""
    found = ffi.new("attn_context_info *", {"struct_size": ffi.sizeof("attn_context_info")})
    status = lib.attn_context_describe(handle, found)
    if status:
        raise_last_error(status, {})
    return {
        "num_threads": found.num_threads,
        "engine": ENGINE_NAMES[found.engine],
        "gemm": GEMM_NAMES[found.gemm],
        "attention_gemm": GEMM_NAMES[found.attention_gemm],
        "projection_gemm": GEMM_NAMES[found.projection_gemm],
        "kernels": string(found.kernels),
        "blas": string(found.blas),
        "blas_is_serial": bool(found.blas_is_serial),
    }


def number_of(argument: str, word: str, numbers: dict[str, int]) -> int:
    """What C calls a word."""
    if word not in numbers:
        expected = ", ".join(map(repr, numbers))
        raise Error(lib.ATTN_ERROR_VALUE, f"{argument}: expected one of {expected}, got {word!r}")
    return numbers[word]
