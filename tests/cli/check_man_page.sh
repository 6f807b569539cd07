#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The manual page is well-formed, and has every command and option that the program teaches, and no
# other.
# Usage: check_man_page.sh <page> <attn>   (ATTENTION_EMULATOR: what runs the program)
set -euo pipefail

page=$1
attn=$2
read -ra emulator <<<"${ATTENTION_EMULATOR:-}"
failed=0

if command -v mandoc >/dev/null; then
    # Examples are as wide as they are.
    problems=$(mandoc -Tlint -Wwarning "$page" || true)
    [[ -z $problems ]] || { echo "$problems"; failed=1; }
else
    echo "mandoc is not installed: the page's form is not checked"
fi

# Options as words, whatever is around them.
options_in() {
    grep -oE -- '--[a-z][a-z-]*' | sort -u
}

taught=$(for command in '' info selftest run heatmap; do "${emulator[@]}" "$attn" ${command:+"$command"} --help; done | options_in)
written=$(sed 's/\\-/-/g; s/Fl -/Fl --/g' "$page" | options_in)
if ! difference=$(diff <(echo "$taught") <(echo "$written")); then
    echo "options of attn --help (<) and of the manual page (>):"
    echo "$difference"
    failed=1
fi
for command in info selftest run heatmap; do
    grep -q "^.Ss attn $command$" "$page" || { echo "the page lacks the command $command"; failed=1; }
done
exit $failed
