# SPDX-License-Identifier: BSD-3-Clause
"""Every architecture of transformers, tiny and random: libattention against "eager".

python zoo.py [TABLE.md]    walks them all, and writes what it found
"""

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
from zoo_configs import CannotBeBuiltError, architectures, line, plans
from zoo_inputs import inputs_of
from zoo_models import tiny_reference, twin
from zoo_steps import STEPS, DiffersError, check, is_as_exact, output

import libattention
from libattention.integrations import transformers as integration

NAME = integration.register()
RIGHT, REFUSED, WRONG = "right", "refused in words", "wrong"
UNREACHED, UNBUILT = "never reaches the interface", "not built"
OUTCOMES = (RIGHT, REFUSED, WRONG, UNREACHED, UNBUILT)
SECONDS = 12
EAGER_DIFFERS = 'as without attn_implementation, of which "eager" differs itself'
AS_EXACT = "as in float64; in float32 a tiny difference decides what is chosen"
# What a model says of inputs that it lacks.
_MISSING = re.compile(r"inputs: .*(missing \d+ required|'(NoneType|bool)' object|is missing the)")


class Found(NamedTuple):
    """What became of an architecture."""

    kind: str
    outcome: str
    text: str
    steps: tuple[str, ...] = ()


class OutOfTime(BaseException):
    """An architecture takes too long. No Exception: those are results."""


def walk(kind, class_names):
    """Compares one architecture, by the first class of it that can be built."""
    signal.signal(signal.SIGPROF, _give_up)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return _compare(kind, class_names)
    except OutOfTime:
        return Found(kind, UNBUILT, f"not done in {SECONDS} seconds of the processor")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _give_up(*_):
    raise OutOfTime


def _compare(kind, class_names):
    try:
        reference, inputs, plan = _working_reference(kind, class_names)
    except CannotBeBuiltError as error:
        return Found(kind, UNBUILT, str(error))
    try:
        model = twin(reference, kind, plan, NAME)
    except libattention.Error as error:
        return Found(kind, REFUSED, str(error))
    except Exception as error:
        return Found(kind, WRONG, f"loading: {type(error).__name__}: {error}")
    return _walk_steps(kind, reference, model, inputs, plan)


def _working_reference(kind, class_names):
    """The first tiny model that runs, of all plans and classes. Other sizes are no help where an
    input is missing.
    """
    reasons = []
    for plan in plans(kind):
        if plan.left is not None and _MISSING.match(reasons[0]):
            break
        for class_name in class_names:
            try:
                reference = tiny_reference(kind, class_name, plan)
                return reference, _working_inputs(reference), plan
            except CannotBeBuiltError as error:
                reasons.append(str(error))
                if "ImportError" in str(error):
                    raise
    raise CannotBeBuiltError(reasons[0])


def _walk_steps(kind, reference, model, inputs, plan):
    done, notes = [], []
    for step in STEPS:
        try:
            expected = step(reference, inputs)
        except Exception:  # the model itself has no such thing
            continue
        try:
            found = step(model, inputs)
            try:
                check(step, found, expected)
            except DiffersError:
                default = twin(reference, kind, plan, None)
                reference, note = _other_reference(step, (reference, default), model, inputs)
                notes += [note] if note else []
        except libattention.Error as error:
            return Found(kind, REFUSED, f"{step.__name__}: {error}", tuple(done))
        except Exception as error:
            text = f"{step.__name__}: {type(error).__name__}: {str(error)[:200]}"
            return Found(kind, WRONG, text, tuple(done))
        done.append(step.__name__)
    found = _found_right(kind, model, done)
    return found._replace(text="; ".join(dict.fromkeys(notes))) if notes else found


def _other_reference(step, references, model, inputs):
    """A model that gives the same numbers in another way, and which way that is."""
    found = step(model, inputs)
    for reference, note in zip(references, ("", EAGER_DIFFERS)):
        expected = step(reference, inputs)
        try:
            check(step, found, expected)
        except DiffersError as error:
            differs = error
        else:
            return reference, note
        if is_as_exact(step, (reference, model), inputs, (expected, found)):
            return reference, note or AS_EXACT
    raise differs


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
                found = output(model, inputs)
            if found.isfinite().any():
                return inputs
        except Exception as error:
            last = last or error
    raise CannotBeBuiltError(f"inputs: {line(last)}")


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
