# SPDX-License-Identifier: BSD-3-Clause
"""What several tests use."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def qkv(rng):
    """(2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6)."""
    shapes = [(2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6)]
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


@pytest.fixture
def pytorchs_kernel():
    """Where PyTorch has the kernel from that install replaces, and who has replaced it: a function.
    After the test it has to be as before.
    """
    import torch

    from libattention.integrations import _install

    def origin():
        table = torch._C._dispatch_dump(f"aten::{_install.OPERATOR}").splitlines()
        replaced = [one for one in torch.library._impls if _install.OPERATOR + "/CPU" in one]
        return [line for line in table if line.startswith("CPU")], replaced

    before = origin()
    yield origin
    _install.uninstall()
    assert origin() == before


@pytest.fixture
def every_size(monkeypatch):
    """install() answers small calls, too, and those that PyTorch computes faster on this CPU."""
    from libattention.integrations import _lean_sdpa

    dtypes = _lean_sdpa.SMALLEST_WORK
    monkeypatch.setattr(_lean_sdpa, "SMALLEST_WORK", dict.fromkeys(dtypes, 0))
    monkeypatch.setattr(_lean_sdpa, "MOST_ROWS", {})
    _lean_sdpa.kind_of_call.cache_clear()
    yield
    _lean_sdpa.kind_of_call.cache_clear()


@pytest.fixture
def by_python(monkeypatch):
    """A call without the compiled module, and without plans."""
    from libattention import _attention, _torch_calls, scaled_dot_product_attention

    def call(*arguments, **options):
        with monkeypatch.context() as patch:
            for module, name in (
                (_attention, "attend_small"),
                (_attention, "attend_by_plan"),
                (_torch_calls, "attend_by_plan"),
            ):
                patch.setattr(module, name, lambda *_: NotImplemented)
            return scaled_dot_product_attention(*arguments, **options)

    return call


def pytest_addoption(parser):
    parser.addoption(
        "--zoo",
        choices=("tenth", "all"),
        default="tenth",
        help="how many of transformers' architectures test_zoo.py walks",
    )
