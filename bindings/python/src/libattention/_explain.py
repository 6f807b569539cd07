# SPDX-License-Identifier: BSD-3-Clause
"""What calls would run, and why, without running them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from libattention._abi import ffi
from libattention._attention import add_sequences, refuse_dropout
from libattention._backward import (
    BACKWARD_NAMES,
    MOST_BACKWARD_VIEWS,
    USUAL,
    Call,
    add_wanted,
    wanted_names,
)
from libattention._context import Context, context_for, handle_of
from libattention._kv import KV, MOST_VIEWS, check_kv
from libattention._library import lib, raise_last_error
from libattention._options import FurtherOptions, Options
from libattention._outputs import NAMES, describe_outputs
from libattention._reports import attention_report, backward_report, new_report
from libattention._tensors import Views

if TYPE_CHECKING:
    from typing_extensions import Unpack


def explain(
    query: Any,
    key: Any = None,
    value: Any = None,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    kv: KV | None = None,
    query_starts: Any = None,
    context: Context | None = None,
    **options: Unpack[FurtherOptions],
) -> dict[str, Any]:
    """What scaled_dot_product_attention would run for the same arguments, and why.

    Args:
        query: as there
        key: as there
        value: as there
        attn_mask: as there
        dropout_p: as there
        is_causal: as there
        scale: as there
        enable_gqa: as there
        kv: as there
        query_starts: as there
        context: as there
        options: as there, from bias to dropout

    Returns:
        engine, gemm, kernels, reason (a sentence), row_block and num_blocks (how the rows are cut),
        workspace_bytes, copies (the tensors that go through scratch memory), and
        depends_on_blas_threads.
    """
    if dropout_p != 0:
        refuse_dropout()
    if kv is not None:
        check_kv(kv)
    views = Views(MOST_VIEWS)
    given = Options(attn_mask, is_causal, scale, enable_gqa, **options)
    inputs, params, _place = add_sequences(views, query, key, value, given, kv, query_starts)
    views.finish()
    outputs = describe_outputs(inputs, params)
    report = new_report("attn_sdpa_report")
    output = ffi.addressof(outputs, "output")
    handle = handle_of(context_for(context, query))
    status = lib.attn_sdpa_explain(handle, *inputs, params, output, report)
    if status:
        raise_last_error(status, NAMES)
    return attention_report(report)


def explain_backward(
    query: Any,
    key: Any = None,
    value: Any = None,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    kv: KV | None = None,
    query_starts: Any = None,
    wanted: Sequence[str] = USUAL,
    context: Context | None = None,
    **options: Unpack[FurtherOptions],
) -> dict[str, Any]:
    """What scaled_dot_product_attention_backward would run for the same arguments, and why; of
    gradients of the output alone, in new arrays.

    Args:
        query: as there
        key: as there
        value: as there
        attn_mask: as there
        is_causal: as there
        scale: as there
        enable_gqa: as there
        kv: as there
        query_starts: as there
        wanted: as there
        context: as there
        options: as there, from bias to dropout

    Returns:
        whole_heads (whether a piece of work walks all keys of a head, or threads share one head),
        num_items (pieces of work), row_block and key_block (how rows and keys are cut), staged (how
        many gradients are summed apart before they are written), kernels, reason (a sentence) and
        workspace_bytes. Since 0.1.
    """
    if kv is not None:
        check_kv(kv)
    views = Views(MOST_BACKWARD_VIEWS)
    given = Options(attn_mask, is_causal, scale, enable_gqa, **options)
    call = Call(query, key, value, given, kv, query_starts)
    inputs, params, _place = add_sequences(views, *call)
    struct = ffi.new("attn_sdpa_gradients *", {"struct_size": ffi.sizeof("attn_sdpa_gradients")})
    add_wanted(views, call, wanted_names(wanted), struct)
    views.finish()
    outputs = describe_outputs(inputs, params)
    output = struct.output = ffi.addressof(outputs, "output")
    if outputs.lse.dtype:
        params.lse = ffi.addressof(outputs, "lse")
    report = new_report("attn_sdpa_backward_report")
    handle = handle_of(context_for(context, query))
    status = lib.attn_sdpa_backward_explain(handle, *inputs, params, output, struct, report)
    if status:
        raise_last_error(status, BACKWARD_NAMES)
    return backward_report(report)
