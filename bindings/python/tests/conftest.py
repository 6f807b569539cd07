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
    """Where PyTorch has the kernels from that install replaces, and who has replaced them: a
    function. After the test they have to be as before.
    """
    import torch

    from libattention.integrations import _install

    def origin():
        names = (_install.OPERATOR, _install.BACKWARD)
        table = [
            line for name in names for line in torch._C._dispatch_dump(f"aten::{name}").splitlines()
        ]
        replaced = [
            one for one in torch.library._impls if any(f"{name}/CPU" in one for name in names)
        ]
        return [line for line in table if line.startswith("CPU")], replaced

    before = origin()
    yield origin
    _install.uninstall()
    assert origin() == before


@pytest.fixture
def every_size(monkeypatch):
    """install() answers small calls, too, and those that PyTorch computes faster on this CPU."""
    from libattention.integrations import _lean_backward, _lean_sdpa

    def forget():
        _lean_sdpa.kind_of_call.cache_clear()
        _lean_backward.kind_of_backward.cache_clear()

    for module in (_lean_sdpa, _lean_backward):
        monkeypatch.setattr(module, "SMALLEST_WORK", dict.fromkeys(module.SMALLEST_WORK, 0))
    monkeypatch.setattr(_lean_sdpa, "MOST_ROWS", {})
    monkeypatch.setattr(_lean_backward, "LARGEST_WORK", {})
    forget()
    yield
    forget()


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
        choices=("twelfth", "all"),
        default="twelfth",
        help="how many of transformers' architectures test_zoo.py walks",
    )
