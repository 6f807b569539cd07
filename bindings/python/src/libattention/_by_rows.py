# SPDX-License-Identifier: BSD-3-Clause
"""Functions whose result has the shape of their argument, row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libattention._abi import ffi
from libattention._context import Context, context_for, handle_of
from libattention._dtypes import DATA
from libattention._library import raise_last_error
from libattention._tensors import Empty, Views, kind_of

# What C calls otherwise.
_NAMES = {"input": "x", "output": "out"}


def new_params(name: str) -> Any:
    """An options struct that says nothing yet, for example "attn_rope_params"."""
    return ffi.new(f"{name} *", {"struct_size": ffi.sizeof(name)})


def compute_rows(
    function: Callable[..., int],
    x: Any,
    make_params: Callable[[Views], Any],
    out: Any,
    context: Context | None,
) -> Any:
    """Calls attn_rope or attn_rms_norm.

    Args:
        function: which
        x: its input
        make_params: the options as a struct, and their arrays as views
        out: where to put the result; None: a new array of x's kind, dtype and shape
        context: threads and kernels

    Returns:
        The result.
    """
    views = Views()
    kind = kind_of(x, "x")
    view = kind.describe(x, "x", DATA, False)
    source = views.add(view, "x")
    params = make_params(views)
    if out is None:
        result, target = views.add_new(Empty(view.dtype, view.shape), kind, "out")
    else:
        result, target = out, views.add_array(out, "out", writable=True)
    views.finish()
    status = function(handle_of(context_for(context, x)), source, params, target)
    if status:
        raise_last_error(status, _NAMES)
    return result if out is not None else kind.finished(result, x)
