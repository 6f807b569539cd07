#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Checks that the static library cannot collide with a program's own names, that nothing in it runs
# before main, and that one hook runs when it is unloaded.
# Usage: check_static_library.sh <nm> <readelf> <library>
set -euo pipefail

nm=$1
readelf=$2
library=$3
failed=0
export LC_ALL=C

foreign=$("$nm" -g --defined-only "$library" | awk 'NF == 3 && $3 !~ /^attni?_/ { print $3 }' | sort -u)
if [[ -n $foreign ]]; then
    echo "global symbols without the prefix attn_ or attni_: ${foreign//$'\n'/ }"
    failed=1
fi

# The shared library is made of the same objects; what the compiler's start files add to it is not
# ours.
sections=$("$readelf" -W -S "$library")
if grep -E ' \.(init_array|preinit_array|ctors|dtors)' <<<"$sections"; then
    echo "the objects hold constructors (sections above)"
    failed=1
fi
hooks=$(awk '/^File: / { member = $2 } / \.fini_array/ { print member }' <<<"$sections" | sort -u)
if [[ $hooks != *"(unload.c.o)" || $hooks == *$'\n'* ]]; then
    echo "destructors: expected one, in unload.c.o, got ${hooks//$'\n'/ }"
    failed=1
fi
if grep -E ' \.t(bss|data)' <<<"$sections"; then
    echo "the objects hold thread-local variables (sections above)"
    failed=1
fi

exit $failed
