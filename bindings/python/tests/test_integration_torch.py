# SPDX-License-Identifier: BSD-3-Clause
import contextlib
import copy
import io
import pickle
import time

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch_cases import masks_of

from libattention.integrations import torch as integration

NESTED = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
NEAR = {"rtol": 1e-5, "atol": 1e-5}


def encoder(batch_first=True, layers=2):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=batch_first, dropout=0.1)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).eval()


def computed(model):
    """How often libattention computed."""
    return sum(integration.survey(model).computed.values())


def handed_back(model):
    """Why PyTorch computed instead, each once."""
    return {why for counts in integration.survey(model).handed_back.values() for why in counts}


@pytest.mark.parametrize("batch_first", [True, False])
def test_an_encoder_gives_the_same(batch_first):
    model = encoder(batch_first)
    x = torch.randn(3, 7, 64)
    padding = torch.zeros(*(x.shape[:2] if batch_first else (7, 3)), dtype=torch.bool)
    padding[:, -1] = True
    mask = nn.Transformer.generate_square_subsequent_mask(7 if batch_first else 3)
    with torch.no_grad():
        expected = model(x, mask=mask, is_causal=True, src_key_padding_mask=padding.float() * -1e9)
        integration.accelerate(model)
        found = model(x, mask=mask, is_causal=True, src_key_padding_mask=padding.float() * -1e9)
    assert computed(model) == 2
    torch.testing.assert_close(found, expected, **NEAR)


def test_a_decoder_with_cross_attention():
    torch.manual_seed(0)
    model = nn.Transformer(32, 2, 1, 2, 64, batch_first=True).eval()
    source, target = torch.randn(2, 5, 32), torch.randn(2, 4, 32)
    with torch.no_grad():
        expected = model(source, target)
        found = integration.accelerate(model)(source, target)
    assert computed(model) == 1 + 2 * 2
    torch.testing.assert_close(found, expected, **NEAR)


def test_training_is_left_alone():
    model = integration.accelerate(encoder()).train()
    model(torch.randn(2, 3, 64)).sum().backward()
    assert all(one.grad is not None for one in model.parameters())
    model.eval()
    model(torch.randn(2, 3, 64)).sum().backward()
    assert computed(model) == 0
    assert handed_back(model) == {"training", "a tensor requires grad"}


# ---- training ----


def losses(model, steps=5):
    """Of steps of training in float64, by which nothing but rounding tells two ways apart."""
    model = model.double().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    torch.manual_seed(1)
    padding = torch.zeros(3, 9, dtype=torch.bool)
    padding[1:, 7:] = True
    batch, found = torch.randn(3, 9, 64, dtype=torch.float64), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(batch, src_key_padding_mask=padding) - batch.flip(1)).square().mean()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def without_dropout(**options):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@pytest.mark.parametrize("norm_first", [False, True])
def test_training_gives_pytorchs_losses(norm_first):
    expected = losses(without_dropout(norm_first=norm_first))
    model = integration.accelerate(without_dropout(norm_first=norm_first), training=True)
    assert losses(model) == pytest.approx(expected, rel=1e-12)
    assert expected[-1] < expected[0]
    assert computed(model) == 2 * 5
    assert handed_back(model) == set()


@pytest.mark.parametrize("masks", masks_of(1, 1, 1, 1))
@pytest.mark.parametrize(("need_weights", "average"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_gradients_with_masks_and_weights(masks, need_weights, average, batch_first):
    theirs = nn.MultiheadAttention(24, 3, kdim=12, vdim=10, batch_first=batch_first).double()
    inputs = [torch.randn(2, length, width) for length, width in ((5, 24), (7, 12), (7, 10))]
    if not batch_first:
        inputs = [one.transpose(0, 1) for one in inputs]
    inputs = [one.double().requires_grad_() for one in inputs]
    options = dict(zip(("key_padding_mask", "attn_mask"), masks_of(2, 3, 5, 7)[masks]))
    options = {
        name: one.double() if one is not None and one.is_floating_point() else one
        for name, one in options.items()
    }
    options.update(need_weights=need_weights, average_attn_weights=average)
    leaves = [*inputs, *theirs.parameters()]
    ours = integration.accelerate(copy.deepcopy(theirs), training=True)
    pairs = []
    for module, its in ((theirs, leaves), (ours, [*inputs, *ours.parameters()])):
        results = [one for one in module(*inputs, **options) if one is not None]
        torch.manual_seed(2)
        directions = [torch.randn(one.shape, dtype=one.dtype) for one in results]
        pairs.append((results, torch.autograd.grad(results, its, directions)))
    for one, other in zip(*pairs):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12, equal_nan=True)
    assert computed(ours) == (masks != "nothing seen")


@NESTED
def test_dropout_and_nested_tensors_are_handed_back_in_training():
    layer = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    integration.accelerate(layer, training=True)
    x = torch.randn(2, 3, 8)
    layer.train()(x, x, x)[0].sum().backward()
    assert handed_back(layer) == {"dropout"}
    layer.eval()(x, x, x)[0].sum().backward()
    assert computed(layer) == 1
    nested = torch.nested.nested_tensor([torch.randn(3, 8), torch.randn(2, 8)])
    with contextlib.suppress(RuntimeError, AssertionError):  # which PyTorch does not train
        layer(nested, nested, nested, need_weights=False)
    assert handed_back(layer) == {"dropout", "gradients of nested tensors"}
    with torch.no_grad():
        layer(nested, nested, nested, need_weights=False)
    assert computed(layer) == 2


def test_the_last_call_says_whether_to_compute_in_training():
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(2, 3, 8)
    for training in (True, False, True):
        integration.accelerate(layer, training=training)
        for one in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            one(x, x, x)
            assert handed_back(one) == (set() if training else {"training"})
    assert type(integration.restore(layer)) is nn.MultiheadAttention
    assert len(layer._forward_pre_hooks) == 0


# ---- parameters ----


def doubled(module):
    with torch.no_grad():
        for one in module.parameters():
            one.mul_(2)


def step(module):
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05, fused=True)
    x = torch.randn(2, 5, 16)
    module(x, x, x)[0].square().sum().backward()
    optimizer.step()


def replaced(module):
    module.in_proj_weight = None
    module.in_proj_weight = nn.Parameter(torch.randn(48, 16))


CHANGES = {
    "in place": doubled,
    "data": lambda module: module.in_proj_weight.data.normal_(),
    "fused optimizer": step,
    "NumPy": lambda module: module.out_proj.weight.detach().numpy().__imul__(3),
    "another parameter": replaced,
    "heads": lambda module: vars(module).update(num_heads=2, head_dim=8),
    "no bias": lambda module: vars(module.out_proj)["_parameters"].update(bias=None),
    "pruned": lambda module: prune.l1_unstructured(module, "in_proj_weight", 0.5),
    "spectral norm": lambda module: parametrizations.spectral_norm(module.out_proj),
    "parametrized": lambda module: parametrizations.weight_norm(module, "in_proj_weight"),
}


@pytest.fixture
def plainest():
    """PyTorch's fast path knows only the plain layer."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_before", [False, True])
@pytest.mark.usefixtures("plainest")
def test_parameters_of_now_count(change, is_before):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    if is_before:
        CHANGES[change](module)
    integration.accelerate(module)
    with torch.no_grad():
        module(x, x, x)
    if not is_before:
        CHANGES[change](module)
    with torch.no_grad():
        found = module(x, x, x, need_weights=False)[0]
        assert computed(module) == 2
        expected = integration.restore(module)(x, x, x, need_weights=False)[0]
    torch.testing.assert_close(found, expected, **NEAR)


def test_inference_mode():
    with torch.inference_mode():
        module = nn.MultiheadAttention(16, 4).eval()
        x = torch.randn(5, 2, 16)
        expected = module(x, x, x)
        torch.testing.assert_close(integration.accelerate(module)(x, x, x), expected, **NEAR)
    assert computed(module) == 1


# ---- what is taken over ----


class Rotated(nn.MultiheadAttention):
    def forward(self, query, key, value, **options):
        return super().forward(2 * query, key, value, **options)


class Counted(nn.MultiheadAttention):
    """Behaves as its parent."""


def test_what_is_taken_and_what_is_left():
    model = nn.ModuleDict(
        {
            "plain": nn.MultiheadAttention(16, 4),
            "rotated": Rotated(16, 4),
            "counted": Counted(16, 4),
            "patched": nn.MultiheadAttention(16, 4),
            "linear": nn.Linear(3, 3),
        }
    ).eval()
    inner = model["patched"].forward
    model["patched"].forward = lambda *arguments, **options: inner(*arguments, **options)
    x = torch.randn(5, 2, 16)
    with torch.no_grad():
        expected = {name: one(x, x, x)[0] for name, one in model.items() if name != "linear"}
        integration.accelerate(model)
        for name, one in expected.items():
            torch.testing.assert_close(model[name](x, x, x)[0], one, **NEAR)
    found = integration.survey(model)
    assert found.taken == ["plain", "counted"]
    assert found.left == {
        "rotated": "Rotated has a forward of its own",
        "patched": "its forward was replaced",
    }
    assert found.computed == {"plain": 1, "counted": 1}
    assert type(model["counted"]).__name__ == "Counted"
    assert isinstance(model["counted"], Counted)
    integration.restore(model)
    assert (type(model["plain"]), type(model["counted"])) == (nn.MultiheadAttention, Counted)
    assert "forward" in vars(model["patched"])


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, through_a_file])
def test_copies_have_their_own_parameters(copied):
    model = integration.accelerate(encoder(layers=1))
    assert list(model.state_dict()) == list(encoder(layers=1).state_dict())
    clone = copied(model)
    attention = clone.layers[0].self_attn
    assert integration.is_accelerated(attention)
    doubled(attention)
    x = torch.randn(2, 3, 64)
    with torch.no_grad():
        found, original = clone(x), model(x)
        assert (computed(clone), computed(model)) == (1, 1)
        torch.testing.assert_close(found, integration.restore(clone)(x), **NEAR)
    assert not torch.allclose(found, original)


def test_a_shallow_copy_computes_with_the_parameters_it_is_given():
    module = integration.accelerate(nn.MultiheadAttention(16, 4)).eval()
    clone = copy.copy(module)
    clone._parameters = {
        name: 2 * one.detach() for name, one in module._parameters.items() if one is not None
    }
    clone._parameters = {**module._parameters, **clone._parameters}
    x = torch.randn(5, 2, 16)
    with torch.no_grad():
        found = clone(x, x, x)[0]
        torch.testing.assert_close(found, nn.MultiheadAttention.forward(clone, x, x, x)[0], **NEAR)
        assert not torch.allclose(found, module(x, x, x)[0])


def test_restore_is_exact():
    model = integration.accelerate(integration.accelerate(encoder()))
    patched = model.layers[0].self_attn
    kept = patched.forward  # as somebody's wrapper would
    integration.restore(model)
    assert not any(map(integration.is_accelerated, model.modules()))
    assert not any(one._forward_pre_hooks for one in model.modules())
    x = torch.randn(2, 3, 64)
    with torch.no_grad():
        assert torch.equal(kept(x, x, x)[0], patched(x, x, x)[0])
    assert computed(model) == 0


def test_restore_below_a_parametrization():
    module = integration.accelerate(nn.MultiheadAttention(16, 4))
    parametrizations.weight_norm(module, "in_proj_weight")
    integration.restore(module)
    assert not integration.is_accelerated(module)
    assert type(module).__bases__ == (nn.MultiheadAttention,)
    assert nn.utils.parametrize.is_parametrized(module)


# ---- calls ----


@pytest.mark.parametrize("masks", masks_of(1, 1, 1, 1))
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_masks_and_weights(masks, need_weights, average, batch_first):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(16, 4, kdim=12, vdim=10, batch_first=batch_first).eval()
    inputs = [torch.randn(shape) for shape in ((3, 5, 16), (3, 7, 12), (3, 7, 10))]
    if not batch_first:
        inputs = [one.transpose(0, 1) for one in inputs]
    padding, pairs = masks_of(3, 4, 5, 7)[masks]
    options = {
        "key_padding_mask": padding,
        "attn_mask": pairs,
        "need_weights": need_weights,
        "average_attn_weights": average,
    }
    with torch.no_grad():
        expected = module(*inputs, **options)
        found = integration.accelerate(module)(*inputs, **options)
    torch.testing.assert_close(found[0], expected[0], equal_nan=True, **NEAR)
    assert (found[1] is None) == (not need_weights)
    if need_weights:
        torch.testing.assert_close(found[1], expected[1], equal_nan=True, **NEAR)
    assert computed(module) == (masks != "nothing seen")


def test_unbatched_and_causal():
    module = nn.MultiheadAttention(16, 4).eval()
    x = torch.randn(5, 16)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    for options in ({}, {"attn_mask": mask, "is_causal": True, "need_weights": False}):
        with torch.no_grad():
            expected = module(x, x, x, **options)
            found = integration.accelerate(module)(x, x, x, **options)
        assert computed(module) == 1
        torch.testing.assert_close(found, expected, **NEAR)
        integration.restore(module)


def test_what_pytorch_refuses_it_still_refuses():
    module = integration.accelerate(nn.MultiheadAttention(16, 4)).eval()
    x = torch.randn(5, 2, 16)
    for arguments, options in (
        ((x, x, x), {"is_causal": True}),
        ((x, x, x), {"attn_mask": torch.zeros(3, 3)}),
        ((x, x[:, :1], x), {}),
        ((x.bfloat16(), x, x), {}),
        ((x.half(), x.half(), x.half()), {}),
        ((x, x[:3], x), {}),
        ((x[..., :8], x, x), {}),
        ((x, x, x), {"attn_mask": torch.zeros(3, 3, dtype=torch.int64)}),
        ((x, x, x), {"key_padding_mask": torch.zeros(2, 5, dtype=torch.int64)}),
        ((x, x, x), {"attn_mask": torch.zeros(5, 5, dtype=torch.float64)}),
    ):
        with torch.no_grad():
            with pytest.raises((RuntimeError, AssertionError)) as theirs:
                nn.MultiheadAttention.forward(module, *arguments, **options)
            with pytest.raises(type(theirs.value)):
                module(*arguments, **options)


@NESTED
def test_nested_tensors_are_computed():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(3, 7, 64)
    padding = torch.arange(7) >= torch.tensor([7, 4, 2])[:, None]
    with torch.no_grad():
        expected = model(x, src_key_padding_mask=padding)
        found = integration.accelerate(model)(x, src_key_padding_mask=padding)
        torch.testing.assert_close(found, expected, **NEAR)
    assert computed(model) == 2


@NESTED
def test_nested_tensors_but_of_self_attention_are_pytorchs():
    module = integration.accelerate(nn.MultiheadAttention(16, 2, batch_first=True)).eval()
    one = torch.nested.nested_tensor([torch.randn(3, 16), torch.randn(5, 16)])
    other = torch.nested.nested_tensor([torch.randn(4, 16), torch.randn(2, 16)])
    with torch.no_grad():
        for inputs in ((one, other, other), (torch.randn(2, 5, 16), other, other)):
            with pytest.raises(AssertionError, match="NestedTensor"):
                module(*inputs)
        weights = module(one, one, one)[1]
        assert torch.equal(weights, nn.MultiheadAttention.forward(module, one, one, one)[1])
        module(one, one, one, need_weights=False)
    assert computed(module) == 1


def test_the_default_device_is_not_asked():
    module = nn.MultiheadAttention(16, 2).eval()
    x, hidden = torch.randn(3, 2, 16), torch.tensor([[False, True, False]] * 2)
    pairs = torch.triu(torch.ones(3, 3, dtype=torch.bool), 1)
    with torch.no_grad():
        expected = module(x, x, x, key_padding_mask=hidden, attn_mask=pairs)
        integration.accelerate(module)
        with torch.device("meta"):
            found = module(x, x, x, key_padding_mask=hidden, attn_mask=pairs)
    torch.testing.assert_close(found, expected, **NEAR)
    assert computed(module) == 1


def test_attention_maps_of_a_whole_encoder():
    model = integration.accelerate(encoder())
    x = torch.randn(3, 7, 64)
    with torch.no_grad(), integration.attention_maps(model) as maps:
        expected = model(x)
    assert list(maps) == ["layers.0.self_attn", "layers.1.self_attn"]
    for weights in maps.values():
        assert [one.shape for one in weights] == [(3, 4, 7, 7)]
        torch.testing.assert_close(weights[0].sum(-1), torch.ones(3, 4, 7))
    with integration.attention_maps(model) as by_pytorch:  # for the sake of gradients
        model(x)
    assert [one.shape for weights in by_pytorch.values() for one in weights] == [(3, 4, 7, 7)] * 2
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, **NEAR)
    assert [len(weights) for weights in maps.values()] == [1, 1]


def test_autocast_is_pytorchs():
    module = nn.MultiheadAttention(16, 2).eval()
    x = torch.randn(3, 2, 16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = module(x, x, x)
        found = integration.accelerate(module)(x, x, x)
    assert torch.equal(found[0], expected[0])
    assert handed_back(module) == {"a tensor is under autocast"}


@pytest.mark.parametrize("how", ["compile", "export", "trace"])
@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_programs_made_of_an_accelerated_layer(how):
    module = nn.MultiheadAttention(16, 2).eval()
    x, y = torch.randn(3, 2, 16), torch.randn(3, 2, 16)
    torch.compiler.reset()
    with torch.no_grad():
        expected = module(y, y, y)[0]
        integration.accelerate(module)
        if how == "compile":
            program = torch.compile(module, backend="eager", fullgraph=True)
        elif how == "export":
            program = torch.export.export(module, (x, x, x)).module()
        else:
            program = torch.jit.trace(module, (x, x, x))
        torch.testing.assert_close(program(y, y, y)[0], expected, **NEAR)


def test_time_beside_pytorchs():
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
    assert computed(model) == 4 * 2
    print(", ".join(f"{name} {min(times):.2f} ms" for name, times in runs.items()))
