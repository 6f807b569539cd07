# SPDX-License-Identifier: BSD-3-Clause
"""libattention's C interface in ctypes: the structs of include/attention that a benchmark needs.

A struct that has grown since is no trouble: the library takes a smaller one as this one with
zeros behind.
"""

import ctypes
from collections.abc import Callable
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

import numpy as np

FLOAT32, BOOL, INT64, BFLOAT16, FLOAT16, INT32, INT8, UINT8 = 1, 3, 4, 5, 6, 7, 8, 9
MASK_ADDITIVE, MASK_BOOL_INCLUDE = 1, 2
SET_WINDOW = 2

# Bits of bfloat16 are uint16, which the library has no other use for.
_DTYPES = {
    np.dtype(np.float32): FLOAT32,
    np.dtype(np.bool_): BOOL,
    np.dtype(np.int64): INT64,
    np.dtype(np.uint16): BFLOAT16,
    np.dtype(np.float16): FLOAT16,
    np.dtype(np.int32): INT32,
    np.dtype(np.int8): INT8,
    np.dtype(np.uint8): UINT8,
}


class Tensor(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("dtype", c_int32),
        ("rank", c_int32),
        ("shape", c_int64 * 8),
        ("strides", c_int64 * 8),
    ]


class Sized(Structure):
    """A struct whose first field is its size."""

    def __init__(self, **fields: object) -> None:
        super().__init__(struct_size=ctypes.sizeof(type(self)), **fields)


class ContextConfig(Sized):
    _fields_ = [
        ("struct_size", c_uint64),
        ("num_threads", c_int32),
        ("parallel_for_width", c_int32),
        ("engine", c_int32),
        ("gemm", c_int32),
        ("kernels", c_char_p),
        ("parallel_for", c_void_p),
        ("parallel_for_state", c_void_p),
        ("allocate", c_void_p),
        ("deallocate", c_void_p),
        ("allocator_state", c_void_p),
        ("float32_weights", c_int32),
        ("reserved", c_int32),
    ]


class ContextInfo(Sized):
    _fields_ = [
        ("struct_size", c_uint64),
        ("num_threads", c_int32),
        ("engine", c_int32),
        ("gemm", c_int32),
        ("attention_gemm", c_int32),
        ("projection_gemm", c_int32),
        ("blas_is_serial", c_int32),
        ("kernels", c_char_p),
        ("blas", c_char_p),
    ]


class SdpaReport(Sized):
    _fields_ = [
        ("struct_size", c_uint64),
        ("engine", c_int32),
        ("gemm", c_int32),
        ("depends_on_blas_threads", c_int32),
        ("packs", c_int32),
        ("row_block", c_int64),
        ("num_blocks", c_int64),
        ("workspace_bytes", c_uint64),
        ("kernels", c_char_p),
        ("reason", c_char_p),
    ]


class Kv(Sized):
    _fields_ = [
        ("struct_size", c_uint64),
        ("key", POINTER(Tensor)),
        ("value", POINTER(Tensor)),
        ("page_table", POINTER(Tensor)),
        ("page_starts", POINTER(Tensor)),
        ("starts", POINTER(Tensor)),
        ("lengths", POINTER(Tensor)),
        ("key_scale", POINTER(Tensor)),
        ("value_scale", POINTER(Tensor)),
        ("key_zero", POINTER(Tensor)),
        ("value_zero", POINTER(Tensor)),
    ]


class SdpaGradients(Sized):
    _fields_ = [
        ("struct_size", c_uint64),
        ("accumulate", c_int32),
        ("reserved", c_int32),
        ("output", POINTER(Tensor)),
        ("lse", POINTER(Tensor)),
        ("weights", POINTER(Tensor)),
        ("query", POINTER(Tensor)),
        ("key", POINTER(Tensor)),
        ("value", POINTER(Tensor)),
        ("mask", POINTER(Tensor)),
        ("bias", POINTER(Tensor)),
        ("position_bias", POINTER(Tensor)),
        ("alibi_slopes", POINTER(Tensor)),
        ("sinks", POINTER(Tensor)),
    ]


class SdpaParams(Sized):
    _fields_ = [
        ("struct_size", c_uint64),
        ("set", c_int32),
        ("is_causal", c_int32),
        ("scale", c_double),
        ("softcap", c_double),
        ("window_left", c_int64),
        ("window_right", c_int64),
        ("enable_gqa", c_int32),
        ("align_end", c_int32),
        ("normalizer", c_int32),
        ("mask_kind", c_int32),
        ("mask", POINTER(Tensor)),
        ("bias", POINTER(Tensor)),
        ("query_offset", POINTER(Tensor)),
        ("key_lengths", POINTER(Tensor)),
        ("alibi_slopes", POINTER(Tensor)),
        ("sinks", POINTER(Tensor)),
        ("lse", POINTER(Tensor)),
        ("weights", POINTER(Tensor)),
        ("report", POINTER(SdpaReport)),
        ("kv", POINTER(Kv)),
        ("query_starts", POINTER(Tensor)),
        ("scores", POINTER(Tensor)),
        ("scores_stage", c_int32),
        ("reserved", c_int32),
        ("mask_start", POINTER(Tensor)),
        ("position_bias", POINTER(Tensor)),
        ("block_mask", POINTER(Tensor)),
        ("block_rows", c_int64),
        ("block_columns", c_int64),
    ]


class MhaConfig(Sized):
    _fields_ = [
        ("struct_size", c_uint64),
        ("embed_dim", c_int64),
        ("num_heads", c_int64),
        ("kdim", c_int64),
        ("vdim", c_int64),
        ("qdim", c_int64),
        ("num_kv_heads", c_int64),
        ("head_dim", c_int64),
        ("value_head_dim", c_int64),
        ("dtype", c_int32),
        ("no_bias", c_int32),
        ("add_bias_kv", c_int32),
        ("add_zero_attn", c_int32),
        ("batch_first", c_int32),
        ("parameter_dtype", c_int32),
        ("qk_norm", c_int32),
        ("reserved", c_int32),
        ("qk_norm_epsilon", c_double),
        ("qk_norm_weight_offset", c_double),
    ]


class MhaParams(Sized):
    _fields_ = [
        ("struct_size", c_uint64),
        ("key_padding_mask_kind", c_int32),
        ("reserved", c_int32),
        ("key_padding_mask", POINTER(Tensor)),
        ("attention", POINTER(SdpaParams)),
        ("cache", c_void_p),
        ("rope", c_void_p),
    ]


_TENSOR = POINTER(Tensor)
_SDPA_ARGUMENTS: list[Any] = [
    c_void_p,
    _TENSOR,
    _TENSOR,
    _TENSOR,
    POINTER(SdpaParams),
    _TENSOR,
]
_MHA_ARGUMENTS: list[Any] = [
    c_void_p,
    c_void_p,
    _TENSOR,
    _TENSOR,
    _TENSOR,
    POINTER(MhaParams),
    _TENSOR,
]

_FUNCTIONS: dict[str, list[Any]] = {
    "attn_context_create": [POINTER(ContextConfig), POINTER(c_void_p)],
    "attn_context_describe": [c_void_p, POINTER(ContextInfo)],
    "attn_sdpa": [*_SDPA_ARGUMENTS, c_void_p, c_size_t],
    "attn_sdpa_workspace_bytes": [*_SDPA_ARGUMENTS, POINTER(c_size_t)],
    "attn_sdpa_backward": [
        *_SDPA_ARGUMENTS,
        POINTER(SdpaGradients),
        c_void_p,
        c_size_t,
    ],
    "attn_sdpa_backward_workspace_bytes": [
        *_SDPA_ARGUMENTS,
        POINTER(SdpaGradients),
        POINTER(c_size_t),
    ],
    "attn_sdpa_explain": [*_SDPA_ARGUMENTS, POINTER(SdpaReport)],
    "attn_mha_create": [c_void_p, POINTER(MhaConfig), POINTER(c_void_p)],
    "attn_mha_load_parameter": [c_void_p, c_void_p, c_char_p, _TENSOR, c_void_p],
    "attn_mha_forward": [*_MHA_ARGUMENTS, c_void_p, c_size_t],
    "attn_mha_workspace_bytes": [*_MHA_ARGUMENTS, POINTER(c_size_t)],
}


class LibraryError(Exception):
    """The library's own line about what was wrong."""


class Library:
    """The loaded library; `call` turns a status into an exception."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.attn_last_error.restype = c_char_p
        self._library.attn_version_string.restype = c_char_p
        self._library.attn_mha_destroy.argtypes = [c_void_p]
        self._library.attn_mha_destroy.restype = None
        for name, arguments in _FUNCTIONS.items():
            function = getattr(self._library, name)
            function.argtypes = arguments
            function.restype = c_int32

    def function(self, name: str) -> Callable[..., int]:
        """Without the check, for the timed loop."""
        return getattr(self._library, name)

    def call(self, name: str, *arguments: object) -> None:
        if self.function(name)(*arguments) != 0:
            raise LibraryError(f"{name}: {self._library.attn_last_error().decode()}")

    def version(self) -> str:
        return self._library.attn_version_string().decode()

    def destroy_layer(self, layer: c_void_p) -> None:
        self._library.attn_mha_destroy(layer)


def view(array: np.ndarray) -> Tensor:
    """The caller keeps the array alive."""
    strides = [stride // array.itemsize for stride in array.strides]
    tensor = Tensor(data=array.ctypes.data, dtype=_DTYPES[array.dtype], rank=array.ndim)
    tensor.shape[: array.ndim] = array.shape
    tensor.strides[: array.ndim] = strides
    return tensor


def dtype_of(array: np.ndarray) -> int:
    return _DTYPES[array.dtype]


def pointer_to(tensor: Tensor) -> object:
    """For a field of a struct, which keeps the tensor alive."""
    return ctypes.pointer(tensor)
