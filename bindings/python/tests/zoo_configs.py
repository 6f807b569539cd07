# SPDX-License-Identifier: BSD-3-Clause
"""Tiny configurations of transformers' architectures.

No list says what a tiny configuration of each is. The default one is taken, and every size in it
whose name is known is made small. Sizes that belong together in ways that a name does not tell are
found by trying: `plans` are ways to make a configuration small, one after the other.
"""

import copy
import re
import warnings
from functools import lru_cache
from typing import NamedTuple

import transformers
from transformers.models.auto import configuration_auto, modeling_auto
from zoo_sizes import (
    DIVISOR,
    GROUPS,
    IMAGE,
    LAYERS,
    OPEN,
    RESNET,
    RULES,
    SETTLED,
    VOCABULARY,
    WIDTH,
)

_RULES = [(re.compile(pattern), size) for pattern, size in RULES]
_WIDTHS = re.compile(
    r"\w*(_dim|_rank|hidden_size|intermediate_size|_width|_hidden|channels|embedding_size|_ffn)|"
    r"d_model|d_ff|d_kv|dim|n_embd|n_inner|d_inner|\w*ffn_dim|d_head|d_latents|mamba_d_ssm|upsample_groups"
)
_HEADS = re.compile(r"\w*heads|n_head|\w*head_kv|\w*groups")
_FEW = re.compile(r"layer|depth|block|vocab|expert|position|length|window|^n_ctx$")
_TOKEN = re.compile(r"(token_id|token_index|_id|_index)s?$")
_WIDTH_LISTS = re.compile(r"hidden_sizes|embed_dims?|channels|dims$|widths")
COUNTS_OF_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
HEADS_OF_QUERIES = ("num_attention_heads", "n_head", "n_heads", "num_heads")
HEADS_OF_KEYS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "num_query_groups", "kv_heads")
CLASSES = [
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    modeling_auto.MODEL_MAPPING_NAMES,
]
# What to_dict adds, and what belongs together in one way only.
_DROPPED = re.compile(
    r"transformers_version|model_type|architectures|dtype|torch_dtype|_name_or_path|id2label|"
    r"label2id|rope_scaling|output_attentions|attn_implementation|problem_type|qk_head_dim|"
    r"_?out_features|_?out_indices|stage_names|image_embedding_size"
)


class Plan(NamedTuple):
    """A way to make a default configuration small."""

    # "small": every size has its number; "divided": widths keep their ratios, and heads their
    # number; "kept": only layers, words and the like are fewer.
    widths: str = "small"
    # Whether what is left open gets a number.
    is_filled: bool = False
    # The rule of RULES that is not followed.
    left: int | None = None


class CannotBeBuiltError(Exception):
    """Why an architecture has no tiny model here."""


def _all_plans():
    """The likeliest first."""
    for widths in ("small", "divided", "kept"):
        yield Plan(widths)
        yield Plan(widths, is_filled=True)
    for is_filled in (False, True):
        for widths in ("small", "divided"):
            for left in range(len(RULES)):
                yield Plan(widths, is_filled, left)


def plans(kind):
    """The ways to make a type small that differ."""
    seen = set()
    for plan in _all_plans():
        settings = repr(_shrunk_part(_default_settings(kind), plan))
        if settings not in seen:
            seen.add(settings)
            yield plan


@lru_cache(maxsize=4)
def _default_settings(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return transformers.AutoConfig.for_model(kind).to_dict()
        except Exception:
            return _settled_default(kind)


def _settled_default(kind):
    """Of a type whose default configuration is not valid by itself."""
    try:
        return transformers.AutoConfig.for_model(kind, **SETTLED.get(kind, {})).to_dict()
    except Exception as error:
        raise CannotBeBuiltError(f"configuration: {line(error)}") from error


def architectures():
    """{type: names of classes, the best first}, of all that the automatic classes know."""
    found = {}
    for kind in sorted(configuration_auto.CONFIG_MAPPING_NAMES):
        names = [names[kind] for names in CLASSES if kind in names]
        if names:
            known = [one if isinstance(one, str) else one[0] for one in names]
            found[kind] = tuple(dict.fromkeys(known))
    return found


def tiny_config(kind, plan):
    """A configuration of a type, made small."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            settings = copy.deepcopy(_shrunk_part(_default_settings(kind), plan))
            return transformers.AutoConfig.for_model(kind, **settings)
        except Exception as error:
            raise CannotBeBuiltError(f"configuration: {line(error)}") from error


def line(error):
    """An exception in short."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:140]}"


def _shrunk_part(settings, plan):
    """A configuration, or one inside another."""
    layers = next((settings[name] for name in COUNTS_OF_LAYERS if name in settings), None)
    if not isinstance(layers, int) or "depths" in settings:
        layers = None
    found = {}
    for name, value in settings.items():
        if _DROPPED.fullmatch(name):
            continue
        if isinstance(value, dict) and "model_type" in value:
            found[name] = _shrunk_inside(value, plan)
        elif value is None and plan.is_filled and name in OPEN:
            found[name] = OPEN[name]
        else:
            found[name] = _shrunk(name, value, layers, plan)
    found.update(_grouped(settings, found))
    found.update(_stages(settings))
    found.update(_joined(settings, found))
    found.update(_features(settings))
    found.update(SETTLED.get(settings.get("model_type"), {}))
    return found


def _shrunk_inside(settings, plan):
    kind = settings["model_type"]
    if kind == "timm_backbone":
        return {**RESNET, "out_indices": settings["out_indices"]}
    return {**_shrunk_part(settings, plan), "model_type": kind}


def _features(settings):
    """What a backbone of stages hands out, which making it small leaves alone. Of one whose layers
    are its stages it is the last ones."""
    indices = settings.get("out_indices")
    if (
        not indices
        or len(settings.get("stage_names") or ()) != len(settings.get("depths") or ()) + 1
    ):
        return {}
    return {"out_indices": indices}


def _shrunk(name, value, layers, plan):
    """What a setting becomes."""
    if isinstance(value, dict):
        if name == "per_layer_config":
            return {key: one for key, one in value.items() if int(key) < LAYERS}
        if "rope_theta" in value and plan.widths == "small":
            value = {**value, "mrope_section": _mrope_section(value)}
        return {key: _shrunk(str(key), one, layers, plan) for key, one in value.items()}
    if isinstance(value, bool):
        return value
    if isinstance(value, (list, tuple)):
        return _shrunk_list(name, list(value), layers, plan)
    return _shrunk_number(name, value, plan) if isinstance(value, int) else value


def _mrope_section(rope):
    """Of half of what is rotated of a head of 8."""
    pairs = int(4 * (rope.get("partial_rotary_factor") or 1))
    return [pairs // 4, pairs // 4, pairs - 2 * (pairs // 4)]


def _shrunk_number(name, value, plan):
    if _TOKEN.search(name):
        return min(value, VOCABULARY - 1)
    if plan.widths == "kept" and not _FEW.search(name):
        return value
    if plan.widths == "divided":
        if _HEADS.fullmatch(name):
            return value
        if _WIDTHS.fullmatch(name):
            return value // DIVISOR if value % DIVISOR == 0 else value
    for rule, (pattern, size) in enumerate(_RULES):
        if pattern.fullmatch(name):
            return value if value <= 0 or rule == plan.left else min(value, size)
    return value


def _shrunk_list(name, values, layers, plan):
    """Lists with an element for each layer keep as many of different kinds as there are layers."""
    if name == "mrope_section" and plan.widths == "small":
        return values
    if layers and len(values) == layers:
        kinds = list(dict.fromkeys(map(repr, values)))
        kept = [next(one for one in values if repr(one) == kind) for kind in kinds[:LAYERS]]
        values = (kept * LAYERS)[:LAYERS]
    if plan.widths == "kept":
        return values
    if name.endswith("image_size"):
        return [min(one, IMAGE) for one in values]
    if name in ("depths", "num_layers"):
        return [min(one, 1) if isinstance(one, int) else one for one in values]
    if plan.widths == "divided" and (_WIDTHS.fullmatch(name) or name == "mrope_section"):
        return [_shrunk_number(name, one, plan) if isinstance(one, int) else one for one in values]
    if plan.widths == "small" and _WIDTH_LISTS.search(name):
        return [min(one, WIDTH) if isinstance(one, int) else one for one in values]
    return values


def _stages(settings):
    """A number of layers that is one of stages, each of them of some depth."""
    stages = len(settings.get("depths") or ())
    return {name: stages for name in COUNTS_OF_LAYERS if stages and settings.get(name) == stages}


def _joined(settings, found):
    """A head of queries is what is rotated of it and what is not."""
    parts = ("qk_nope_head_dim", "qk_rope_head_dim")
    if not all(isinstance(settings.get(name), int) for name in parts):
        return {}
    if settings.get("head_dim") != sum(settings[name] for name in parts):
        return {}
    return {"head_dim": sum(found[name] for name in parts)}


def _grouped(settings, found):
    """Fewer heads of keys than of queries only where that is the default."""
    heads = next((one for one in HEADS_OF_QUERIES if one in settings), None)
    if heads is None or found[heads] == settings[heads]:
        return {}
    return {
        name: found[heads] if settings[name] == settings[heads] else min(GROUPS, settings[name])
        for name in HEADS_OF_KEYS
        if isinstance(settings.get(name), int)
    }
