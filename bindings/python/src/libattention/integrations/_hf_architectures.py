# SPDX-License-Identifier: BSD-3-Clause
"""Which of transformers' architectures may be given a registered attention, and with which masks.

transformers asks no model whether it can use a registered name, as it does for its own. Many
cannot: their attention is code of their own, which adds whatever mask it gets, or a table of
classes without our name. What a class can do is read from the source of its module.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import warnings
from enum import IntEnum
from functools import lru_cache, wraps
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from libattention._library import unsupported
from libattention.integrations._hf_own import look_at_module


class Use(IntEnum):
    """How an architecture uses a registered attention; the larger, the more careful one is."""

    # As "sdpa", which transformers tests: masks are bool.
    AS_SDPA = 0
    # As "eager": masks are added, since other code may read them, too.
    AS_EAGER = 1
    # Not at all: the model is loaded with "eager".
    NEVER = 2


class Finding(NamedTuple):
    """A use, and why it is no better one."""

    use: Use
    reason: str


_FINE = Finding(Use.AS_SDPA, "")
_INTERFACES = ("ALL_ATTENTION_FUNCTIONS", "ALL_MASK_ATTENTION_FUNCTIONS")
_NAME = r"(?:self\.)?config\._attn_implementation"
_LOOKUP = re.compile(rf"(\w+)\[{_NAME}\]")
_MEMBERSHIP = re.compile(rf"{_NAME} in [\(\[\{{]")
_ATTENTION_CLASS = re.compile(r"Attention|Attn")
_WISH = "output_attentions"
_FORMULA = re.compile(r"softmax|scaled_dot_product_attention|einsum|matmul|bmm")

# The names that were registered.
names: set[str] = set()
# What the models of a configuration's class can do, the worst of them: masks are made by the
# configuration, and one class may serve models of several modules.
_uses: dict[type, Use] = {}
_handed_back: dict[str, str] = {}
# Modules with a model that collects attentions and does not ask its layers for them.
unasked: set[str] = set()
# What models that use us take. Some pass it on to their layers, with all they were given.
inputs: set[str] = set()


def install_guard() -> None:
    """Makes loading with a registered name ask `judge`, as loading with "sdpa" asks the class."""
    original = getattr(PreTrainedModel, "get_correct_attn_implementation", None)
    if original is None:
        raise unsupported(
            "transformers: PreTrainedModel.get_correct_attn_implementation, where a name is "
            "checked, is not there; install a version that this package was tested with, 5.24.0"
        )
    if hasattr(original, "libattention"):
        return

    @wraps(original)
    def guarded(self: Any, requested_attention: str | None, *arguments: Any, **options: Any) -> Any:
        if requested_attention in names and _settle(self) == Use.NEVER:
            requested_attention = "eager"
        return original(self, requested_attention, *arguments, **options)

    guarded.libattention = True  # type: ignore[attr-defined]
    PreTrainedModel.get_correct_attn_implementation = guarded  # type: ignore[method-assign]


def use_of(config: Any) -> Use | None:
    """How the models of this configuration use us; None: none was ever loaded so."""
    return _uses.get(type(config))


def handed_back() -> dict[str, str]:
    """The classes that were loaded with "eager" instead, and why."""
    return dict(_handed_back)


def _settle(model: PreTrainedModel) -> Use:
    """Judges the model's class, remembers it for its configuration, and tells what is refused."""
    kind: Any = type(model)  # which mypy does not take for hashable
    found = judge(kind)
    config = type(model.config)
    _uses[config] = max(found.use, _uses.get(config, Use.AS_SDPA))
    inputs.update(inspect.signature(kind.forward).parameters)
    for name in _modules_of(kind):
        look_at_module(name)
        if _collects_unasked(name):
            unasked.add(name)
    if found.use == Use.NEVER and kind.__name__ not in _handed_back:
        _handed_back[kind.__name__] = found.reason
        warnings.warn(
            f"{kind.__name__}: libattention is not used, {found.reason}; transformers' "
            'attn_implementation="eager" computes this model',
            stacklevel=4,
        )
    return found.use


def _modules_of(kind: type[Any]) -> list[str]:
    """Of a model's class and those it inherits from, by name."""
    bases = (base for base in kind.__mro__ if issubclass(base, PreTrainedModel))
    return sorted({base.__module__ for base in bases if base is not PreTrainedModel})


@lru_cache(maxsize=4096)
def judge(kind: type[Any]) -> Finding:
    """The worst that is found in the modules of a class and those it inherits from."""
    worst = max(map(_judge_module, _modules_of(kind)), key=lambda found: found.use, default=_FINE)
    if worst.use == Use.AS_SDPA and not kind._supports_sdpa:
        return Finding(Use.AS_EAGER, 'transformers does not offer "sdpa" for it')
    return worst


@lru_cache(maxsize=4096)
def _judge_module(name: str) -> Finding:
    try:
        source = inspect.getsource(sys.modules[name])
    except (KeyError, OSError, TypeError):
        return Finding(Use.NEVER, f"the source of its module {name} cannot be read")
    tables = [table for table in _LOOKUP.findall(source) if table not in _INTERFACES]
    if tables:
        return Finding(Use.NEVER, f"its attention comes from a table without our name, {tables[0]}")
    if _MEMBERSHIP.search(source):
        return Finding(Use.NEVER, "it changes the mask for transformers' own attention alone")
    return _judge_classes(source)


def _judge_classes(source: str) -> Finding:
    """Whether the attention of a module's layers goes through transformers' attention interface."""
    own = [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and _has_own_attention(node, source)
    ]
    if own and _INTERFACES[0] not in source:
        return Finding(Use.NEVER, f"its {own[0]} does not use transformers' attention interface")
    if own:
        return Finding(Use.AS_EAGER, f"its {own[0]} does not use transformers' attention interface")
    if re.search(rf"{_NAME} == .sdpa.", source):
        return Finding(Use.AS_EAGER, 'it treats "sdpa" unlike any other name')
    return _FINE


@lru_cache(maxsize=4096)
def _collects_unasked(name: str) -> bool:
    """Whether a class of a module collects what its layers return where attentions are wanted, as
    they do in "eager" anyway, and hands that wish to none of them.
    """
    try:
        source = inspect.getsource(sys.modules[name])
    except (KeyError, OSError, TypeError):
        return False
    return any(
        isinstance(node, ast.FunctionDef)
        and any(one.arg == _WISH for one in node.args.args)
        and any(isinstance(loop, ast.For) and _tests_wish(loop) for loop in ast.walk(node))
        and not any(isinstance(call, ast.Call) and _hands_on_wish(call) for call in ast.walk(node))
        for node in ast.walk(ast.parse(source))
    )


def _is_wish(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == _WISH


def _tests_wish(loop: ast.For) -> bool:
    return any(isinstance(node, ast.If) and _is_wish(node.test) for node in ast.walk(loop))


def _hands_on_wish(call: ast.Call) -> bool:
    return any(map(_is_wish, call.args)) or any(one.arg == _WISH for one in call.keywords)


def _has_own_attention(node: ast.ClassDef, source: str) -> bool:
    if not _ATTENTION_CLASS.search(node.name):
        return False
    text = ast.get_source_segment(source, node) or ""
    return bool(_FORMULA.search(text)) and _INTERFACES[0] not in text
