# SPDX-License-Identifier: BSD-3-Clause
"""No architecture of transformers has other numbers with libattention. By default one of twelve is
walked, with --zoo=all everything.
"""

import warnings

import pytest
import torch
import zoo
from transformers import AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from libattention.integrations import _hf_architectures

ARCHITECTURES = zoo.architectures()


@pytest.fixture(autouse=True)
def quiet():
    """Single-threaded, and without what transformers says about tiny models."""
    threads, level = torch.get_num_threads(), zoo.transformers.logging.get_verbosity()
    with warnings.catch_warnings():
        zoo.silence()
        yield
    torch.set_num_threads(threads)
    zoo.transformers.logging.set_verbosity(level)


def test_none_is_wrong(request):
    kinds = sorted(ARCHITECTURES)
    if request.config.getoption("--zoo") != "all":
        kinds = kinds[::12]
    results = zoo.walk_all(kinds)
    by_outcome = {
        outcome: [one for one in results if one.outcome == outcome] for outcome in zoo.OUTCOMES
    }
    print({outcome: len(found) for outcome, found in by_outcome.items()})
    assert not by_outcome[zoo.WRONG]
    assert len(by_outcome[zoo.RIGHT]) > len(kinds) / 2


def test_an_architecture_that_adds_its_mask_is_found_wrong_without_the_guard(monkeypatch):
    fine = _hf_architectures.Finding(_hf_architectures.Use.AS_SDPA, "")
    monkeypatch.setattr(_hf_architectures, "judge", lambda kind: fine)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, zoo.NAME, sdpa_mask)
    found = zoo.walk("bloom", ARCHITECTURES["bloom"])
    assert found.outcome == zoo.WRONG
    assert "forward" in found.text


def test_attentions_are_there_where_a_model_does_not_ask_its_layers_for_them():
    found = zoo.walk("pix2struct", ARCHITECTURES["pix2struct"])
    assert found.outcome == zoo.RIGHT, found.text
    assert "attentions" in found.steps


def test_what_cannot_be_built_says_why():
    found = zoo.walk("gemma3n", ARCHITECTURES["gemma3n"])
    assert found.outcome == zoo.UNBUILT
    assert "timm" in found.text or "ImportError" in found.text


def test_the_table_names_every_architecture():
    results = [zoo.Found("one", zoo.RIGHT, ""), zoo.Found("two", zoo.REFUSED, "because")]
    text = zoo.table(results)
    assert "right 1, refused in words 1, wrong 0" in text
    assert "`one`" in text
    assert "| two | because |" in text
