# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch's modules and Hugging Face's models in bfloat16 and float16, computed by libattention,
against the same parameters in float64."""

import copy
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import transformers
from torch import nn
from torch_cases import masks_of, small

from libattention.integrations import torch as integration
from libattention.integrations import transformers as models

NAME = models.register()
ROUNDING = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


# ---- nn.MultiheadAttention ----


def added(mask):
    """To the scores, in float64."""
    if mask.dtype != torch.bool:
        return mask.double()
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask, -torch.inf)


def exact_attention(module, inputs, masks):
    """In float64, of projections that PyTorch has rounded to the module's type: the output, the
    weights, and by how much an output may differ whose heads and sums are rounded once each."""
    weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    heads = [
        nn.functional.linear(*given).unflatten(-1, (4, -1)).transpose(1, 2).double()
        for given in zip(inputs, weights, module.in_proj_bias.chunk(3))
    ]
    scores = heads[0] @ heads[1].mT * heads[0].shape[-1] ** -0.5
    padding, pairs = masks
    if padding is not None:
        scores = scores + added(padding)[:, None, None]
    if pairs is not None:
        scores = scores + (added(pairs) if pairs.dim() == 2 else added(pairs).unflatten(0, (3, 4)))
    weights = scores.softmax(-1)
    joined = (weights @ heads[2]).transpose(1, 2).flatten(2)
    rounding = ROUNDING[inputs[0].dtype]
    # Where kernels multiply pairs of bfloat16, weights are rounded, too.
    of_weights = rounding if inputs[0].dtype == torch.bfloat16 else 0
    of_heads = rounding * joined.abs().max() + of_weights * heads[2].abs().max() + 1e-5
    out = module.out_proj.weight.double()
    exact = joined @ out.mT + module.out_proj.bias.double()
    return exact, weights, of_heads * out.abs().sum(1) + rounding * exact.abs() + 1e-5


@pytest.mark.parametrize("masks", sorted(masks_of(1, 1, 1, 1).keys() - {"nothing seen"}))
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_accelerated_modules(masks, need_weights, batch_first, dtype):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(16, 4, kdim=12, vdim=10, batch_first=batch_first)
    module = module.eval().to(dtype)
    inputs = [torch.randn(one, dtype=dtype) for one in ((3, 5, 16), (3, 7, 12), (3, 7, 10))]
    padding, pairs = (
        one if one is None or one.dtype == torch.bool else one.to(dtype)
        for one in masks_of(3, 4, 5, 7)[masks]
    )
    given = inputs if batch_first else [one.transpose(0, 1) for one in inputs]
    options = {"key_padding_mask": padding, "attn_mask": pairs, "need_weights": need_weights}
    with torch.no_grad():
        exact, weights, limit = exact_attention(module, inputs, (padding, pairs))
        output, found = integration.accelerate(module)(
            *given, **options, average_attn_weights=False
        )
    assert sum(integration.survey(module).computed.values()) == 1
    assert output.dtype == dtype
    output = output if batch_first else output.transpose(0, 1)
    assert ((output.double() - exact).abs() <= limit).all()
    assert (found is None) == (not need_weights)
    if need_weights:
        assert found.dtype == dtype
        of_weights = ROUNDING[dtype] * weights + 2**-25 + 1e-5
        assert ((found.double() - weights).abs() <= of_weights).all()


# ---- Hugging Face transformers ----


CAPPED = small(
    transformers.Gemma2Config, num_key_value_heads=2, head_dim=8, sliding_window=4,
    attn_logit_softcapping=2.0, query_pre_attn_scalar=2,
)  # fmt: skip
GROUPED = small(transformers.LlamaConfig, num_key_value_heads=2)


def three_of(kind, config, dtype):
    """A model by libattention and by PyTorch in a type, and with the same parameters in float64."""
    torch.manual_seed(0)
    theirs = "sdpa" if kind._supports_sdpa else "eager"
    found = [
        kind._from_config(copy.deepcopy(config), attn_implementation=name).eval()
        for name in (NAME, theirs, "eager")
    ]
    # Scores that are all alike would hide what is wrong.
    state = {
        name: (3 * one if one.dim() > 1 else one).to(dtype)
        for name, one in found[0].state_dict().items()
    }
    for model, wanted in zip(found, (dtype, dtype, torch.float64)):
        model.load_state_dict(state)
        model.to(wanted)
    return found


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (transformers.LlamaForCausalLM, GROUPED),
        (transformers.BertModel, small(transformers.BertConfig)),
        (transformers.Gemma2ForCausalLM, CAPPED),
        (transformers.T5EncoderModel, small(transformers.T5Config)),
    ],
)
def test_models_are_as_exact_as_with_pytorchs_attention(kind, config, dtype):
    """What goes into a layer's attention and what comes out is rounded here as there, and in
    between nothing that is not rounded there. Of errors that are independent and of one size the
    root of their mean square is alike; were attention's counted twice, at most sqrt(2) times it."""
    found = three_of(kind, config, dtype)
    tokens, mask = torch.randint(1, 100, (2, 9)), torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0  # so that every row sees something: "eager" makes NaN of others in float64
    with torch.no_grad():
        results = [model(tokens, attention_mask=mask) for model in found]
    ours, theirs, exact = (
        (one.logits if hasattr(one, "logits") else one.last_hidden_state)[mask.bool()]
        for one in results
    )
    assert (ours.dtype, theirs.dtype, exact.dtype) == (dtype, dtype, torch.float64)
    counts = [one for one in models.report(found[0]).values() if one.computed]
    assert [(one.computed, one.handed_back) for one in counts] == [(1, {})] * 2
    errors = [(one.double() - exact).square().mean().sqrt().item() for one in (ours, theirs)]
    print(f"{kind.__name__}, {dtype}: error {errors[0]:.2e}, PyTorch's {errors[1]:.2e}")
    assert errors[0] <= 2**0.5 * errors[1]
