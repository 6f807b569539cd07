# SPDX-License-Identifier: BSD-3-Clause
"""Arrays of a cell as OpenVINO's tensors, parameters and options. Import openvino from here."""

import ctypes
import sys

import numpy as np

from peers.cells import BFLOAT16, FLOAT16, FLOAT32
from peers.inputs import Array, widened

# Its import reports usage over the network from a process that may stay behind. Without this module
# it does not, which it allows for.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402
from openvino import Node  # noqa: E402
from openvino import opset13 as operators  # noqa: E402

PRECISIONS = {FLOAT32: "f32", BFLOAT16: "bf16", FLOAT16: "f16"}


def options_for(threads: int, precision: str) -> dict[str, int | str | bool]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }


def kind_of(array: Array) -> openvino.Type:
    """An array of uint16 has the bits of bfloat16."""
    return openvino.Type.bf16 if array.dtype == np.uint16 else openvino.Type(array.dtype)


def parameter(array: Array) -> Node:
    return operators.parameter(list(array.shape), kind_of(array))


def _bits(tensor: openvino.Tensor) -> Array:
    """The memory of a tensor of bfloat16, which NumPy has no name for."""
    memory = (ctypes.c_uint16 * tensor.size).from_address(tensor.data.ctypes.data)
    return np.frombuffer(memory, np.uint16).reshape(tuple(tensor.shape))


def tensor_of(array: Array) -> openvino.Tensor:
    if array.dtype != np.uint16:
        return openvino.Tensor(array, shared_memory=True)
    tensor = openvino.Tensor(openvino.Type.bf16, openvino.Shape(array.shape))
    _bits(tensor)[:] = array
    return tensor


def array_of(tensor: openvino.Tensor) -> Array:
    """A copy, in float32."""
    is_bfloat16 = tensor.element_type == openvino.Type.bf16
    return widened(_bits(tensor) if is_bfloat16 else tensor.data).copy()
