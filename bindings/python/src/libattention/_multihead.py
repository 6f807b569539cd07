# SPDX-License-Identifier: BSD-3-Clause
"""Multi-head attention."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from libattention._abi import ffi
from libattention._context import Context, handle_of
from libattention._library import Error, lib, raise_last_error, string, unsupported
from libattention._options import OPTION_NAMES, FurtherOptions, Options, add_mask, make_params
from libattention._reports import attention_report, layer_report, new_report
from libattention._tensors import DTYPE_NAMES, FLOAT32, FLOAT64, NUMPY, Views, empty_from, kind_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

DTYPES = {"float32": FLOAT32, "float64": FLOAT64}
# What C calls otherwise.
NAMES = {**OPTION_NAMES, "weights": "need_weights", "config": "MultiheadAttention"}
# PyTorch's polarity for this layer: a bool mask says what is left out.
BOOL_MASK: int = lib.ATTN_MASK_BOOL_EXCLUDE


class MultiheadAttention:
    """torch.nn.MultiheadAttention in evaluation mode, and the textbook's other formulations.

    Parameters have PyTorch's names and shapes. A new layer's are random, as PyTorch initialises
    them; load_state_dict, from_torch and from_safetensors bring trained ones.

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
        dtype: "float32" or "float64"

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
        dtype: Literal["float32", "float64"] = "float32",
    ) -> None:
        if dtype not in DTYPES:
            raise unsupported(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
        config = ffi.new(
            "attn_mha_config *",
            {
                "struct_size": ffi.sizeof("attn_mha_config"),
                "embed_dim": embed_dim,
                "num_heads": num_heads,
                "kdim": kdim or 0,
                "vdim": vdim or 0,
                "qdim": qdim or 0,
                "num_kv_heads": num_kv_heads or 0,
                "head_dim": head_dim or 0,
                "value_head_dim": value_head_dim or 0,
                "dtype": DTYPES[dtype],
                "no_bias": not bias,
                "add_bias_kv": add_bias_kv,
                "add_zero_attn": add_zero_attn,
                "batch_first": batch_first,
            },
        )
        made = ffi.new("attn_mha **")
        _check(lib.attn_mha_create(ffi.NULL, config, made))
        self._handle = ffi.gc(made[0], lib.attn_mha_destroy)
        self.config = self._describe()
        self.embed_dim: int = self.config["embed_dim"]
        self.num_heads: int = self.config["num_heads"]
        self.kdim: int = self.config["kdim"]
        self.vdim: int = self.config["vdim"]
        self.head_dim: int = self.config["head_dim"]
        self.batch_first: bool = self.config["batch_first"]
        self.dtype: str = self.config["dtype"]
        self.dropout = dropout
        self.init_parameters(secrets.randbits(64))

    def _describe(self) -> dict[str, Any]:
        """Arguments that make the same layer, each with its value."""
        found = ffi.new("attn_mha_config *", {"struct_size": ffi.sizeof("attn_mha_config")})
        _check(lib.attn_mha_describe(self._handle, found))
        sizes = "embed_dim num_heads kdim vdim qdim head_dim value_head_dim num_kv_heads"
        switches = "add_bias_kv add_zero_attn batch_first"
        return {
            **{name: getattr(found, name) for name in sizes.split()},
            "bias": not found.no_bias,
            **{name: bool(getattr(found, name)) for name in switches.split()},
            "dtype": DTYPE_NAMES[found.dtype],
        }

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.config.items())
        return f"MultiheadAttention({shown})"

    # ---- parameters ----

    def init_parameters(self, seed: int) -> None:
        """Fresh random parameters; the same seed gives the same on every machine."""
        params = ffi.new("attn_mha_init_params *")
        params.struct_size = ffi.sizeof("attn_mha_init_params")
        params.seed = seed
        _check(lib.attn_mha_init_parameters(ffi.NULL, self._handle, params))

    def _parameters(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes, in PyTorch's order."""
        count = ffi.new("int64_t *")
        _check(lib.attn_mha_parameter_count(self._handle, count))
        name, shape = ffi.new("char const **"), ffi.new("attn_tensor *")
        for index in range(count[0]):
            _check(lib.attn_mha_parameter_describe(self._handle, index, name, shape))
            yield string(name[0]), tuple(shape.shape[axis] for axis in range(shape.rank))

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the parameters by PyTorch's names."""
        found = {}
        for name, shape in self._parameters():
            array, view = NUMPY.empty(shape, DTYPES[self.dtype], None)
            views = Views(1)
            target = views.add(view, array, name)
            views.finish()
            _check(lib.attn_mha_read_parameter(ffi.NULL, self._handle, name.encode(), target))
            found[name] = array
        return found

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """Copies parameters in, all of the layer's and no others.

        Args:
            mapping: arrays of any kind by PyTorch's names; for weights that are stored separately
                q_proj_weight, k_proj_weight, v_proj_weight in place of in_proj_weight, and
                q_proj_bias, k_proj_bias, v_proj_bias in place of in_proj_bias
        """
        missing = [name for name, _ in self._parameters() if not _is_given(name, mapping)]
        if missing:
            raise Error(lib.ATTN_ERROR_PARAMETER, f"mapping: lacks {', '.join(missing)}")
        for name, array in mapping.items():
            views = Views(1)
            source = views.add_array(_detached(array), name)
            views.finish()
            _check(
                lib.attn_mha_load_parameter(ffi.NULL, self._handle, name.encode(), source, ffi.NULL)
            )

    @classmethod
    def from_torch(cls, module: Any) -> MultiheadAttention:
        """A layer with the sizes and copies of the parameters of a torch.nn.MultiheadAttention."""
        state = {name: array.detach().cpu() for name, array in module.state_dict().items()}
        layer = cls(
            module.embed_dim,
            module.num_heads,
            dropout=module.dropout,
            bias=module.in_proj_bias is not None,
            add_bias_kv=module.bias_k is not None,
            add_zero_attn=module.add_zero_attn,
            kdim=module.kdim,
            vdim=module.vdim,
            batch_first=module.batch_first,
            dtype=str(module.out_proj.weight.dtype).removeprefix("torch."),  # type: ignore[arg-type]
        )
        layer.load_state_dict(state)
        return layer

    @classmethod
    def from_safetensors(
        cls, path: str | Path, prefix: str = "", *, num_heads: int | None = None, **options: Any
    ) -> MultiheadAttention:
        """A layer from the tensors of a file whose names are `prefix` and PyTorch's.

        Sizes, biases and dtype are the file's. Needs the safetensors package.

        Args:
            path: of the file
            prefix: for example "encoder.layers.0.self_attn."
            num_heads: query heads; None: as the file's metadata say, if they do
            options: add_zero_attn, batch_first and others that no tensor tells
        """
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            state = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
            heads = (file.metadata() or {}).get("num_heads") if num_heads is None else num_heads
        output = state.get("out_proj.weight")
        if output is None:
            raise Error(lib.ATTN_ERROR_PARAMETER, f"prefix: no {prefix}out_proj.weight in {path}")
        if heads is None:
            raise Error(
                lib.ATTN_ERROR_VALUE, f"num_heads: not in the metadata of {path}; pass num_heads="
            )
        dims = {
            f"{which}dim": state[name].shape[1]
            for which in "qkv"
            if (name := f"{which}_proj_weight") in state
        }
        layer = cls(
            output.shape[0],
            int(heads),
            bias="out_proj.bias" in state,
            add_bias_kv="bias_k" in state,
            dtype=output.dtype.name,
            **{**dims, **options},
        )
        layer.load_state_dict(state)
        return layer

    # ---- forward ----

    def __call__(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        context: Context | None = None,
        **options: Unpack[FurtherOptions],
    ) -> tuple[Any, Any]:
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
            context: threads, engine and kernels; None: the default
            options: bias, broadcastable to (N, H, L, S); query_offset, key_lengths, align_end,
                window, softcap, sinks, alibi_slopes and normalizer as in
                scaled_dot_product_attention

        Returns:
            The output, of query's kind and shape with embed_dim features, and the weights
            (N, L, T) or (N, H, L, T), without N where unbatched, or None. T counts the keys of
            add_bias_kv and add_zero_attn, too.
        """
        views = Views()
        kind = kind_of(query, "query")
        inputs = views.add_inputs(query, key, value)
        attention = Options(attn_mask, is_causal, scale, **options)
        params = _make_params(views, key_padding_mask, attention)
        outputs = self._describe_outputs(views, inputs, params)
        output, output_view = views.add_new(empty_from(outputs.output), kind, query, "output")
        weights = None
        if need_weights:
            made = empty_from(outputs.averaged_weights if average_attn_weights else outputs.weights)
            weights, params.attention.weights = views.add_new(made, kind, query, "need_weights")
        views.finish()
        arguments = (self._handle, *inputs, params.layer, output_view, ffi.NULL, 0)
        _check(lib.attn_mha_forward(handle_of(context), *arguments))
        return output, weights

    def explain(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        scale: float | None = None,
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
            context: as in a call
            options: as in a call

        Returns:
            projection_gemm, kernels, workspace_bytes and depends_on_blas_threads of the layer, and
            as attention what libattention.explain tells of the attention inside.
        """
        views = Views()
        inputs = views.add_inputs(query, key, value)
        attention = Options(attn_mask, is_causal, scale, **options)
        params = _make_params(views, key_padding_mask, attention)
        outputs = self._describe_outputs(views, inputs, params)
        if need_weights:
            which = "averaged_weights" if average_attn_weights else "weights"
            params.attention.weights = ffi.addressof(outputs, which)
        report, inner = new_report("attn_mha_report"), new_report("attn_sdpa_report")
        report.attention = inner
        output = ffi.addressof(outputs, "output")
        arguments = (self._handle, *inputs, params.layer, output, report)
        _check(lib.attn_mha_explain(handle_of(context), *arguments))
        return {**layer_report(report), "attention": attention_report(inner)}

    def _describe_outputs(self, views: Views, inputs: tuple[Any, ...], params: _Params) -> Any:
        """Shapes and types of what comes out, in an attn_mha_outputs."""
        views.finish()
        outputs = ffi.new("attn_mha_outputs *")
        outputs.struct_size = ffi.sizeof("attn_mha_outputs")
        _check(lib.attn_mha_describe_outputs(self._handle, *inputs, params.layer, outputs))
        return outputs


class _Params(NamedTuple):
    """Options of a call: attn_mha_params, and the attn_sdpa_params that it refers to."""

    layer: Any
    attention: Any


def _make_params(views: Views, key_padding_mask: Any, options: Options) -> _Params:
    layer = ffi.new("attn_mha_params *")
    layer.struct_size = ffi.sizeof("attn_mha_params")
    if key_padding_mask is not None:
        layer.key_padding_mask, layer.key_padding_mask_kind = add_mask(
            views, key_padding_mask, "key_padding_mask", BOOL_MASK
        )
    layer.attention = attention = make_params(options, views, BOOL_MASK)
    return _Params(layer, attention)


def _check(status: int) -> None:
    if status:
        raise_last_error(status, NAMES)


def _detached(array: Any) -> Any:
    """Parameters are copied, so that they may require gradients."""
    return array.detach() if hasattr(array, "detach") else array


def _is_given(name: str, mapping: Mapping[str, Any]) -> bool:
    """Under its own name, or in three parts."""
    if name in mapping:
        return True
    part = name.removeprefix("in_")
    return name.startswith("in_proj_") and all(f"{which}_{part}" in mapping for which in "qkv")
