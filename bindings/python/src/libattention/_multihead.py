# SPDX-License-Identifier: BSD-3-Clause
"""Multi-head attention."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from libattention import _layer
from libattention._abi import ffi
from libattention._cache_checks import shape_of
from libattention._checkpoint import layer_arguments, open_checkpoint
from libattention._context import Context, context_for, handle_of
from libattention._kv import KV
from libattention._kv_cache import KVCache
from libattention._layer import check
from libattention._layer_backward import SavedCall
from libattention._layer_calls import (
    MOST_LAYER_VIEWS,
    Params,
    add_inputs,
    checked_cache,
    describe_layer_outputs,
    layer_params,
)
from libattention._library import Error, lib
from libattention._options import FurtherOptions, Options
from libattention._reports import attention_report, layer_report, new_report
from libattention._rope import RopeOptions, rotation_of
from libattention._tensors import Views, empty_from, kind_of, refuse_stand_ins

if TYPE_CHECKING:
    from typing_extensions import Unpack

Dtype = Literal["float32", "float64", "bfloat16", "float16"]
ParameterDtype = Literal["float32", "float64", "bfloat16", "float16", "int8"]
QKNorm = Literal["head", "all_heads"]
# For tensors that this layer cannot take.
_OPERATOR = "use torch.nn.MultiheadAttention with libattention.integrations.torch.accelerate"


class MultiheadAttention:
    """torch.nn.MultiheadAttention in evaluation mode, and the textbook's other formulations.

    Parameters have PyTorch's names and shapes. A new layer's are random, as PyTorch initialises
    them; load_state_dict, from_torch and from_safetensors bring trained ones. Several threads may
    call a layer at once, and another one may load it meanwhile: a call computes with all the
    parameters of one load. Layers can be pickled and copied; a copy has parameters of its own.

    Args:
        embed_dim: features of the output
        num_heads: query heads H
        dropout: ignored, as PyTorch does in evaluation mode
        bias: in_proj_bias and out_proj.bias exist
        add_bias_kv: one learned key and value after the others
        add_zero_attn: one key and value of zeros after those
        kdim: features of key; None: embed_dim
        vdim: features of value; None: embed_dim
        batch_first: tensors are (N, L, E), not (L, N, E)
        qdim: features of query; None: embed_dim
        head_dim: features of a query or key head; None: embed_dim / num_heads
        value_head_dim: features of a value head; None: head_dim
        num_kv_heads: key and value heads, a divisor of num_heads; None: num_heads
        dtype: "float32", "float64", "bfloat16" or "float16": of query, key, value and output
        parameter_dtype: what the layer keeps its parameters in; None: dtype. "float64" goes with
            itself alone; beside the others computing is float32's, and 16 bits are fewer to read.
            "int8": weights of projections are integers with a scale for each row, off by 1/254 of
            the row's largest at most, and the other parameters float32
        qk_norm: what rms_norm does to projected queries and keys, with q_norm.weight and
            k_norm.weight: "head", to each head, by weights of head_dim (Qwen 3, Gemma 3);
            "all_heads", to all heads as one row (OLMo 2); None: nothing
        qk_norm_epsilon: as rms_norm's epsilon
        qk_norm_weight_offset: as rms_norm's weight_offset, 1 for Gemma's weights

    Attributes:
        config: arguments that make the same layer, each with the value that None stood for;
            embed_dim, num_heads, kdim, vdim, head_dim, batch_first and dtype are attributes, too
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        qdim: int | None = None,
        head_dim: int | None = None,
        value_head_dim: int | None = None,
        num_kv_heads: int | None = None,
        dtype: Dtype = "float32",
        parameter_dtype: ParameterDtype | None = None,
        qk_norm: QKNorm | None = None,
        qk_norm_epsilon: float | None = None,
        qk_norm_weight_offset: float = 0.0,
    ) -> None:
        layer = _layer.new_layer(
            {
                "embed_dim": embed_dim,
                "num_heads": num_heads,
                "bias": bias,
                "add_bias_kv": add_bias_kv,
                "add_zero_attn": add_zero_attn,
                "kdim": kdim,
                "vdim": vdim,
                "batch_first": batch_first,
                "qdim": qdim,
                "head_dim": head_dim,
                "value_head_dim": value_head_dim,
                "num_kv_heads": num_kv_heads,
                "dtype": dtype,
                "parameter_dtype": parameter_dtype,
                "qk_norm": qk_norm,
                "qk_norm_epsilon": qk_norm_epsilon,
                "qk_norm_weight_offset": qk_norm_weight_offset,
            }
        )
        _layer.init_parameters(layer, secrets.randbits(64))
        self._adopt(layer, dropout)

    def _adopt(self, layer: Any, dropout: float) -> None:
        """Becomes what a filled layer of the C library is."""
        # Replaced by loading, never written: whoever computes with it keeps it.
        self._handle = layer
        self.config = _layer.arguments_of(layer)
        self.embed_dim: int = self.config["embed_dim"]
        self.num_heads: int = self.config["num_heads"]
        self.kdim: int = self.config["kdim"]
        self.vdim: int = self.config["vdim"]
        self.head_dim: int = self.config["head_dim"]
        self.batch_first: bool = self.config["batch_first"]
        self.dtype: str = self.config["dtype"]
        self.dropout = dropout

    @classmethod
    def _adopting(cls, layer: Any, dropout: float) -> MultiheadAttention:
        found = cls.__new__(cls)
        found._adopt(layer, dropout)
        return found

    def __repr__(self) -> str:
        normed = self.config["qk_norm"] is not None
        shown = ", ".join(
            f"{name}={value!r}"
            for name, value in self.config.items()
            if normed or not name.startswith("qk_norm")
        )
        return f"MultiheadAttention({shown})"

    def __getstate__(self) -> dict[str, Any]:
        attributes = vars(self).copy()
        parameters = _layer.read_parameters(attributes.pop("_handle"), quantized=True)
        return {"parameters": parameters, **attributes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        parameters = state["parameters"]
        self._handle = _layer.new_layer(state["config"])
        _layer.load_parameters(self._handle, parameters, parameters.__getitem__, "state")
        vars(self).update({name: state[name] for name in state if name != "parameters"})

    # ---- parameters ----

    def init_parameters(self, seed: int) -> None:
        """Fresh random parameters; the same seed gives the same on every machine."""
        layer = _layer.new_layer(self.config)
        _layer.init_parameters(layer, seed)
        self._handle = layer

    def state_dict(self, *, quantized: bool = False) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the parameters by PyTorch's names, in parameter_dtype; bfloat16, which NumPy
        does not have, as float32.

        Args:
            quantized: weights that are kept as int8 are those integers, each with its rows' scales
                under its name and ".scale"; else they are the float32 that they mean
        """
        return _layer.read_parameters(self._handle, quantized=quantized)

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """Copies parameters in, all of the layer's and no others. After an error the layer has
        those it had.

        Args:
            mapping: arrays of any kind by PyTorch's names, float16 and bfloat16 too; for weights
                that are stored separately q_proj_weight, k_proj_weight, v_proj_weight in place of
                in_proj_weight, and q_proj_bias, k_proj_bias, v_proj_bias in place of in_proj_bias.
                A weight of a layer with parameter_dtype "int8" may be int8 with scales of its rows
                under its name and ".scale"
        """
        layer = _layer.new_layer(self.config)
        _layer.load_parameters(layer, mapping, mapping.__getitem__, "mapping")
        self._handle = layer

    @classmethod
    def from_torch(
        cls, module: Any, *, parameter_dtype: ParameterDtype | None = None
    ) -> MultiheadAttention:
        """A layer with the sizes, dtype and copies of the parameters of a
        torch.nn.MultiheadAttention.

        They are what the module computes with now: of a pruned or parametrized one the weights that
        come of it, which its state_dict does not have.

        Args:
            module: whose parameters are copied
            parameter_dtype: what the layer keeps them in; None: the module's dtype
        """
        found = {name: attrgetter(name)(module) for name in _layer.PARAMETER_NAMES}
        state = {name: one.detach().cpu() for name, one in found.items() if one is not None}
        dtype = str(module.out_proj.weight.dtype).removeprefix("torch.")
        layer = _layer.new_layer(
            {
                "embed_dim": module.embed_dim,
                "num_heads": module.num_heads,
                "bias": module.in_proj_bias is not None,
                "add_bias_kv": module.bias_k is not None,
                "add_zero_attn": module.add_zero_attn,
                "kdim": module.kdim,
                "vdim": module.vdim,
                "batch_first": module.batch_first,
                "dtype": dtype,
                "parameter_dtype": parameter_dtype,
            }
        )
        _layer.load_parameters(layer, state, state.__getitem__, "module")
        return cls._adopting(layer, module.dropout)

    @classmethod
    def from_safetensors(
        cls,
        path: str | Path,
        prefix: str = "",
        *,
        num_heads: int | None = None,
        dropout: float = 0.0,
        **options: Any,
    ) -> MultiheadAttention:
        """A layer from the tensors of a file whose names are `prefix` and PyTorch's.

        Sizes, biases and dtype are the file's. Of one in float16 or bfloat16 the layer keeps the
        parameters as they are, and takes float32. num_heads, batch_first and add_zero_attn may be
        in the metadata. The header is compared with the file's length, and its tensors with the
        layer, before memory is taken for either.

        Args:
            path: of the file
            prefix: for example "encoder.layers.0.self_attn."
            num_heads: query heads; None: as the file's metadata say, if they do
            dropout: ignored
            options: dtype, parameter_dtype, add_zero_attn, batch_first and others of
                MultiheadAttention, in place of what the file says
        """
        checkpoint = open_checkpoint(path)
        tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in checkpoint.tensors.items()
            if name.startswith(prefix)
        }
        arguments = {**layer_arguments(checkpoint, tensors, prefix, path), **options}
        if arguments["dtype"] == "float64" and "parameter_dtype" not in options:
            arguments["parameter_dtype"] = None
        if num_heads is not None:
            arguments["num_heads"] = num_heads
        if arguments["num_heads"] is None:
            raise Error(
                lib.ATTN_ERROR_VALUE, f"num_heads: not in the metadata of {path}; pass num_heads="
            )
        layer = _layer.new_layer(arguments)
        _layer.load_parameters(layer, tensors, lambda name: tensors[name].read(), f"path: {path}")
        return cls._adopting(layer, dropout)

    # ---- forward ----

    def __call__(
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        return_lse: bool = False,
        return_saved: bool = False,
        cache: KV | KVCache | None = None,
        cache_layer: int | None = None,
        rope: RopeOptions | None = None,
        context: Context | None = None,
        **options: Unpack[FurtherOptions],
    ) -> tuple[Any, ...]:
        """Projects, attends head by head, projects back.

        Args:
            query: (L, N, qdim), with batch_first (N, L, qdim), unbatched (L, qdim)
            key: (S, N, kdim), (N, S, kdim) or (S, kdim)
            value: (S, N, vdim), (N, S, vdim) or (S, vdim)
            key_padding_mask: (N, S) or (S). Bool: True is left out; float: added
            need_weights: also return the weights
            attn_mask: (L, S), (N * H, L, S), (N or 1, H or 1, L, S). Bool: True is left out; float:
                added
            average_attn_weights: the weights' mean over heads, not one matrix per head
            is_causal: query i sees keys up to i; unlike PyTorch's hint it needs no attn_mask
            scale: of the scores; None: 1 / sqrt(head_dim)
            return_lse: also return the logarithms of the rows' sums
            return_saved: also return, last, a SavedCall for backward; not with a cache
            cache: keys and values of earlier calls. Those of this one are stored behind them, and
                all are attended to: one call is a decoder's attention, of a prompt or of a token. A
                KVCache has its step as by append and attend; a KV has lengths that count the new
                rows already, (batch axes) N. Query stands at the end, unless query_offset says
                otherwise. With key and value None the cache is only read, as a decoder does an
                encoder's. S is then the cache's rows: those of a KV's memory, or the most that a
                sequence of a KVCache has (with pages, and no mask, rounded up to whole ones)
            cache_layer: of a KVCache: 0 to layers - 1; None where there is one
            rope: keyword arguments of libattention.rope, {} for its defaults: queries and keys are
                rotated after qk_norm, before they are stored. Without positions and lengths rows
                stand where they are stored; without a cache at 0, 1, ...
            context: threads, engine and kernels; None: as in scaled_dot_product_attention
            options: bias, broadcastable to (N, H, L, S); query_offset, key_lengths, align_end,
                window, softcap, sinks, alibi_slopes, normalizer, mask_start, position_bias,
                block_mask, block_size and dropout as in scaled_dot_product_attention

        Returns:
            The output, of query's kind and shape with embed_dim features, and the weights
            (N, L, T) or (N, H, L, T), without N where unbatched, or None; with return_lse also lse
            (N, H, L). T counts the keys of add_bias_kv and add_zero_attn, too.
        """
        refuse_stand_ins(query, key, value, key_padding_mask, attn_mask, instead=_OPERATOR)
        kind, context = kind_of(query, "query"), context_for(context, query)
        attention = Options(attn_mask, is_causal, scale, **options)
        rotation = None if rope is None else rotation_of(rope)

        def run(place: KV | None) -> tuple[Any, ...]:
            views = Views() if place is None and rope is None else Views(MOST_LAYER_VIEWS)
            inputs = add_inputs(views, query, key, value, place)
            params = layer_params(views, key_padding_mask, attention, place, rotation)
            return self._run(
                kind,
                query,
                views,
                inputs,
                params,
                need_weights,
                average_attn_weights,
                return_lse,
                return_saved,
                context,
            )

        if not isinstance(cache, KVCache):
            return run(checked_cache(cache))
        has_columns = any(one is not None for one in (attn_mask, key_padding_mask, attention.bias))
        if key is None and value is None:
            return cache._read_by(run, cache_layer, has_columns)
        return cache._store_by(run, cache_layer, self._rows_of(key), has_columns)

    def _rows_of(self, key: Any) -> int:
        """New rows of each sequence."""
        shape = shape_of("key", key)
        return shape[1 if self.batch_first else 0] if len(shape) == 3 else 0

    def _run(
        self,
        kind: Any,
        query: Any,
        views: Views,
        inputs: tuple[Any, ...],
        params: Params,
        need_weights: bool,
        average_attn_weights: bool,
        return_lse: bool,
        return_saved: bool,
        context: Context | None,
    ) -> tuple[Any, ...]:
        layer = self._handle
        outputs = describe_layer_outputs(layer, views, inputs, params)
        output, output_view = views.add_new(empty_from(outputs.output), kind, "output")
        weights = lse = None
        if need_weights:
            made = empty_from(outputs.averaged_weights if average_attn_weights else outputs.weights)
            weights, params.attention.weights = views.add_new(made, kind, "need_weights")
        if return_lse:
            # Where the normalizer has none, the library says so.
            made = empty_from(outputs.lse if outputs.lse.dtype else outputs.output)
            lse, params.attention.lse = views.add_new(made, kind, "return_lse")
        views.finish()
        saved = None
        if return_saved:
            saved = SavedCall(layer, kind, query, views, inputs, params, context)
        arguments = (layer, *inputs, params.layer, output_view, ffi.NULL, 0)
        check(lib.attn_mha_forward(handle_of(context), *arguments))
        found = [
            None if one is None else kind.finished(one, query) for one in (output, weights, lse)
        ]
        results = found if return_lse else found[:2]
        return tuple(results if saved is None else [*results, saved])

    def backward(
        self,
        grad_output: Any,
        saved: SavedCall,
        *,
        grad_lse: Any = None,
        grad_weights: Any = None,
        wanted: Sequence[str] | None = None,
        out: Mapping[str, Any] | None = None,
        accumulate: bool = False,
        context: Context | None = None,
    ) -> dict[str, Any]:
        """Computes the gradients of a call that was made with return_saved.

        Args:
            grad_output: the gradient of the output: its shape; the layer's dtype, or float32 beside
                16 bits
            saved: what the call returned last, with the parameters that the layer had then
            grad_lse: the gradient of lse; None: 0
            grad_weights: the gradient of the weights, averaged or of each head; None: 0
            wanted: which gradients: "query", "key", "value", parameters by their names in
                state_dict, "attn_mask" (not a bool one), "bias", "position_bias", "alibi_slopes",
                "sinks"; None: those of inputs and of all parameters
            out: where to put them, by name; what is wanted and not in it is a new array. They must
                not overlap each other or what is read
            accumulate: they are added to what the arrays of out hold: parts of a batch
            context: threads and kernels; None: as in scaled_dot_product_attention

        Returns:
            Gradients by name, each with the shape and dtype of what it is of; those of parameters
            of 16 bits are float32. What was one array as query, key and value has three gradients,
            whose sum is its own.

        Raises:
            Error: the first argument that does not fit, by name. Since 0.1.
        """
        if not isinstance(saved, SavedCall):
            text = "saved: expected what a call with return_saved returned, got "
            raise Error(lib.ATTN_ERROR_VALUE, text + type(saved).__name__)
        places = dict(out or {})
        given = (grad_output, grad_lse, grad_weights)
        refuse_stand_ins(*given, *places.values(), instead=_OPERATOR)
        return saved.differentiate(*given, wanted, places, accumulate, context)

    def explain(
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        cache: KV | KVCache | None = None,
        cache_layer: int | None = None,
        rope: RopeOptions | None = None,
        context: Context | None = None,
        **options: Unpack[FurtherOptions],
    ) -> dict[str, Any]:
        """What a call with the same arguments would run.

        Args:
            query: as in a call
            key: as in a call
            value: as in a call
            key_padding_mask: as in a call
            need_weights: as in a call
            attn_mask: as in a call
            average_attn_weights: as in a call
            is_causal: as in a call
            scale: as in a call
            cache: as in a call; a KVCache as it is now, which stays so
            cache_layer: as in a call
            rope: as in a call
            context: as in a call
            options: as in a call

        Returns:
            projection_gemm, kernels, workspace_bytes and depends_on_blas_threads of the layer, and
            as attention what libattention.explain tells of the attention inside.
        """
        refuse_stand_ins(query, key, value, key_padding_mask, attn_mask, instead=_OPERATOR)
        views = Views(MOST_LAYER_VIEWS)
        attention = Options(attn_mask, is_causal, scale, **options)
        place = cache.kv(cache_layer) if isinstance(cache, KVCache) else checked_cache(cache)
        rotation = None if rope is None else rotation_of(rope)
        inputs = add_inputs(views, query, key, value, place)
        params = layer_params(views, key_padding_mask, attention, place, rotation)
        layer = self._handle
        outputs = describe_layer_outputs(layer, views, inputs, params)
        if need_weights:
            which = "averaged_weights" if average_attn_weights else "weights"
            params.attention.weights = ffi.addressof(outputs, which)
        report, inner = new_report("attn_mha_report"), new_report("attn_sdpa_report")
        report.attention = inner
        output = ffi.addressof(outputs, "output")
        arguments = (layer, *inputs, params.layer, output, report)
        handle = handle_of(context_for(context, query))
        check(lib.attn_mha_explain(handle, *arguments))
        return {**layer_report(report), "attention": attention_report(inner)}
