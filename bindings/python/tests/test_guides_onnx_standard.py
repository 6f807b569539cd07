# SPDX-License-Identifier: BSD-3-Clause
"""The guide's table of ONNX's operator Attention: all node tests of the onnx package, computed as
its rows say, and no row without which they would be the same. Beside it, that of RotaryEmbedding,
RMSNormalization and TensorScatter."""

import importlib
import warnings
from collections import namedtuple

import guide_onnx_rows
import guide_tables
import numpy as np
import pytest
from guide_tables import merged, split

import libattention

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import onnx
    from onnx.backend.test.case import node as onnx_tests
    from onnx.reference import ReferenceEvaluator

(ROWS,) = [
    rows
    for (heading, _), rows in guide_tables.tables("coming-from-onnx.md").items()
    if heading.startswith("Attention")
]
(FURTHER_ROWS,) = [
    rows
    for (heading, _), rows in guide_tables.tables("coming-from-onnx.md").items()
    if heading.startswith("RotaryEmbedding")
]
INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
Node = namedtuple("Node", "attributes inputs outputs")


class Call:
    """A call of libattention, as the rows of the table make it."""

    def __init__(self):
        self.query = self.key = self.value = None
        self.options = {}
        self.rows_are_by_length = False
        self.scores = None  # "weights", or a stage of the scores
        self.is_merged = False

    def run(self):
        """The output, and the scores or weights that the node has as fourth output, or None."""
        wanted = {"return_weights": True}
        if self.scores != "weights":
            wanted = {"return_scores": self.scores}
        found = libattention.scaled_dot_product_attention(
            self.query, self.key, self.value, **self.options, **wanted
        )
        output, scores = found if isinstance(found, tuple) else (found, None)
        return merged(output) if self.is_merged else output, scores


# ---- the rows: each changes the call, and says whether the node asked for it ----


def four_axes(node, call):
    if node.inputs["Q"].ndim == 4:
        call.query, call.key, call.value = (node.inputs[name] for name in "QKV")
        return True
    return False


def three_axes(node, call):
    if node.inputs["Q"].ndim == 3:
        heads = node.attributes
        call.query = split(node.inputs["Q"], heads["q_num_heads"])
        call.key, call.value = (split(node.inputs[name], heads["kv_num_heads"]) for name in "KV")
        call.is_merged = True
        return True
    return False


def fewer_heads(node, call):
    call.options["enable_gqa"] = call.key.shape[1] != call.query.shape[1]
    return call.options["enable_gqa"]


def scale(node, call):
    if "scale" in node.attributes:
        call.options["scale"] = node.attributes["scale"]
    return "scale" in call.options


def is_causal(node, call):
    call.options["is_causal"] = bool(node.attributes.get("is_causal", 0))
    return call.options["is_causal"]


def bool_mask(node, call):
    return add_mask(node, call, np.bool_)


def float_mask(node, call):
    return add_mask(node, call, np.float32)


def add_mask(node, call, dtype):
    mask = node.inputs.get("attn_mask")
    if mask is None or mask.dtype != dtype:
        return False
    call.options["attn_mask"] = mask
    return True


def softcap(node, call):
    if node.attributes.get("softcap"):
        call.options["softcap"] = node.attributes["softcap"]
    return "softcap" in call.options


def past(node, call):
    if "past_key" not in node.inputs:
        return False
    call.key = np.concatenate([node.inputs["past_key"], call.key], axis=2)
    call.value = np.concatenate([node.inputs["past_value"], call.value], axis=2)
    if node.inputs["K"].shape == node.inputs["Q"].shape:
        call.options["align_end"] = True
    else:
        call.options["query_offset"] = node.inputs["past_key"].shape[2]
    return True


def lengths(node, call):
    if "nonpad_kv_seqlen" not in node.inputs:
        return False
    call.options["key_lengths"] = node.inputs["nonpad_kv_seqlen"]
    call.options["align_end"] = call.options["is_causal"] or has_window(node)
    return True


def has_window(node):
    return any(f"{side}_window_size" in node.attributes for side in ("left", "right"))


def window(node, call):
    if not has_window(node):
        return False
    call.options["window"] = tuple(
        node.attributes.get(f"{side}_window_size", -1) for side in ("left", "right")
    )
    return True


def short_mask(node, call):
    mask = call.options.get("attn_mask")
    if mask is None or mask.shape[-1] >= call.key.shape[2]:
        return False
    call.options["mask_start"] = 0
    return True


def mode(node):
    """None where the scores are no output."""
    return node.attributes.get("qk_matmul_output_mode", 0) if len(node.outputs) > 3 else None


def mode_3(node, call):
    return wants(node, call, 3, "weights")


def mode_0(node, call):
    return wants(node, call, 0, "scaled")


def mode_1(node, call):
    return wants(node, call, 1, "capped")


def mode_2(node, call):
    return wants(node, call, 2, "masked")


def wants(node, call, number, scores):
    if mode(node) != number:
        return False
    call.scores = scores
    return True


def precision(node, call):
    return "softmax_precision" in node.attributes


TESTS = {
    "`Q`, `K`, `V`, 4-D (batch, heads, length, size)": ("query key value", four_axes),
    "`Q`, `K`, `V`, 3-D (batch, length, heads * size) with `q_num_heads`, `kv_num_heads`": (
        "attn_tensor_split_heads",
        three_axes,
    ),
    "fewer `kv_num_heads`": ("enable_gqa", fewer_heads),
    "`scale`": ("ATTN_SDPA_SET_SCALE scale", scale),
    "`is_causal`": ("is_causal", is_causal),
    "`attn_mask`, bool: true takes part": ("ATTN_MASK_BOOL_INCLUDE", bool_mask),
    "`attn_mask`, float: added": ("ATTN_MASK_ADDITIVE", float_mask),
    "`softcap`": ("softcap", softcap),
    "`past_key`, `past_value`, and outputs `present_*`": ("query_offset align_end", past),
    "`nonpad_kv_seqlen` (opset 24), int64": ("key_lengths is_causal align_end", lengths),
    "`attn_mask` shorter than the keys, which ONNX pads with -inf": ("mask_start", short_mask),
    "`left_window_size`, `right_window_size` (opset 25)": (
        "set ATTN_SDPA_SET_WINDOW window_left window_right",
        window,
    ),
    "`qk_matmul_output_mode` 3, after the softmax": ("weights", mode_3),
    "mode 0, raw scores": ("scores scores_stage ATTN_SCORE_SCALED nonpad_kv_seqlen", mode_0),
    "mode 1, after softcap": ("scores ATTN_SCORE_CAPPED", mode_1),
    "mode 2, after the mask": ("scores ATTN_SCORE_MASKED", mode_2),
    "`softmax_precision`": ("", precision),
}


# ---- the node tests ----


def node_tests():
    """{name: Node} of those the operator itself has, not its expansion into others."""
    found = {}
    # As collect_testcases does, which makes those of all operators first.
    onnx_tests._TargetOpType = "Attention"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("onnx.backend.test.case.node.attention")
    for case in onnx_tests._NodeTestCases:
        (first, *others) = case.model.graph.node
        if first.op_type != "Attention" or others:
            continue
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in first.attribute}
        for inputs, outputs in case.data_sets:
            given = (name for name, used in zip(INPUTS, first.input) if used)
            made = (name for name in first.output if name)
            found[case.name] = Node(
                attributes,
                dict(zip(given, map(np.asarray, inputs))),
                [
                    dict(zip(made, map(np.asarray, outputs))).get(name) if name else None
                    for name in first.output
                ],
            )
    return found


NODES = node_tests()


def made(attributes, num_outputs=1, **inputs):
    """What the package has no node test of, computed by its reference."""
    random = np.random.default_rng(3)
    inputs = {
        **{
            name: random.normal(size=(2, 3, rows, 8)).astype("float32")
            for name, rows in (("Q", 3), ("K", 6), ("V", 6))
        },
        **inputs,
    }
    names = [name if name in inputs else "" for name in INPUTS]
    while not names[-1]:
        names.pop()
    outputs = ["Y"] if num_outputs == 1 else ["Y", "", "", "scores"]
    node = onnx.helper.make_node("Attention", names, outputs, **attributes)
    found = ReferenceEvaluator(node).run(None, inputs)
    return Node(attributes, inputs, [found[0], None, None, found[-1]][: len(outputs)])


LENGTHS = np.array([6, 4])
# Of all rows: the reference gives those of a mask with one row the causality of the first.
HALF_HIDDEN = np.tile([True, False, True, True, False, True], (3, 1))
WINDOW = {"left_window_size": 2, "right_window_size": 1}
MADE = {
    "window": made(WINDOW),
    "window over a cache": made(WINDOW, nonpad_kv_seqlen=LENGTHS),
    "window and causality": made({**WINDOW, "is_causal": 1}, nonpad_kv_seqlen=LENGTHS),
    "causality over a cache": made({"is_causal": 1}, nonpad_kv_seqlen=LENGTHS),
    "short mask": made({}, attn_mask=HALF_HIDDEN[:, :5]),
    "short mask over a cache": made(
        {"is_causal": 1}, attn_mask=HALF_HIDDEN[:, :5], nonpad_kv_seqlen=LENGTHS
    ),
    "mode 0": made({"qk_matmul_output_mode": 0}, 2, attn_mask=HALF_HIDDEN),
    "mode 1": made({"qk_matmul_output_mode": 1, "softcap": 0.5}, 2, attn_mask=HALF_HIDDEN),
    "mode 2": made(
        {"qk_matmul_output_mode": 2, "softcap": 0.5, "is_causal": 1}, 2, attn_mask=HALF_HIDDEN
    ),
    "mode 3": made({"qk_matmul_output_mode": 3}, 2, attn_mask=HALF_HIDDEN),
    "precision": made({"softmax_precision": int(onnx.TensorProto.DOUBLE)}),
}


def is_half(array):
    return array.dtype.itemsize == 2


def widened(node):
    """Halves as float32: they are not computed here, but their rows are the same."""
    return node._replace(
        inputs={
            name: one.astype("float32") if is_half(one) else one
            for name, one in node.inputs.items()
        }
    )


def made_call(node, left_out=None):
    call = Call()
    for first, (_, row) in TESTS.items():
        if first != left_out:
            row(node, call)
    return call


def is_computed(node, left_out=None):
    """Whether the call that the rows make gives what the node gives."""
    tolerance = 4e-2 if is_half(node.inputs["Q"]) else 2e-5
    node = widened(node)
    try:
        output, scores = made_call(node, left_out).run()
    except (libattention.Error, AttributeError, KeyError, ValueError):
        return False
    wanted = node.outputs[3] if mode(node) is not None else None
    return same(output, node.outputs[0], tolerance) and (
        wanted is None or (scores is not None and same(scores, wanted, tolerance))
    )


def same(found, expected, tolerance):
    """Hidden scores are -inf in both; rows that see nothing are 0 where ONNX has NaN."""
    expected = np.where(np.isnan(expected), 0, expected.astype("float64"))
    if found.shape != expected.shape:
        return False
    is_hidden = np.isneginf(expected)
    if not np.array_equal(np.isneginf(found), is_hidden):
        return False
    off = np.where(is_hidden, 0, found) - np.where(is_hidden, 0, expected)
    return np.abs(off).max(initial=0) < tolerance


def test_rows_and_tests_are_the_same():
    guide_tables.check_rows(ROWS, TESTS)
    assert len(NODES) >= 50
    guide_tables.check_rows(FURTHER_ROWS, guide_onnx_rows.ROWS)


@pytest.mark.parametrize("first", guide_onnx_rows.ROWS)
def test_row_of_the_other_operators(first):
    guide_onnx_rows.ROWS[first][1]()


@pytest.mark.parametrize("name", [*NODES, *MADE])
def test_node(name):
    assert is_computed({**NODES, **MADE}[name])


@pytest.mark.parametrize("first", TESTS)
def test_row_has_nodes_that_need_it(first):
    """Without the row they would come out otherwise."""
    row = TESTS[first][1]
    nodes = {**NODES, **MADE}
    asking = {}
    for name, node in nodes.items():
        call = Call()
        for other, (_, rule) in TESTS.items():
            applies = rule(widened(node), call)
            if other == first:
                break
        if applies:
            asking[name] = node
    assert asking, row
    assert all(map(is_computed, asking.values()))
    if first != "`softmax_precision`":  # a row that says what is not needed
        assert not all(is_computed(node, left_out=first) for node in asking.values())
