#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# check_first_program.sh README CC INCLUDE GENERATED_INCLUDE LIBRARY: compiles the first C block of the README, runs it and compares
# what it prints with the line that begins "prints `" below it.
set -euo pipefail

readme=$1 cc=$2 include=$3 generated=$4 library=$5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

awk '/^```c$/ { inside = 1; next } /^```$/ { if (inside) exit } inside' "$readme" >"$work/first.c"
promised=$(sed -n 's/^prints `\([^`]*\)`.*/\1/p' "$readme" | head -n 1)
[[ -s $work/first.c && -n $promised ]] || {
    echo "README: expected a \`\`\`c block and a line that begins with: prints \`...\`" >&2
    exit 1
}

read -ra flags <<<"${CFLAGS:-}"
"$cc" -std=c11 -Wall -Wextra -Werror "${flags[@]}" "$work/first.c" -I"$include" -I"$generated" "$library" \
    -Wl,-rpath,"$(dirname "$library")" -o "$work/first"
read -ra emulator <<<"${EMULATOR:-}"
printed=$("${emulator[@]}" "$work/first")
if [[ $printed != "$promised" ]]; then
    echo "README: promised '$promised', printed '$printed'" >&2
    exit 1
fi
