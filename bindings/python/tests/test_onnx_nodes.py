# SPDX-License-Identifier: BSD-3-Clause
"""libattention.onnx: every node test of the onnx package that is of one of its operators, and
products of options beside the package's reference."""

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


def test_nothing_to_normalise():
    node = helper.make_node("RMSNormalization", ["X", "scale"], ["Y"])
    (found,) = run_node(node, [normal(0, 2, 4), normal(4)])
    assert found.shape == (0, 2, 4)


def test_onnx_is_there_in_a_version_that_has_the_operators():
    assert onnx.defs.onnx_opset_version() >= 25
