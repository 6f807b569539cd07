# SPDX-License-Identifier: BSD-3-Clause
"""What is done with two models of the same weights, and how their results are compared."""

import copy
import math
import re

import torch

TOLERANCE = 3e-4
EXACT = 1e-9
# Parameters of which keys or values are made.
KEYS_OR_VALUES = re.compile(
    r"(^|[._])(k|v|kv|qkv|key|value|k_proj|v_proj|c_attn|query_key_value)[._]"
)


class DiffersError(Exception):
    """Two models do not give the same numbers."""


def _run(model, inputs, **options):
    torch.manual_seed(0)
    return model(**copy.deepcopy(inputs), **options)


def output(model, inputs):
    """The first tensor of real numbers that a model returns."""
    waiting = [_run(model, inputs)]
    while waiting:
        found = waiting.pop(0)
        if torch.is_tensor(found) and found.is_floating_point():
            return found
        if isinstance(found, (tuple, list)):
            waiting = [*found, *waiting]
        elif isinstance(found, dict):
            waiting = [*found.values(), *waiting]
    raise TypeError("it returns no tensor of real numbers")


def _seen(tensor, inputs):
    """Without the rows of padding, which mean nothing."""
    mask = inputs.get("attention_mask")
    if mask is None or tensor.shape[:2] != mask.shape or "decoder_input_ids" in inputs:
        return tensor
    return tensor[mask.bool()]


def forward(model, inputs):
    """A batch with padding."""
    with torch.no_grad():
        return [_seen(output(model, inputs), inputs)]


def attentions(model, inputs):
    """What output_attentions gives."""
    with torch.no_grad():
        out = _run(model, inputs, output_attentions=True)
    names = [name for name in out if name.endswith("attentions")]
    tensors = [one for name in names for one in out[name] or () if torch.is_tensor(one)]
    if not tensors:
        raise NotImplementedError
    mask = inputs.get("attention_mask")
    if mask is None:
        return tensors
    shape = mask.shape[1]
    return [
        one.transpose(1, 2)[mask.bool()] if one.dim() == 4 and one.shape[2] == shape else one
        for one in tensors
    ]


def decoding(model, inputs):
    """A prefill, and two tokens over its cache."""
    ids = inputs["input_ids"]
    found, cache, at = [], None, 0
    torch.manual_seed(0)  # some begin with noise
    for end in (9, 10, 11):
        options = {"attention_mask": inputs["attention_mask"][:, :end], "use_cache": True}
        if cache is not None:
            options["past_key_values"] = cache
        with torch.no_grad():
            out = model(ids[:, at:end], **options)
        found.append(out.logits[:, -1])
        cache, at = out.past_key_values, end
    return found


def generation(model, inputs):
    """Greedy tokens, and the scores that tell near ties."""
    options = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, "output_scores": True}
    with torch.no_grad():
        return model.generate(
            **copy.deepcopy({k: v for k, v in inputs.items() if k != "decoder_input_ids"}),
            **options,
            pad_token_id=0,
            return_dict_in_generate=True,
        )


def training(model, inputs):
    """Gradients of all parameters."""
    return _gradients(model, inputs, lambda name: True)


def partial_training(model, inputs):
    """Gradients where only keys or values are made by what is trained."""
    return _gradients(model, inputs, KEYS_OR_VALUES.search)


def _gradients(model, inputs, is_trained):
    for name, parameter in model.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(bool(is_trained(name)) and parameter.is_floating_point())
    out = _seen(output(model, inputs), inputs)
    generator = torch.Generator().manual_seed(1)
    (out * torch.randn(out.shape, generator=generator)).sum().backward()
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    model.zero_grad()
    model.requires_grad_(True)
    return [torch.cat([one.flatten() for one in gradients])]


STEPS = (forward, attentions, decoding, generation, training, partial_training)


def check(step, found, expected):
    """Raises DiffersError where they are not the same numbers."""
    if step is generation:
        _check_tokens(found, expected)
        return
    error = _difference(found, expected)
    if not error <= TOLERANCE:
        raise DiffersError(f"relative error {error:.1e}")


def is_as_exact(step, models, inputs, results):
    """Whether two models agree in float64, and the second one's result in float32 is no further
    from that than the first one's: where a tiny difference decides what is chosen, there is no more
    to ask.
    """
    if step is generation:
        return False
    wide = {name: one.double() if one.is_floating_point() else one for name, one in inputs.items()}
    try:
        exact, ours = (step(copy.deepcopy(model).double(), wide) for model in models)
    except Exception:  # there are models that do not compute in float64
        return False
    theirs_is_off, ours_is_off = (_difference(one, exact) for one in results)
    return _difference(ours, exact) <= EXACT and ours_is_off <= 4 * theirs_is_off


def _difference(found, expected):
    """The largest error of tensors, each relative to the largest number in it."""
    worst = 0.0
    if len(found) != len(expected):
        raise DiffersError(f"{len(found)} tensors instead of {len(expected)}")
    for one, two in zip(found, expected):
        if one.shape != two.shape:
            raise DiffersError(f"{tuple(one.shape)} instead of {tuple(two.shape)}")
        usable = (
            two.isfinite() if two.is_floating_point() else torch.ones_like(two, dtype=torch.bool)
        )
        if not usable.any():
            continue
        difference = (one.double() - two.double())[usable].abs().max().item()
        scale = max(two.double()[usable].abs().max().item(), 1e-6)
        if math.isnan(difference):
            return difference
        worst = max(worst, difference / scale)
    return worst


def _check_tokens(found, expected):
    """Up to where the two best tokens are nearly as good as each other."""
    for row, (one, two) in enumerate(zip(found.sequences, expected.sequences)):
        for step, scores in enumerate(expected.scores):
            at = len(two) - len(expected.scores) + step
            if not torch.equal(one[at], two[at]):
                best = scores[row].topk(2).values
                if best[0] - best[1] > 1e-3 * scores[row].abs().max():
                    raise DiffersError(f"token {step} is {one[at]} instead of {two[at]}")
                break
