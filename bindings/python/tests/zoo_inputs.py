# SPDX-License-Identifier: BSD-3-Clause
"""Inputs for tiny models of transformers: by what a model says is its main one, and by the names of
what its forward takes.
"""

import inspect
import math

import torch
from zoo_sizes import IMAGE, VOCABULARY, WIDTH

BATCH, TOKENS = 2, 12
# Patches of an image, in time, height and width, where inputs are given as patches.
GRID = (1, 4, 4)
FRAMES = 128


def inputs_of(model):
    """Inputs that may suit a model, the likeliest first."""
    parameters = inspect.signature(type(model).forward).parameters
    takes_all = any(one.kind == one.VAR_KEYWORD for one in parameters.values())
    known = Maker(model.config)
    needed = [
        name
        for name, one in parameters.items()
        if one.default is one.empty and one.kind == one.POSITIONAL_OR_KEYWORD
    ]
    seen = []
    for found in _candidates(model, known, parameters):
        found = {**known.of(needed, found), **found}
        if not takes_all:
            found = {name: one for name, one in found.items() if name in parameters}
        forms = {name: (one.dtype, one.shape, int(one.sum())) for name, one in found.items()}
        if forms not in seen:
            seen.append(forms)
            yield found


def _candidates(model, known, parameters):
    main = model.main_input_name
    main = main if isinstance(main, str) else main[0]
    text = known.text()
    target = {"decoder_input_ids": known.ids()[:, :7]}
    images, sounds = known.images(), [{main: one} for one in known.sounds()]
    if main == "input_ids":
        yield {**text, **target} if model.config.is_encoder_decoder else text
        yield {**text, **target}
        yield {"input_ids": text["input_ids"]}
        for dtype in (torch.long, torch.float32):
            yield {**text, **target, "bbox": torch.zeros(BATCH, TOKENS, 4, dtype=dtype)}
            yield {**text, "bbox": torch.zeros(BATCH, TOKENS, 4, dtype=dtype)}
        yield from ({**text, "pixel_values": one} for one in images)
        yield from ({**text, "input_features": one[main]} for one in sounds)
    elif main == "pixel_values":
        if model.config.is_encoder_decoder:
            yield from ({"pixel_values": one, **target} for one in images)
        yield from ({"pixel_values": one, **text} for one in images)
        yield from ({"pixel_values": one} for one in images)
    else:
        spoken = [{**one, **target} for one in sounds]
        yield from [*spoken, *sounds] if model.config.is_encoder_decoder else [*sounds, *spoken]
    yield from _with_images(known, parameters, text)
    yield from _by_names(known, parameters, text)


def _with_images(known, parameters, text):
    """Text with as many tokens in it that stand for an image as the image has features."""
    names = ("image_token_id", "image_token_index", "video_token_index")
    token = next((one for name in names if (one := getattr(known.config, name, None))), None)
    if token is None or "pixel_values" not in parameters:
        return
    ids = text["input_ids"].clone()
    ids[ids == token] -= 1
    ids[:, 4 : 4 + known.size(4, "num_query_tokens")] = token
    found = known.of(parameters, {"input_ids", "decoder_input_ids"})
    yield {**found, **text, "input_ids": ids}


def _by_names(known, parameters, text):
    """Everything that is known of what a forward takes, of each shape that images and patches may
    have."""
    found = known.of(parameters, {})
    has_text = "input_ids" in parameters
    yield {**(text if has_text else {}), **found}
    yield found
    for image in (*known.patches(), *known.images()):
        for name in ("pixel_values", "hidden_states"):
            if name in parameters:
                yield {**found, name: image}
                yield {**(text if has_text else {}), **found, name: image}
    for sound in known.sounds():
        for name in ("input_features", "input_values", "audio_mel", "hidden_states"):
            if name in parameters:
                mask = torch.ones(BATCH, sound.shape[-1], dtype=torch.long)
                masks = {one: mask for one in found if one.endswith(("features_mask", "mel_mask"))}
                yield {**found, **masks, name: sound}


class Maker:
    """Makes tensors that fit a configuration.

    Args:
        config: the model's
    """

    def __init__(self, config):
        self.config = config
        self._generator = torch.Generator().manual_seed(0)
        self._parts = list(_parts(config))

    def noise(self, *shape):
        return torch.randn(*shape, generator=self._generator)

    def size(self, default, *names):
        """The first number that a configuration or one inside it has under one of these names."""
        values = [getattr(part, name, None) for name in names for part in self._parts]
        return next((one for one in values if isinstance(one, int) and one > 0), default)

    def ids(self):
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(5, 60, (BATCH, TOKENS), generator=generator)
        ids[:, -1] = VOCABULARY - 1  # which many take for the text's end
        most = min(VOCABULARY, self.size(VOCABULARY, "vocab_size"))
        return ids.clamp(max=most - 1)

    def text(self):
        """A batch with padding."""
        ids = self.ids()
        mask = torch.ones_like(ids)
        mask[1, :4] = 0
        return {"input_ids": ids, "attention_mask": mask}

    def of(self, names, given):
        """{name: tensor} of those names that are known and not given."""
        made = {name: _MADE[name](self) for name in names if name in _MADE and name not in given}
        return {name: one for name, one in made.items() if one is not None}

    def channels(self):
        return self.size(3, "num_channels", "in_channels")

    def images(self):
        """Images, and videos of them."""
        sizes = [getattr(one, "image_size", None) for one in self._parts]
        sizes = [(one, one) if isinstance(one, int) else one for one in sizes]
        sides = [tuple(one) for one in sizes if isinstance(one, (list, tuple)) and len(one) == 2]
        sides = list(dict.fromkeys([*sides, (IMAGE, IMAGE), (64, 64), (224, 224)]))
        channels = self.channels()
        frames = self.size(2, "num_frames")
        shapes = [(BATCH, channels, *side) for side in sides]
        shapes += [(BATCH, frames, channels, *side) for side in sides[:2]]
        return [self.noise(*shape) for shape in shapes]

    def image(self):
        return self.images()[0]

    def patches(self):
        """The patches of images, one after the other."""
        side = self.size(8, "patch_size")
        rows = BATCH * math.prod(GRID)
        depth = self.size(1, "temporal_patch_size")
        area = self.channels() * side * side
        return [
            self.noise(rows, depth * area),
            self.noise(rows, area),
            self.noise(rows, self.channels(), side, side),
            self.noise(BATCH, math.prod(GRID), area),
            self.noise(BATCH, self.channels(), side, side * math.prod(GRID)),
            self.noise(rows, 2 * area),
            self.noise(rows, self.size(WIDTH, "hidden_size")),
        ]

    def flattened(self):
        """Patches with the numbers of their row and column before them."""
        patches = self.noise(
            BATCH, math.prod(GRID), 2 + self.size(WIDTH, "patch_embed_hidden_size")
        )
        patches[..., :2] = _positions(self) + 1
        return patches

    def places(self, name):
        """Where in a text an image's features are."""
        mask = torch.zeros(BATCH, TOKENS, dtype=torch.long)
        mask[:, 4 : 4 + self.size(4, name)] = 1
        return mask

    def grid(self):
        return torch.tensor([GRID] * BATCH)

    def sounds(self):
        """Spectrograms, waves, and rows of hidden features."""
        bins = self.size(16, "num_mel_bins", "input_dim")
        shapes = [
            (BATCH, bins, FRAMES),
            (BATCH, FRAMES, bins),
            (BATCH, bins, 64),
            (BATCH, bins, 200),
            (BATCH, 4000),
            (BATCH, 1, 4000),
            (BATCH, 3840),
            (BATCH, 64, WIDTH),
            (BATCH, 64, 128),
            (BATCH, 32, 1),
        ]
        return [self.noise(*shape) for shape in shapes]

    def past(self):
        """How many steps of a series a model looks back on."""
        lags = getattr(self.config, "lags_sequence", None) or [0]
        return self.size(8, "context_length") + max(lags)


def _parts(config):
    """A configuration, and those inside it."""
    yield config
    for name in getattr(config, "sub_configs", ()):
        if getattr(config, name, None) is not None:
            yield from _parts(getattr(config, name))


def _positions(_):
    rows = torch.arange(GRID[1]).repeat_interleave(GRID[2])
    columns = torch.arange(GRID[2]).repeat(GRID[1])
    return torch.stack([columns, rows], -1).expand(BATCH, -1, -1)


# What a parameter of some forward gets, by its name.
_MADE = {
    "input_ids": Maker.ids,
    "decoder_input_ids": lambda make: make.ids()[:, :7],
    "qformer_input_ids": Maker.ids,
    "task_inputs": Maker.ids,
    "pixel_values": Maker.image,
    "pixel_values_videos": lambda make: make.noise(
        BATCH, make.size(4, "num_frames", "frames_per_clip"), 3, *make.image().shape[-2:]
    ),
    "prompt_pixel_values": lambda make: make.noise(BATCH, 3, IMAGE, IMAGE),
    "prompt_masks": lambda make: make.noise(BATCH, 3, IMAGE, IMAGE),
    "image_attention_mask": lambda make: torch.ones(BATCH, TOKENS, 2, dtype=torch.long),
    "image_embeds_position_mask": lambda make: make.places("latent_query_num"),
    "flattened_patches": lambda make: make.flattened(),
    "past_values_padding": lambda make: torch.zeros(BATCH, make.past()),
    "freq": lambda _: torch.zeros(BATCH, 1, dtype=torch.long),
    "hidden_states": lambda make: make.patches()[0],
    "grid_thw": Maker.grid,
    "image_grid_thw": Maker.grid,
    "merge_sizes": lambda _: torch.tensor([2] * BATCH),
    "pixel_position_ids": _positions,
    "pixel_attention_mask": lambda _: torch.ones(BATCH, math.prod(GRID), dtype=torch.long),
    "spatial_shapes": lambda _: torch.tensor([GRID[1:]] * BATCH),
    "input_features": lambda make: make.sounds()[0],
    "input_values": lambda make: make.noise(BATCH, 1, 3200),
    "target_sizes": lambda _: torch.tensor([GRID[1:]] * BATCH),
    "classes_input_ids": Maker.ids,
    "classes_attention_mask": lambda make: torch.ones_like(make.ids()),
    "classes_structure": lambda _: torch.ones(BATCH, dtype=torch.long),
    "tasks_input_ids": Maker.ids,
    "tasks_attention_mask": lambda make: torch.ones_like(make.ids()),
    "input_features_mask": lambda _: torch.ones(BATCH, FRAMES, dtype=torch.long),
    "audio_mel": lambda make: make.sounds()[1],
    "audio_mel_mask": lambda _: torch.zeros(BATCH, FRAMES, dtype=torch.bool),
    "states": lambda make: make.noise(BATCH, TOKENS, make.size(WIDTH, "state_dim")),
    "actions": lambda make: make.noise(BATCH, TOKENS, make.size(4, "act_dim")),
    "rewards": lambda make: make.noise(BATCH, TOKENS, 1),
    "returns_to_go": lambda make: make.noise(BATCH, TOKENS, 1),
    "timesteps": lambda _: torch.arange(TOKENS).expand(BATCH, -1),
    "inputs": lambda make: make.noise(BATCH, TOKENS, make.size(WIDTH, "d_model")),
    "query_embeds": lambda make: make.noise(BATCH, 4, make.size(WIDTH, "hidden_size")),
    "encoder_hidden_states": lambda make: make.noise(
        BATCH, 6, make.size(WIDTH, "encoder_hidden_size", "hidden_size")
    ),
    "visual_feats": lambda make: make.noise(BATCH, 5, make.size(WIDTH, "visual_feat_dim")),
    "visual_pos": lambda make: make.noise(BATCH, 5, make.size(4, "visual_pos_dim")).abs(),
    "past_values": lambda make: make.noise(BATCH, make.past()).abs(),
    "past_observed_mask": lambda make: torch.ones(BATCH, make.past()),
    "past_time_features": lambda make: make.noise(
        BATCH, make.past(), make.size(0, "num_time_features")
    ),
    "future_values": lambda make: make.noise(BATCH, make.size(4, "prediction_length")).abs(),
    "future_time_features": lambda make: make.noise(
        BATCH, make.size(4, "prediction_length"), make.size(0, "num_time_features")
    ),
}
