# SPDX-License-Identifier: BSD-3-Clause
"""What a call would run, as the library tells it."""

from __future__ import annotations

from typing import Any

from libattention._abi import ffi
from libattention._context import ENGINE_NAMES, GEMM_NAMES
from libattention._library import lib, string

PACKED = {
    lib.ATTN_SDPA_PACK_QUERY: "query",
    lib.ATTN_SDPA_PACK_KEY: "key",
    lib.ATTN_SDPA_PACK_VALUE: "value",
    lib.ATTN_SDPA_PACK_OUTPUT: "output",
}


def new_report(name: str) -> Any:
    """A struct for the library to fill: "attn_sdpa_report" and its like."""
    return ffi.new(f"{name} *", {"struct_size": ffi.sizeof(name)})


def attention_report(report: Any) -> dict[str, Any]:
    """An attn_sdpa_report in words."""
    return {
        "engine": ENGINE_NAMES[report.engine],
        "gemm": GEMM_NAMES[report.gemm],
        "kernels": string(report.kernels),
        "reason": string(report.reason),
        "row_block": report.row_block,
        "num_blocks": report.num_blocks,
        "workspace_bytes": report.workspace_bytes,
        "copies": [name for bit, name in PACKED.items() if report.packs & bit],
        "depends_on_blas_threads": bool(report.depends_on_blas_threads),
    }


def backward_report(report: Any) -> dict[str, Any]:
    """An attn_sdpa_backward_report in words."""
    return {
        "whole_heads": bool(report.whole_heads),
        "num_items": report.num_items,
        "row_block": report.row_block,
        "key_block": report.key_block,
        "staged": report.staged,
        "kernels": string(report.kernels),
        "reason": string(report.reason),
        "workspace_bytes": report.workspace_bytes,
    }


def layer_report(report: Any) -> dict[str, Any]:
    """An attn_mha_report in words, without its attention."""
    return {
        "projection_gemm": GEMM_NAMES[report.projection_gemm],
        "kernels": string(report.kernels),
        "workspace_bytes": report.workspace_bytes,
        "depends_on_blas_threads": bool(report.depends_on_blas_threads),
    }
