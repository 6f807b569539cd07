# SPDX-License-Identifier: BSD-3-Clause
"""The example that is an engine (examples/engine): its tokens are those that transformers
generates greedily with the same weights.

ATTENTION_ENGINE names the program.
"""

import json
import os
import pathlib
import re
import subprocess

import pytest
import torch

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 211,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
MODELS = {
    "Llama": {},
    "Llama, other head_dim, tied": {"head_dim": 20, "tie_word_embeddings": True},
    "Llama, rope_theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "Mistral": {"sliding_window": None},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
}
NUM_TOKENS = 24
# Shorter than a page of the cache, a whole one, and more than one.
PROMPT_LENGTHS = (3, 16, 45, 1)


def run_engine(*words):
    program = os.environ.get("ATTENTION_ENGINE", "")
    if not pathlib.Path(program).is_file():
        pytest.skip("the engine was not built: ATTENTION_ENGINE names no program")
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)


def make_model(name, **options):
    kind = name.split(",")[0]
    config = getattr(transformers, kind + "Config")(**{**SIZES, **MODELS.get(name, {}), **options})
    torch.manual_seed(3)
    model = getattr(transformers, kind + "ForCausalLM")(config).eval()
    with torch.no_grad():  # As they begin, biases are 0 and norms 1.
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * (0.25 if weight.dim() > 1 else 0.1))
            weight += 1.0 if weight.dim() == 1 else 0.0
    return model


def make_prompts():
    generator = torch.Generator().manual_seed(5)
    return [
        torch.randint(0, SIZES["vocab_size"], (1, n), generator=generator) for n in PROMPT_LENGTHS
    ]


def words_of(prompts):
    return [",".join(map(str, prompt[0].tolist())) for prompt in prompts]


def tokens_printed(text):
    lines = re.findall(r"^sequence \d+, after \d+: ([\d ]+)$", text, re.MULTILINE)
    return [[int(word) for word in line.split()] for line in lines]


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_those_of_transformers(name, tmp_path):
    model = make_model(name)
    model.save_pretrained(tmp_path)
    prompts = make_prompts()
    ran = run_engine("--cache", "float32", "--tokens", NUM_TOKENS, tmp_path, *words_of(prompts))
    assert ran.returncode == 0, ran.stderr
    expected = [
        model.generate(prompt, max_new_tokens=NUM_TOKENS, do_sample=False)[
            0, prompt.shape[1] :
        ].tolist()
        for prompt in prompts
    ]
    assert tokens_printed(ran.stdout) == expected


def test_weights_of_16_bits_in_several_files(tmp_path):
    model = make_model("Llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    prompts = make_prompts()
    ran = run_engine("--cache", "float32", "--tokens", 8, tmp_path, *words_of(prompts))
    expected = [
        model.float()
        .generate(prompt, max_new_tokens=8, do_sample=False)[0, prompt.shape[1] :]
        .tolist()
        for prompt in prompts
    ]
    assert tokens_printed(ran.stdout) == expected, ran.stderr


def test_integers_in_the_cache_are_told_beside_floats(tmp_path):
    """A rounded cache may lead elsewhere, but not from the first token on."""
    make_model("Llama").save_pretrained(tmp_path)
    prompts = make_prompts()
    ran = run_engine("--tokens", NUM_TOKENS, tmp_path, *words_of(prompts))
    assert ran.returncode == 0, ran.stderr
    tokens = tokens_printed(ran.stdout)
    exact, rounded = tokens[: len(prompts)], tokens[len(prompts) :]
    alike = sum(
        next(
            (i for i, pair in enumerate(zip(*rows, strict=True)) if pair[0] != pair[1]), NUM_TOKENS
        )
        for rows in zip(exact, rounded, strict=True)
    )
    assert f"int8 as float32 for {alike} of {NUM_TOKENS * len(prompts)} tokens" in ran.stdout
    assert alike > 0
    bytes_of = [float(size) for size in re.findall(r"cache, ([\d.]+) KiB", ran.stdout)]
    assert bytes_of[1] < 0.5 * bytes_of[0]


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("Gemma", {}, "model_type: not one that this program computes"),
        ("Mistral", {"sliding_window": 64}, "sliding_window: windows are not computed"),
        (
            "Llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "rope_type: not one that this program computes",
        ),
        ("Llama", {"hidden_act": "gelu"}, "hidden_act: not one that this program computes"),
        ("Llama", {"attention_bias": True}, "o_proj.bias: a weight that this program does not"),
        ("Llama", {"mlp_bias": True}, "_proj.bias: a weight that this program does not"),
    ],
)
def test_what_would_change_numbers_is_refused(name, options, line, tmp_path):
    make_model(name, **options).save_pretrained(tmp_path)
    ran = run_engine(tmp_path, "1,2")
    assert ran.returncode == 1
    assert line in ran.stderr


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: partial rotations"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling: scaled positions"),
        ({"num_hidden_layers": 2}, "model.layers.2."),
        ({"num_key_value_heads": 4}, "num_key_value_heads: expected a divisor"),
        ({"intermediate_size": 79}, "not of the shape that config.json says"),
        ({"hidden_size": "48"}, "hidden_size: expected a whole number"),
    ],
)
def test_a_config_that_says_something_else_is_refused(change, line, tmp_path):
    make_model("Llama").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    ran = run_engine(tmp_path, "1,2")
    assert ran.returncode == 1
    assert line in ran.stderr


def test_a_head_that_is_missing_is_refused(tmp_path):
    make_model("Llama, other head_dim, tied").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False}))
    assert "the checkpoint has no lm_head.weight" in run_engine(tmp_path, "1,2").stderr


def test_words_that_do_not_fit_are_refused(tmp_path):
    make_model("Llama").save_pretrained(tmp_path)
    assert "prompt 0: token 211, of a vocabulary of 211" in run_engine(tmp_path, "3,211").stderr
    assert "no JSON file" in run_engine(tmp_path / "missing", "1").stderr
    for words in (
        ["--tokens", "0"],
        ["--cache", "int4"],
        [tmp_path],
        [tmp_path, "1,,2"],
        [tmp_path, "x"],
    ):
        ran = run_engine(*words)
        assert ran.returncode == 1
        assert "usage: engine" in ran.stderr
