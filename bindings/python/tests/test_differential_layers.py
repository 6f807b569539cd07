# SPDX-License-Identifier: BSD-3-Clause
"""Random nn.MultiheadAttention with gradients, with accelerate(training=True) and without, called
as they are and compiled.

Each is computed three times: with libattention, by PyTorch, and by PyTorch in float64. Errors of
outputs and gradients are measured relative to the largest number of the exact tensor, or to 1, the
size of the terms where they cancel. Both sides round the same projections and scores, in another
order: PyTorch's own error is allowed four times, and beside it 5e-6, the 2e-6 that outputs have in
test_differential_torch.py passed through one more product.
"""

import os
import warnings

import pytest
import torch
from test_differential_torch import multihead_case, multihead_inputs

from libattention.integrations import torch as integration

CALLS = int(os.environ.get("ATTENTION_DIFFERENTIAL", "300"))
# A call is made three times with gradients; compiling one takes as long as hundreds.
MODULES = CALLS if CALLS >= 2000 else CALLS // 3
COMPILED = max(3, CALLS // 100)
LEAST = 5e-6


@pytest.fixture(autouse=True)
def _quiet_and_on_one_thread():
    """Mixed kinds of masks are deprecated in PyTorch, and still defined."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(threads)


class Case:
    """A random module, and a call of it."""

    def __init__(self, seed):
        draw, config, self.module = multihead_case(seed)
        inputs, attn_mask, key_padding_mask, _ = multihead_inputs(draw, config)
        self.inputs = [wide.float() for _, wide in inputs]
        self.options = {
            "key_padding_mask": _as_tensor(key_padding_mask),
            "attn_mask": _as_tensor(attn_mask),
            "average_attn_weights": draw.random() < 0.5,
            "need_weights": draw.random() < 0.5,
        }
        self.text = f"seed {seed}: {config}, {[tuple(one.shape) for one in self.inputs]}"

    def run(self, dtype=torch.float32, function=None):
        """Output and weights, and the gradients of inputs and parameters."""
        leaves = [one.to(dtype).requires_grad_() for one in map(torch.clone, self.inputs)]
        options = {
            name: one.to(dtype) if torch.is_tensor(one) and one.is_floating_point() else one
            for name, one in self.options.items()
        }
        self.module.zero_grad()
        call = self.module if function is None else function
        output, weights = call(*leaves, **options)
        results = [output] if weights is None else [output, weights]
        generator = torch.Generator().manual_seed(0)
        total = sum(
            (one * torch.randn(one.shape, generator=generator).to(dtype)).sum() for one in results
        )
        total.backward()
        parameters = [one.grad.clone() for one in self.module.parameters() if one.grad is not None]
        return [*(one.detach() for one in results), *(one.grad for one in leaves), *parameters]


def _as_tensor(mask):
    return None if mask is None else torch.from_numpy(mask)


def _error(found, exact, is_number):
    if not is_number.any():
        return 0.0
    difference = (found.double() - exact)[is_number].abs().max()
    return (difference / exact[is_number].abs().max().clamp(min=1)).item()


class Worst:
    """The largest errors, libattention's and PyTorch's, and how many calls were computed here."""

    def __init__(self):
        self.calls = self.computed = 0
        self.errors = (0.0, 0.0)

    def compare(self, case, function=None):
        theirs = case.run()
        integration.accelerate(case.module, training=True)
        ours = case.run(function=None if function is None else function(case.module))
        self.computed += sum(integration.survey(case.module).computed.values())
        integration.restore(case.module).double()
        exact = case.run(torch.float64)
        self.calls += 1
        assert len(ours) == len(theirs) == len(exact), case.text
        for one, two, three in zip(ours, theirs, exact):
            assert torch.equal(one.isnan(), two.isnan()), case.text
            is_number = ~(one.isnan() | three.isnan())
            errors = _error(one, three, is_number), _error(two, three, is_number)
            assert errors[0] <= LEAST + 4 * errors[1], f"{case.text}: {errors}"
            self.errors = tuple(map(max, self.errors, errors))

    def __str__(self):
        return (
            f"{self.calls} calls, {self.computed} computed by libattention; "
            f"worst error {self.errors[0]:.1e}, PyTorch's {self.errors[1]:.1e}"
        )


def test_random_modules_with_gradients():
    worst = Worst()
    for seed in range(MODULES):
        worst.compare(Case(seed))
    print(f"modules with gradients: {worst}")
    assert worst.computed > MODULES // 4


def test_random_compiled_modules():
    """What is compiled is PyTorch's own forward: nothing of it is libattention's, or wrong."""
    worst = Worst()

    def compiled(module):
        torch._dynamo.reset()
        return torch.compile(module, backend="aot_eager", dynamic=False)

    for seed in range(5000, 5000 + COMPILED):
        worst.compare(Case(seed), compiled)
    print(f"compiled modules: {worst}")
    assert worst.calls == COMPILED
