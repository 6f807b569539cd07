# SPDX-License-Identifier: BSD-3-Clause
"""Random calls beside PyTorch, which computes in float64 what libattention computes in float32.

An output is a sum; its error is measured relative to the largest term, the largest sum of
magnitudes of any element: float32 has 6e-8 of it at best, and three sums one after the other of a
few dozen terms (the projections, the scores behind an exponential, the weighted values) stay below
2e-6, thirty times as much.

What libattention does otherwise on purpose is compared with what it promises: a row that sees
nothing, NaN in PyTorch, has the output out_proj.bias and weights 0.
"""

import os
import random
import warnings

import numpy as np
import pytest
import torch

import libattention
from libattention.integrations import torch as integration

CONFIGURATIONS = int(os.environ.get("ATTENTION_DIFFERENTIAL", "2000"))
LIMIT = 2e-6


class Worst:
    """The largest error of all, and how many calls and rows it is of."""

    def __init__(self):
        self.error, self.where, self.calls, self.empty_rows = 0.0, "", 0, 0

    def note(self, found, expected, largest_term, where):
        assert found.shape == expected.shape, where
        if expected.size == 0:
            return
        error = np.abs(found - expected).max() / max(largest_term, 1e-30)
        assert error <= LIMIT, f"{where}: {error:.2e} of the largest term"
        if error > self.error:
            self.error, self.where = error, where

    def __str__(self):
        return (
            f"{self.calls} calls, {self.empty_rows} rows that see nothing, worst error "
            f"{self.error:.1e} of the largest term ({self.where})"
        )


def scattered(draw, shape):
    """A random array of a random layout, and its values as a float64 tensor."""
    numbers = np.random.default_rng(draw.getrandbits(32))
    values = numbers.normal(size=shape).astype("float32")
    kind = draw.choice(["plain", "transposed", "step", "reversed", "torch", "offset"])
    array = values
    if kind == "transposed" and len(shape) > 1:
        array = np.ascontiguousarray(values.swapaxes(-1, -2)).swapaxes(-1, -2)
    elif kind == "step":
        array = np.repeat(values, 2, axis=-1)[..., ::2]
    elif kind == "reversed":
        array = np.ascontiguousarray(values[..., ::-1])[..., ::-1]
    elif kind == "torch":
        array = torch.from_numpy(values.copy())
    elif kind == "offset":
        array = np.concatenate([values, values], axis=-1)[..., shape[-1] :]
    return array, torch.from_numpy(values).double()


def random_mask(draw, shape, hidden):
    """Bool, or float with -inf and some numbers. `hidden` is how PyTorch's bool mask says that."""
    numbers = np.random.default_rng(draw.getrandbits(32))
    is_hidden = numbers.random(shape) < draw.choice([0.1, 0.4, 0.8])
    if draw.random() < 0.5:
        return is_hidden == hidden
    return np.where(is_hidden, -np.inf, numbers.normal(size=shape)).astype("float32")


def random_bias(draw, shape):
    """Of the shape, or repeated along some of its axes."""
    axes = draw.randint(0, len(shape) - 1)
    kept = [length if draw.random() < 0.7 else 1 for length in shape[axes:]]
    numbers = np.random.default_rng(draw.getrandbits(32))
    return numbers.normal(size=kept).astype("float32")


def with_bias(mask, bias):
    """The one mask PyTorch takes, of a float64 or bool one and of a bias. True takes part."""
    if bias is None:
        return mask
    bias = torch.from_numpy(bias).double()
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return bias.masked_fill(~mask, float("-inf"))
    return bias + mask


def as_torch(mask):
    if mask is None:
        return None
    tensor = torch.from_numpy(mask)
    return tensor if tensor.dtype == torch.bool else tensor.double()


def as_numpy(result):
    return np.asarray(result, dtype="float64")


# ---- multi-head attention ----


def multihead_case(seed):
    draw = random.Random(seed)
    heads = draw.choice([1, 2, 3, 4, 8])
    embed_dim = heads * draw.randint(1, 9)
    config = {
        "embed_dim": embed_dim,
        "num_heads": heads,
        "bias": draw.random() < 0.7,
        "add_bias_kv": draw.random() < 0.3,
        "add_zero_attn": draw.random() < 0.3,
        "kdim": draw.choice([None, None, draw.randint(1, 20)]),
        "vdim": draw.choice([None, None, draw.randint(1, 20)]),
        "batch_first": draw.random() < 0.5,
    }
    torch.manual_seed(seed)
    module = torch.nn.MultiheadAttention(**config).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=embed_dim**-0.5)
    return draw, config, module


def multihead_inputs(draw, config):
    rows, keys, batch = draw.randint(1, 17), draw.randint(1, 17), draw.randint(1, 4)
    is_batched = draw.random() < 0.75
    widths = [config["embed_dim"]] * 3
    for place, name in ((1, "kdim"), (2, "vdim")):
        widths[place] = config[name] or config["embed_dim"]
    inputs = []
    for length, width in zip((rows, keys, keys), widths):
        lead = (batch, length) if config["batch_first"] else (length, batch)
        inputs.append(scattered(draw, (*lead, width) if is_batched else (length, width)))
    attn_mask = key_padding_mask = None
    if draw.random() < 0.5:
        per_head = batch * config["num_heads"] if is_batched else config["num_heads"]
        lead = draw.choice([(), (per_head,)])
        attn_mask = random_mask(draw, (*lead, rows, keys), True)
    if draw.random() < 0.5:
        key_padding_mask = random_mask(draw, (batch, keys) if is_batched else (keys,), True)
    scores = (*((batch,) if is_batched else ()), config["num_heads"], rows, keys)
    bias = random_bias(draw, scores) if draw.random() < 0.3 else None
    return inputs, attn_mask, key_padding_mask, (bias, scores)


def layer_mask(mask, bias, scores):
    """What PyTorch's layer takes for both: (N * H, L, S). True is left out there."""
    if bias is None:
        return mask
    if mask is not None:
        mask = ~mask if mask.dtype == torch.bool else mask
        mask = mask.reshape(scores) if mask.dim() == 3 else mask
    return with_bias(mask, bias).expand(scores).reshape(-1, *scores[-2:])


def value_projection(module):
    """PyTorch's weight and bias for value."""
    size = module.embed_dim
    packed = module._qkv_same_embed_dim
    weight = module.in_proj_weight[2 * size :] if packed else module.v_proj_weight
    return weight, None if module.in_proj_bias is None else module.in_proj_bias[2 * size :]


def largest_output_term(module, value):
    """Of |context| |out_proj.weight|, with the largest projected value for the context."""
    weight, bias = value_projection(module)
    projected = value.abs() @ weight.abs().T
    terms = [projected if bias is None else projected + bias.abs()]
    terms += [] if module.bias_v is None else [module.bias_v.abs()]
    top = max(float(term.max()) for term in terms)
    return top * float(module.out_proj.weight.abs().max())


def compare_multihead(seed, worst):
    draw, config, module = multihead_case(seed)
    inputs, attn_mask, key_padding_mask, (bias, scores) = multihead_inputs(draw, config)
    average = draw.random() < 0.5
    layer = libattention.MultiheadAttention.from_torch(module)
    found, weights = layer(
        *[array for array, _ in inputs],
        key_padding_mask=key_padding_mask,
        attn_mask=attn_mask,
        average_attn_weights=average,
        bias=bias,
    )
    module.double()
    wide = [values for _, values in inputs]
    masks = {
        "key_padding_mask": as_torch(key_padding_mask),
        "attn_mask": layer_mask(as_torch(attn_mask), bias, scores),
    }
    expected, per_head = module(*wide, **masks, average_attn_weights=False)
    is_empty = torch.isnan(per_head).any(-1)
    if is_empty.any():
        per_head = torch.nan_to_num(per_head, nan=0.0)
        expected = output_from(module, wide[2], per_head)
    expected_weights = per_head.mean(dim=-3) if average else per_head
    worst.empty_rows += int(is_empty.sum())
    term = largest_output_term(module, wide[2])
    worst.note(as_numpy(found), expected.numpy(), term, f"output of seed {seed}")
    worst.note(as_numpy(weights), expected_weights.numpy(), 1.0, f"weights of seed {seed}")
    worst.calls += 1


def output_from(module, value, weights):
    """What PyTorch makes of weights (N, H, L, T): its own output is NaN where a row of one head
    sees nothing."""
    is_batched = value.dim() == 3
    is_swapped = is_batched and not module.batch_first
    value = value.transpose(0, 1) if is_swapped else value
    projected = torch.nn.functional.linear(value, *value_projection(module))
    if module.bias_v is not None:
        extra = module.bias_v.reshape(1, -1)
        extra = extra.expand(len(projected), 1, -1) if is_batched else extra
        projected = torch.cat([projected, extra], dim=-2)
    if module.add_zero_attn:
        projected = torch.nn.functional.pad(projected, (0, 0, 0, 1))
    context = weights @ projected.unflatten(-1, (module.num_heads, -1)).transpose(-3, -2)
    output = module.out_proj(context.transpose(-3, -2).flatten(-2))
    return output.transpose(0, 1) if is_swapped else output


@pytest.fixture(autouse=True)
def _quiet_and_on_one_thread():
    """Mixed kinds of masks are deprecated in PyTorch, and still defined. Tiny calls of many
    threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Support for mismatched")
        yield
    torch.set_num_threads(threads)


@torch.no_grad()
def test_multihead_attention():
    worst = Worst()
    for seed in range(CONFIGURATIONS):
        compare_multihead(seed, worst)
    print(f"multi-head: {worst}")
    assert worst.calls == CONFIGURATIONS
    assert worst.empty_rows > CONFIGURATIONS // 20


def compare_accelerated(seed, worst):
    """A module with and without accelerate: NaN in the same places, and as near to float64."""
    draw, config, module = multihead_case(seed)
    inputs, attn_mask, key_padding_mask, _ = multihead_inputs(draw, config)
    narrow = [wide.float() for _, wide in inputs]
    options = {
        "key_padding_mask": None
        if key_padding_mask is None
        else torch.from_numpy(key_padding_mask),
        "attn_mask": None if attn_mask is None else torch.from_numpy(attn_mask),
        "average_attn_weights": draw.random() < 0.5,
        "need_weights": draw.random() < 0.5,
    }
    theirs = module(*narrow, **options)
    found = integration.accelerate(module)(*narrow, **options)
    worst.calls += sum(integration.survey(module).computed.values())
    integration.restore(module).double()
    wide = {name: one.double() if is_float(one) else one for name, one in options.items()}
    expected = module(*(values for _, values in inputs), **wide)
    term = largest_output_term(module, inputs[2][1])
    for ours, host, exact, most in zip(found, theirs, expected, (term, 1.0)):
        assert (ours is None) == (host is None)
        if ours is not None:
            assert torch.equal(ours.isnan(), host.isnan())
            is_number = ~host.isnan()
            near = exact[is_number].numpy()
            worst.note(as_numpy(ours[is_number]), near, most, f"accelerated, seed {seed}")


def is_float(one):
    return isinstance(one, torch.Tensor) and one.is_floating_point()


@torch.no_grad()
def test_accelerated_modules():
    worst = Worst()
    for seed in range(CONFIGURATIONS):
        compare_accelerated(seed, worst)
    print(f"accelerated: {worst}")
    assert worst.calls > CONFIGURATIONS // 4


# ---- scaled dot-product attention ----


def compare_sdpa(seed, worst):
    draw = random.Random(seed)
    rows, keys = draw.randint(1, 40), draw.randint(1, 40)
    features, value_features = draw.randint(1, 70), draw.randint(1, 70)
    lead = draw.choice([(), (3,), (2, 6), (2, 1, 6)])
    is_grouped = len(lead) > 0 and lead[-1] == 6 and draw.random() < 0.4
    key_lead = (*lead[:-1], draw.choice([2, 3])) if is_grouped else lead
    query, wide_query = scattered(draw, (*lead, rows, features))
    key, wide_key = scattered(draw, (*key_lead, keys, features))
    value, wide_value = scattered(draw, (*key_lead, keys, value_features))
    scale = draw.choice([None, None, 0.3, 1.0, 0.0, -0.2])
    is_causal = draw.random() < 0.3
    mask = None
    if not is_causal and draw.random() < 0.6:
        mask_lead = draw.choice([(), lead, tuple(1 for _ in lead)])
        mask = random_mask(draw, (*mask_lead, rows, keys), False)
    bias = random_bias(draw, (*lead, rows, keys)) if draw.random() < 0.3 else None
    is_at_end = is_causal and draw.random() < 0.5
    found = libattention.scaled_dot_product_attention(
        query,
        key,
        value,
        mask,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=is_grouped,
        bias=bias,
        align_end=is_at_end,
    )
    wide_mask = as_torch(mask)
    if is_causal and (is_at_end or bias is not None):
        first = keys - rows if is_at_end else 0
        wide_mask = torch.ones(rows, keys, dtype=torch.bool).tril(first)
        is_causal = False
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = torch.nn.functional.scaled_dot_product_attention(
            wide_query,
            wide_key,
            wide_value,
            with_bias(wide_mask, bias),
            is_causal=is_causal,
            scale=scale,
            enable_gqa=is_grouped,
        )
    term = float(wide_value.abs().max())
    # Scores are sums, too: their errors, and so those of the weights, grow with their terms.
    factor = features**-0.5 if scale is None else abs(scale)
    scores = factor * float(wide_query.abs().amax(-1).max() * wide_key.abs().amax(-1).max())
    worst.note(as_numpy(found), expected.numpy(), term * max(1.0, scores), f"seed {seed}")
    worst.calls += 1


def test_scaled_dot_product_attention():
    worst = Worst()
    for seed in range(CONFIGURATIONS):
        compare_sdpa(seed, worst)
    print(f"sdpa: {worst}")
    assert worst.calls == CONFIGURATIONS
