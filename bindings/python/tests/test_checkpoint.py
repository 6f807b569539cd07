# SPDX-License-Identifier: BSD-3-Clause
"""Layers from safetensors files: every type of parameters, and files that say what is not so."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import libattention
from libattention import MultiheadAttention

NEAR = {"rtol": 1e-5, "atol": 2e-6}


@pytest.fixture
def theirs():
    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def rounded(layer, dtype):
    """The state in a narrower type, and what PyTorch's layer computes with it."""
    state = {name: values.to(dtype) for name, values in layer.state_dict().items()}
    wide = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    wide.load_state_dict({name: values.float() for name, values in state.items()})
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        return state, x, wide(x, x, x)[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_layer_keeps_a_files_halves_and_takes_float32(tmp_path, theirs, dtype):
    state, x, expected = rounded(theirs, dtype)
    path = tmp_path / "layer.safetensors"
    save_file(state, path)
    for options in ({}, {"dtype": "float32"}):
        ours = MultiheadAttention.from_safetensors(path, num_heads=2, batch_first=True, **options)
        assert ours.dtype == "float32"
        assert ours.config["parameter_dtype"] == str(dtype).removeprefix("torch.")
        np.testing.assert_allclose(ours(x, x, x)[0], expected, **NEAR)
        for name, values in ours.state_dict().items():
            np.testing.assert_array_equal(values, state[name].float().numpy())
    wide = MultiheadAttention.from_safetensors(path, num_heads=2, batch_first=True, dtype="float64")
    assert wide.config["parameter_dtype"] == "float64"
    np.testing.assert_allclose(wide(*[x.double()] * 3)[0], expected, **NEAR)
    options = {"num_heads": 2, "batch_first": True, "parameter_dtype": "float32"}
    widened = MultiheadAttention.from_safetensors(path, **options)
    assert widened.config["parameter_dtype"] == "float32"
    np.testing.assert_array_equal(widened(x, x, x)[0], ours(x, x, x)[0])


def test_a_file_of_several_types_is_kept_in_float32(tmp_path, theirs):
    state = theirs.state_dict()
    state["in_proj_weight"] = state["in_proj_weight"].half()
    save_file(state, tmp_path / "layer.safetensors")
    ours = MultiheadAttention.from_safetensors(tmp_path / "layer.safetensors", num_heads=2)
    assert ours.config["parameter_dtype"] == "float32"
    for name, values in ours.state_dict().items():
        np.testing.assert_array_equal(values, state[name].float().numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_loaded_from_memory(theirs, dtype):
    state, x, expected = rounded(theirs, dtype)
    made = MultiheadAttention.from_torch(theirs.to(dtype))
    name = str(dtype).removeprefix("torch.")
    assert made.dtype == made.config["parameter_dtype"] == name
    loaded = MultiheadAttention(8, 2, batch_first=True)
    kept = MultiheadAttention(8, 2, batch_first=True, parameter_dtype=name)
    for layer in (loaded, kept):
        layer.load_state_dict(state)
        np.testing.assert_allclose(layer(x, x, x)[0], expected, **NEAR)
    for layer in (made, loaded, kept):
        for parameter, values in layer.state_dict().items():
            np.testing.assert_array_equal(values, state[parameter].float().numpy())
    # The same numbers in, and the output rounded once at the end.
    narrow = x.to(dtype)
    found, wide = made(*[narrow] * 3)[0], kept(*[narrow.float()] * 3)[0]
    assert found.dtype == dtype
    assert torch.equal(found, wide.to(dtype))
    if dtype == torch.float16:
        loaded.init_parameters(0)
        loaded.load_state_dict({name: values.numpy() for name, values in state.items()})
        np.testing.assert_allclose(loaded(x, x, x)[0], expected, **NEAR)


def test_float64_stays_and_may_be_narrowed(tmp_path, theirs):
    path = tmp_path / "layer.safetensors"
    save_file(theirs.double().state_dict(), path)
    assert MultiheadAttention.from_safetensors(path, num_heads=2).dtype == "float64"
    narrow = MultiheadAttention.from_safetensors(path, num_heads=2, dtype="float32")
    assert narrow.state_dict()["out_proj.weight"].dtype == np.float32


def test_options_stand_above_what_the_file_says(tmp_path, theirs):
    path = tmp_path / "layer.safetensors"
    metadata = {"num_heads": "2", "batch_first": "1", "add_zero_attn": "1"}
    save_file(theirs.state_dict(), path, metadata=metadata)
    told = MultiheadAttention.from_safetensors(path)
    assert (told.num_heads, told.batch_first, told.config["add_zero_attn"]) == (2, True, True)
    other = MultiheadAttention.from_safetensors(
        path, num_heads=4, batch_first=False, bias=True, embed_dim=8, dropout=0.5
    )
    assert (other.num_heads, other.batch_first, other.dropout) == (4, False, 0.5)
    with pytest.raises(TypeError, match="heads"):
        MultiheadAttention.from_safetensors(path, heads=2)
    with pytest.raises(libattention.Error, match=r"expected shape \(48\), got \(24\)"):
        MultiheadAttention.from_safetensors(path, embed_dim=16)


def test_parameters_of_other_types_are_refused(tmp_path, theirs):
    state = theirs.state_dict()
    path = tmp_path / "layer.safetensors"
    save_file({**state, "in_proj_bias": torch.zeros(24, dtype=torch.int8)}, path)
    with pytest.raises(
        libattention.Error, match="in_proj_bias: expected one of F64, F32, F16, BF16, "
    ):
        MultiheadAttention.from_safetensors(path, num_heads=2)
    save_file({**state, "q_norm.weight": torch.ones(4)}, path)
    with pytest.raises(libattention.Error) as caught:
        MultiheadAttention.from_safetensors(path, num_heads=2)
    assert caught.value.name == "ATTN_ERROR_PARAMETER"
    assert "q_norm.weight" in str(caught.value)


# ---- files that say what is not so ----


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


MALFORMED = {
    "long header": (10**6).to_bytes(8, "little") + b"{}",
    "huge header": (2**63).to_bytes(8, "little") + b"{}",
    "short file": b"\1\0",
    "no object": b"[]",
    "no JSON": b"{",
    "text behind": b"{} x",
    "a space before": b" {}",
    "no UTF-8": b'{"\xff": 1}',
    "deep": b'{"a":' * 100000,
    "constant": b'{"__metadata__": NaN}',
    "metadata of numbers": b'{"__metadata__": {"num_heads": 2}}',
    "a number": b'{"a": 1}',
    "twice": b'{"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},'
    b' "a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}',
    "twice inside": b'{"a": {"dtype": "F32", "dtype": "F32",'
    b' "shape": [0], "data_offsets": [0, 0]}}',
    "wrong size": {"a": entry(shape=(2,))},
    "overflow": {"a": entry(shape=(2**62, 2**62), offsets=(0, 4))},
    "negative": {"a": entry(shape=(-1,), offsets=(0, 4))},
    "fraction": {"a": entry(shape=(1.0,))},
    "boolean": {"a": entry(shape=(True,))},
    "outside": {"a": entry(shape=(2,), offsets=(0, 8))},
    "backwards": {"a": entry(shape=(0,), offsets=(4, 0))},
    "one offset": {"a": entry(offsets=(4,))},
    "gap": {"a": entry(offsets=(1, 5))},
    "overlap": {"a": entry(), "b": entry()},
    "bytes behind": {"a": entry(shape=(0,), offsets=(0, 0))},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused_as_the_reference_reader_does(tmp_path, name):
    content = MALFORMED[name]
    path = tmp_path / "layer.safetensors"
    if name in ("long header", "huge header", "short file"):
        path.write_bytes(content)
    else:
        write(path, content, b"" if isinstance(content, bytes) else bytes(4))
    with pytest.raises(libattention.Error, match=f"path: {path}: "):
        MultiheadAttention.from_safetensors(path, num_heads=2)
    # It takes the last of two tensors of one name; the format asks for '{' first.
    if name not in ("twice", "a space before"):
        with pytest.raises(SafetensorError), safe_open(path, framework="numpy"):
            pass


def test_a_missing_file_is_pythons_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        MultiheadAttention.from_safetensors(tmp_path / "none", num_heads=2)


def test_sizes_without_data_take_no_memory(tmp_path):
    """A few bytes may announce a layer of any width. In a child, whose peak is its own."""
    empty = {"out_proj.weight": entry(shape=(7000, 0), offsets=(0, 0))}
    path = write(tmp_path / "layer.safetensors", empty)
    assert path.stat().st_size < 125
    full = {**empty, "in_proj_weight": entry(shape=(21000, 7000, 0), offsets=(0, 0))}
    other = write(tmp_path / "other.safetensors", full)
    program = """
        import resource, sys, libattention
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        libattention.MultiheadAttention(8, 2)
        before = peak()
        for path in sys.argv[1:]:
            try:
                libattention.MultiheadAttention.from_safetensors(path, num_heads=2)
            except libattention.Error as error:
                print(error.name)
        print(peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), path, other],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, growth = done.stdout.split()
    assert first == "ATTN_ERROR_PARAMETER"
    assert second in ("ATTN_ERROR_PARAMETER", "ATTN_ERROR_SHAPE")
    assert int(growth) < 4096  # KiB
