# SPDX-License-Identifier: BSD-3-Clause
"""libattention.onnx: graphs of nodes beside the onnx package's reference, and what is refused."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from test_onnx_nodes import near, normal

import libattention
from libattention.onnx import Backend, run_node


def decoder(opset=24):
    """A step of decoding: rotate the new key, put it into the cache, attend."""
    nodes = [
        helper.make_node("RotaryEmbedding", ["key", "cos", "sin", "positions"], ["turned"]),
        helper.make_node("TensorScatter", ["keys", "turned", "starts"], ["new_keys"]),
        helper.make_node("TensorScatter", ["values", "value", "starts"], ["new_values"]),
        helper.make_node(
            "Attention",
            ["query", "new_keys", "new_values", "", "", "", "lengths"],
            ["output"],
            is_causal=1,
        ),
    ]
    floats = {
        "query": (2, 4, 1, 8),
        "key": (2, 2, 1, 8),
        "value": (2, 2, 1, 8),
        "keys": (2, 2, 6, 8),
        "values": (2, 2, 6, 8),
    }
    numbers = {"positions": (2, 1), "starts": (2,), "lengths": (2,)}
    angles = np.outer(np.arange(6), 0.5 ** np.arange(4)).astype("float32")
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            *(helper.make_tensor_value_info(*one) for one in _typed(floats, TensorProto.FLOAT)),
            *(helper.make_tensor_value_info(*one) for one in _typed(numbers, TensorProto.INT64)),
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4)
            for name in ("output", "new_keys")
        ],
        [
            numpy_helper.from_array(np.cos(angles), "cos"),
            numpy_helper.from_array(np.sin(angles), "sin"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    inputs = {name: normal(*shape) for name, shape in floats.items()}
    starts = np.array([4, 1])
    return model, {**inputs, "positions": starts[:, None], "starts": starts, "lengths": starts + 1}


def _typed(shapes, element_type):
    return [(name, element_type, shape) for name, shape in shapes.items()]


def test_a_graph():
    model, inputs = decoder()
    expected = ReferenceEvaluator(model).run(None, inputs)
    assert Backend.is_compatible(model)
    for given in (inputs, list(inputs.values())):
        near(Backend.run_model(model, given), expected)
    prepared = Backend.prepare(model, context=libattention.Context(num_threads=1))
    near(prepared.run(inputs), expected)


def test_inputs_in_order_are_each_their_own():
    """Also where the graph gives one tensor to several inputs."""
    arrays = [factor * normal(1, 2, 3, 4) for factor in (1, 2, 3)]
    same, other = (helper.make_node("Attention", list(names), ["Y"]) for names in ("XXX", "QKV"))
    np.testing.assert_array_equal(run_node(same, arrays)[0], run_node(other, arrays)[0])


def test_the_backends_own_node():
    node = helper.make_node("Attention", ["Q", "K", "V"], ["Y"], domain="ai.onnx", is_causal=1)
    arrays = [normal(1, 2, 3, 4) for _ in range(3)]
    found = Backend.run_node(node, arrays, "CPU", opset_version=23)
    np.testing.assert_array_equal(found[0], run_node(node, dict(zip("QKV", arrays)))[0])
    assert Backend.supports_device("CPU")
    assert not Backend.supports_device("CUDA")


# ---- what is refused ----

X = np.zeros((1, 2, 3, 4), "float32")
FLAT = np.zeros((1, 3, 8), "float32")


def made(operator="Attention", names="QKV", inputs=None, opset=None, **attributes):
    node = helper.make_node(operator, list(names), ["Y"], **attributes)
    return run_node(node, [X] * len(names) if inputs is None else inputs, opset=opset)


def scatter(past, update, indices=None, **attributes):
    given = [past, update] if indices is None else [past, update, np.array(indices)]
    return made("TensorScatter", "puw"[: len(given)], given, **attributes)


WITH_PAST = ["Q", "K", "V", "", "past_key", "past_value"]
REFUSED = {
    "Softmax: expected an operator of attention": lambda: made("Softmax", "x"),
    "Attention: opset 22 does not have it": lambda: made(opset=22),
    "Attention: attribute left_window_size is unknown": lambda: made(opset=24, left_window_size=1),
    "Attention: attribute dropout is unknown": lambda: made(dropout=0.5),
    "Attention: expected at most 7 inputs, got 8": lambda: made(names="QKVabcde"),
    "inputs: expected 3 arrays, got 2": lambda: made(inputs=[X, X]),
    "inputs: expected an array for 'V', got none": lambda: made(inputs={"Q": X, "K": X}),
    "Q, K, V: expected 3 axes each, or 4 each": lambda: made(inputs=[X, X, FLAT]),
    "Q: expected q_num_heads that divides its last axis, 8, got None": lambda: made(
        inputs=[FLAT] * 3
    ),
    "K: expected kv_num_heads that divides its last axis, 8, got 3": lambda: made(
        inputs=[FLAT] * 3, q_num_heads=2, kv_num_heads=3
    ),
    "Q: expected 3 heads, got shape (1, 2, 3, 4)": lambda: made(q_num_heads=3),
    "past_value: expected a tensor beside past_key": lambda: made(
        names=WITH_PAST[:5], inputs=[X] * 4
    ),
    "past_key: expected a tensor beside past_value": lambda: made(
        names=["Q", "K", "V", "", "", "past_value"], inputs=[X] * 4
    ),
    "nonpad_kv_seqlen: expected none beside past_key": lambda: made(
        names=[*WITH_PAST, "n"], inputs=[X] * 5 + [np.array([3])]
    ),
    "past_key: expected shape (1, 2, P, 4), got (1, 3, 8)": lambda: made(
        names=WITH_PAST, inputs=[X] * 3 + [FLAT] * 2
    ),
    "past_key: expected float32, which the new rows have, got int8": lambda: made(
        names=WITH_PAST, inputs=[X] * 3 + [X.astype("int8"), X]
    ),
    "V: expected a tensor, got none": lambda: made(names="QK"),
    "RotaryEmbedding: expected at most 1 outputs": lambda: run_node(
        helper.make_node("RotaryEmbedding", list("Xcs"), list("YZ")), [X] * 3
    ),
    "key_lengths: expected": lambda: made(
        names=["Q", "K", "V", "", "", "", "n"], inputs=[X] * 3 + [np.array([4])]
    ),
    "softmax_precision: expected a floating-point type's number": lambda: made(softmax_precision=7),
    "key: expected shape": lambda: made(inputs=[X, X[..., :2], X]),
    "X: expected 3 or 4 axes": lambda: made("RotaryEmbedding", "Xcs", [X[0, 0]] * 3),
    "X: expected num_heads that divides": lambda: made("RotaryEmbedding", "Xcs", [FLAT] * 3),
    "cos: expected": lambda: made("RotaryEmbedding", "Xcs", [X, X[0], X[0]]),
    "axis: expected one of 4, got 4": lambda: made("RMSNormalization", "Xs", axis=4),
    "scale: expected a shape that broadcasts to": lambda: made(
        "RMSNormalization", "Xs", [X, X[0, 0, :, :3]], axis=-3
    ),
    "axis: expected one of 4 but the first, got 0": lambda: scatter(X, X, axis=0),
    "axis: expected one of 4 but the first, got 5": lambda: scatter(X, X, axis=5),
    "update: expected at most past_cache's": lambda: scatter(X[:, :, :2], X),
    "update: expected past_cache's": lambda: scatter(X, X[:, :1]),
    "update: expected int8, which past_cache has, got float32": lambda: scatter(
        X.astype("int8"), X
    ),
    "write_indices: expected shape (1), got (2,)": lambda: scatter(X, X, [0, 0]),
    "write_indices: expected 0 to 1, got [2]": lambda: scatter(X, X[:, :, :2], [2]),
    "mode: expected 'linear' or 'circular', got 'ring'": lambda: scatter(X, X, mode="ring"),
    "device: expected 'CPU', got 'CUDA'": lambda: Backend.prepare(decoder()[0], "CUDA"),
    "device: expected 'CPU', got 'TPU'": lambda: Backend.run_node(None, [], "TPU"),
    "inputs: expected 8 arrays, got 1": lambda: Backend.run_model(decoder()[0], [X]),
    "model: operator Relu is not of attention": lambda: Backend.prepare(
        helper.make_model(
            helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", [], [])
        )
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text):
    with pytest.raises(libattention.Error) as found:
        REFUSED[text]()
    assert str(found.value).startswith(text)


def test_a_mode_that_there_is_not():
    node = helper.make_node("Attention", list("QKV"), list("YabS"), qk_matmul_output_mode=4)
    with pytest.raises(libattention.Error, match="qk_matmul_output_mode: expected 0 to 3, got 4"):
        run_node(node, [X] * 3)
