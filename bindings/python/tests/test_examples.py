# SPDX-License-Identifier: BSD-3-Clause
"""Examples in Python run as they are, a few steps of them."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run(example, *arguments):
    """What the example prints; it fails where its own check does."""
    command = [sys.executable, ROOT / "examples" / example, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_characters():
    ended = run("11_characters.py", "--steps", "3")
    assert ended.returncode == 0, ended.stderr
    losses = re.findall(r"^(libattention|PyTorch) +step +(\d+)  loss ([\d.]+)$", ended.stdout, re.M)
    assert [(name, int(step)) for name, step, _ in losses] == [
        (name, step) for name in ("libattention", "PyTorch") for step in range(3)
    ]
    assert float(losses[2][2]) < float(losses[0][2])
    assert "answered by libattention: 6" in ended.stdout
    assert "gradients by libattention: 6" in ended.stdout


def test_characters_refuses_a_short_text(tmp_path):
    (tmp_path / "short.txt").write_text("short")
    ended = run("11_characters.py", tmp_path / "short.txt")
    assert ended.returncode == 1
    assert ended.stderr.startswith("the text: expected more than")
