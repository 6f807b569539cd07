# SPDX-License-Identifier: BSD-3-Clause
"""The models that are timed, of their real sizes and random weights, and who computes their
attention."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from libattention.integrations import torch as pytorch
from libattention.integrations import transformers as hugging_face
from torch import nn

NAME = hugging_face.register()


@dataclass
class Contestant:
    """A model ready to run under a context manager."""

    run: Callable[[], Any]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass
class Case:
    """A model and an input, and a contestant for each way to compute the same."""

    name: str
    make: Callable[[], dict[str, Contestant]]


def tokens(*shape: int, most: int = 1000) -> torch.Tensor:
    return torch.randint(1, most, shape, generator=torch.Generator().manual_seed(0))


def padding(batch: int, length: int) -> torch.Tensor:
    """Sequences from half of the length to all of it: 1 is a token."""
    lengths = torch.linspace(length // 2, length, batch).round()
    return (torch.arange(length) < lengths[:, None]).long()


def hugging(
    kind: Any, config: Any, call: Callable[[Any], Callable[[], Any]]
) -> dict[str, Contestant]:
    """eager, sdpa, sdpa answered by install(), and the attention registered with transformers."""
    torch.manual_seed(0)
    first = kind._from_config(copy.deepcopy(config), attn_implementation="eager").eval()
    made = {"eager": first}
    for name in ("sdpa", NAME):
        made[name] = kind._from_config(copy.deepcopy(config), attn_implementation=name).eval()
        made[name].load_state_dict(first.state_dict())
    return {
        "eager": Contestant(call(made["eager"])),
        "sdpa": Contestant(call(made["sdpa"])),
        "install()": Contestant(call(made["sdpa"]), pytorch.install),
        "libattention": Contestant(call(made[NAME])),
    }


def encoder_of(kind: Any, config: Any, **inputs: Any) -> dict[str, Contestant]:
    return hugging(kind, config, lambda model: lambda: model(**inputs)[0])


def bert(hidden: int, layers: int, batch: int, length: int, mask: bool) -> dict[str, Contestant]:
    config = transformers.BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=12,
        intermediate_size=4 * hidden,
    )  # fmt: skip
    inputs = {"input_ids": tokens(batch, length)}
    if mask:
        inputs["attention_mask"] = padding(batch, length)
    return encoder_of(transformers.BertModel, config, **inputs)


def vit() -> dict[str, Contestant]:
    return encoder_of(
        transformers.ViTModel, transformers.ViTConfig(), pixel_values=torch.rand(4, 3, 224, 224)
    )


def whisper() -> dict[str, Contestant]:
    config = transformers.WhisperConfig(
        d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048,
    )  # fmt: skip
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    return encoder_of(WhisperEncoder, config, input_features=torch.rand(1, 80, 3000))


def t5() -> dict[str, Contestant]:
    config = transformers.T5Config(
        d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, vocab_size=1000,
    )  # fmt: skip
    inputs = {"input_ids": tokens(8, 128), "attention_mask": padding(8, 128)}
    return encoder_of(transformers.T5EncoderModel, config, **inputs)


def llama_config() -> Any:
    """Four layers of a model of a billion parameters."""
    return transformers.LlamaConfig(
        vocab_size=1000, hidden_size=2048, intermediate_size=8192, num_hidden_layers=4,
        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=4096,
    )  # fmt: skip


def llama_prefill(length: int) -> dict[str, Contestant]:
    return encoder_of(transformers.LlamaModel, llama_config(), input_ids=tokens(1, length))


def llama_decode(length: int) -> dict[str, Contestant]:
    """One token after a cache of so many, which is cut back after each call."""

    def call(model: Any) -> Callable[[], Any]:
        cache = transformers.DynamicCache(config=model.config)
        with torch.no_grad():
            model(input_ids=tokens(1, length), past_key_values=cache)

        def step() -> Any:
            found = model(input_ids=tokens(1, 1), past_key_values=cache)[0]
            cache.crop(-1)
            return found

        return step

    return hugging(transformers.LlamaModel, llama_config(), call)


def encoder() -> dict[str, Contestant]:
    """PyTorch's own, whose fused inference takes the place of "eager"."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    plain = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).eval()
    accelerated = pytorch.accelerate(copy.deepcopy(plain))
    x, hidden = torch.rand(16, 128, 512), padding(16, 128) == 0
    calls = {
        name: lambda model=model: model(x, src_key_padding_mask=hidden)
        for name, model in (("fused", plain), ("accelerate", accelerated))
    }
    return {
        "eager": Contestant(calls["fused"]),
        "install()": Contestant(calls["fused"], pytorch.install),
        "libattention": Contestant(calls["accelerate"]),
    }


CASES = [
    Case("BERT base, 8 x 128", lambda: bert(768, 12, 8, 128, False)),
    Case("MiniLM-L6, 32 x 64, padded", lambda: bert(384, 6, 32, 64, True)),
    Case("ViT-B/16, 4 images", vit),
    Case("Whisper base, encoder", whisper),
    Case("T5 base, encoder, 8 x 128, padded", t5),
    Case("Llama 1B, 4 layers, prefill 512", lambda: llama_prefill(512)),
    Case("Llama 1B, 4 layers, prefill 2048", lambda: llama_prefill(2048)),
    Case("Llama 1B, 4 layers, decode at 2048", lambda: llama_decode(2048)),
    Case("nn.TransformerEncoder, 16 x 128, padded", encoder),
]
