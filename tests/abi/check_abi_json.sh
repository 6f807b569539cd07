#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Compares docs/abi.json with what the headers say now, and its functions with those the library
# exports.
# Usage: check_abi_json.sh <python> <scripts/abi-json> <docs/abi.json> <exported_symbols.txt> <compiler> <include folder>...
set -euo pipefail

python=$1
script=$2
committed=$3
exported=$4
shift 4

now=$(mktemp)
trap 'rm -f "$now"' EXIT
"$python" "$script" "$@" >"$now"
if ! diff -u "$committed" "$now"; then
    echo "docs/abi.json is not what the headers say. If the change is meant (CONTRIBUTING.md), write it anew:"
    echo "    scripts/abi-json cc include build/release/include >docs/abi.json"
    exit 1
fi
diff <(sed 's/@.*//' "$exported" | LC_ALL=C sort) \
    <("$python" -c 'import json, sys; print(*[one["name"] for one in json.load(open(sys.argv[1]))["functions"]], sep="\n")' "$committed" |
        LC_ALL=C sort) || {
    echo "docs/abi.json has other functions than exported_symbols.txt"
    exit 1
}
