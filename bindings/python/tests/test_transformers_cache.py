# SPDX-License-Identifier: BSD-3-Clause
"""Models of transformers generate with AttentionCache what they do with DynamicCache."""

import copy
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import transformers
from torch_cases import small
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

import libattention
from libattention import CacheFullError
from libattention.integrations import transformers as integration
from libattention.integrations.transformers import AttentionCache

NAME = integration.register()
OTHER = "eager"  # an implementation that knows nothing of libattention
GROUPED = {"num_key_value_heads": 2}
WINDOWED = {**GROUPED, "sliding_window": 5}
CONFIGS = {
    "llama": small(transformers.LlamaConfig, **GROUPED),
    "qwen3": small(transformers.Qwen3Config, **GROUPED, head_dim=16),
    "mistral": small(transformers.MistralConfig, **WINDOWED),
    "gemma2": small(transformers.Gemma2Config, **WINDOWED, head_dim=8),
    "gemma3": small(
        transformers.Gemma3TextConfig,
        **WINDOWED,
        head_dim=8,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "lfm2": small(transformers.Lfm2Config, **GROUPED, layer_types=["conv", "full_attention"]),
}
MODELS = [(name, implementation) for name in CONFIGS for implementation in (NAME, OTHER)]
PLAIN = ("llama", NAME)
GREEDY = {"do_sample": False, "max_new_tokens": 12, "output_logits": True}


def model_of(name, implementation=NAME, **options):
    """Random weights, the same for both implementations, and scores that are not all alike."""
    config = copy.deepcopy(CONFIGS[name])
    kind = transformers.AutoModelForCausalLM._model_mapping[type(config)]
    torch.manual_seed(0)
    config.update(options)
    model = kind._from_config(config, attn_implementation=implementation).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    model.generation_config.update(eos_token_id=None, pad_token_id=0)
    return model


@pytest.fixture(scope="module")
def model(request):
    return model_of(*request.param)


every_model = pytest.mark.parametrize("model", MODELS, indirect=True, ids="-".join)
windowed = pytest.mark.parametrize(
    "model", [("mistral", NAME), ("gemma3", OTHER)], indirect=True, ids="-".join
)
plain = pytest.mark.parametrize("model", [PLAIN], indirect=True, ids="-".join)


def padded_batch():
    """Longer than a window; the first sequence has padding before it."""
    tokens = torch.randint(1, 100, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0
    return {"input_ids": tokens, "attention_mask": mask}


def generated(model, cache, inputs, **options):
    """Tokens, and logits where it is one of the ways that give them."""
    given = {**GREEDY, **options}
    return model.generate(**inputs, cache=cache, return_dict_in_generate=True, **given)


def assert_alike(found, expected):
    assert torch.equal(found.sequences, expected.sequences)
    for one, two in zip(found.logits, expected.logits, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


# ---- tokens ----


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_are_what_a_configuration_says(name):
    ours, theirs = AttentionCache(CONFIGS[name]), DynamicCache(config=CONFIGS[name])
    for fact in ("is_sliding", "is_linear", "is_dummy", "is_compileable", "is_croppable"):
        assert getattr(ours, fact) == getattr(theirs, fact)
    assert [one.get_max_length() for one in ours.layers] == [
        one.get_max_length() for one in theirs.layers
    ]


@every_model
def test_greedy_tokens_with_padding(model):
    inputs = padded_batch()
    expected = generated(model, DynamicCache(config=model.config), inputs)
    cache = AttentionCache(model.config)
    assert_alike(generated(model, cache, inputs), expected)
    assert cache.get_seq_length() == 9 + 12 - 1


@plain
def test_a_cache_that_knows_no_model_keeps_all_rows(model):
    inputs = padded_batch()
    expected = generated(model, DynamicCache(), inputs)
    assert_alike(generated(model, AttentionCache(), inputs), expected)
    mistral = model_of("mistral")
    cache = AttentionCache()
    expected = generated(mistral, DynamicCache(config=mistral.config), inputs)
    assert_alike(generated(mistral, cache, inputs), expected)
    assert cache.layers[0].keys.shape[2] == 20


@pytest.mark.parametrize(
    "model", [PLAIN, ("gemma3", OTHER), ("lfm2", NAME)], indirect=True, ids="-".join
)
def test_beams(model):
    inputs, options = padded_batch(), {"num_beams": 3, "num_return_sequences": 2}
    expected = generated(model, DynamicCache(config=model.config), inputs, **options)
    found = generated(model, AttentionCache(model.config), inputs, **options)
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(found.sequences_scores, expected.sequences_scores)


@windowed
@pytest.mark.parametrize("drafts", ["lookup", "assistant"])
def test_proposed_tokens_are_taken_back(model, drafts):
    inputs = {"input_ids": padded_batch()["input_ids"][1:]}
    expected = generated(model, DynamicCache(config=model.config), inputs)
    options = {"prompt_lookup_num_tokens": 3}
    if drafts == "assistant":
        options = {"assistant_model": model_of("llama", OTHER, num_hidden_layers=1)}
    cache = AttentionCache(model.config)
    found = generated(model, cache, inputs, **options)
    assert_alike(found, expected)
    assert cache.get_seq_length() < found.sequences.shape[1]


@windowed
def test_a_conversation_goes_on(model):
    inputs = padded_batch()
    results = []
    for cache in (DynamicCache(config=model.config), AttentionCache(model.config)):
        first = generated(model, cache, inputs).sequences
        more = torch.cat([first, inputs["input_ids"][:, :7]], 1)
        mask = torch.cat([inputs["attention_mask"], torch.ones(2, 19, dtype=torch.long)], 1)
        results.append(generated(model, cache, {"input_ids": more, "attention_mask": mask}))
    assert_alike(results[1], results[0])


@windowed
def test_a_prompt_in_chunks(model):
    inputs = padded_batch()
    expected = generated(model, DynamicCache(config=model.config), inputs)
    found = generated(model, AttentionCache(model.config), inputs, prefill_chunk_size=4)
    assert_alike(found, expected)


@windowed
def test_a_copy_goes_its_own_way(model):
    prefix, inputs = padded_batch()["input_ids"][:, :6], padded_batch()["input_ids"]
    expected = generated(model, DynamicCache(config=model.config), {"input_ids": inputs})
    cache = AttentionCache(model.config)
    with torch.inference_mode():
        model(prefix, cache=cache)
    for _ in range(2):
        found = generated(model, copy.deepcopy(cache), {"input_ids": inputs})
        assert_alike(found, expected)
    assert cache.get_seq_length() == 6
    with torch.no_grad():  # memory of inference mode is written outside of it
        model(inputs[:, 6:], cache=cache)
    assert cache.get_seq_length() == 9


@pytest.mark.parametrize("dtype", [None, torch.int8])
@pytest.mark.parametrize("implementation", [NAME, OTHER])
def test_an_encoder_decoder_model_has_two(dtype, implementation):
    config = transformers.BartConfig(
        vocab_size=100, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48,
        max_position_embeddings=64, forced_eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    kind = transformers.BartForConditionalGeneration
    model = kind._from_config(config, attn_implementation=implementation).eval()
    model.generation_config.update(eos_token_id=None, pad_token_id=0)
    inputs = padded_batch()
    expected = generated(model, EncoderDecoderCache(DynamicCache(), DynamicCache()), inputs)
    caches = AttentionCache(dtype=dtype), AttentionCache(dtype=dtype)
    found = generated(model, EncoderDecoderCache(*caches), inputs)
    assert [one.get_seq_length() for one in caches] == [12, 9]
    if dtype is None:
        assert_alike(found, expected)


def test_a_model_that_makes_the_cache_of_its_cross_attention_itself():
    part = {
        "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6,
    }  # fmt: skip
    one = transformers.T5GemmaModuleConfig(**part)
    config = transformers.T5GemmaConfig(encoder=one, decoder=one, vocab_size=100)
    torch.manual_seed(0)
    kind = transformers.T5GemmaForConditionalGeneration
    model = kind._from_config(config, attn_implementation=NAME).eval()
    model.generation_config.update(
        bos_token_id=1, eos_token_id=None, pad_token_id=0, decoder_start_token_id=1
    )
    inputs = padded_batch()
    expected = generated(model, EncoderDecoderCache(DynamicCache(), DynamicCache()), inputs)
    cache = EncoderDecoderCache(AttentionCache(), AttentionCache())
    assert_alike(generated(model, cache, inputs), expected)
    assert isinstance(cache.cross_attention_cache, AttentionCache)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_whoever_attends_meets_the_numbers_that_are_stored(name, dtype):
    # With one layer the rows that are stored do not depend on who attends.
    one_layer = {"num_hidden_layers": 1, "layer_types": ["full_attention"]}
    inputs = padded_batch()
    ours, others = (model_of(name, one, **one_layer) for one in (NAME, OTHER))
    caches = [AttentionCache(one.config, dtype=dtype) for one in (ours, others)]
    found, expected = (
        generated(model, cache, inputs) for model, cache in zip((ours, others), caches)
    )
    assert_alike(found, expected)
    rows = [cache.layers[0] for cache in caches]
    assert torch.equal(rows[0].keys[:], rows[1].keys[:])
    plain = generated(ours, DynamicCache(), inputs)
    assert not torch.equal(found.logits[-1], plain.logits[-1])


def test_calls_of_libattention_are_counted_and_read_in_place(monkeypatch):
    model, given = model_of("llama"), []
    original = integration.scaled_dot_product_attention

    def noting(*arguments, **options):
        given.append(options.get("kv"))
        return original(*arguments, **options)

    monkeypatch.setattr(integration, "scaled_dot_product_attention", noting)
    cache = AttentionCache(model.config, dtype=torch.int8)
    generated(model, cache, padded_batch())
    assert len(given) == 2 * 12
    assert all(one.key.dtype == torch.int8 for one in given)
    memory = cache.layers[1].keys.stored
    assert given[-1].key.data_ptr() == memory.data_ptr()
    assert {one.handed_back == {} for one in integration.report(model).values()} == {True}


# ---- refusals ----


@plain
def test_gradients_are_refused(model):
    cache = AttentionCache(model.config)
    with pytest.raises(libattention.Error, match=r"^key: requires grad, .* torch.no_grad"):
        model(padded_batch()["input_ids"], cache=cache)
    with torch.no_grad():
        model(padded_batch()["input_ids"][:1], cache=cache)  # another batch: nothing was kept
    assert cache.get_seq_length() == 9


@plain
def test_a_cache_that_is_full_says_so_and_stays(model):
    inputs = padded_batch()
    cache = AttentionCache(model.config, max_length=16)
    assert cache.get_max_length() == 16
    with pytest.raises(CacheFullError, match=r"^cache: full: sequence 0 has 16 rows of 16, and"):
        generated(model, cache, inputs)
    assert cache.get_seq_length() == 16
    cache.crop(-7)
    more = {name: torch.cat([one, one[:, -1:]], 1) for name, one in inputs.items()}
    with torch.no_grad():
        step = {"input_ids": more["input_ids"][:, -1:], "attention_mask": more["attention_mask"]}
        positions = more["attention_mask"].cumsum(1).sub(1).clamp(min=0)  # as generate counts
        found = model(**step, position_ids=positions[:, -1:], cache=cache).logits[:, -1]
        expected = model(**more, position_ids=positions).logits[:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_a_cache_cannot_be_is_refused():
    with pytest.raises(libattention.Error, match=r"^dtype: expected .*, got float8_e4m3fn"):
        AttentionCache(dtype=torch.float8_e4m3fn)
    with pytest.raises(libattention.Error, match=r"^max_length: expected 1 or more, got 0"):
        AttentionCache(max_length=0)
    with pytest.raises(libattention.Error, match=r"^offloading: expected False, since all rows"):
        AttentionCache(offloading=True)
    config = small(transformers.LlamaConfig, layer_types=["full_attention", "indexed_attention"])
    with pytest.raises(libattention.Error, match=r"^config: layer 1 is of type indexed_attention"):
        AttentionCache(config)


def test_a_compiled_function_leaves_its_graph_to_store():
    cache, rows = AttentionCache(), torch.randn(1, 2, 3, 8)

    @torch.compile(backend="eager")
    def stored_twice(key):
        cache.update(key * 2, key, 0)
        return cache.update(key, key * 3, 0)

    with torch.no_grad():
        key, value = stored_twice(rows)
    assert torch.equal(key, torch.cat([rows * 2, rows], 2))
    assert torch.equal(value, torch.cat([rows, rows * 3], 2))
