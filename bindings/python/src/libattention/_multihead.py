# SPDX-License-Identifier: BSD-3-Clause
"""Multi-head attention."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from libattention._abi import ffi
from libattention._context import Context, handle_of
from libattention._library import Error, lib, raise_last_error, string, unsupported
from libattention._tensors import BOOL, FLOAT32, FLOAT64, NUMPY, Views, described, kind_of

DTYPES = {"float32": FLOAT32, "float64": FLOAT64}
NAMES = {"output": "output", "attn_weights": "need_weights", "config": "MultiheadAttention"}
MOST_VIEWS = 7


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
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.dtype = dtype
        self._extra_keys = int(add_bias_kv) + int(add_zero_attn)
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
                "bias": lib.ATTN_ON if bias else lib.ATTN_OFF,
                "add_bias_kv": add_bias_kv,
                "add_zero_attn": add_zero_attn,
                "batch_first": batch_first,
            },
        )
        made = ffi.new("attn_mha **")
        _check(lib.attn_mha_create(ffi.NULL, config, made))
        self._handle = ffi.gc(made[0], lib.attn_mha_destroy)
        self.init_parameters(secrets.randbits(64))

    def __repr__(self) -> str:
        return (
            f"MultiheadAttention({self.embed_dim}, {self.num_heads}, "
            f"batch_first={self.batch_first}, dtype={self.dtype!r})"
        )

    # ---- parameters ----

    def init_parameters(self, seed: int) -> None:
        """Fresh random parameters; the same seed gives the same on every machine."""
        _check(lib.attn_mha_init_parameters(self._handle, seed))

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
            _check(lib.attn_mha_read_parameter(self._handle, name.encode(), target))
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
            _check(lib.attn_mha_load_parameter(self._handle, name.encode(), source))

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
        context: Context | None = None,
    ) -> tuple[Any, Any]:
        """Projects, attends head by head, projects back.

        Args:
            query: (L, N, qdim), with batch_first (N, L, qdim), unbatched (L, qdim)
            key: (S, N, kdim), (N, S, kdim) or (S, kdim)
            value: (S, N, vdim), (N, S, vdim) or (S, vdim)
            key_padding_mask: (N, S) or (S). Bool: True is left out; float: added
            need_weights: also return the weights
            attn_mask: (L, S), (N * H, L, S), (N, H, L, S). Bool: True is left out; float: added
            average_attn_weights: the weights' mean over heads, not one matrix per head
            is_causal: query i sees keys up to i; unlike PyTorch's hint it needs no attn_mask
            context: threads, engine and kernels; None: the default

        Returns:
            The output, of query's kind and shape with embed_dim features, and the weights
            (N, L, T) or (N, H, L, T), without N where unbatched, or None. T counts the keys of
            add_bias_kv and add_zero_attn, too.
        """
        views = Views(MOST_VIEWS)
        kind = kind_of(query, "query")
        view = kind.describe(query, "query", False)
        key_view = described(key, "key")
        arguments = [
            views.add(view, query, "query"),
            views.add(key_view, key, "key"),
            views.add_array(value, "value"),
        ]
        params = ffi.new("attn_mha_params *")
        params.struct_size = ffi.sizeof("attn_mha_params")
        params.is_causal = is_causal
        params.average_attn_weights = lib.ATTN_ON if average_attn_weights else lib.ATTN_OFF
        if key_padding_mask is not None:
            params.key_padding_mask, params.key_padding_mask_kind = _mask(
                views, key_padding_mask, "key_padding_mask"
            )
        if attn_mask is not None:
            params.attn_mask, params.attn_mask_kind = _mask(views, attn_mask, "attn_mask")
        output, output_view = kind.empty((*view.shape[:-1], self.embed_dim), view.dtype, query)
        weights = None
        if need_weights:
            shape = self._weights_shape(view.shape, key_view.shape, average_attn_weights)
            weights, weights_view = kind.empty(shape, view.dtype, query)
            params.attn_weights = views.add(weights_view, weights, "need_weights")
        arguments += [params, views.add(output_view, output, "output"), ffi.NULL, 0]
        views.finish()
        _check(lib.attn_mha_forward(handle_of(context), self._handle, *arguments))
        return output, weights

    def _weights_shape(
        self, query: tuple[int, ...], key: tuple[int, ...], average: bool
    ) -> tuple[int, ...]:
        """Of inputs that do not fit, any shape: the C library refuses them."""
        heads = () if average else (self.num_heads,)
        if len(query) != 3 or len(key) != 3:
            return (*heads, *query[:1], (key[0] if key else 0) + self._extra_keys)
        batch, rows = query[:2] if self.batch_first else query[1::-1]
        keys = key[1] if self.batch_first else key[0]
        return (batch, *heads, rows, keys + self._extra_keys)


def _check(status: int) -> None:
    if status:
        raise_last_error(status, NAMES)


def _mask(views: Views, mask: Any, name: str) -> tuple[Any, int]:
    """PyTorch's polarity for this layer: a bool mask says what is left out."""
    view = described(mask, name)
    kind = lib.ATTN_MASK_BOOL_EXCLUDE if view.dtype == BOOL else lib.ATTN_MASK_ADDITIVE
    return views.add(view, mask, name), kind


def _detached(array: Any) -> Any:
    """Parameters are copied, so that they may require gradients."""
    return array.detach() if hasattr(array, "detach") else array


def _is_given(name: str, mapping: Mapping[str, Any]) -> bool:
    """Under its own name, or in three parts."""
    if name in mapping:
        return True
    part = name.removeprefix("in_")
    return name.startswith("in_proj_") and all(f"{which}_{part}" in mapping for which in "qkv")
