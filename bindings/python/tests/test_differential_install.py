# SPDX-License-Identifier: BSD-3-Clause
"""Random calls of F.scaled_dot_product_attention with and without libattention behind it.

Each is computed three times: with libattention, by PyTorch's kernel, and by PyTorch's math path in
float64. Errors are measured relative to the largest number of the exact tensor, or to 1, the size
of the terms where they cancel. A score here is up to some 40, so that float32 has it within 2e-6
at best, float64 within 4e-15; that is the relative error of its weight. Five times as much is
allowed for outputs, for gradients, which PyTorch's backward computes from scores of its own, ten.

A result of 16 bits is rounded once more, by u, 2^-8 or 2^-11 of it at most, and in bfloat16 so may
be the weights. PyTorch's backward rounds the scores' gradients and its results too, from an output
that was rounded: its error is allowed twice, from its own output and from ours, and u four times.
"""

import os
import random

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from libattention.integrations import torch as integration

pytestmark = pytest.mark.usefixtures("pytorchs_kernel", "every_size")

CALLS = int(os.environ.get("ATTENTION_DIFFERENTIAL", "300"))
COMPILED = 12
# Of outputs, and of gradients.
LIMITS = {torch.float32: (1e-5, 2e-5), torch.float64: (2e-14, 4e-14)}
ROUNDING = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
DTYPES = (*LIMITS, *ROUNDING)
OPERATOR = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
INFINITY = float("inf")


# ---- random calls ----


class Case:
    """A random call of F.scaled_dot_product_attention."""

    def __init__(self, seed):
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.dtype = draw.choice([torch.float32, torch.float32, *DTYPES])
        batches, width = draw.choice([1, 1, 2, 3]), draw.choice([1, 3, 8, 17, 32, 64])
        key_heads = draw.choice([1, 2, 3])
        heads = key_heads * draw.choice([1, 1, 2, 3])
        rows = draw.choice([0, 1, 2, 7, 16, 31, 64, 97])
        keys = rows if draw.random() < 0.4 else draw.choice([0, 1, 2, 5, 13, 32, 61, 130])
        self.tensors = [
            laid_out(draw, (batches, heads, rows, width), self.dtype),
            laid_out(draw, (batches, key_heads, keys, width), self.dtype),
            laid_out(draw, (batches, key_heads, keys, width), self.dtype),
        ]
        self.options = {"enable_gqa": heads != key_heads}
        kind = draw.choice(["none", "causal", "bool", "float"])
        if draw.random() < 0.3:
            # PyTorch's kernel multiplies is_causal's -inf, too: 0 and less make NaN of it.
            self.options["scale"] = draw.choice([0.2, 1] if kind == "causal" else [0.0, -0.5, 0.2])
        if kind == "causal":
            self.options["is_causal"] = True
        elif kind != "none":
            self.options["attn_mask"] = mask(draw, (batches, heads, rows, keys), kind, self.dtype)
        self.text = f"seed {seed}: {self.dtype}, " + ", ".join(
            f"{name} {tuple(one.shape)} {one.stride()}"
            for name, one in zip(("query", "key", "value", kind), self.all_tensors())
        )

    def all_tensors(self):
        return [*self.tensors, *[one for one in [self.options.get("attn_mask")] if one is not None]]

    def limit(self, kind, theirs):
        """Of the error of an output (0) or a gradient (1), of which PyTorch's error is given."""
        rounding = ROUNDING.get(self.dtype)
        if rounding is None:
            return LIMITS[self.dtype][kind]
        if kind:
            return 2 * theirs + 4 * rounding
        return LIMITS[torch.float32][0] + stored(self.dtype, self.tensors[2])

    def run(self, function=F.scaled_dot_product_attention, convert=lambda tensor: tensor):
        """The output, and the gradients of query, key and value."""
        leaves = [convert(one).detach().requires_grad_() for one in self.tensors]
        options = dict(self.options)
        found = options.get("attn_mask")
        if found is not None and found.dtype != torch.bool:
            options["attn_mask"] = convert(found)
        output = function(*leaves, **options)
        torch.manual_seed(0)
        weights = torch.randn(output.shape, dtype=torch.float64).to(output.dtype)
        (output * weights).sum().backward()
        return [output.detach(), *(one.grad for one in leaves)]


def laid_out(draw, shape, dtype):
    """Random numbers in a layout that models have."""
    n, h, length, e = shape
    kind = draw.choice(["plain", "heads inside", "of a projection", "rows apart", "one for all"])
    if kind == "heads inside":
        return torch.randn(n, length, h, e, dtype=dtype).transpose(1, 2)
    if kind == "of a projection":
        return torch.randn(n, length, 3, h, e, dtype=dtype)[:, :, 1].transpose(1, 2)
    if kind == "rows apart":
        return torch.randn(n, h, 2 * length, e, dtype=dtype)[:, :, ::2]
    if kind == "one for all":
        return torch.randn(1, 1, length, e, dtype=dtype).expand(shape)
    return torch.randn(shape, dtype=dtype)


def mask(draw, scores, kind, dtype):
    """Broadcastable to the scores' shape; some rows of it see nothing."""
    batches, heads, rows, keys = scores
    shape = draw.choice(
        [(rows, keys), (1, keys), scores, (batches, 1, 1, keys), (1, heads, rows, keys)]
    )
    seen = torch.rand(shape) < draw.choice([0.3, 0.7, 0.95])
    seen[..., torch.rand(shape[-2]) < 0.1, :] = False
    if kind == "bool":
        return seen
    return torch.randn(shape, dtype=dtype).masked_fill(~seen, -INFINITY)


def exact(case):
    """By the math path in float64, which gives 0 to rows that see nothing."""
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        return case.run(convert=lambda tensor: tensor.double())


def stored(dtype, value):
    """What storing an output, and bfloat16 weights, adds to its error, which is relative to 1 or
    more."""
    largest = value.abs().max().item() if dtype == torch.bfloat16 and value.numel() else 0
    return ROUNDING[dtype] * (1 + largest)


def error(found, expected):
    """See the top of this file."""
    if expected.numel() == 0:
        return 0.0
    assert torch.isfinite(found).all()
    return ((found.double() - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


class Worst:
    """The largest errors of outputs and of gradients, libattention's and PyTorch's."""

    def __init__(self):
        self.calls = self.answered = 0
        self.errors = {(dtype, kind): (0.0, 0.0) for dtype in DTYPES for kind in (0, 1)}

    def compare(self, case, installed):
        """Notes a call, and asserts that it is as exact as has been promised."""
        self.calls += 1
        self.answered += integration.report().answered
        for i, tensors in enumerate(zip(installed, case.run(), exact(case))):
            ours, theirs, true = tensors
            assert ours.dtype == theirs.dtype, case.text
            assert (ours.shape, ours.stride()) == (theirs.shape, theirs.stride()), case.text
            kind = min(i, 1)
            errors = error(ours, true), error(theirs, true)
            assert errors[0] <= case.limit(kind, errors[1]), f"{case.text}: {errors}"
            known = self.errors[case.dtype, kind]
            self.errors[case.dtype, kind] = tuple(map(max, known, errors))

    def __str__(self):
        lines = [f"{self.calls} calls, {self.answered} answered"]
        for (dtype, kind), (ours, theirs) in self.errors.items():
            what = "gradients" if kind else "outputs"
            lines.append(f"{dtype} {what}: worst {ours:.1e}, PyTorch's {theirs:.1e}")
        return "\n".join(lines)


def test_random_calls():
    worst = Worst()
    for seed in range(CALLS):
        case = Case(seed)
        with integration.install():
            installed = case.run()
        worst.compare(case, installed)
    assert worst.answered > CALLS / 2
    print(worst)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_random_compiled_calls(backend):
    worst = Worst()
    for seed in range(1000, 1000 + COMPILED):
        case = Case(seed)
        torch._dynamo.reset()
        with integration.install():
            function = torch.compile(
                lambda *tensors, **options: F.scaled_dot_product_attention(*tensors, **options),
                backend=backend,
                fullgraph=True,
                dynamic=False,
            )
            installed = case.run(function)
        worst.compare(case, installed)
    assert worst.answered > COMPILED / 3
    print(f"{backend}: {worst}")


# ---- what the operator returns ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (2, 1, 0, 3)])
def test_the_logarithms_and_the_layouts_are_pytorchs(dtype, order):
    shape = (2, 3, 7, 8)
    stored = torch.randn([shape[axis] for axis in order], dtype=dtype)
    query = stored.permute([order.index(axis) for axis in range(4)])
    key = torch.randn(2, 3, 5, 8, dtype=dtype)
    mask = torch.randn(7, 5, dtype=dtype)
    mask[2] = -INFINITY
    mask[4, 1:] = -INFINITY
    for options in ({}, {"is_causal": True}, {"attn_mask": mask}, {"attn_mask": mask[:, :1]}):
        expected = OPERATOR(query, key, key, **options)
        with integration.install():
            found = OPERATOR(query, key, key, **options)
            assert integration.report().answered == 1
        exact_in = dtype if dtype in LIMITS else torch.float32
        limits = [LIMITS[exact_in][0]] * 2
        if dtype in ROUNDING:  # both round their outputs, and their weights if they want
            limits[0] += 2 * ROUNDING[dtype] * expected[0].abs().max().clamp(min=1).item()
            limits[0] += 2 * ROUNDING[dtype] * key.abs().max().item()
        for ours, theirs, limit in zip(found, expected, limits):
            assert ours.dtype == theirs.dtype
            torch.testing.assert_close(ours, theirs, rtol=0, atol=limit)
            assert ours.stride() == theirs.stride()
    assert (found[1][:, :, 2] == 0).all()
