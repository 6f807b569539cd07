# SPDX-License-Identifier: BSD-3-Clause
"""Layers in safetensors files: eight bytes that say how long the header is, a JSON object of every
tensor's type, shape and place, and the data.

What a header says is compared with the length of the file before anything is made from it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from libattention._library import Error, lib
from libattention._tensors import MAX_RANK

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
# Of one element. Types that are not here may be in a file, beside the layer.
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
# bfloat16 is the upper half of a float32.
STORED_AS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# What a layer keeps as it is stored.
NARROW = {"F16": "float16", "BF16": "bfloat16"}


class StoredTensor(NamedTuple):
    """One tensor of a file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int  # in the file
    end: int

    def read(self) -> np.ndarray[Any, Any]:
        """Its values, in float64 if they are, else in float32."""
        if self.dtype not in STORED_AS:
            expected = ", ".join(STORED_AS)
            raise Error(
                lib.ATTN_ERROR_UNSUPPORTED,
                f"{self.name}: expected one of {expected}, got {self.dtype}",
            )
        dtype = np.dtype(STORED_AS[self.dtype])
        count = (self.end - self.begin) // dtype.itemsize
        stored = np.fromfile(self.path, dtype, count, offset=self.begin)
        if stored.size != count:
            raise Error(lib.ATTN_ERROR_VALUE, f"path: {self.path}: became shorter")
        if self.dtype == "BF16":
            stored = (stored.astype("<u4") << 16).view("<f4")
        wide = np.float64 if self.dtype == "F64" else np.float32
        return stored.astype(wide, copy=False).reshape(self.shape)


class Checkpoint(NamedTuple):
    """What a file says of itself."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, StoredTensor]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Reads the header of a file and checks all of it."""
    path = Path(path)
    try:
        header, data_begin, size = _read_header(path)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise ValueError("__metadata__: expected an object of strings")
        tensors = {
            name: _check_tensor(path, name, entry, data_begin, size)
            for name, entry in header.items()
        }
        _check_coverage(tensors, data_begin, size)
    except (ValueError, RecursionError) as error:
        raise Error(lib.ATTN_ERROR_VALUE, f"path: {path}: {error}") from error
    return Checkpoint(metadata, tensors)


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The JSON object, and where the data begin and end."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > min(size - LENGTH_BYTES, MAX_HEADER_BYTES):
            raise ValueError(f"header of {length} bytes in a file of {size} bytes")
        text = file.read(length).decode()
    if not text.startswith("{"):
        raise ValueError("header does not begin with '{'")
    header = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_word)
    return header, LENGTH_BYTES + length, size


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"header: {name} occurs twice")
        found[name] = value
    return found


def _refuse_word(word: str) -> Any:
    raise ValueError(f"header: {word} is not JSON")


def _check_tensor(path: Path, name: str, entry: Any, data_begin: int, size: int) -> StoredTensor:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise ValueError(f"{name}: expected dtype, shape and data_offsets")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not _are_lengths(shape) or not _are_lengths(offsets) or len(offsets) != 2:
        raise ValueError(f"{name}: expected lists of integers as shape and data_offsets")
    if len(shape) > MAX_RANK and entry["dtype"] in STORED_AS:
        raise ValueError(f"{name}: expected at most {MAX_RANK} axes, got {len(shape)}")
    begin, end = (data_begin + offset for offset in offsets)
    if not begin <= end <= size:
        raise ValueError(f"{name}: data_offsets {offsets} lie outside the file")
    bits = BITS.get(entry["dtype"])
    if bits is not None and math.prod(shape) * bits != (end - begin) * 8:
        raise ValueError(
            f"{name}: {entry['dtype']} of shape {shape} does not take {end - begin} bytes"
        )
    return StoredTensor(path, name, entry["dtype"], tuple(shape), begin, end)


def _are_lengths(values: Any) -> bool:
    return isinstance(values, list) and all(type(one) is int and one >= 0 for one in values)


def _check_coverage(tensors: Mapping[str, StoredTensor], data_begin: int, size: int) -> None:
    """Every byte belongs to one tensor."""
    covered = data_begin
    for tensor in sorted(tensors.values(), key=lambda one: (one.begin, one.end)):
        if tensor.begin != covered:
            raise ValueError(f"{tensor.name}: a gap or an overlap before its data")
        covered = tensor.end
    if covered != size:
        raise ValueError(f"{size - covered} bytes behind the last tensor")


# ---- a layer ----


def layer_arguments(
    checkpoint: Checkpoint, tensors: Mapping[str, StoredTensor], prefix: str, path: str | Path
) -> dict[str, Any]:
    """Arguments of the layer that these tensors are the parameters of, as far as a file tells."""
    if "out_proj.weight" not in tensors:
        raise Error(lib.ATTN_ERROR_PARAMETER, f"prefix: no {prefix}out_proj.weight in {path}")
    columns = {
        f"{which}dim": _matrix_shape(tensors[name])[1]
        for which in "qkv"
        if (name := f"{which}_proj_weight") in tensors
    }
    is_double = tensors["out_proj.weight"].dtype == "F64"
    dtypes = {tensor.dtype for tensor in tensors.values()}
    return {
        "embed_dim": _matrix_shape(tensors["out_proj.weight"])[0],
        **columns,
        "bias": "out_proj.bias" in tensors,
        "add_bias_kv": "bias_k" in tensors,
        "dtype": "float64" if is_double else "float32",
        "parameter_dtype": NARROW.get(dtypes.pop()) if len(dtypes) == 1 else None,
        **{
            name: bool(number)
            for name in ("batch_first", "add_zero_attn")
            if (number := _metadata_number(checkpoint, name, path)) is not None
        },
        "num_heads": _metadata_number(checkpoint, "num_heads", path),
    }


def _matrix_shape(tensor: StoredTensor) -> tuple[int, ...]:
    if len(tensor.shape) != 2:
        raise Error(
            lib.ATTN_ERROR_SHAPE, f"{tensor.name}: expected two axes, got shape {tensor.shape}"
        )
    return tensor.shape


def _metadata_number(checkpoint: Checkpoint, name: str, path: str | Path) -> int | None:
    text = checkpoint.metadata.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Error(
            lib.ATTN_ERROR_VALUE,
            f"{name}: expected an integer in the metadata of {path}, got {text!r}",
        )
    return int(text)
