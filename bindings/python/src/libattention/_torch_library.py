# SPDX-License-Identifier: BSD-3-Clause
"""What PyTorch's operators of libattention have in common: the library that they are registered
in, the options in their schemas, and contexts as numbers."""

from __future__ import annotations

import weakref

import torch

from libattention._context import Context
from libattention._library import unsupported

LIBRARY = torch.library.Library("libattention", "DEF")
# In the order of TorchOptions.
OPTIONS_SCHEMA = (
    "Tensor? attn_mask=None, Tensor? bias=None, Tensor? query_offset=None, "
    "Tensor? key_lengths=None, Tensor? sinks=None, Tensor? alibi_slopes=None, "
    "Tensor? mask_start=None, Tensor? position_bias=None, Tensor? block_mask=None, "
    "Tensor? query_starts=None, Tensor? key_starts=None, bool is_causal=False, "
    "float? scale=None, bool enable_gqa=False, bool align_end=False, SymInt window_left=-1, "
    "SymInt window_right=-1, float softcap=0.0, str normalizer='softmax', SymInt block_rows=0, "
    "SymInt block_columns=0, float dropout=0.0, SymInt dropout_seed=0, SymInt dropout_offset=0, "
    "SymInt dropout_batch=0, SymInt dropout_head=0, SymInt dropout_row=0, SymInt dropout_column=0"
)
_contexts: weakref.WeakValueDictionary[int, Context] = weakref.WeakValueDictionary()
peek_transform = torch._C._functorch.peek_interpreter_stack


def number_of_context(context: Context | None) -> int:
    """What a schema can hold; 0 is the default one."""
    if context is None:
        return 0
    _contexts[id(context)] = context
    return id(context)


def context_of(number: int) -> Context | None:
    """The inverse."""
    if number == 0:
        return None
    found = _contexts.get(number)
    if found is None:
        raise unsupported("context: the context that this program was made with is gone; keep it")
    return found


def is_transformed() -> bool:
    """Whether torch.func transforms what runs: it takes a Function where it does not take an
    operator's gradients."""
    return not torch.compiler.is_compiling() and peek_transform() is not None
