# SPDX-License-Identifier: BSD-3-Clause
"""Tiny random models of transformers' architectures, and inputs for them.

No list says what a tiny configuration of each is. The default one is taken, and every size in it
whose name is known is made small.
"""

import re
import warnings

import torch
import transformers
from transformers.models.auto import configuration_auto, modeling_auto

LAYERS = 2
WIDTH, HEADS, GROUPS = 32, 4, 2
VOCABULARY = 128
IMAGE, PATCH = 32, 8
MOST_PARAMETERS = 30_000_000

# The first that matches a name says what becomes of a whole number above it.
SIZES = [
    (r"(\w*vocab\w*|num_classes|num_labels|codebook_size)", VOCABULARY),
    (r"num_feat_extract_layers", 7),
    (r"(mamba_d_head|mamba_head_dim)$", 16),
    (r"\w*heads|n_head", HEADS),
    (r"(num_\w*layers|n_layers?|\w*_layers|depth|num_blocks|layers)$", LAYERS),
    (r"(qk_nope_head_dim|qk_rope_head_dim|v_head_dim|head_dim|d_kv|kv_channels|head_size)$", 8),
    (r"(\w*lora_rank|index_head_dim|dt_rank|time_step_rank)$", 16),
    (r"(num_experts_per_tok|moe_topk|top_k_experts|experts_per_token|num_selected|moe_k)", 2),
    (r"(n_routed_experts|num_experts|num_local_experts|moe_num_experts|num_routed_experts)$", 4),
    (r"(n_group|topk_group|n_shared_experts|num_shared_experts)$", 1),
    (r"(sliding_window|local_attention|attention_window|attention_chunk_size|window_size)$", 4),
    (r"(max_\w*position\w*|n_positions|n_ctx|max_seq_len\w*|max_\w*length|seq_length)$", 64),
    (r"(intermediate_size|\w*ffn\w*|n_inner|d_ff|mlp_hidden\w*|d_inner|feed_forward\w*)$", 48),
    (r"(d_model|\w*hidden_size|hidden_dim|embed_dim|embedding_size|n_embd|dim)$", WIDTH),
    (r"(\w*_dim|\w*_hidden|\w*_width|projection_size|word_embed\w*|\w*_channels_list)$", WIDTH),
    (r"(image_size|img_size|\w*image_size)$", IMAGE),
    (r"(patch_size|\w*patch_size)$", PATCH),
    (r"(num_queries|num_query_tokens|query_length|num_latents|n_latents|resampler_n_latents)$", 4),
    (r"(mamba_n_groups|n_groups|ssm_\w*|state_size|mamba_d_state)$", 8),
    (r"(num_mel_bins|n_mels|feature_size|input_feat_per_channel)$", 16),
]  # fmt: skip
HEADS_OF_QUERIES = ("num_attention_heads", "n_head", "n_heads", "num_heads")
HEADS_OF_KEYS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "num_query_groups", "kv_heads")
_SIZES = [(re.compile(pattern), size) for pattern, size in SIZES]
_TOKEN = re.compile(r"(token_id|token_index|_id|_index)s?$")
CLASSES = [
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    modeling_auto.MODEL_MAPPING_NAMES,
]


class CannotBeBuiltError(Exception):
    """Why an architecture has no tiny model here."""


def architectures():
    """{type: names of classes, the best first}, of all that the automatic classes know."""
    found = {}
    for kind in sorted(configuration_auto.CONFIG_MAPPING_NAMES):
        names = [names[kind] for names in CLASSES if kind in names]
        if names:
            known = [one if isinstance(one, str) else one[0] for one in names]
            found[kind] = tuple(dict.fromkeys(known))
    return found


def shrunk(name, value, layers, is_gentle):
    """What a setting of a default configuration becomes. Gently, widths are left alone."""
    if isinstance(value, dict):
        if name == "per_layer_config":
            return {key: one for key, one in value.items() if int(key) < LAYERS}
        if "rope_theta" in value and not is_gentle:
            value = {**value, "mrope_section": []}
        return {key: shrunk(key, one, layers, is_gentle) for key, one in value.items()}
    if isinstance(value, bool):
        return value
    if isinstance(value, (list, tuple)):
        return _shrunk_list(name, list(value), layers, is_gentle)
    if isinstance(value, int):
        if _TOKEN.search(name):
            return min(value, VOCABULARY - 1)
        if is_gentle and not _GENTLE.search(name):
            return value
        for pattern, size in _SIZES:
            if pattern.fullmatch(name):
                return min(value, size) if value > 0 else value
    return value


def _shrunk_list(name, values, layers, is_gentle):
    """Lists with an element for each layer keep as many of different kinds as there are layers."""
    if name == "mrope_section" and not is_gentle:
        return [1, 1, 2]  # of half a head
    if layers and len(values) == layers:
        kinds = list(dict.fromkeys(map(repr, values)))
        kept = [next(one for one in values if repr(one) == kind) for kind in kinds[:LAYERS]]
        values = (kept * LAYERS)[:LAYERS]
    if is_gentle:
        return values
    if re.search(r"hidden_sizes|embed_dims|channels|dims$|widths", name):
        return [min(one, WIDTH) if isinstance(one, int) else one for one in values]
    if name in ("depths", "num_layers"):
        return [min(one, 1) if isinstance(one, int) else one for one in values]
    return values


def tiny_config(kind, is_gentle):
    """A configuration of a type with everything small, or gently with few layers and words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            default = transformers.AutoConfig.for_model(kind)
            settings = {**_shrunk_config(default.to_dict(), is_gentle), **MISSING.get(kind, {})}
            return type(default)(**settings)
        except Exception as error:
            raise CannotBeBuiltError(f"configuration: {_line(error)}") from error


# What to_dict adds, and what belongs together in one way only.
_DROPPED = re.compile(
    r"transformers_version|model_type|architectures|dtype|torch_dtype|_name_or_path|id2label|"
    r"label2id|rope_scaling|output_attentions|attn_implementation|problem_type|qk_head_dim|"
    r"_?out_features|_?out_indices|stage_names"
)
_GENTLE = re.compile(r"layer|depth|block|vocab|expert|position|length|window|^n_ctx$")
# Settings without which a default configuration makes no model.
MISSING = {
    "esm": {"vocab_size": VOCABULARY, "pad_token_id": 1, "mask_token_id": 32},
    "autoformer": {"prediction_length": 4},
    "informer": {"prediction_length": 4},
    "time_series_transformer": {"prediction_length": 4},
    "nemotron": {"num_key_value_heads": 2},
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
}


def _shrunk_config(settings, is_gentle):
    layers = next(
        (
            settings[key]
            for key in ("num_hidden_layers", "n_layer", "num_layers")
            if key in settings
        ),
        None,
    )
    found = {}
    for name, value in settings.items():
        if _DROPPED.fullmatch(name):
            continue
        if isinstance(value, dict) and "model_type" in value:
            part = _shrunk_config(value, is_gentle)
            found[name] = {**part, "model_type": value["model_type"]}
        else:
            count = layers if isinstance(layers, int) else None
            found[name] = shrunk(name, value, count, is_gentle)
    return {**found, **_grouped(settings, found)}


def _grouped(settings, found):
    """Fewer heads of keys than of queries only where that is the default."""
    heads = next((one for one in HEADS_OF_QUERIES if one in settings), None)
    return {
        name: found[heads] if settings[name] == settings[heads] else min(GROUPS, settings[name])
        for name in HEADS_OF_KEYS
        if heads is not None and isinstance(settings.get(name), int)
    }


def tiny_reference(kind, class_name, is_gentle):
    """A random model with "eager"."""
    try:
        model_class = getattr(transformers, class_name)
        with torch.device("meta"):
            model = model_class(tiny_config(kind, is_gentle))
        size = sum(one.numel() for one in model.parameters())
    except CannotBeBuiltError:
        raise
    except Exception as error:
        raise CannotBeBuiltError(f"model: {_line(error)}") from error
    if size > MOST_PARAMETERS:
        raise CannotBeBuiltError(f"{size / 1e6:.0f} million parameters are left")
    try:
        torch.manual_seed(0)
        config = tiny_config(kind, is_gentle)
        model = model_class._from_config(config, attn_implementation="eager").eval()
        _stir(model)
    except Exception as error:
        raise CannotBeBuiltError(f"model: {_line(error)}") from error
    return model.float()


def twin(reference, kind, is_gentle, name):
    """The same model with another attention."""
    config = tiny_config(kind, is_gentle)
    torch.manual_seed(0)
    model = type(reference)._from_config(config, attn_implementation=name).eval().float()
    model.load_state_dict(reference.state_dict(), strict=False)
    _copy_buffers(reference, model)
    return model


def _stir(model):
    """Scores that are all alike would hide a mask that is not there."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "sinks" in name:
                parameter.normal_()
            elif parameter.dim() > 1 and parameter.is_floating_point():
                parameter.nan_to_num_().mul_(3)


def _copy_buffers(one, other):
    with torch.no_grad():
        theirs = dict(one.named_buffers())
        for name, buffer in other.named_buffers():
            if name in theirs and theirs[name].shape == buffer.shape:
                buffer.copy_(theirs[name])


def _line(error):
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:140]}"


def inputs_of(model):
    """Inputs that may suit a model, the likeliest first."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (2, 12), generator=generator)
    ids[:, -1] = VOCABULARY - 1  # which many take for the text's end
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    text = {"input_ids": ids, "attention_mask": mask}
    target = {"decoder_input_ids": ids[:, :7]}

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    main = model.main_input_name
    main = main if isinstance(main, str) else main[0]
    images = [{"pixel_values": noise(*shape)} for shape in _image_shapes(model.config)]
    sounds = [{main: noise(*shape)} for shape in _sound_shapes(model.config)]
    if main == "input_ids":
        found = [{**text, **target}] if model.config.is_encoder_decoder else [text]
        found += [{**text, **target}, {"input_ids": ids}]
        found += [{**text, "bbox": torch.zeros(2, 12, 4, dtype=torch.long)}]
        found += [{**text, **one} for one in images]
        return [*found, *({**text, "input_features": one[main]} for one in sounds)]
    if main == "pixel_values":
        return [{**one, **text} for one in images] + images
    spoken = [{**one, **target} for one in sounds]
    return [*spoken, *sounds] if model.config.is_encoder_decoder else [*sounds, *spoken]


def _parts(config):
    """A configuration, and those inside it."""
    yield config
    for name in getattr(config, "sub_configs", ()):
        if getattr(config, name, None) is not None:
            yield from _parts(getattr(config, name))


def _image_shapes(config):
    sizes = [getattr(one, "image_size", None) for one in _parts(config)]
    sizes = [(one, one) if isinstance(one, int) else one for one in sizes]
    sides = [tuple(one) for one in sizes if isinstance(one, (list, tuple)) and len(one) == 2]
    sides += [(IMAGE, IMAGE), (64, 64), (224, 224)]
    counts = [getattr(one, "num_channels", None) for one in _parts(config)]
    channels = next((one for one in counts if isinstance(one, int)), 3)
    sides = list(dict.fromkeys(sides))
    frames = getattr(config, "num_frames", 2)
    shapes = [(2, channels, *side) for side in sides]
    return shapes + [(2, frames, channels, *side) for side in sides[:2]]


def _sound_shapes(config):
    bins = [getattr(one, "num_mel_bins", None) for one in _parts(config)]
    bins = next((one for one in bins if isinstance(one, int)), 16)
    return [
        (2, bins, 128),
        (2, 128, bins),
        (2, bins, 64),
        (2, 4000),
        (2, 1, 4000),
        (2, 64, WIDTH),
        (2, 64, 128),
        (2, 32, 1),
    ]
