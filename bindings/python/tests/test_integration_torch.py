# SPDX-License-Identifier: BSD-3-Clause
import copy
import io
import time

import pytest
import torch
from torch import nn

from libattention.integrations import torch as integration

NEAR = {"rtol": 1e-5, "atol": 1e-5}


def encoder(batch_first=True, layers=2):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=batch_first, dropout=0.1)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).eval()


@pytest.fixture
def calls(monkeypatch):
    """How often libattention computed."""
    counted = []
    original = integration._layer_of
    monkeypatch.setattr(integration, "_layer_of", lambda one: counted.append(one) or original(one))
    return counted


@pytest.mark.parametrize("batch_first", [True, False])
def test_an_encoder_gives_the_same(calls, batch_first):
    model = encoder(batch_first)
    x = torch.randn(3, 7, 64)
    padding = torch.zeros(*(x.shape[:2] if batch_first else (7, 3)), dtype=torch.bool)
    padding[:, -1] = True
    mask = nn.Transformer.generate_square_subsequent_mask(7 if batch_first else 3)
    with torch.no_grad():
        expected = model(x, mask=mask, is_causal=True, src_key_padding_mask=padding.float() * -1e9)
        integration.accelerate(model)
        found = model(x, mask=mask, is_causal=True, src_key_padding_mask=padding.float() * -1e9)
    assert len(calls) == 2
    torch.testing.assert_close(found, expected, **NEAR)


def test_a_decoder_with_cross_attention(calls):
    torch.manual_seed(0)
    model = nn.Transformer(32, 2, 1, 2, 64, batch_first=True).eval()
    source, target = torch.randn(2, 5, 32), torch.randn(2, 4, 32)
    with torch.no_grad():
        expected = model(source, target)
        found = integration.accelerate(model)(source, target)
    assert len(calls) == 1 + 2 * 2
    torch.testing.assert_close(found, expected, **NEAR)


def test_training_is_left_alone(calls):
    model = integration.accelerate(encoder()).train()
    model(torch.randn(2, 3, 64)).sum().backward()
    gradients = [one.grad for one in model.parameters()]
    assert all(gradient is not None for gradient in gradients)
    model.eval()
    model(torch.randn(2, 3, 64)).sum().backward()
    assert not calls


def test_changed_parameters_count(calls):
    model = integration.accelerate(encoder(layers=1))
    x = torch.randn(2, 3, 64)
    with torch.no_grad():
        before = model(x)
        model.layers[0].self_attn.in_proj_weight.mul_(0.5)
        changed = model(x)
        integration.restore(model)
        torch.testing.assert_close(changed, model(x), **NEAR)
    assert not torch.allclose(before, changed)
    assert len(calls) == 2


def test_copies_pickles_and_state_dicts(calls):
    model = integration.accelerate(encoder(layers=1))
    plain = encoder(layers=1)
    assert list(model.state_dict()) == list(plain.state_dict())
    clone = copy.deepcopy(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    x = torch.randn(2, 3, 64)
    with torch.no_grad():
        clone.layers[0].self_attn.out_proj.weight.zero_()
        results = [one(x) for one in (model, loaded, clone)]
    assert len({id(module) for module in calls}) == 3
    torch.testing.assert_close(results[0], results[1])
    assert not torch.allclose(results[0], results[2])


def test_restore(calls):
    model = integration.accelerate(integration.accelerate(encoder()))
    integration.restore(model)
    assert not any(map(integration.is_accelerated, model.modules()))
    assert not any(one._forward_pre_hooks for one in model.modules())
    with torch.no_grad():
        model(torch.randn(2, 3, 64))
    assert not calls


def test_weights_are_returned(calls):
    layer = nn.MultiheadAttention(16, 2).eval()
    x = torch.randn(3, 2, 16)
    with torch.no_grad():
        expected = layer(x, x, x, average_attn_weights=False)
        found = integration.accelerate(layer)(x, x, x, average_attn_weights=False)
        half = layer.bfloat16()(*[x.bfloat16()] * 3)  # PyTorch's own
    torch.testing.assert_close(found, expected, **NEAR)
    assert half[0].dtype == torch.bfloat16
    assert len(calls) == 1


def test_time_beside_pytorchs(calls):
    """Printed, not asserted: whatever else the machine does would decide."""
    model = encoder(layers=4)
    x = torch.randn(8, 128, 64)
    contestants = {"PyTorch": integration.restore, "libattention": integration.accelerate}
    runs = {name: [] for name in contestants}
    with torch.no_grad():
        for _ in range(6):
            for name, change in contestants.items():
                change(model)
                model(x)
                begin = time.perf_counter()
                model(x)
                runs[name].append(1e3 * (time.perf_counter() - begin))
    assert len(calls) == 4 * 12
    print(", ".join(f"{name} {min(times):.2f} ms" for name, times in runs.items()))
