# SPDX-License-Identifier: BSD-3-Clause
"""The README's programs run, and print what their comments say."""

import contextlib
import io
import os
import re
from pathlib import Path

import pytest

README = Path(os.environ["ATTENTION_PYTHON_README"]).read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_there_are_programs():
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("block", BLOCKS)
def test_program(block):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, "README.md", "exec"), {})
    promised = re.findall(r"(?:^ *print\(.*\)  # |^    # )(.*)$", block, re.MULTILINE)
    lines = printed.getvalue().splitlines()
    assert len(promised) == len(lines) > 0
    for line, promise in zip(lines, promised):
        if ":" not in promise or promise.startswith("ATTN_"):
            assert line == promise
