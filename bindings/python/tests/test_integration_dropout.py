# SPDX-License-Identifier: BSD-3-Clause
"""Models in training with dropout, of PyTorch and of transformers: PyTorch's unless libattention is
asked for its own, which is right on average, reproducible and counted."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch_cases import small
from transformers import AutoModelForSequenceClassification, BertConfig

from libattention import Dropout
from libattention import scaled_dot_product_attention as sdpa
from libattention.integrations import transformers as hf
from libattention.integrations.torch import accelerate, install, report, survey

N, HEADS, ROWS, WIDTH = 2, 4, 24, 8
P = 0.25


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.compiler.reset()


def inputs(dtype=torch.float32):
    return [torch.randn(N, HEADS, ROWS, WIDTH, dtype=dtype, requires_grad=True) for _ in range(3)]


def counts():
    now = report()
    return now.dropped, dict(now.handed_back)


def drawn(seed):
    """The Dropout of the first call after torch.manual_seed."""
    return Dropout(P, generator=torch.Generator().manual_seed(seed))


def test_pytorchs_function_drops_as_before_unless_asked():
    given = inputs()
    torch.manual_seed(1)
    expected = F.scaled_dot_product_attention(*given, dropout_p=P)
    with install():
        torch.manual_seed(1)
        assert torch.equal(F.scaled_dot_product_attention(*given, dropout_p=P), expected)
    assert counts()[0] == 0


MASKS = {
    "none": dict,
    "causal": lambda: {"is_causal": True, "scale": 0.3},
    "bool": lambda: {"attn_mask": torch.rand(ROWS, ROWS) > 0.3},
    "learned": lambda: {"attn_mask": torch.randn(HEADS, 1, ROWS, requires_grad=True)},
}


@pytest.mark.parametrize("mask", MASKS)
def test_pytorchs_function_drops_by_the_library_where_asked(mask):
    given, options = inputs(), MASKS[mask]()
    mask = options.get("attn_mask")
    leaves = [*given, mask] if mask is not None and mask.requires_grad else given
    found = []
    with install(dropout=True):
        for _ in range(2):
            torch.manual_seed(5)
            output = F.scaled_dot_product_attention(*given, dropout_p=P, **options)
            found.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
        other = F.scaled_dot_product_attention(*given, dropout_p=P, **options)
    assert all(map(torch.equal, *found))
    assert not torch.equal(found[0][0], other)
    assert counts()[0] == 3
    assert "of these with dropout: " in str(report())
    same = sdpa(*given, dropout=drawn(5), **options)
    gradients = torch.autograd.grad(same.square().sum(), leaves)
    for one, expected in zip(found[0], [same, *gradients]):
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6)


def test_what_is_dropped_is_right_on_average():
    """Of weights that are all 1 / S the output is a mean, and each row's a sum of S kept or dropped
    ones: mean and variance within 5 standard deviations."""
    keys, calls = 64, 40
    query, key = torch.zeros(N, HEADS, 32, 4), torch.zeros(N, HEADS, keys, 4)
    value = torch.ones(N, HEADS, keys, 4)
    with install(dropout=True):
        found = torch.stack(
            [F.scaled_dot_product_attention(query, key, value, dropout_p=P) for _ in range(calls)]
        )
    rows = found[..., 0].double().flatten()
    variance = P / (1 - P) / keys
    assert abs(rows.mean() - 1) < 5 * (variance / len(rows)) ** 0.5
    assert abs(rows.var() / variance - 1) < 5 * (2 / len(rows)) ** 0.5


def test_what_is_left_to_pytorch_is_counted_with_its_reason():
    query, key, value = inputs()
    mask = torch.ones(ROWS, ROWS, dtype=torch.bool)
    calls = {
        "a probability outside of 0 to 1": lambda: F.scaled_dot_product_attention(
            query, key, value, dropout_p=1.0
        ),
        "mask": lambda: F.scaled_dot_product_attention(
            query, key, value, mask, dropout_p=P, is_causal=True
        ),
        "ATTN_ERROR_SHAPE": lambda: F.scaled_dot_product_attention(
            query, key[:, :3], value, dropout_p=P
        ),
        "a tensor is being transformed by torch.func": lambda: torch.func.grad(
            lambda one: F.scaled_dot_product_attention(one, key, value, dropout_p=P).sum()
        )(query.detach()),
    }
    with install(dropout=True):
        for reason, call in calls.items():
            name = f"dropout: {reason}"
            (dropped, before), generator = counts(), torch.get_rng_state()
            if reason in ("mask", "ATTN_ERROR_SHAPE"):
                with pytest.raises(RuntimeError):
                    call()
                assert torch.equal(torch.get_rng_state(), generator)
            else:
                call()
            assert counts() == (dropped, {**before, name: before.get(name, 0) + 1})
        dropped, _ = counts()
        compiled = torch.compile(F.scaled_dot_product_attention, backend="aot_eager")
        torch.manual_seed(2)
        found = [compiled(query, key, value, dropout_p=P) for _ in range(2)]
        assert not torch.equal(*found)
        F.scaled_dot_product_attention(query, key, value)
        assert counts()[0] == dropped


# ---- nn.MultiheadAttention ----


def encoder_layer():
    layer = nn.TransformerEncoderLayer(32, 4, 48, dropout=P, batch_first=True)
    layer.dropout.p = layer.dropout1.p = layer.dropout2.p = 0.0  # of attention alone
    return layer.double()


def test_modules_drop_by_the_library_where_asked():
    theirs, x = encoder_layer().train(), torch.randn(2, 7, 32, dtype=torch.float64)
    ours = accelerate(copy.deepcopy(theirs), training=True)
    for layer in (theirs, ours):
        torch.manual_seed(3)
        layer.output = layer(x)
    assert torch.equal(theirs.output, ours.output)
    assert survey(ours).handed_back == {"self_attn": {"dropout": 1}}
    accelerate(ours, training=True, dropout=True)
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(ours(x))
    assert torch.equal(*found)
    assert not torch.equal(found[0], theirs.output)
    found[0].square().sum().backward()
    assert all(one.grad.abs().sum() > 0 for one in ours.parameters())
    assert survey(ours).computed == {"self_attn": 2}
    again = pickle.loads(pickle.dumps(ours.self_attn))
    assert again._settings.drops
    for layer in (theirs.eval(), ours.eval()):
        layer.output = layer(x)
    torch.testing.assert_close(ours.output, theirs.output, rtol=1e-12, atol=1e-12)


def test_modules_are_right_on_average():
    """The mean of many outputs is that of evaluation, off by 5 of its standard deviations."""
    module, count = accelerate(nn.MultiheadAttention(8, 2, dropout=0.5), True, dropout=True), 400
    x = torch.randn(5, 3, 8)
    with torch.no_grad():
        found = torch.stack([module(x, x, x)[0] for _ in range(count)]).double()
        weights = torch.stack(
            [module(x, x, x, average_attn_weights=False)[1] for _ in range(count)]
        )
        expected, whole = module.eval()(x, x, x, average_attn_weights=False)
    deviation = found.std(0) / count**0.5
    assert ((found.mean(0) - expected).abs() < 5 * deviation + 1e-6).all()
    rate = (weights == 0).double().mean()
    assert abs(rate - 0.5) < 5 * (0.25 / weights.numel()) ** 0.5
    kept = weights != 0
    torch.testing.assert_close(weights[kept], (2 * whole).expand(weights.shape)[kept])


# ---- transformers ----


def test_transformers_models_drop_by_the_library_where_asked():
    config = small(BertConfig, attention_probs_dropout_prob=P, hidden_dropout_prob=0.0)
    names = [hf.register(), hf.register("libattention_that_drops", dropout=True)]
    tokens = torch.arange(24).reshape(2, 12)
    found = {}
    for name in names:
        torch.manual_seed(0)
        config._attn_implementation = name
        model = AutoModelForSequenceClassification.from_config(
            config, attn_implementation=name
        ).train()
        torch.manual_seed(4)
        loss = model(tokens, labels=torch.tensor([0, 1])).loss
        loss.backward()
        torch.manual_seed(4)
        assert torch.equal(model(tokens, labels=torch.tensor([0, 1])).loss, loss)
        found[name] = list(hf.report(model).values())
        gradient = model.bert.encoder.layer[0].attention.self.query.weight.grad
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
    assert found[names[0]] == [hf.Count(0, {"dropout": 2})] * 2
    assert found[names[1]] == [hf.Count(2, {})] * 2
