# SPDX-License-Identifier: BSD-3-Clause
"""The layer of the C library: made, filled with parameters, read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from libattention._abi import ffi
from libattention._dtypes import BFLOAT16, DATA, DTYPE_NAMES, FLOATS, INTEGER_WEIGHT
from libattention._library import (
    Error,
    assign,
    assign_given,
    lib,
    raise_last_error,
    string,
    unsupported,
)
from libattention._options import OPTION_NAMES
from libattention._tensors import NUMPY, Described, Empty, Views, address_of, contiguous_layout

DTYPES = {DTYPE_NAMES[number]: number for number in FLOATS}
PARAMETER_DTYPES = {**DTYPES, "int8": lib.ATTN_DTYPE_INT8}
SCALE = ".scale"  # behind the name of a weight of int8
SIZES = (
    "embed_dim",
    "num_heads",
    "kdim",
    "vdim",
    "qdim",
    "head_dim",
    "value_head_dim",
    "num_kv_heads",
)
SWITCHES = ("add_bias_kv", "add_zero_attn", "batch_first")
QK_NORMS = {
    None: lib.ATTN_QK_NORM_NONE,
    "head": lib.ATTN_QK_NORM_HEAD,
    "all_heads": lib.ATTN_QK_NORM_ALL_HEADS,
}
OTHERS = (
    "bias",
    "dtype",
    "parameter_dtype",
    "qk_norm",
    "qk_norm_epsilon",
    "qk_norm_weight_offset",
)
# PyTorch's; a layer has those that its config asks for.
PARAMETER_NAMES = (
    "in_proj_weight",
    "q_proj_weight",
    "k_proj_weight",
    "v_proj_weight",
    "in_proj_bias",
    "bias_k",
    "bias_v",
    "out_proj.weight",
    "out_proj.bias",
)
_LOAD_PARAMS_SIZE = ffi.sizeof("attn_mha_load_params")
# What C calls otherwise.
NAMES = {
    **OPTION_NAMES,
    "lse": "return_lse",
    "weights": "need_weights",
    "config": "MultiheadAttention",
}


def check(status: int) -> None:
    """Raises what a call of the layer's functions failed with."""
    if status:
        raise_last_error(status, NAMES)


def new_layer(arguments: Mapping[str, Any]) -> Any:
    """A layer without parameters, from the arguments of MultiheadAttention."""
    unknown = set(arguments) - {*SIZES, *SWITCHES, *OTHERS}
    if unknown:
        raise TypeError(f"MultiheadAttention has no argument {min(unknown)!r}")
    config = ffi.new("attn_mha_config *", {"struct_size": ffi.sizeof("attn_mha_config")})
    config.dtype = _dtype_of(arguments, "dtype", DTYPES)
    config.parameter_dtype = _dtype_of(arguments, "parameter_dtype", PARAMETER_DTYPES)
    assign(config, "no_bias", not arguments.get("bias", True), "bias", "True or False")
    for name in SIZES:
        assign(config, name, arguments.get(name) or 0, name, "an integer")
    for name in SWITCHES:
        assign(config, name, arguments.get(name, False), name, "True or False")
    _assign_norm(config, arguments)
    made = ffi.new("attn_mha **")
    check(lib.attn_mha_create(ffi.NULL, config, made))
    return ffi.gc(made[0], lib.attn_mha_destroy)


def _assign_norm(config: Any, arguments: Mapping[str, Any]) -> None:
    norm = arguments.get("qk_norm")
    if norm not in QK_NORMS:
        expected = ", ".join(repr(name) for name in QK_NORMS)
        raise unsupported(f"qk_norm: expected one of {expected}, got {norm!r}")
    config.qk_norm = QK_NORMS[norm]
    assign_given(config, "qk_norm_epsilon", arguments.get("qk_norm_epsilon"), "a number")
    offset = arguments.get("qk_norm_weight_offset", 0.0)
    assign(config, "qk_norm_weight_offset", offset, "qk_norm_weight_offset", "a number")


def _dtype_of(arguments: Mapping[str, Any], name: str, known: Mapping[str, int]) -> int:
    """The library's number; 0, its default, for None."""
    dtype = arguments.get(name)
    if dtype is None:
        return 0
    if dtype not in known:
        raise unsupported(f"{name}: expected one of {', '.join(known)}, got {dtype!r}")
    return known[dtype]


def arguments_of(layer: Any) -> dict[str, Any]:
    """Arguments that make the same layer, each with its value."""
    found = ffi.new("attn_mha_config *", {"struct_size": ffi.sizeof("attn_mha_config")})
    check(lib.attn_mha_describe(layer, found))
    return {
        **{name: getattr(found, name) for name in SIZES},
        "bias": not found.no_bias,
        **{name: bool(getattr(found, name)) for name in SWITCHES},
        "dtype": DTYPE_NAMES[found.dtype],
        "parameter_dtype": DTYPE_NAMES[found.parameter_dtype],
        "qk_norm": next(name for name, one in QK_NORMS.items() if one == found.qk_norm),
        "qk_norm_epsilon": found.qk_norm_epsilon or None,
        "qk_norm_weight_offset": found.qk_norm_weight_offset,
    }


def init_parameters(layer: Any, seed: int) -> None:
    """Fresh random parameters."""
    params = ffi.new("attn_mha_init_params *")
    params.struct_size = ffi.sizeof("attn_mha_init_params")
    assign(params, "seed", seed, "seed", "an integer from 0 to 2**64 - 1")
    check(lib.attn_mha_init_parameters(ffi.NULL, layer, params))


def read_parameters(layer: Any, *, quantized: bool = False) -> dict[str, np.ndarray[Any, Any]]:
    """Copies of the parameters, in PyTorch's order; bfloat16 as float32, int8 as what it means or,
    quantized, as integers and their scales."""
    has_integers = quantized and arguments_of(layer)["parameter_dtype"] == "int8"
    found = {}
    for name, dtype, shape in parameters_of(layer):
        if has_integers and len(shape) == 2:
            found[name] = _read(layer, name, lib.ATTN_DTYPE_INT8, shape)
            found[name + SCALE] = _read(layer, name + SCALE, dtype, shape[:1])
        else:
            found[name] = _read(layer, name, dtype, shape)
    return found


def _read(layer: Any, name: str, dtype: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    array, view = NUMPY.empty(shape, dtype) if dtype != BFLOAT16 else _empty_bits(shape)
    views = Views(1)
    target = views.add(view, name)
    views.finish()
    check(lib.attn_mha_read_parameter(ffi.NULL, layer, name.encode(), target))
    return array if dtype != BFLOAT16 else _widened(array)


def _empty_bits(shape: tuple[int, ...]) -> tuple[Any, Described]:
    """Memory for bfloat16, which NumPy has no dtype of its own for."""
    bits = np.empty(shape, "uint16")
    layout = contiguous_layout(Empty(BFLOAT16, shape))
    return bits, Described(address_of(bits), BFLOAT16, shape, layout, bits)


def _widened(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """bfloat16, the upper half of a float32, as float32."""
    return (bits.astype("uint32") << 16).view("float32")


def load_parameters(
    layer: Any, names: Collection[str], read: Callable[[str], Any], source: str
) -> None:
    """Copies parameters in, all of the layer's and no others; `source` is where they come from,
    which is asked for one at a time, and for none unless all are there."""
    missing = [name for name, _, _ in parameters_of(layer) if not _is_given(name, names)]
    if missing:
        raise Error(lib.ATTN_ERROR_PARAMETER, f"{source}: lacks {', '.join(missing)}")
    for name in names:
        if name.endswith(SCALE) and name.removesuffix(SCALE) in names:
            continue
        has_scale = name + SCALE in names
        views = Views(2)
        role = INTEGER_WEIGHT if has_scale else DATA
        values = views.add_array(_detached(read(name)), name, role)
        params = ffi.new("attn_mha_load_params *", {"struct_size": _LOAD_PARAMS_SIZE})
        if has_scale:
            params.scale = views.add_array(_detached(read(name + SCALE)), name + SCALE)
        views.finish()
        check(lib.attn_mha_load_parameter(ffi.NULL, layer, name.encode(), values, params))


def parameters_of(layer: Any) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Names, dtypes and shapes, in PyTorch's order."""
    count = ffi.new("int64_t *")
    check(lib.attn_mha_parameter_count(layer, count))
    name, shape = ffi.new("char const **"), ffi.new("attn_tensor *")
    for index in range(count[0]):
        check(lib.attn_mha_parameter_describe(layer, index, name, shape))
        yield string(name[0]), shape.dtype, tuple(ffi.unpack(shape.shape, shape.rank))


def _detached(array: Any) -> Any:
    """Parameters are copied, so that they may require gradients."""
    return array.detach() if hasattr(array, "detach") else array


def _is_given(name: str, names: Collection[str]) -> bool:
    """Under its own name, or in three parts."""
    if name in names:
        return True
    part = name.removeprefix("in_")
    return name.startswith("in_proj_") and all(f"{which}_{part}" in names for which in "qkv")
