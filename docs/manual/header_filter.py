#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Doxygen's input filter: the headers' plain comments with the markup that Doxygen needs.

The headers are written to be read as they are. A comment of its own line belongs to what follows, one
behind a declaration to that; paragraphs that begin with one of the words below become sections;
lines that are indented, or set in columns, are kept as they stand.
"""

import re
import sys

SECTIONS = "Arguments|Shapes|Layout|Aliasing|Numerics|Errors|Threads|Example|Visibility|Order|Environment|Parameters|Masks"
SECTION = re.compile(rf"^({SECTIONS})(?P<end>[.:] +| {{2,}})(?P<rest>.*)$")
BEHIND = re.compile(r"^(?P<code>\s*[^\s/*].*?[;,\w])\s+/\*(?!\*)\s*(?P<text>.*?)\s*\*/\s*$")
# Two gaps of two blanks and more: columns.
COLUMNS = re.compile(r"\S {2,}\S.*\S {2,}\S")


def escaped(text):
    """Text in which Doxygen finds no markup; a list of errors within it is a section."""
    text = re.sub(r"([*<>#&])", r"\\\1", text)
    return re.sub(r"(^|(?<=\.) )Errors: ", "\n\\\\par Errors\n", text)


def body_of(lines):
    """The lines of a comment without its frame."""
    for line in lines:
        line = re.sub(r"\s*\*/$", "", line.rstrip())
        yield re.sub(r"^\s*/?\*+ ?", "", line)


def described(lines):
    """A comment's lines with markup."""
    hanging = 0  # the indentation of the section at hand, whose lines hang behind its word
    is_kept = False
    for line in lines:
        if line.startswith("SPDX-License-Identifier"):
            continue
        found = SECTION.match(line)
        if found:
            hanging = found.end("end") if found["end"].isspace() else 0
            is_kept = False
            yield rf"\par {found[1]}"
            yield escaped(found["rest"])
            continue
        text = line.strip()
        indentation = len(line) - len(line.lstrip())
        keeps = bool(text) and (
            bool(COLUMNS.search(line)) or (indentation >= 2 and indentation < max(hanging, 99) and not hanging)
        )
        if keeps != is_kept:
            yield ""
        is_kept = keeps
        hanging = hanging if indentation or not text else 0
        yield f"        {line}" if keeps else escaped(text)


def file_comment(lines):
    """The comment at the top: `name.h: what it is about`."""
    name, _, first = next(line for line in lines if ".h: " in line).partition(": ")
    rest = lines[next(i for i, line in enumerate(lines) if ".h: " in line) + 1 :]
    return [rf"\file {name}", rf"\brief {escaped(first)}", *described(rest)]


def main():
    lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
    printed = []
    at = 0
    while at < len(lines):
        line = lines[at]
        behind = BEHIND.match(line)
        if behind:
            printed.append(f"{behind['code']} /**< {escaped(behind['text'])} */")
        elif re.match(r"^\s*/\*(?!\*)", line):
            end = next(i for i in range(at, len(lines)) if "*/" in lines[i])
            comment = list(body_of(lines[at : end + 1]))
            marked = file_comment(comment) if at == 0 else described(comment)
            printed += ["/**", *marked, "*/"]
            at = end
        else:
            printed.append(line)
        at += 1
    print("\n".join(printed))


if __name__ == "__main__":
    main()
