#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# attn selftest beside a BLAS that computes wrongly: says so, and ends with 3. It passes the rest.
# Usage: check_wrong_blas.sh <attn> <wrong BLAS>
set -euo pipefail

status=0
output=$(LD_PRELOAD=$2 "$1" selftest 2>&1) || status=$?
failed=0
expect() {
    grep -q -- "$1" <<<"$output" || { echo "expected a line with: $1"; failed=1; }
}
expect '^  FAILED  BLAS products, float64: float64 product by BLAS, .*, added to C: expected .* (ATTN_ERROR_SELFTEST)$'
expect '^  ok      products, float64$'
expect '^  ok      attention, float32$'
expect '^  FAILED  attention, float64: ' # which adds to what it has of its first keys
expect '^  FAILED  concurrent callers: '
expect '^3 of [0-9]* checks FAILED$'
expect '^Try other kernels'
((status == 3)) || { echo "expected exit code 3, got $status"; failed=1; }
json=$(LD_PRELOAD=$2 "$1" selftest --json 2>&1) || true
grep -q '"failed":3,.*"status":"ATTN_ERROR_SELFTEST"' <<<"$json" || { echo "--json printed: $json"; failed=1; }
if ((failed)); then
    echo "attn selftest printed:"
    echo "$output"
fi
exit $failed
