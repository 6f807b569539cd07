# SPDX-License-Identifier: BSD-3-Clause
"""Calls by the compiled module are the calls that Python makes, bit for bit, with the same
refusals; what the module leaves, Python gets."""

import importlib
import importlib.util
import itertools
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
from small_calls import (
    DTYPES,
    EDGES,
    LAYOUTS,
    MASK,
    OPTIONS,
    SHAPES,
    arrays,
    assert_same,
    by_module,
    compare,
    in_row,
    needs_module,
    tensor,
)
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from libattention import Error, _planned_calls, _small_calls
from libattention import scaled_dot_product_attention as sdpa


def test_there_is_a_module_where_there_can_be_one():
    can_be = (
        sys.implementation.name == "cpython"
        and sys.version_info >= (3, 11)
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and Path(sysconfig.get_path("include"), "Python.h").exists()
    )
    assert _small_calls.IS_COMPILED or not can_be


@needs_module
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_call_by_the_module_is_the_call(layout, dtype, by_python):
    for shapes, options in itertools.product(SHAPES.values(), OPTIONS.values()):
        inputs = arrays(shapes, dtype, layout, options.get("enable_gqa", False))
        compare(inputs, options, by_python, must_compute=layout != "unaligned")


@needs_module
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", EDGES)
def test_a_call_of_any_size_is_the_call(shapes, dtype, by_python):
    for options in ({}, {"is_causal": True}, {"return_lse": True}):
        compare(arrays(EDGES[shapes], dtype), options, by_python)


@needs_module
def test_halves_of_tensors_are_computed_by_the_module(by_python):
    """bfloat16, and keys and values of types of their own."""
    types = (torch.float32, torch.bfloat16, torch.float16)
    plain = [tensor(one) for one in arrays(SHAPES["usual"])]
    mask = torch.from_numpy(MASK)
    added = torch.where(mask, 0, -torch.inf)
    sdpa(*plain)
    for chosen in itertools.product(types, repeat=3):
        inputs = [one.to(dtype) for one, dtype in zip(plain, chosen)]
        for one in (None, mask, added, added.to(chosen[0])):
            expected = by_python(*inputs, one, is_causal=True)
            assert expected.dtype == chosen[0]
            found = by_module(*inputs, attn_mask=one, is_causal=True)
            for computed in (found, sdpa(*inputs, one, is_causal=True)):
                assert (computed.dtype, computed.shape) == (expected.dtype, expected.shape)
                assert torch.equal(computed, expected)


@needs_module
def test_every_input_may_have_a_layout_of_its_own(by_python):
    for layouts in itertools.product(("plain", "transposed", "reversed", "repeated"), repeat=3):
        plain = arrays(SHAPES["usual"])
        inputs = [LAYOUTS[layout](one) for layout, one in zip(layouts, plain)]
        compare(inputs, OPTIONS["causal"], by_python)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_call_by_a_plan_is_the_call(layout, dtype, by_python):
    """What small calls go by where there is no module."""
    options = [OPTIONS[one] for one in ("none", "causal", "scale", "negative scale", "grouped")]
    given = {"is_causal": False, "scale": None, "enable_gqa": False}
    shapes = [*SHAPES.values(), *EDGES.values()] if layout == "plain" else SHAPES.values()
    for some, further in itertools.product(shapes, options):
        if "enable_gqa" in further and some not in SHAPES.values():
            continue
        inputs = arrays(some, dtype, layout, "enable_gqa" in further)
        tensors = [tensor(one) for one in inputs]
        usual = ({**given, **further}).values()
        for _ in range(2):  # the first makes the plan
            found = _planned_calls.attend(*inputs, *usual, None)
            assert_same(found, by_python(*inputs, **further))
            found = _planned_calls.attend(
                *tensors, *usual, None, _planned_calls.torch_arrays(torch)
            )
            assert_same(found, by_python(*tensors, **further))


@pytest.mark.parametrize("layout", [one for one in LAYOUTS if one != "unaligned"])
def test_arrays_of_bfloat16(layout, by_python):
    """Which the module leaves."""
    reason = "NumPy has bfloat16 only with the package ml_dtypes, which is not installed"
    bfloat16 = pytest.importorskip("ml_dtypes", reason=reason).bfloat16
    plain = arrays(SHAPES["usual"])
    inputs = [LAYOUTS[layout](one.astype(bfloat16)) for one in plain]
    for options in (OPTIONS[one] for one in ("none", "causal", "scale", "bool mask", "lse")):
        expected = by_python(*inputs, **options)
        assert in_row(expected)[0].dtype == bfloat16
        assert_same(sdpa(*inputs, **options), expected)
    for _ in range(2):  # the first makes the plan
        found = _planned_calls.attend(*inputs, False, None, False, None)
        assert_same(found, by_python(*inputs))
    out = np.empty((2, 4, 5, 6), bfloat16)
    assert sdpa(*inputs, out=out) is out
    assert_same(out, by_python(*inputs))


def test_plans_leave_what_is_not_usual():
    def is_left(*inputs, is_causal=False, scale=None):
        kinds = (_planned_calls._NUMPY, _planned_calls.torch_arrays(torch))
        usual = (is_causal, scale, False, None)
        found = [_planned_calls.attend(*inputs, *usual, kind) for kind in kinds]
        return all(one is NotImplemented for one in found)

    array = np.ones((2, 3, 4), dtype="float32")
    plain = torch.from_numpy(array)
    imaginary = torch.randn(2, 3, 4, dtype=torch.complex64).conj().imag
    for one in (array.astype(">f4"), array.astype("float16"), np.ma.array(array), plain, None):
        assert is_left(array, one, array)
    for one in (plain.to("meta"), plain.half(), imaginary, torch.eye(3).to_sparse(), array, None):
        assert is_left(plain, one, plain)
    assert is_left(array.astype("int64"), array.astype("int64"), array.astype("int64"))
    assert is_left(plain.long(), plain.long(), plain.long())
    assert is_left(array, array, array, is_causal=1)
    assert is_left(plain, plain, plain, scale=1)


REFUSED = {
    "widths": (((2, 3), (2, 4), (2, 3)), {}, r"^key: expected shape"),
    "batches": (((2, 4, 5, 8), (3, 4, 5, 8), (2, 4, 5, 8)), {}, r"^key: "),
    "ranks": (((3,), (2, 3), (2, 3)), {}, r"^query: expected"),
    "axes": (((1,) * 9,) * 3, {}, r"^query: expected at most 8 axes"),
    "mask": (SHAPES["usual"], {"attn_mask": MASK[:3]}, r"^attn_mask: "),
    "integer mask": (SHAPES["usual"], {"attn_mask": MASK.astype("int64")}, r"^attn_mask: .*bool"),
    "scale": (SHAPES["usual"], {"scale": float("nan")}, r"^scale: "),
    "no number": (SHAPES["usual"], {"scale": "1"}, r"^scale: expected a number or None"),
    "no flag": (SHAPES["usual"], {"is_causal": 7}, r"^is_causal: "),
    "neither": (SHAPES["usual"], {"enable_gqa": None}, r"^enable_gqa: "),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals_are_the_same_again_and_again(what, by_python):
    shapes, options, line = REFUSED[what]
    inputs = arrays(shapes)
    for given in (inputs, [torch.from_numpy(one) for one in inputs]):
        for _ in range(2):
            with pytest.raises(Error, match=line) as found:
                sdpa(*given, **options)
            with pytest.raises(Error) as expected:
                by_python(*given, **options)
            assert str(found.value) == str(expected.value)
            assert found.value.status == expected.value.status


def test_other_types_are_refused_after_calls_that_were_computed():
    array = np.ones((2, 3, 4), dtype="float32")
    sdpa(array, array, array)
    for other in ("int64", "bool", ">f4", ">f2", "longdouble"):
        with pytest.raises(Error, match=r"^key: "):
            sdpa(array, array.astype(other), array)
    line = r"^value: expected dtype float32, bfloat16 or float16, got float64"
    with pytest.raises(Error, match=line):
        sdpa(array, array, array.astype("float64"))
    with pytest.raises(Error, match=r"^key: expected dtype float64, got float16"):
        sdpa(array.astype("float64"), array.astype("float16"), array.astype("float64"))


def test_outputs_too_large_for_any_memory_are_refused_by_name():
    shapes = ((1 << 20, 1 << 20, 1), (1 << 20, 1, 1), (1 << 20, 1, 1 << 22))
    inputs = [np.broadcast_to(np.float32(1), one) for one in shapes]
    with pytest.raises(Error) as found:
        sdpa(*inputs)
    assert found.value.name == "ATTN_ERROR_OVERFLOW"
    with pytest.raises(MemoryError):
        sdpa(*(one[: 1 << 19, : 1 << 19, : 1 << 19] for one in inputs))


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Subclass(torch.Tensor):
    pass


@needs_module
@pytest.mark.filterwarnings("ignore:.*(Sparse CSR|nested tensors)", "ignore:.*torch.jit")
def test_what_is_not_ordinary_is_left_to_python():
    plain = torch.randn(2, 3, 4)
    sdpa(plain, plain, plain)
    assert by_module(plain, plain, plain) is not NotImplemented

    def is_left(*inputs, **options):
        return by_module(*inputs, **options) is NotImplemented

    imaginary = torch.randn(2, 3, 4, dtype=torch.complex64).conj().imag
    others = [
        plain.clone().requires_grad_(),
        torch.nn.Parameter(plain),
        plain.as_subclass(Subclass),
        plain.to("meta"),
        plain.long(),
        plain.numpy(),
        imaginary,
        torch._efficientzerotensor((2, 3, 4)),
        torch.eye(3).to_sparse(),
        torch.eye(3).to_sparse_csr(),
        plain.to_mkldnn(),
        torch.nested.nested_tensor([plain[0], plain[1]]),
        None,
        7,
    ]
    for one in others:
        for inputs in ((one, plain, plain), (plain, one, plain), (plain, plain, one)):
            assert is_left(*inputs)
        if one is not None:
            assert is_left(plain, plain, plain, attn_mask=one)
    with torch.no_grad():
        assert not is_left(others[0], others[1], plain)
    with Watching():
        assert is_left(plain, plain, plain)
    with torch.autocast("cpu"):
        assert is_left(plain, plain, plain)
    with forward_ad.dual_level():
        assert is_left(plain, plain, plain)
    left = []
    torch.vmap(lambda one: (left.append(is_left(one, one, one)), one)[1])(plain)
    torch.jit.trace(
        lambda one: (left.append(is_left(one, one, one)), one + 0)[1], (plain,), check_trace=False
    )
    assert left == [True, True]
    array = plain.numpy()
    for one in (array.view(np.recarray), np.ma.array(array), array.astype(">f4"), None):
        assert is_left(one, array, array)
        assert is_left(array, array, one)
    assert is_left(array, array, array, scale=np.float32(1))
    assert is_left(array, array, array, scale=1)
    assert is_left(array, array, array, is_causal=1)


def test_outputs_of_tensors_are_ordinary_tensors():
    plain = torch.randn(2, 3, 4)
    sdpa(plain, plain, plain)
    try:
        torch.set_default_device("meta")
        found = sdpa(plain, plain, plain)
    finally:
        torch.set_default_device(None)
    assert found.device.type == "cpu"
    assert found.is_contiguous()
    assert not found.requires_grad
    assert not found.is_inference()
    found.resize_(5, 6).fill_(1)
    found.requires_grad_().sum().backward()
    with torch.inference_mode():
        assert sdpa(plain, plain, plain).is_inference()


@needs_module
def test_what_pytorch_makes_instead_of_a_tensor_is_never_written():
    """A mode sees the output being made, and may hand over anything."""
    plain = torch.randn(2, 3, 4)
    sdpa(plain, plain, plain)

    class Other(torch.overrides.TorchFunctionMode):
        def __init__(self, made):
            super().__init__()
            self.made = made

        def __torch_function__(self, func, types, args=(), kwargs=None):
            is_new = func is torch.Tensor.new_empty
            return self.made if is_new else func(*args, **(kwargs or {}))

    kept = plain.clone()
    for made in (None, 7, plain.numpy(), plain, torch.zeros(1), torch.zeros(2, 3, 4).double()):
        with Other(made):
            assert by_module(plain, plain, plain) is NotImplemented
    torch.testing.assert_close(plain, kept, rtol=0, atol=0)


def test_empty_arrays():
    query = np.ones((2, 0, 4), dtype="float32")
    for _ in range(2):
        assert sdpa(query, query, query).shape == (2, 0, 4)
        rows = np.ones((2, 3, 4), dtype="float32")
        np.testing.assert_array_equal(sdpa(rows, query, query), np.zeros((2, 3, 4)))


def test_operator_is_the_call(by_python):
    """Past the rest of PyTorch, and through it."""
    importlib.import_module("libattention._torch_operators")
    query, key, value = map(torch.from_numpy, arrays(SHAPES["usual"]))
    mask = torch.from_numpy(MASK)
    operator = torch.ops.libattention.sdpa
    expected = by_python(query, key, value, mask, is_causal=True, scale=0.3, return_lse=True)
    found = operator(query, key, value, mask, is_causal=True, scale=0.3)
    assert_same(found[:2], expected)
    assert found[2].shape == (0,)
    with torch.inference_mode():
        assert_same(operator(query, key, value, mask, is_causal=True, scale=0.3)[:2], expected)
    with Watching():
        assert_same(operator(query, key, value, mask, is_causal=True, scale=0.3)[:2], expected)
    wanted = operator(query.clone().requires_grad_(), key, value, mask, is_causal=True, scale=0.3)
    assert wanted[0].requires_grad
    assert_same((wanted[0].detach(), wanted[1].detach()), expected)
