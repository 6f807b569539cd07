# SPDX-License-Identifier: BSD-3-Clause
"""Settings that calls run under."""

from __future__ import annotations

from typing import Any, Literal

from libattention._abi import ffi
from libattention._library import Error, lib, raise_last_error, string

ENGINES = {"auto": 0, "blas": 1, "fused": 2}
GEMMS = {"default": 0, "blas": 1, "native": 2}


class Context:
    """Threads, engine and kernels of the calls it is given to; without one the process's default.

    Results do not depend on the number of threads. A context may be used by several threads at
    once. After a fork the child computes on its calling thread.

    Args:
        num_threads: 1 to 1024; None: as many as there are CPUs for this process
        engine: "auto", "fused" (float32 only) or "blas"
        kernels: one of info()["kernels_here"]; None: the best
        gemm: who multiplies matrices: "default", "native" or "blas"
    """

    def __init__(
        self,
        num_threads: int | None = None,
        engine: Literal["auto", "blas", "fused"] = "auto",
        kernels: str | None = None,
        gemm: Literal["default", "blas", "native"] = "default",
    ) -> None:
        name = ffi.NULL if kernels is None else ffi.new("char[]", kernels.encode())
        params = ffi.new(
            "attn_context_params *",
            {
                "struct_size": ffi.sizeof("attn_context_params"),
                "num_threads": 0 if num_threads is None else num_threads,
                "engine": _number_of("engine", engine, ENGINES),
                "gemm": _number_of("gemm", gemm, GEMMS),
                "kernels": name,
            },
        )
        made = ffi.new("attn_context **")
        status = lib.attn_context_create(params, made)
        if status:
            raise_last_error(status, {})
        self._handle = ffi.gc(made[0], lib.attn_context_destroy)

    def __repr__(self) -> str:
        found = ffi.new("attn_context_info *", {"struct_size": ffi.sizeof("attn_context_info")})
        status = lib.attn_context_describe(self._handle, found)
        if status:
            raise_last_error(status, {})
        engine = next(name for name, number in ENGINES.items() if number == found.engine)
        return (
            f"Context(num_threads={found.num_threads}, engine={engine!r}, "
            f"kernels={string(found.kernels)!r})"
        )


def handle_of(context: Context | None) -> Any:
    """The C context; NULL is the default one."""
    return ffi.NULL if context is None else context._handle


def _number_of(argument: str, word: str, numbers: dict[str, int]) -> int:
    if word not in numbers:
        expected = ", ".join(map(repr, numbers))
        raise Error(lib.ATTN_ERROR_VALUE, f"{argument}: expected one of {expected}, got {word!r}")
    return numbers[word]
