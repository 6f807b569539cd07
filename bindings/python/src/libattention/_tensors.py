# SPDX-License-Identifier: BSD-3-Clause
"""Arrays of other libraries as views the C library reads and writes in place, and new arrays of the
same kind for results.

A kind knows where an array's elements lie and how to make one. NumPy and PyTorch are asked
directly, everything else on the CPU through DLPack.
"""

from __future__ import annotations

import struct
import sys
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from libattention._abi import ffi
from libattention._dtypes import BFLOAT16, DATA, DTYPE_NAMES, Role, wrong_dtype
from libattention._library import Error, lib, unsupported

MAX_RANK: int = lib.ATTN_MAX_RANK
CPU = 1  # DLPack's kDLCPU


class Described(NamedTuple):
    """Where an array's elements lie."""

    address: int
    dtype: int
    shape: tuple[int, ...]
    layout: bytes  # what follows the address in an attn_tensor
    owner: Any  # the elements stay where they are as long as this lives


class Empty(NamedTuple):
    """Type and shape of an output."""

    dtype: int
    shape: tuple[int, ...]


def empty_from(tensor: Any) -> Empty:
    """An output that the library described, an attn_tensor."""
    return Empty(tensor.dtype, tuple(ffi.unpack(tensor.shape, tensor.rank)))


# attn_tensor: the address, and what is the same for many tensors.
_pack_address = struct.Struct("@Q").pack
_LAYOUT = struct.Struct("@ii8q8q")
_TENSOR_BYTES = struct.calcsize("@Q") + _LAYOUT.size
if ffi.sizeof("attn_tensor") != _TENSOR_BYTES:
    raise ImportError("libattention: attn_tensor is not as this package expects it")


@lru_cache(maxsize=4096)
def layout_of(dtype: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """Strides count elements. More axes than a view has are left out: Views.add refuses them."""
    rank = len(shape)
    padding = (0,) * (MAX_RANK - rank)
    return _LAYOUT.pack(dtype, rank, *shape[:MAX_RANK], *padding, *strides[:MAX_RANK], *padding)


def contiguous_layout(made: Empty) -> bytes:
    """Of a new array."""
    strides = [1]
    for length in reversed(made.shape[1:]):
        strides.append(strides[-1] * length)
    return layout_of(made.dtype, made.shape, tuple(reversed(strides[: len(made.shape)])))


def _describe(*parts: Any) -> Described:
    """As Described(...), in half the time: this is done for every tensor of every call."""
    return tuple.__new__(Described, parts)


class Kind(Protocol):
    """One library's arrays."""

    def describe(self, array: Any, name: str, role: Role, writable: bool) -> Described:
        """Raises an Error that begins with `name` where the library cannot use the array."""

    def empty(self, shape: tuple[int, ...], dtype: int) -> tuple[Any, Described]:
        """A new contiguous array that a call writes."""

    def finished(self, array: Any, like: Any) -> Any:
        """What `empty` made, once it is written; `like` is one of the call's arguments."""


class NumPyKind:
    """numpy.ndarray."""

    def describe(self, array: Any, name: str, role: Role, writable: bool) -> Described:
        layout = numpy_layout(array.dtype, array.shape, array.strides)
        if layout is None or layout[0] not in role.dtypes:
            raise _unusable_numpy(array, name, role)
        if writable and not array.flags.writeable:
            raise Error(lib.ATTN_ERROR_VALUE, f"{name}: is read-only; pass an array of your own")
        return _describe(address_of(array), layout[0], array.shape, layout[1], array)

    def empty(self, shape: tuple[int, ...], dtype: int) -> tuple[Any, Described]:
        array = np.empty(shape, numpy_dtype(dtype))
        layout = layout_of(
            dtype, shape, tuple(stride // array.itemsize for stride in array.strides)
        )
        return array, _describe(address_of(array), dtype, shape, layout, array)

    def finished(self, array: Any, like: Any) -> Any:
        return array


# NumPy has no bfloat16 of its own; the package ml_dtypes adds one.
_NUMPY_NUMBERS = {
    np.dtype(name): number for number, name in DTYPE_NAMES.items() if number != BFLOAT16
}
_NUMPY_DTYPES = {number: dtype for dtype, number in _NUMPY_NUMBERS.items()}


def numpy_dtype(number: int) -> Any:
    """NumPy's name for one of the library's numbers."""
    if number == BFLOAT16:
        from ml_dtypes import bfloat16

        return np.dtype(bfloat16)
    return _NUMPY_DTYPES[number]


def _number_of(dtype: Any) -> int | None:
    """The inverse; None for a type that the library does not have."""
    if dtype.kind == "V" and dtype.name == "bfloat16":
        return BFLOAT16
    return _NUMPY_NUMBERS.get(dtype)


@lru_cache(maxsize=4096)
def numpy_layout(
    dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, bytes] | None:
    """The library's number of the dtype, and the layout; None where it has none of either."""
    number = _number_of(dtype)
    if number is None or any(stride % dtype.itemsize for stride in strides):
        return None
    return number, layout_of(number, shape, tuple(stride // dtype.itemsize for stride in strides))


def _unusable_numpy(array: Any, name: str, role: Role) -> Error:
    native = array.dtype.newbyteorder("=")
    number = _number_of(native)
    if number not in role.dtypes:
        holds = {"b": "bool", "i": "integer", "u": "integer", "f": "float"}.get(array.dtype.kind)
        if number == BFLOAT16:  # an extension's, which NumPy calls void
            holds = "float"
        conversions = {one: f"{name}.astype({one!r})" for one in DTYPE_NAMES.values()}
        return wrong_dtype(name, role, str(array.dtype), number is not None, holds, conversions)
    if native != array.dtype:
        return unsupported(
            f"{name}: byte order of {array.dtype.str} is not this machine's; "
            f"pass {name}.astype({native.name!r})"
        )
    return unsupported(
        f"{name}: strides {array.strides} are not multiples of {array.itemsize} bytes; "
        f"pass {name}.copy()"
    )


def address_of(array: Any) -> int:
    """Of the first element. The short way is open to contiguous memory only."""
    if array.flags.c_contiguous and array.dtype.kind != "V":
        return int(ffi.cast("uintptr_t", ffi.from_buffer(array)))
    address: int = array.__array_interface__["data"][0]
    return address


class TorchKind:
    """torch.Tensor. Made once torch is imported by somebody else."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._dtypes = {number: getattr(torch, name) for number, name in DTYPE_NAMES.items()}
        self._numbers = {dtype: number for number, dtype in self._dtypes.items()}

    def describe(self, array: Any, name: str, role: Role, writable: bool) -> Described:
        dtype = self._numbers.get(array.dtype)
        if array.requires_grad and self._torch.is_grad_enabled():
            raise unsupported(
                f"{name}: requires grad, which would be lost; "
                f"pass {name}.detach() or call under torch.no_grad()"
            )
        if array.device.type != "cpu":
            raise unsupported(f"{name}: is on {array.device}; pass {name}.cpu()")
        if array.layout is not self._torch.strided:
            raise unsupported(f"{name}: layout {array.layout} is unsupported; pass to_dense()")
        if dtype not in role.dtypes:
            raise self._wrong_dtype(array.dtype, name, role)
        if array.is_neg():
            raise unsupported(f"{name}: is negated lazily; pass {name}.resolve_neg()")
        if writable:  # PyTorch then tells if a gradient needed what was there
            self._torch.autograd.graph.increment_version(array)
        shape = tuple(array.shape)
        layout = layout_of(dtype, shape, array.stride())
        return _describe(array.data_ptr(), dtype, shape, layout, array)

    def _wrong_dtype(self, dtype: Any, name: str, role: Role) -> Error:
        holds = "float" if dtype.is_floating_point else None
        if dtype == self._torch.bool:
            holds = "bool"
        elif not dtype.is_floating_point and not dtype.is_complex:
            holds = "integer"
        conversions = {one: f"{name}.to(torch.{one})" for one in DTYPE_NAMES.values()}
        return wrong_dtype(name, role, str(dtype), dtype in self._numbers, holds, conversions)

    def empty(self, shape: tuple[int, ...], dtype: int) -> tuple[Any, Described]:
        array = self._torch.empty(shape, dtype=self._dtypes[dtype], device="cpu")
        layout = layout_of(dtype, shape, array.stride())
        return array, _describe(array.data_ptr(), dtype, shape, layout, array)

    def finished(self, array: Any, like: Any) -> Any:
        return array


class DlpackKind:
    """Everything else that hands out its memory through DLPack."""

    def describe(self, array: Any, name: str, role: Role, writable: bool) -> Described:
        device, number = array.__dlpack_device__()
        if device != CPU:
            raise unsupported(
                f"{name}: is on DLPack device ({int(device)}, {number}); pass a copy on the CPU"
            )
        try:
            # It owns what was handed out, which may be a copy of the array's own memory.
            view = _lent_to_write(array) if writable else np.from_dlpack(array)
        except (BufferError, RuntimeError, TypeError) as error:
            raise unsupported(f"{name}: cannot be read through DLPack: {error}") from error
        return NUMPY.describe(view, name, role, writable)

    def empty(self, shape: tuple[int, ...], dtype: int) -> tuple[Any, Described]:
        return NUMPY.empty(shape, dtype)

    def finished(self, array: Any, like: Any) -> Any:
        # Only now: a library may copy what it imports.
        return _namespace_of(like).from_dlpack(array)


def _lent_to_write(array: Any) -> Any:
    """The array's own memory: what is written to a copy is lost."""
    try:
        return np.from_dlpack(array, copy=False)
    except TypeError:  # NumPy or the producer is older than the word; what is lent is read-only
        return np.from_dlpack(array)


def _namespace_of(array: Any) -> Any:
    """The module that makes arrays of this kind from others."""
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    module = sys.modules[type(array).__module__.partition(".")[0]]
    return module if hasattr(module, "from_dlpack") else np


NUMPY = NumPyKind()
_DLPACK = DlpackKind()
_torch_kind: TorchKind | None = None


def kind_of(array: Any, name: str) -> Kind:
    """Who knows the array."""
    global _torch_kind
    if isinstance(array, np.ndarray):
        if isinstance(array, np.ma.MaskedArray):
            raise _masked(array, f"{name}.filled(...)", name)
        return NUMPY
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        if _torch_kind is None:
            _torch_kind = TorchKind(torch)
        if type(array).__name__ == "MaskedTensor":
            raise _masked(array, f"{name}.to_tensor(0)", name)
        return _torch_kind
    if hasattr(array, "__dlpack__"):
        return _DLPACK
    raise Error(
        lib.ATTN_ERROR_VALUE,
        f"{name}: expected a NumPy array, PyTorch tensor or DLPack producer, "
        f"got {type(array).__name__}",
    )


def refuse_stand_ins(*arrays: Any, instead: str) -> None:
    """Refuses PyTorch tensors that only stand for numbers, where no operator takes them. `instead`
    is what to do about it."""
    torch = sys.modules.get("torch")
    if torch is None or not any(isinstance(one, torch.Tensor) for one in arrays):
        return
    from libattention._torch_ordinary import reason_there_are_no_numbers

    reason = reason_there_are_no_numbers(arrays)
    if reason is not None:
        raise unsupported(
            f"a tensor of the call {reason}, where there are no numbers to compute with; "
            f"call outside of that, or {instead}"
        )


def note_written(*arrays: Any) -> None:
    """Tells PyTorch which of its tensors a call has written: autograd may have kept them."""
    torch: Any = sys.modules.get("torch")
    for one in () if torch is None else arrays:
        if isinstance(one, torch.Tensor) and not one.is_inference():
            torch.autograd.graph.increment_version(one)


def wants_gradient(first: Any, *others: Any) -> bool:
    """Whether the first is a PyTorch tensor, and a gradient of any of these is wanted."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(first, torch.Tensor) or not torch.is_grad_enabled():
        return False
    return any(isinstance(one, torch.Tensor) and one.requires_grad for one in (first, *others))


def _masked(array: Any, without: str, name: str) -> Error:
    return unsupported(
        f"{name}: is a {type(array).__name__}, whose mask would be lost; pass {without}, "
        "and what is to be hidden as a mask of the call"
    )


def described(array: Any, name: str, role: Role, writable: bool = False) -> Described:
    """Where the array's elements lie."""
    return kind_of(array, name).describe(array, name, role, writable)


def integers(values: Any, name: str) -> Any:
    """Options of role INTEGERS, which may also be numbers and lists of numbers."""
    return _array_of(values, name, "iu", np.int64, "integers")


def floats(values: Any, name: str) -> Any:
    """Options of role DATA, which may also be lists of numbers."""
    return _array_of(values, name, "iuf", np.float32, "numbers")


def _array_of(values: Any, name: str, kinds: str, dtype: Any, expected: str) -> Any:
    """Python's and NumPy's numbers, and lists of them, as an array, none of them changed but for
    rounding; everything else as it is."""
    if not isinstance(values, (bool, int, float, np.generic, list, tuple)):
        return values
    try:
        found = np.asarray(values)
    except ValueError:  # lists of different lengths in one
        found = np.asarray(None)
    fits = found.size == 0 or found.dtype.kind in kinds
    if fits and found.dtype == np.uint64 and dtype == np.int64:
        fits = not (found > np.iinfo(np.int64).max).any()
    if not fits:
        raise Error(lib.ATTN_ERROR_VALUE, f"{name}: expected {expected}, got {values!r:.100}")
    return found.astype(dtype)


class Views:
    """The attn_tensor structs of one call, side by side, and what they refer to. They are written
    all at once by finish, which has to come before the call."""

    __slots__ = ("_further", "_kept", "_parts", "_structs")

    # query, key, value, what comes out of them, and every option of a layer
    MOST = 16

    def __init__(self, capacity: int = MOST) -> None:
        self._structs = ffi.new("attn_tensor[]", capacity)
        self._parts: list[bytes] = []
        self._kept: list[Any] = []
        self._further: Any = None

    def add(self, view: Described, name: str) -> Any:
        """A pointer to the struct of a view, whose owner lives as long as this object."""
        address, _, shape, layout, owner = view
        if len(shape) > MAX_RANK:
            raise Error(
                lib.ATTN_ERROR_VALUE, f"{name}: expected at most {MAX_RANK} axes, got {len(shape)}"
            )
        kept = self._kept
        pointer = self._structs + len(kept)
        self._parts += (_pack_address(address), layout)
        kept.append(owner)
        return pointer

    def add_array(self, array: Any, name: str, role: Role = DATA, writable: bool = False) -> Any:
        """As add, for an array of any kind."""
        return self.add(described(array, name, role, writable), name)

    def add_layout(self, layout: bytes) -> Any:
        """As add, for a view without memory, of which only the layout counts."""
        return self.add(_describe(0, 0, (), layout, None), "")

    def add_inputs(self, query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
        """As add_array, for the three of every call."""
        return (
            self.add_array(query, "query"),
            self.add_array(key, "key"),
            self.add_array(value, "value"),
        )

    def add_new(self, made: Empty, kind: Kind, name: str) -> tuple[Any, Any]:
        """A new array for an output, which is to be finished by its kind, and as add a pointer."""
        array, view = kind.empty(made.shape, made.dtype)
        return array, self.add(view, name)

    def keep(self, struct: Any) -> Any:
        """A struct beside the views, which lives as long as this object; one at most."""
        self._further = struct
        return struct

    def layouts(self) -> list[bytes]:
        """What is known of the views added so far without their addresses."""
        return self._parts[1::2]

    def finish(self) -> None:
        """Writes the structs."""
        ffi.memmove(self._structs, b"".join(self._parts), len(self._kept) * _TENSOR_BYTES)
