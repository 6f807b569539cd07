#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Checks that the static library cannot collide with a program's own names, and that nothing in it
# runs before main.
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
if "$readelf" -W -S "$library" | grep -E '\.(init_array|fini_array|preinit_array|ctors|dtors)'; then
    echo "the objects hold constructors or destructors (sections above)"
    failed=1
fi

exit $failed
