# SPDX-License-Identifier: BSD-3-Clause
"""Tiny random models of transformers' architectures: one with "eager", and its twins."""

import torch
import transformers
from zoo_configs import CannotBeBuiltError, line, tiny_config

MOST_PARAMETERS = 30_000_000


def tiny_reference(kind, class_name, plan):
    """A random model with "eager"."""
    config = tiny_config(kind, plan)
    try:
        model_class = getattr(transformers, class_name)
        with torch.device("meta"):
            model = model_class(config)
        size = sum(one.numel() for one in model.parameters())
    except Exception as error:
        raise CannotBeBuiltError(f"model: {line(error)}") from error
    if size > MOST_PARAMETERS:
        raise CannotBeBuiltError(f"{size / 1e6:.0f} million parameters are left")
    try:
        torch.manual_seed(0)
        config = tiny_config(kind, plan)
        model = model_class._from_config(config, attn_implementation="eager").eval()
        _stir(model)
    except Exception as error:
        raise CannotBeBuiltError(f"model: {line(error)}") from error
    return model.float()


def twin(reference, kind, plan, name):
    """The same model with another attention."""
    config = tiny_config(kind, plan)
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
