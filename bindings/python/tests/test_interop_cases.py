# SPDX-License-Identifier: BSD-3-Clause
"""The cases that every language runs."""

import os
from pathlib import Path

import case_files
import numpy as np
import pytest

import libattention

FOLDER = Path(os.environ["ATTENTION_CASES"])
NAMES = (FOLDER / "cases.txt").read_text().split()
CONFIG = [
    "embed_dim", "num_heads", "kdim", "vdim", "qdim", "head_dim", "value_head_dim", "num_kv_heads",
    "add_bias_kv", "add_zero_attn", "batch_first",
]  # fmt: skip


SDPA_WORDS = {
    "query", "key", "value", "attn_mask", "bias", "query_offset", "key_lengths", "sinks",
    "alibi_slopes", "is_causal", "scale", "enable_gqa", "align_end", "window_left",
    "window_right", "softcap", "normalizer", "output", "lse", "weights", "mask_start",
    "position_bias", "block_mask", "block_rows", "block_columns",
    *(f"dropout_{name}" for name in libattention.Dropout._fields),
}  # fmt: skip
MHA_WORDS = {
    "query", "key", "value", "attn_mask", "bias", "key_padding_mask", *CONFIG, "no_bias",
    "is_causal", "need_weights", "average_attn_weights", "parameter_dtype", "attn_output",
    "attn_weights",
}  # fmt: skip


GRADIENT = "gradient."
# What is given, and the argument that has it.
GIVEN = {"output": "grad_output", "attn_output": "grad_output", "attn_weights": "grad_weights"}


def gradient_of(word):
    """What a gradient of the case is of, as this package calls it; None for another word."""
    if not word.startswith(GRADIENT):
        return None
    return word.removeprefix(GRADIENT).removeprefix("parameter.")


def given_gradients(case):
    """Those that are given, as arguments."""
    return {
        GIVEN[gradient_of(name)]: values
        for name, values in case.tensors.items()
        if gradient_of(name)
    }


def wanted_gradients(case):
    """Those that are expected: what each is of, by its name in the case."""
    return {name: gradient_of(name) for name in case.expected if gradient_of(name)}


def flag(case, name, default=0):
    return bool(int(case.options.get(name, default)))


def run_sdpa(case):
    options = {
        name: case.tensors.get(name)
        for name in (
            "attn_mask",
            "bias",
            "query_offset",
            "key_lengths",
            "sinks",
            "alibi_slopes",
            "mask_start",
            "position_bias",
            "block_mask",
        )
    }
    if "block_rows" in case.options:
        options["block_size"] = [int(case.options[f"block_{of}"]) for of in ("rows", "columns")]
    dropout = {
        name: (float if name == "probability" else int)(case.options[f"dropout_{name}"])
        for name in libattention.Dropout._fields
        if f"dropout_{name}" in case.options
    }
    if dropout:
        options["dropout"] = libattention.Dropout(**dropout)
    if "scale" in case.options:
        options["scale"] = float(case.options["scale"])
    if "window_left" in case.options:
        options["window"] = tuple(int(case.options[f"window_{side}"]) for side in ("left", "right"))
    options |= {
        "is_causal": flag(case, "is_causal"),
        "enable_gqa": flag(case, "enable_gqa"),
        "align_end": flag(case, "align_end"),
        "softcap": float(case.options.get("softcap", 0)),
        "normalizer": case.options.get("normalizer", "softmax"),
    }
    given = given_gradients(case)
    wanted = {name: name in case.expected for name in ("lse", "weights")}
    wanted["lse"] |= bool(given)
    inputs = {name: case.tensors[name] for name in ("query", "key", "value")}
    results = libattention.scaled_dot_product_attention(
        **inputs, return_lse=wanted["lse"], return_weights=wanted["weights"], **options
    )
    names = ["output", *[name for name, is_wanted in wanted.items() if is_wanted]]
    made = dict(zip(names, results if len(names) > 1 else [results]))
    gradients = wanted_gradients(case)
    if given:
        found = libattention.scaled_dot_product_attention_backward(
            **given,
            **inputs,
            output=made["output"],
            lse=made["lse"],
            wanted=list(gradients.values()),
            **options,
        )
        made |= {name: getattr(found, of) for name, of in gradients.items()}
    return made


def run_mha(case):
    config = {name: int(case.options[name]) for name in CONFIG if name in case.options}
    config["bias"] = not flag(case, "no_bias")
    config["parameter_dtype"] = case.options.get("parameter_dtype")
    layer = libattention.MultiheadAttention(**config, dtype=case.tensors["query"].dtype.name)
    prefix = "parameter."
    layer.load_state_dict(
        {
            name.removeprefix(prefix): values
            for name, values in case.tensors.items()
            if name.startswith(prefix)
        }
    )
    given = given_gradients(case)
    output, weights, *saved = layer(
        *[case.tensors[name] for name in ("query", "key", "value")],
        key_padding_mask=case.tensors.get("key_padding_mask"),
        attn_mask=case.tensors.get("attn_mask"),
        need_weights="attn_weights" in case.expected,
        average_attn_weights=flag(case, "average_attn_weights", 1),
        is_causal=flag(case, "is_causal"),
        bias=case.tensors.get("bias"),
        **({"return_saved": True} if given else {}),
    )
    made = {"attn_output": output, "attn_weights": weights}
    gradients = wanted_gradients(case)
    if given:
        found = layer.backward(saved=saved[0], wanted=list(gradients.values()), **given)
        made |= {name: found[of] for name, of in gradients.items()}
    return made


def unknown_words(case):
    """What the runners above would pass over. Parameters are checked by the layer."""
    words = {*case.options, *case.tensors, *case.expected}
    known = {"sdpa": SDPA_WORDS, "mha": MHA_WORDS}[case.call]
    return {word for word in words if not word.startswith((GRADIENT, "parameter."))} - known


def test_there_are_enough_cases():
    cases = [case_files.read(FOLDER / f"{name}.case") for name in NAMES]
    errors = [case for case in cases if case.error]
    assert len(cases) - len(errors) >= 60
    assert len(errors) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_case(name):
    case = case_files.read(FOLDER / f"{name}.case")
    run = {"sdpa": run_sdpa, "mha": run_mha}[case.call]
    if case.has_bfloat16 and case_files.bfloat16 is None:
        reason = "NumPy has bfloat16 only with the package ml_dtypes, which is not installed"
        print(f"{name}: not run: {reason}")
        pytest.skip(reason)
    assert not unknown_words(case)
    if case.error:
        status, text = case.error
        with pytest.raises(libattention.Error) as caught:
            run(case)
        assert caught.value.status == status
        # The one argument that Python, as PyTorch, calls otherwise than C.
        text = text.removeprefix("attention.")
        if text.startswith("mask:"):
            text = f"attn_{text}"
        assert str(caught.value) == text
        return
    results = run(case)
    for result, (tolerance, expected) in case.expected.items():
        found = results[result]
        assert found.shape == expected.shape
        of_scores = "float64" if case.tensors["query"].dtype == "float64" else "float32"
        assert found.dtype == (of_scores if result == "lse" else case.tensors["query"].dtype)
        np.testing.assert_allclose(found.astype("float64"), expected, rtol=0, atol=tolerance)
