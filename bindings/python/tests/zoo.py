# SPDX-License-Identifier: BSD-3-Clause
"""Every architecture of transformers, tiny and random: libattention against "eager".

python zoo.py [TABLE.md]    walks them all, and writes what it found
"""

import copy
import os
import re
import signal
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from zoo_configs import CannotBeBuiltError, architectures, inputs_of, tiny_reference, twin

import libattention
from libattention.integrations import transformers as integration

NAME = integration.register()
RIGHT, REFUSED, WRONG = "right", "refused in words", "wrong"
UNREACHED, UNBUILT = "never reaches the interface", "not built"
OUTCOMES = (RIGHT, REFUSED, WRONG, UNREACHED, UNBUILT)
TOLERANCE = 3e-4
SECONDS = 12
# Parameters of which keys or values are made.
KEYS_OR_VALUES = re.compile(
    r"(^|[._])(k|v|kv|qkv|key|value|k_proj|v_proj|c_attn|query_key_value)[._]"
)


class Found(NamedTuple):
    """What became of an architecture."""

    kind: str
    outcome: str
    text: str
    steps: tuple[str, ...] = ()


class OutOfTime(BaseException):
    """An architecture takes too long. No Exception: those are results."""


class DiffersError(Exception):
    """Two models do not give the same numbers."""


def walk(kind, class_names):
    """Compares one architecture, by the first class of it that can be built."""
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(SECONDS)
    try:
        return _compare(kind, class_names)
    except OutOfTime:
        return Found(kind, UNBUILT, f"not done in {SECONDS} seconds")
    finally:
        signal.alarm(0)


def _give_up(*_):
    raise OutOfTime


def _compare(kind, class_names):
    try:
        reference, inputs, is_gentle = _working_reference(kind, class_names)
    except CannotBeBuiltError as error:
        return Found(kind, UNBUILT, str(error))
    try:
        model = twin(reference, kind, is_gentle, NAME)
    except libattention.Error as error:
        return Found(kind, REFUSED, str(error))
    except Exception as error:
        return Found(kind, WRONG, f"loading: {type(error).__name__}: {error}")
    return _walk_steps(kind, reference, model, inputs, is_gentle)


def _working_reference(kind, class_names):
    """A tiny model, or one of few layers, whatever runs."""
    reasons = []
    for class_name in class_names:
        for is_gentle in (False, True):
            try:
                reference = tiny_reference(kind, class_name, is_gentle)
                return reference, _working_inputs(reference), is_gentle
            except CannotBeBuiltError as error:
                reasons.append(str(error))
    raise CannotBeBuiltError("; ".join(dict.fromkeys(reasons)))


def _walk_steps(kind, reference, model, inputs, is_gentle):
    done, note = [], ""
    for step in STEPS:
        try:
            expected = step(reference, inputs)
        except Exception:  # the model itself has no such thing
            continue
        try:
            found = step(model, inputs)
            try:
                _check(step.__name__, found, expected)
            except DiffersError:
                if note:
                    raise
                reference = twin(reference, kind, is_gentle, None)
                note = 'as without attn_implementation, of which "eager" differs itself'
                _check(step.__name__, found, step(reference, inputs))
        except libattention.Error as error:
            return Found(kind, REFUSED, f"{step.__name__}: {error}", tuple(done))
        except Exception as error:
            text = f"{step.__name__}: {type(error).__name__}: {str(error)[:200]}"
            return Found(kind, WRONG, text, tuple(done))
        done.append(step.__name__)
    return _found_right(kind, model, done)._replace(**({"text": note} if note else {}))


def _found_right(kind, model, done):
    if not done:
        return Found(kind, UNBUILT, "nothing of it runs with these inputs")
    refused = integration.report()
    reasons = {
        reason
        for part in model.modules()
        for reason in getattr(refused.get(type(part).__name__), "handed_back", {})
        if isinstance(part, transformers.PreTrainedModel)
    }
    counts = integration.report(model)
    if any(one.computed for one in counts.values()):
        return Found(kind, RIGHT, "", tuple(done))
    if reasons:
        return Found(kind, REFUSED, "eager: " + "; ".join(sorted(reasons)), tuple(done))
    if counts:
        others = Counter()
        for one in counts.values():
            others.update(one.handed_back)
        return Found(kind, RIGHT, "handed back: " + ", ".join(others), tuple(done))
    return Found(kind, UNREACHED, "", tuple(done))


def _working_inputs(model):
    last = None
    for inputs in inputs_of(model):
        try:
            with torch.no_grad():
                found = _run(model, inputs)[0]
            if torch.is_tensor(found) and found.is_floating_point() and found.isfinite().any():
                return inputs
        except Exception as error:
            last = last or error
    text = f"{type(last).__name__}: {' '.join(str(last).split())[:110]}"
    raise CannotBeBuiltError(f"inputs: {text}")


def _run(model, inputs, **options):
    torch.manual_seed(0)
    return model(**copy.deepcopy(inputs), **options)


def _seen(tensor, inputs):
    """Without the rows of padding, which mean nothing."""
    mask = inputs.get("attention_mask")
    if mask is None or tensor.shape[:2] != mask.shape or "decoder_input_ids" in inputs:
        return tensor
    return tensor[mask.bool()]


def forward(model, inputs):
    """A batch with padding."""
    with torch.no_grad():
        return [_seen(_run(model, inputs)[0], inputs)]


def attentions(model, inputs):
    """What output_attentions gives."""
    with torch.no_grad():
        out = _run(model, inputs, output_attentions=True)
    names = [name for name in out if name.endswith("attentions")]
    tensors = [one for name in names for one in out[name] or () if torch.is_tensor(one)]
    if not tensors:
        raise NotImplementedError
    mask = inputs.get("attention_mask")
    if mask is None:
        return tensors
    shape = mask.shape[1]
    return [
        one.transpose(1, 2)[mask.bool()] if one.dim() == 4 and one.shape[2] == shape else one
        for one in tensors
    ]


def decoding(model, inputs):
    """A prefill, and two tokens over its cache."""
    ids = inputs["input_ids"]
    found, cache, at = [], None, 0
    for end in (9, 10, 11):
        options = {"attention_mask": inputs["attention_mask"][:, :end], "use_cache": True}
        if cache is not None:
            options["past_key_values"] = cache
        with torch.no_grad():
            out = model(ids[:, at:end], **options)
        found.append(out.logits[:, -1])
        cache, at = out.past_key_values, end
    return found


def generation(model, inputs):
    """Greedy tokens, and the scores that tell near ties."""
    options = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, "output_scores": True}
    with torch.no_grad():
        return model.generate(
            **copy.deepcopy({k: v for k, v in inputs.items() if k != "decoder_input_ids"}),
            **options,
            pad_token_id=0,
            return_dict_in_generate=True,
        )


def training(model, inputs):
    """Gradients of all parameters."""
    return _gradients(model, inputs, lambda name: True)


def partial_training(model, inputs):
    """Gradients where only keys or values are made by what is trained."""
    return _gradients(model, inputs, KEYS_OR_VALUES.search)


def _gradients(model, inputs, is_trained):
    for name, parameter in model.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(bool(is_trained(name)) and parameter.is_floating_point())
    out = _seen(_run(model, inputs)[0], inputs)
    generator = torch.Generator().manual_seed(1)
    (out * torch.randn(out.shape, generator=generator)).sum().backward()
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    model.zero_grad()
    model.requires_grad_(True)
    return [torch.cat([one.flatten() for one in gradients])]


STEPS = (forward, attentions, decoding, generation, training, partial_training)


def _check(step, found, expected):
    if step == "generation":
        _check_tokens(found, expected)
        return
    if len(found) != len(expected):
        raise DiffersError(f"{len(found)} tensors instead of {len(expected)}")
    for one, two in zip(found, expected):
        if one.shape != two.shape:
            raise DiffersError(f"{tuple(one.shape)} instead of {tuple(two.shape)}")
        usable = (
            two.isfinite() if two.is_floating_point() else torch.ones_like(two, dtype=torch.bool)
        )
        if not usable.any():
            continue
        difference = (one.double() - two.double())[usable].abs().max().item()
        scale = max(two.double()[usable].abs().max().item(), 1e-6)
        if not difference <= TOLERANCE * scale:
            raise DiffersError(f"relative error {difference / scale:.1e}")


def _check_tokens(found, expected):
    """Up to where the two best tokens are nearly as good as each other."""
    for row, (one, two) in enumerate(zip(found.sequences, expected.sequences)):
        for step, scores in enumerate(expected.scores):
            at = len(two) - len(expected.scores) + step
            if one[at] != two[at]:
                best = scores[row].topk(2).values
                if best[0] - best[1] > 1e-3 * scores[row].abs().max():
                    raise DiffersError(f"token {step} is {one[at]} instead of {two[at]}")
                break


def silence():
    """transformers tells a lot about tiny models."""
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)


def walk_all(kinds, tell=print):
    """All of them, one after the other."""
    known = architectures()
    results = []
    for kind in kinds:
        begin = time.perf_counter()
        results.append(walk(kind, known[kind]))
        tell(f"{time.perf_counter() - begin:5.1f} s {results[-1]}")
    return results


def table(results):
    """What was found, for a reader of docs/transformers.md."""
    numbers = ", ".join(
        f"{outcome} {sum(one.outcome == outcome for one in results)}" for outcome in OUTCOMES
    )
    lines = [
        "# Hugging Face transformers, architecture by architecture",
        "",
        f"Written by `bindings/python/tests/zoo.py` with transformers {transformers.__version__}: "
        'tiny random models with "eager" and with "libattention", in a forward call with padding, '
        "with attentions, in decoding over a cache, greedy generation, and training of all "
        "parameters and of those of keys and values alone. What begins with `eager:` is loaded "
        "with transformers' eager attention, with a warning.",
        "",
        f"**{numbers}.**",
    ]
    for outcome in OUTCOMES:
        rows = [one for one in results if one.outcome == outcome]
        lines += ["", f"## {outcome[0].upper()}{outcome[1:]}: {len(rows)}", ""]
        lines += [", ".join(f"`{one.kind}`" for one in rows if not one.text) or "As follows.", ""]
        told = [f"| {one.kind} | {one.text.replace('|', '/')} |" for one in rows if one.text]
        lines += ["| type | why |", "|---|---|", *told] if told else []
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    silence()
    everything = walk_all(architectures())
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(table(everything))
    sys.exit(any(one.outcome == WRONG for one in everything))
