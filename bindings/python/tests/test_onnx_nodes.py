# SPDX-License-Identifier: BSD-3-Clause
"""libattention.onnx: every node test of the onnx package that is of one of its operators, products
of options beside the package's reference, graphs, and what is refused."""

import importlib
import itertools
import warnings

import numpy as np
import pytest

import libattention

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnx.backend.test.case import node as onnx_tests
    from onnx.backend.test.runner import Runner
    from onnx.reference import ReferenceEvaluator

    from libattention.onnx import Backend, run_node

MODULES = {
    "Attention": "attention",
    "RotaryEmbedding": "rotaryembedding",
    "RMSNormalization": "rmsnormalization",
    "TensorScatter": "tensorscatter",
}


def cases_of(operator):
    """{name: test} of the operator itself: those named _expanded are graphs of others."""
    # As collect_testcases does, which makes those of all operators first.
    onnx_tests._TargetOpType = operator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(f"onnx.backend.test.case.node.{MODULES[operator]}")
    return {
        one.name: one
        for one in onnx_tests._NodeTestCases
        if [node.op_type for node in one.model.graph.node] == [operator]
        and not one.name.endswith("_expanded")
    }


CASES = {name: case for operator in MODULES for name, case in cases_of(operator).items()}


def as_array(value):
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def test_there_are_cases_of_every_operator():
    found = [case.model.graph.node[0].op_type for case in CASES.values()]
    assert {one: found.count(one) >= 3 for one in MODULES} == dict.fromkeys(MODULES, True)
    assert len(found) >= 100


@pytest.mark.parametrize("name", CASES)
def test_case_of_the_package(name):
    """With the package's own comparison and tolerances."""
    case = CASES[name]
    assert Backend.is_compatible(case.model)
    for inputs, outputs in case.data_sets:
        found = Backend.run_model(case.model, list(map(as_array, inputs)))
        expected = list(map(as_array, outputs))
        Runner.assert_similar_outputs(expected, found, rtol=case.rtol, atol=case.atol)


# ---- beside the reference ----

B, H, K, L, S, E = 2, 4, 2, 3, 5, 8
INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
OUTPUTS = ("Y", "present_key", "present_value", "qk_matmul_output")


def beside(operator, opset, names, inputs, attributes, outputs=("Y",)):
    """What run_node finds of a node, and what the reference does."""
    given = [name if name in inputs else "" for name in names]
    while not given[-1]:
        given.pop()
    node = helper.make_node(operator, given, outputs, **attributes)
    graph = helper.make_graph(
        [node],
        "graph",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(one.dtype), one.shape
            )
            for name, one in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs if name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    with np.errstate(all="ignore"):
        expected = ReferenceEvaluator(model).run(None, inputs)
    found = run_node(node, inputs, opset=opset)
    assert [one is None for one in found] == [not name for name in outputs]
    return [one for one in found if one is not None], expected


def near(found, expected, tolerance=1e-5):
    for one, other in zip(found, expected):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        np.testing.assert_allclose(
            one.astype("float64"), other.astype("float64"), rtol=tolerance, atol=tolerance
        )
    assert len(found) == len(expected)


def normal(*shape, dtype="float32"):
    return np.random.default_rng(len(shape) + sum(shape)).normal(size=shape).astype(dtype)


def keys_of(memory):
    """Inputs of keys and values, by where ONNX has them; and how many keys there are."""
    if memory == "past":
        past = {name: normal(B, K, 4, size) for name, size in (("past_key", E), ("past_value", 6))}
        return {"K": normal(B, K, L, E), "V": normal(B, K, L, 6), **past}, 4 + L
    found = {"K": normal(B, K, S, E), "V": normal(B, K, S, 6)}
    if memory == "padded":
        found["nonpad_kv_seqlen"] = np.array([5, 3])
    return found, S


def masks(num_keys):
    """Of all rows and of no fewer: the reference adds causality to those of one row otherwise."""
    seen = normal(L, num_keys) > -0.7
    return {
        "none": None,
        "bool": seen,
        "bool of heads": normal(B, H, L, num_keys) > -0.7,
        "float": normal(H, L, num_keys),
        "short bool": seen[:, :-1],
        "short float": normal(B, 1, L, num_keys)[..., :-1],
    }


WINDOWS = ({}, {"left_window_size": 1}, {"left_window_size": 2, "right_window_size": 1})


@pytest.mark.parametrize("mask", masks(1))
@pytest.mark.parametrize("memory", ["plain", "past", "padded"])
@pytest.mark.parametrize("opset", [23, 24, 25])
def test_attention_is_the_references(opset, memory, mask):
    if opset == 23 and (memory == "padded" or mask.startswith("short")):
        return  # they came with opset 24
    keys, num_keys = keys_of(memory)
    inputs = {"Q": normal(B, H, L, E), **keys}
    if masks(num_keys)[mask] is not None:
        inputs["attn_mask"] = masks(num_keys)[mask]
    rank_3 = {
        name: one.swapaxes(1, 2).reshape(B, one.shape[2], -1) if name in "QKV" else one
        for name, one in inputs.items()
    }
    names = INPUTS if opset > 23 else INPUTS[:-1]
    modes = itertools.cycle((None, 0, 1, 2, 3))
    for is_causal, softcap, window, is_split in itertools.product(
        (0, 1), (0.0, 0.7), WINDOWS if opset > 24 else ({},), (False, True)
    ):
        attributes = {"is_causal": is_causal, "softcap": softcap, "scale": 0.4, **window}
        mode = next(modes)
        outputs = OUTPUTS[:1] if memory == "padded" else OUTPUTS[:3]
        if mode is not None:
            attributes["qk_matmul_output_mode"] = mode
            outputs = ("Y", "", "", "qk_matmul_output")
        if is_split:
            attributes.update(q_num_heads=H, kv_num_heads=K)
        given = rank_3 if is_split else inputs
        found, expected = beside("Attention", opset, names, given, attributes, outputs)
        if mode == 0 and softcap:
            # Raw scores say the operator's text and its function body; the reference caps them.
            attributes["softcap"] = 0.0
            expected[1] = beside("Attention", opset, names, given, attributes, outputs)[1][1]
        near(found, expected)


@pytest.mark.parametrize(
    ("dtypes", "tolerance"),
    [
        (("float64", "float64", "float64"), 1e-12),
        (("float16", "float16", "float16"), 4e-3),
        (("float32", "float16", "float32"), 1e-5),
        (("float32", "float64", "float32"), 1e-5),
        (("float16", "float16", "float64"), 4e-3),
    ],
)
def test_types_of_attention(dtypes, tolerance):
    """V and a mask may be of other types than Q and K; integers are added, too."""
    for precision in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
        query, value, mask = dtypes
        inputs = {
            "Q": normal(B, H, L, E, dtype=query),
            "K": normal(B, H, S, E, dtype=query),
            "V": normal(B, H, S, E, dtype=value),
            "attn_mask": normal(L, S, dtype=mask),
        }
        attributes = {"softmax_precision": int(precision)}
        limit = max(
            tolerance, {TensorProto.FLOAT: 1e-6, TensorProto.FLOAT16: 4e-3}.get(precision, 0)
        )
        found, expected = beside("Attention", 24, INPUTS, inputs, attributes)
        assert found[0].dtype == query
        near([found[0].astype("float64")], [expected[0].astype("float64")], limit)
        inputs["attn_mask"] = np.rint(inputs["attn_mask"]).astype("int32")
        found, expected = beside("Attention", 24, INPUTS, inputs, attributes)
        near([found[0].astype("float64")], [expected[0].astype("float64")], limit)


def test_a_softmax_in_double_is_one():
    """Where float32 would lose what the weights differ by."""
    inputs = {name: normal(1, 1, 4, 64) for name in "QKV"}
    inputs["attn_mask"] = np.full((4, 4), 1e6, "float32")
    node = helper.make_node("Attention", ["Q", "K", "V", "attn_mask"], ["Y"], softmax_precision=11)
    double = {name: one.astype("float64") for name, one in inputs.items()}
    mask = double.pop("attn_mask")
    expected = libattention.scaled_dot_product_attention(*double.values(), mask)
    np.testing.assert_array_equal(run_node(node, inputs)[0], expected.astype("float32"))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rotations_are_the_references(dtype):
    names = ("X", "cos_cache", "sin_cache", "position_ids")
    for by_position, interleaved, rotary_dim, is_split in itertools.product(
        (False, True), (0, 1), (0, 4), (False, True)
    ):
        half = (rotary_dim or E) // 2
        angles = normal(20, half) if by_position else normal(B, L, half)
        inputs = {
            "X": normal(B, H, L, E, dtype=dtype),
            "cos_cache": np.cos(angles).astype(dtype),
            "sin_cache": np.sin(angles).astype(dtype),
        }
        attributes = {"interleaved": interleaved, "rotary_embedding_dim": rotary_dim}
        if by_position:
            inputs["position_ids"] = np.array([[3, 19, 0], [1, 1, 7]])
        if is_split:
            inputs["X"] = inputs["X"].swapaxes(1, 2).reshape(B, L, -1)
            attributes["num_heads"] = H
        found = beside("RotaryEmbedding", 23, names, inputs, attributes)
        near(*found, 1e-6 if dtype == "float32" else 4e-3)


@pytest.mark.parametrize(
    ("of_x", "of_scale"),
    [*itertools.product(("float32", "float64"), repeat=2), ("float16",) * 2],
)
def test_norms_are_the_references(of_x, of_scale):
    x = normal(2, 3, 4, 5, dtype=of_x)
    for axis, shape, epsilon in itertools.product(
        (-1, -2, 1, -4), ((5,), (1,), (4, 5), (3, 4, 5), (2, 3, 4, 5), (2, 1, 1, 5)), (1e-5, 0.3)
    ):
        inputs = {"X": x, "scale": normal(*shape, dtype=of_scale)}
        attributes = {"axis": axis, "epsilon": epsilon}
        ((found,), (expected,)) = beside("RMSNormalization", 23, ("X", "scale"), inputs, attributes)
        assert found.dtype == of_scale  # where the reference has X's
        limit = {"float64": 1e-12, "float32": 1e-5, "float16": 4e-3}[min(of_x, of_scale)]
        limit = limit if of_x == of_scale else 1e-5
        np.testing.assert_allclose(found, expected, rtol=limit, atol=limit)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bool", "complex64", "str"])
def test_scattering_is_the_references(dtype):
    names = ("past_cache", "update", "write_indices")
    for axis, mode, has_indices in itertools.product(
        (-2, 1, -1), ("linear", "circular"), (False, True)
    ):
        shape = [2, 6, 6, 6]
        past = (10 * normal(*shape)).astype(dtype)
        shape[axis] = 4
        inputs = {"past_cache": past, "update": (10 * normal(*shape)).astype(dtype)}
        if dtype == "str":
            inputs = {name: one.astype(object) for name, one in inputs.items()}
        if has_indices:
            inputs["write_indices"] = np.array([2, 1] if mode == "linear" else [5, 3])
        node = helper.make_node(
            "TensorScatter", list(names[: len(inputs)]), ["Y"], axis=axis, mode=mode
        )
        expected = ReferenceEvaluator(node).run(None, inputs)[0]
        kept = past.copy()
        (found,) = run_node(node, inputs)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(past, kept)


# ---- graphs ----


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


def test_nothing_to_normalise():
    (found,) = made("RMSNormalization", "Xs", [X[:0], X[0, 0, 0]])
    assert found.shape == (0, 2, 3, 4)


def test_onnx_is_there_in_a_version_that_has_the_operators():
    assert onnx.defs.onnx_opset_version() >= 25
