# SPDX-License-Identifier: BSD-3-Clause
"""Scaled dot-product attention."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from math import inf
from operator import is_
from typing import Any, NoReturn, Optional, TypeVar, cast

from libattention._abi import ffi
from libattention._context import Context, context_for, handle_of, number_of
from libattention._dropout import Dropout
from libattention._kv import KV, MOST_VIEWS, add_integers, add_kv, check_kv
from libattention._library import lib, raise_last_error, unsupported
from libattention._options import (
    EVERY_KEY,
    NO_OPTIONS,
    NO_SOFTCAP,
    SCORE_STAGES,
    Normalizer,
    Options,
    ScoreStage,
    make_params,
)
from libattention._outputs import BOOL_MASK, NAMES, Outputs, describe_outputs, outputs_of
from libattention._planned_calls import attend as attend_by_plan
from libattention._small_calls import IS_COMPILED
from libattention._small_calls import attend as attend_small
from libattention._tensors import Kind, Views, empty_from, kind_of, note_written

# out, return_lse, return_weights and return_scores of a call.
Results = tuple[Any, bool, bool, Optional[ScoreStage]]


Function = TypeVar("Function", bound=Callable[..., Any])


def _small_calls_first(function: Function) -> Function:
    """scaled_dot_product_attention by the compiled module where a call has no keywords but the
    first: to fill in the others takes Python longer than anything else in a small call. What is
    being compiled is to see the operator, not the module, which leaves the rest of what is traced
    by itself."""

    @wraps(function)
    def attend(
        query: Any,
        key: Any = None,
        value: Any = None,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        **further: Any,
    ) -> Any:
        torch: Any = sys.modules.get("torch")
        is_compiling = torch is not None and torch.compiler.is_dynamo_compiling()
        if not further and dropout_p == 0 and not is_compiling:
            found = attend_small(
                query, key, value, attn_mask, is_causal, scale, enable_gqa, False, None
            )
            if found is not NotImplemented:
                return found
        options = (attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return function(query, key, value, *options, **further)

    return cast(Function, attend)


@_small_calls_first
def scaled_dot_product_attention(
    query: Any,
    key: Any = None,
    value: Any = None,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    bias: Any = None,
    query_offset: Any = None,
    key_lengths: Any = None,
    align_end: bool = False,
    window: tuple[int, int] = EVERY_KEY,
    softcap: float = NO_SOFTCAP,
    sinks: Any = None,
    alibi_slopes: Any = None,
    normalizer: Normalizer = "softmax",
    mask_start: Any = None,
    position_bias: Any = None,
    block_mask: Any = None,
    block_size: int | tuple[int, int] | None = None,
    dropout: Dropout | None = None,
    kv: KV | None = None,
    query_starts: Any = None,
    return_lse: bool = False,
    return_weights: bool = False,
    return_scores: ScoreStage | None = None,
    out: Any = None,
    context: Context | None = None,
) -> Any:
    """Computes normalise(scale * query @ key^T, softcap, ALiBi, biases, mask) @ value.

    It is torch.nn.functional.scaled_dot_product_attention, with the options of the field beside
    PyTorch's. All of them compose.

    Args:
        query: (..., Hq, L, E), ranks 2 to 8; float32, float64, bfloat16 or float16. Key and value
            are of this or another of these, but float64 goes with itself alone
        key: (..., Hk, S, E); None with kv
        value: (..., Hv, S, Ev); None with kv
        attn_mask: broadcastable to (..., Hq, L, S). Bool: True takes part; float: added. It, bias,
            sinks and alibi_slopes have query's dtype, or float32 beside 16 bits
        dropout_p: must be 0; see dropout, which says which weights
        is_causal: row i sees keys up to i + query_offset; composes with attn_mask
        scale: of the scores; None: 1 / sqrt(E)
        enable_gqa: Hq is a multiple of Hk and of Hv
        bias: broadcastable to (..., Hq, L, S), added to the scores beside any attn_mask
        query_offset: position of row 0 among the keys: a number, or int64 or int32 over the batch
            axes; S - 1 where one row is decoded over S cached keys
        key_lengths: keys at or past it do not exist: a number, or int64 or int32 over the batch
            axes
        align_end: the last row stands at the last key: query_offset is key_lengths - L, without
            them S - L
        window: so many keys before and after a row's position are seen; -1: all
        softcap: > 0: scores are softcap * tanh(score / softcap)
        sinks: (Hq) or (1): one more logit in the denominator
        alibi_slopes: (Hq) or (1): scores lose slope * distance
        normalizer: what makes weights of scores
        mask_start: the key that attn_mask's first column belongs to: a number, or int64 or int32
            over the batch axes. attn_mask has any number of columns then; keys before them are
            visible, those behind them hidden. 0: a mask shorter than S, as ONNX's
        position_bias: (Hq or 1, 2 R + 1), added to the scores by a key's distance from the row's
            position, at most R and at least -R: T5's relative positions
        block_mask: uint8, broadcastable to (..., Hq, ceil(L / rows), ceil(S / keys)) of block_size:
            what each block of rows and keys is. 0: hidden and never read; 1: visible, whatever
            attn_mask says; 2: visible where attn_mask is, or without one. What a row sees by the
            other options it must see by this, too; blocks that are hidden take no time
        block_size: (rows, keys) of a block, or one number for both; with block_mask
        dropout: which weights are dropped, a libattention.Dropout, which tells it by a seed; None:
            none, as in evaluation
        kv: where keys and values lie, a libattention.KV, in the place of key, value and
            key_lengths, which it has itself. S is the room C of a sequence there; with starts or
            page_starts the columns of attn_mask or bias, which are as many as the longest sequence
            has keys, or more, and without them all rows of kv.key
        query_starts: int64 or int32, (B + 1): query is (Hq, total, E), and sequence b of B has its
            rows query_starts[b] to query_starts[b + 1] - 1. What comes out, and the rows of
            attn_mask and bias, lie likewise, without batch axes
        return_lse: also return (..., Hq, L), the logarithms of the rows' sums
        return_weights: also return (..., Hq, L, S)
        return_scores: also return (..., Hq, L, S), what the weights are made of: "scaled", scale *
            query @ key^T of every key, hidden ones too (0 past key_lengths); "capped", these after
            softcap; "masked", what the normalizer gets, -inf where a row does not see the key.
            Sinks are not in them
        out: where to put the output, (..., Hq, L, Ev); must not overlap an input
        context: threads, engine and kernels; None: the default, of PyTorch's tensors PyTorch's
            threads

    Returns:
        The output (..., Hq, L, Ev), of the kind and dtype of query; with return_lse, return_weights
        or return_scores a tuple of it and, in this order, those of lse, weights and scores that are
        asked for. Weights have query's dtype, lse and scores have float32 beside 16 bits: computing
        is float32's, and a result of 16 bits is rounded once, at the end.

    A row that sees nothing is 0 (lse -inf), and so is a row of no sequence, which is left as it is
    in out. The GIL is released while computing. Since 0.1.

    PyTorch tensors that require grad, or only stand for numbers (torch.compile, export, trace,
    vmap, fake tensors), go through the operator torch.ops.libattention.sdpa, whose gradients are
    those of scaled_dot_product_attention_backward. It does not take keys and values in pages or of
    integers, out and return_scores.

    Raises:
        Error: the first argument that does not fit, by name.
    """
    if dropout_p != 0:
        refuse_dropout()
    has_usual_options = (
        bias is None
        and query_offset is None
        and key_lengths is None
        and align_end is False
        and window is EVERY_KEY
        and softcap is NO_SOFTCAP
        and sinks is None
        and alibi_slopes is None
        and normalizer == "softmax"
        and mask_start is None
        and position_bias is None
        and block_mask is None
        and block_size is None
        and dropout is None
        and kv is None
        and query_starts is None
        and out is None
        and not return_weights
        and return_scores is None
    )
    torch: Any = sys.modules.get("torch")
    # Without these the module was asked before.
    has_usual_results = return_lse is False and context is None
    is_compiling = torch is not None and torch.compiler.is_dynamo_compiling()
    if has_usual_options and not has_usual_results and not is_compiling:
        address = None if context is None else context._address
        found = attend_small(
            query, key, value, attn_mask, is_causal, scale, enable_gqa, return_lse, address
        )
        if found is not NotImplemented:
            return found
    is_tensor = torch is not None and isinstance(query, torch.Tensor)
    may_have_plan = has_usual_options and attn_mask is None and return_lse is False
    if may_have_plan and not IS_COMPILED and not is_tensor:
        found = attend_by_plan(query, key, value, is_causal, scale, enable_gqa, context)
        if found is not NotImplemented:
            return found
    options = (
        attn_mask,
        is_causal,
        scale,
        enable_gqa,
        bias,
        query_offset,
        key_lengths,
        align_end,
        window,
        softcap,
        sinks,
        alibi_slopes,
        normalizer,
        mask_start,
        position_bias,
        block_mask,
        block_size,
        dropout,
    )
    results = (out, return_lse, return_weights, return_scores)
    if kv is not None or query_starts is not None:
        return attend_sequences(query, key, value, options, kv, query_starts, results, context)
    if is_tensor:
        from libattention._torch_calls import attend_tensors

        found = attend_tensors(query, key, value, options, may_have_plan, results, context)
        if found is not None:
            return found
    return attend_at_once(query, key, value, options, *results, context)


def attend_at_once(
    query: Any,
    key: Any,
    value: Any,
    options: tuple[Any, ...],
    out: Any = None,
    return_lse: bool = False,
    return_weights: bool = False,
    return_scores: ScoreStage | None = None,
    context: Context | None = None,
    wide_output: bool = False,
) -> Any:
    """scaled_dot_product_attention of arrays that hold their numbers; options as in Options.
    wide_output: of 16 bits the output is float32."""
    views = Views()
    kind = kind_of(query, "query")
    inputs = views.add_inputs(query, key, value)
    enable_gqa = options[3]
    # What is refused need not be hashable.
    find = outputs_of if isinstance(enable_gqa, bool) else outputs_of.__wrapped__
    outputs = find(enable_gqa, *views.layouts())
    if wide_output:
        outputs = outputs._replace(output=outputs.output._replace(dtype=outputs.lse.dtype))
    params = ffi.NULL
    results = (out, return_lse, return_weights, return_scores)
    # Compared by identity: what is merely equal to a default only costs time.
    has_results = return_lse or return_weights or return_scores is not None
    if has_results or not all(map(is_, options, NO_OPTIONS)):
        params = make_params(Options._make(options), views, BOOL_MASK)
    return _computed(query, kind, views, inputs, params, outputs, results, context)


def attend_sequences(
    query: Any,
    key: Any,
    value: Any,
    options: tuple[Any, ...],
    kv: KV | None,
    query_starts: Any,
    results: Results,
    context: Context | None,
) -> Any:
    """scaled_dot_product_attention of sequences that lie elsewhere than in batches."""
    if kv is not None:
        check_kv(kv)
    if "torch" in sys.modules:
        from libattention._torch_calls import attend_sequences_of_tensors

        found = attend_sequences_of_tensors(
            query, key, value, options, kv, query_starts, results, context
        )
        if found is not None:
            return found
    return attend_sequences_at_once(query, key, value, options, kv, query_starts, results, context)


def attend_sequences_at_once(
    query: Any,
    key: Any,
    value: Any,
    options: tuple[Any, ...],
    kv: KV | None,
    query_starts: Any,
    results: Results,
    context: Context | None = None,
    wide_output: bool = False,
) -> Any:
    """attend_sequences of arrays that hold their numbers. wide_output: as in attend_at_once."""
    views = Views(MOST_VIEWS)
    kind = kind_of(query, "query")
    inputs, params, _place = add_sequences(
        views, query, key, value, Options._make(options), kv, query_starts
    )
    views.finish()
    described = describe_outputs(inputs, params)
    # Where the normalizer has no lse, the library says so.
    lse = described.lse if described.lse.dtype else described.output
    outputs = Outputs(
        *map(empty_from, (described.output, lse, described.weights, described.scores))
    )
    if wide_output:
        outputs = outputs._replace(output=outputs.output._replace(dtype=outputs.lse.dtype))
    is_ragged = query_starts is not None
    return _computed(query, kind, views, inputs, params, outputs, results, context, is_ragged)


def add_sequences(
    views: Views,
    query: Any,
    key: Any,
    value: Any,
    options: Options,
    kv: KV | None,
    query_starts: Any,
) -> tuple[tuple[Any, Any, Any], Any, Any]:
    """Query, key and value, an attn_sdpa_params, and what has to live as long as that. The views
    are not finished."""
    place = ffi.NULL
    if kv is None:
        inputs = views.add_inputs(query, key, value)
    else:
        # Beside kv the library refuses what is given.
        given = [
            ffi.NULL if one is None else views.add_array(one, name)
            for one, name in ((key, "key"), (value, "value"))
        ]
        inputs = (views.add_array(query, "query"), given[0], given[1])
        place = add_kv(views, kv)
    params = make_params(options, views, BOOL_MASK)
    params.kv = place
    if query_starts is not None:
        params.query_starts = add_integers(views, query_starts, "query_starts")
    return inputs, params, place


def _computed(
    query: Any,
    kind: Kind,
    views: Views,
    inputs: tuple[Any, Any, Any],
    params: Any,
    outputs: Outputs,
    results: Results,
    context: Context | None,
    is_ragged: bool = False,
) -> Any:
    """What is asked for, of the query's kind; new arrays of ragged rows are those of empty ones
    before, since a row may be of no sequence."""
    out, return_lse, return_weights, return_scores = results
    made: list[tuple[Any, float]] = []
    if out is None:
        output, output_view = views.add_new(outputs.output, kind, "out")
        made.append((output, 0))
    else:
        output, output_view = out, views.add_array(out, "out", writable=True)
    wanted = [output]
    if return_lse:
        lse, params.lse = views.add_new(outputs.lse, kind, "return_lse")
        made.append((lse, -inf))
        wanted.append(lse)
    if return_weights:
        weights, params.weights = views.add_new(outputs.weights, kind, "return_weights")
        made.append((weights, 0))
        wanted.append(weights)
    if return_scores is not None:
        params.scores_stage = number_of("return_scores", return_scores, SCORE_STAGES)
        scores, params.scores = views.add_new(outputs.scores, kind, "return_scores")
        made.append((scores, -inf if return_scores == "masked" else 0))
        wanted.append(scores)
    for array, empty in made if is_ragged else ():
        array[...] = empty
    views.finish()
    status = lib.attn_sdpa(
        handle_of(context_for(context, query)), *inputs, params, output_view, ffi.NULL, 0
    )
    if status:
        raise_last_error(status, NAMES)
    if out is not None:
        note_written(out)
    found = [one if one is out else kind.finished(one, query) for one in wanted]
    return found[0] if len(found) == 1 else tuple(found)


def refuse_dropout() -> NoReturn:
    raise unsupported("dropout_p: expected 0; dropout=libattention.Dropout(...) says which weights")
