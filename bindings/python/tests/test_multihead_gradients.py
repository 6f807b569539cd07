# SPDX-License-Identifier: BSD-3-Clause
"""MultiheadAttention.backward on NumPy's arrays: PyTorch's gradients where PyTorch has the option,
differences along random directions where it has not."""

import numpy as np
import pytest
import torch

from libattention import Dropout, Error, KVCache, MultiheadAttention, SavedCall

N, ROWS, KEYS, WIDTH = 3, 4, 5, 8


def arrays(rng, *widths):
    """Query, key and value, first by batch."""
    lengths = (ROWS, KEYS, KEYS)
    return [rng.normal(size=(N, length, width)) for length, width in zip(lengths, widths)]


MODULES = {
    "packed": {},
    "apart": {"kdim": 6, "vdim": 3},
    "without biases": {"bias": False, "add_zero_attn": True},
    "with a learned key": {"add_bias_kv": True},
}
CALLS = {
    "averaged weights": {"attn_mask": "added"},
    "weights": {"average_attn_weights": False, "key_padding_mask": "padding"},
    "no weights": {"need_weights": False, "attn_mask": "bool"},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("module", MODULES)
def test_gradients_are_pytorchs(rng, module, call):
    torch.manual_seed(0)
    options = MODULES[module]
    theirs = torch.nn.MultiheadAttention(WIDTH, 2, batch_first=True, dtype=torch.float64, **options)
    for one in theirs.parameters():
        torch.nn.init.normal_(one)
    widths = (WIDTH, options.get("kdim", WIDTH), options.get("vdim", WIDTH))
    masks = {
        "added": rng.normal(size=(ROWS, KEYS)),
        "bool": rng.normal(size=(ROWS, KEYS)) > 0.7,
        "padding": np.arange(KEYS) >= np.array([[5], [3], [1]]),
    }
    masks["bool"][:, 0] = False
    given = arrays(rng, *widths)
    named = {k: masks[v] if isinstance(v, str) else v for k, v in CALLS[call].items()}
    tensors = [torch.tensor(one, requires_grad=True) for one in given]
    like = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in named.items()}
    is_learned = CALLS[call].get("attn_mask") == "added"
    if is_learned:
        like["attn_mask"].requires_grad_()
    output, weights = theirs(*tensors, **like)
    layer = MultiheadAttention.from_torch(theirs)
    found, own_weights, saved = layer(*given, **named, return_saved=True)
    np.testing.assert_allclose(found, output.detach(), rtol=1e-11, atol=1e-12)
    grad_output = rng.normal(size=output.shape)
    grad_weights = None if weights is None else rng.normal(size=weights.shape)
    loss = (output * torch.tensor(grad_output)).sum()
    if weights is not None:
        np.testing.assert_allclose(own_weights, weights.detach(), rtol=1e-11, atol=1e-12)
        loss = loss + (weights * torch.tensor(grad_weights)).sum()
    loss.backward()
    expected = dict(zip(("query", "key", "value"), (one.grad for one in tensors)))
    expected.update({name: one.grad for name, one in theirs.named_parameters()})
    if is_learned:
        expected["attn_mask"] = like["attn_mask"].grad
    gradients = layer.backward(grad_output, saved, grad_weights=grad_weights, wanted=list(expected))
    assert set(gradients) == set(expected)
    for name, one in gradients.items():
        np.testing.assert_allclose(one, expected[name], rtol=1e-10, atol=1e-11, err_msg=name)


LAYERS = {
    "norms and rotation": ({"qk_norm": "head", "num_kv_heads": 1}, {"rope": {}, "is_causal": True}),
    "all heads": ({"qk_norm": "all_heads", "value_head_dim": 3}, {"window": (2, 1)}),
    "dropout": ({"qdim": 5}, {"dropout": Dropout(0.4, seed=1), "softcap": 1.5}),
    "lse": ({"add_bias_kv": True}, {"return_lse": True, "key_lengths": np.array([5, 3, 0])}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_differences(rng, name):
    config, options = LAYERS[name]
    layer = MultiheadAttention(WIDTH, 2, batch_first=True, dtype="float64", **config)
    layer.init_parameters(1)
    given = dict(
        zip(("query", "key", "value"), arrays(rng, config.get("qdim", WIDTH), WIDTH, WIDTH))
    )
    heads = {"bias": rng.normal(size=(2, 1, KEYS)), "sinks": rng.normal(size=2)}
    parameters = {key: rng.normal(size=one.shape) for key, one in layer.state_dict().items()}
    state = {**given, **heads, **parameters}
    has_lse = options.get("return_lse", False)
    directions = None

    def call(state, return_saved=False):
        layer.load_state_dict({key: state[key] for key in parameters})
        inputs = [state[key] for key in given]
        further = {key: state[key] for key in heads}
        return layer(*inputs, need_weights=False, return_saved=return_saved, **options, **further)

    found = call(state, True)
    directions = [None if one is None else rng.normal(size=one.shape) for one in found[:-1]]
    gradients = layer.backward(
        directions[0],
        found[-1],
        grad_lse=directions[2] if has_lse else None,
        wanted=list(state),
    )

    def loss(state):
        return sum((d * r).sum() for d, r in zip(directions, call(state)) if r is not None)

    for key in state:
        step, along = 1e-6, rng.normal(size=state[key].shape)
        ends = [loss({**state, key: state[key] + sign * step * along}) for sign in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * step)
        assert abs(difference - (gradients[key] * along).sum()) < 1e-6 * (1 + abs(difference)), key


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_types_of_gradients(rng, dtype):
    kind = np.float32 if dtype == "bfloat16" else dtype
    options = {"parameter_dtype": dtype} if dtype == "bfloat16" else {}
    layer = MultiheadAttention(
        WIDTH, 2, batch_first=True, dtype="float32" if options else dtype, **options
    )
    given = [one.astype(kind) for one in arrays(rng, WIDTH, WIDTH, WIDTH)]
    output, saved = layer(*given, need_weights=True, return_saved=True)[::2]
    found = layer.backward(np.ones_like(output), saved)
    assert list(found) == ["query", "key", "value", *layer.state_dict()]
    assert all(found[name].dtype == kind for name in ("query", "key", "value"))
    assert all(found[name].dtype == np.float32 for name in layer.state_dict())
    rounded = layer.backward(
        np.ones_like(output), saved, out={"out_proj.bias": np.zeros(WIDTH, "float32")}, wanted=()
    )
    np.testing.assert_array_equal(rounded["out_proj.bias"], N * ROWS)


def test_a_saved_call_keeps_its_parameters_and_may_be_used_again(rng):
    layer = MultiheadAttention(WIDTH, 2, batch_first=True)
    x = rng.normal(size=(N, ROWS, WIDTH)).astype("float32")
    output, _, saved = layer(x, x, x, return_saved=True)
    np.testing.assert_array_equal(output, layer(x, x, x)[0])
    assert isinstance(saved, SavedCall)
    assert "bytes=" in repr(saved)
    first = layer.backward(output, saved)
    layer.init_parameters(5)
    again = layer.backward(output, saved, out={"query": (own := np.ones_like(x))}, accumulate=True)
    for name in first:
        expected = first[name] + (name == "query")
        np.testing.assert_allclose(again[name], expected, rtol=1e-5, atol=1e-6)
    assert again["query"] is own
    tensor = torch.tensor(x)
    result, _, saved = layer(tensor, tensor, tensor, return_saved=True)
    found = layer.backward(torch.ones_like(result), saved, wanted="value")
    assert list(found) == ["value"]
    assert type(found["value"]) is torch.Tensor


def test_what_is_refused_is_named(rng):
    layer = MultiheadAttention(WIDTH, 2, batch_first=True)
    x = np.ones((N, ROWS, WIDTH), "float32")
    mask = np.zeros((ROWS, ROWS), bool)
    output, _, saved = layer(x, x, x, attn_mask=mask, return_saved=True)
    cache = KVCache(N, 2, WIDTH // 2, capacity=ROWS)
    for text, call in {
        "saved: expected what a call with return_saved": lambda: layer.backward(output, output),
        "grad_output: expected shape": lambda: layer.backward(output[:1], saved),
        "wanted: expected some of what the call has, query": lambda: layer.backward(
            output, saved, wanted=("sinks",)
        ),
        "gradients.attn_mask: ": lambda: layer.backward(output, saved, wanted="attn_mask"),
        "grad_output: ": lambda: layer.backward(None, saved),
        "out['query']: expected a NumPy array": lambda: layer.backward(
            output, saved, out={"query": [1.0]}
        ),
        "grad_lse: expected": lambda: layer.backward(output, saved, grad_lse=x),
        "cache: ": lambda: layer(x, x, x, cache=cache, return_saved=True),
    }.items():
        with pytest.raises(Error) as caught:
            call()
        assert str(caught.value).startswith(text), str(caught.value)
    assert (cache.lengths == 0).all()
