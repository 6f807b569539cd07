# SPDX-License-Identifier: BSD-3-Clause
"""mask_start, position_bias and block_mask of tensors that go through PyTorch: what the library
makes of them itself, and gradients. And arrays of other kinds beside such tensors."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_cases import HEADS, KEYS, POSITIONS, ROWS, double, inputs

from libattention import Error
from libattention import scaled_dot_product_attention as sdpa


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.compiler.reset()


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("heads", [1, HEADS])
def test_a_bias_by_distance_has_gradients(positions, heads):
    table = double(heads, 5).requires_grad_()
    given, options = inputs(), POSITIONS[positions]
    found = sdpa(*given, position_bias=table, **options)
    with torch.no_grad():
        direct = sdpa(*given, position_bias=table, **options)
    torch.testing.assert_close(found, direct, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda one: sdpa(*given, position_bias=one, **options).sum(), (table,)
    )


@pytest.mark.parametrize("start", [0, 3, torch.tensor([1, 4])])
@pytest.mark.parametrize("is_bool", [False, True])
def test_a_placed_mask_is_written_out_where_gradients_are_wanted(start, is_bool):
    mask = double(ROWS, 3) > -0.5 if is_bool else double(ROWS, 3)
    given = inputs()
    expected = sdpa(*given, attn_mask=mask, mask_start=start)
    given[0].requires_grad_()
    found = sdpa(*given, attn_mask=mask, mask_start=start)
    assert found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_both_biases_of_16_bits_are_added_in_float32(dtype):
    given = [one.to(dtype) for one in inputs()]
    biases = {"position_bias": double(HEADS, 5), "bias": 100 + double(ROWS, KEYS)}
    biases = {name: one.to(dtype) for name, one in biases.items()}
    expected = sdpa(*given, **biases)
    given[0].requires_grad_()
    found = sdpa(*given, **biases)
    assert found.requires_grad
    limit = 2 * torch.finfo(dtype).eps  # of output and of weights, each rounded once
    torch.testing.assert_close(found, expected, rtol=limit, atol=limit)


REFUSED = {
    "mask_start: expected None without a mask": {"mask_start": 0},
    "mask_start: expected a shape that broadcasts to": {
        "mask_start": [[1], [2]],
        "attn_mask": double(ROWS, 3),
    },
    "attn_mask: expected dtype bool": {"mask_start": 1, "attn_mask": torch.ones(ROWS, 3).long()},
    "position_bias: expected shape": {"position_bias": double(4, 4)},
    "position_bias: expected a shape that broadcasts to": {"position_bias": double(HEADS + 1, 5)},
    "position_bias: expected dtype float32 or float64, got float16": {
        "position_bias": double(HEADS, 5).half(),
        "bias": double(ROWS, KEYS),
    },
}


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("has_gradient", [False, True])
def test_refused_by_name(text, has_gradient):
    given = inputs()
    given[0].requires_grad_(has_gradient)
    with pytest.raises(Error) as found:
        sdpa(*given, **REFUSED[text])
    assert str(found.value).startswith(text)


def test_one_head_is_refused_the_table_of_several():
    query, key, value = (one[0, 0] for one in inputs())
    with pytest.raises(Error, match=r"^position_bias: expected a shape"):
        sdpa(query.requires_grad_(), key, value, position_bias=double(HEADS, 5))


WITH_AUTOCAST = {
    "mask_start: expected None without a mask": {"mask_start": 0},
    "attn_mask: expected dtype bool, or": {
        "mask_start": 1,
        "attn_mask": torch.ones(ROWS, 3).long(),
    },
    "position_bias: expected a shape that broadcasts to": {
        "position_bias": double(HEADS + 1, 5).float()
    },
    "position_bias: expected dtype float32": {"position_bias": torch.ones(HEADS, 5).bool()},
    "bias: expected dtype float32": {
        "position_bias": double(HEADS, 5).float(),
        "bias": torch.ones(ROWS, KEYS).bool(),
    },
}


@pytest.mark.parametrize("text", WITH_AUTOCAST)
def test_refused_under_autocast(text):
    """Types are others by the time that the library computes."""
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(Error) as found:
        sdpa(*(one.float() for one in inputs()), **WITH_AUTOCAST[text])
    assert str(found.value).startswith(text)


NUMBERS = {
    "start": {"mask_start": 2},
    "array": {"mask_start": np.array([1, 2])},
    "offset": {"query_offset": 1, "position_bias": double(HEADS, 5)},
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_in_what_is_compiled(name):
    given, options = inputs(), dict(NUMBERS[name])
    if "mask_start" in options:
        options["attn_mask"] = double(ROWS, 3)
    compiled = torch.compile(lambda *tensors: sdpa(*tensors, **options), fullgraph=True,
                             backend="aot_eager")  # fmt: skip
    torch.testing.assert_close(compiled(*given), sdpa(*given, **options), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("start", [1, [1, 2]])
def test_shapes_of_what_has_no_numbers(start):
    expected = sdpa(*inputs(), attn_mask=double(ROWS, 3), mask_start=start).shape
    mask = double(ROWS, 3).to("meta")
    on_meta = [one.to("meta") for one in inputs()]
    assert sdpa(*on_meta, attn_mask=mask, mask_start=start).shape == expected
    with FakeTensorMode():
        assert sdpa(*inputs(), attn_mask=double(ROWS, 3), mask_start=start).shape == expected


REVERSED = {
    "attn_mask": np.tri(ROWS, KEYS, dtype=bool)[::-1],
    "bias": np.arange(ROWS * KEYS, dtype="float64").reshape(ROWS, KEYS)[:, ::-1],
    "query_offset": np.array([3, 1])[::-1],
}


@pytest.mark.parametrize("name", REVERSED)
def test_arrays_of_numpy_that_run_backwards(name):
    """PyTorch's own import of one ends the process."""
    given, options = inputs(), {name: REVERSED[name], "is_causal": True}
    expected = sdpa(*given, **options)
    given[0].requires_grad_()
    torch.testing.assert_close(sdpa(*given, **options), expected, rtol=1e-12, atol=1e-12)


def test_an_array_of_another_byte_order_is_refused():
    query, key, value = inputs()
    with pytest.raises(Error, match=r"^bias: cannot be read through DLPack"):
        sdpa(query.requires_grad_(), key, value, bias=np.zeros((ROWS, KEYS), ">f8"))


@pytest.mark.parametrize("mask", [None, "bool", "additive"])
@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (HEADS, 2, 2), (2,)])
def test_a_mask_by_blocks_is_written_out_where_gradients_are_wanted(mask, shape):
    size = (-(-ROWS // 2), -(-KEYS // 2))
    blocks = torch.arange(torch.Size(shape).numel(), dtype=torch.uint8).reshape(shape) % 3
    masks = {"bool": double(ROWS, KEYS) > -0.5, "additive": double(ROWS, KEYS), None: None}
    options = {"attn_mask": masks[mask], "block_mask": blocks, "block_size": size}
    given = inputs()
    expected = sdpa(*given, **options)
    given[0].requires_grad_()
    found = sdpa(*given, **options)
    assert found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_mask_by_blocks_is_refused_by_name():
    given = inputs()
    given[0].requires_grad_()
    blocks = torch.ones(3, 1, dtype=torch.uint8)
    with pytest.raises(
        Error, match=r"^block_mask: expected a shape that broadcasts to .* got \(3, 1\)"
    ):
        sdpa(*given, block_mask=blocks, block_size=ROWS - 1)
    with pytest.raises(Error, match=r"^block_mask: expected dtype uint8.* got torch.int64"):
        sdpa(*given, block_mask=blocks.long(), block_size=99)
    with pytest.raises(Error, match=r"^block_mask: expected elements of .* got 3"):
        sdpa(*given, block_mask=3 * blocks[:1], block_size=99)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(Error, match=r"^block_mask: expected elements of .* got 3"),
    ):
        sdpa(*given, block_mask=3 * blocks[:1], block_size=99)
    with pytest.raises(Error, match=r"^block_size: expected 1 and up with a block_mask"):
        sdpa(*given, block_mask=blocks)
