#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Builds the project of engine/ with the library in it and fast arithmetic wherever a project may ask for it; then its user, who
# finds both installed. The library computes the bits of this build, and the engine is compiled as without it. Prints only what fails.
# tests/install/CMakeLists.txt sets the variables it reads.
set -euo pipefail

: "${SOURCE_DIR:?}" "${CMAKE:?}" "${CMAKE_GENERATOR:?}" "${CC:?}" "${LIBDIR:?}" "${LIBRARY_BITS:?}" "${LIBRARY_FOLDER:?}" "${KERNELS:?}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
export LC_ALL=C
read -ra launcher <<<"${LAUNCHER:-}"
fast=(-Ofast -ffast-math -ffinite-math-only -fassociative-math -freciprocal-math -fno-signed-zeros)

fail() {
    echo "FAILED: $1"
    failed=1
}

# Runs a command that everything after it needs.
quietly() {
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log"
        echo "FAILED: $*"
        exit 1
    }
}

# configure <folder> <flags>: the engine, all its flags in the cache too.
configure() {
    quietly "$CMAKE" -S "$SOURCE_DIR/tests/install/engine" -B "$work/$1" -DCMAKE_C_COMPILER="$CC" -DCMAKE_C_FLAGS="${fast[*]}" \
        -DCMAKE_C_COMPILER_LAUNCHER="${launcher[*]}" -DATTENTION_SOURCE="$SOURCE_DIR" "${@:2}"
}

# A source that is compiled so in spite of all is refused.
refuses="$SOURCE_DIR/src/base/exact_arithmetic.h"
for flag in -ffast-math -Ofast -ffinite-math-only; do
    if "$CC" "$flag" -fsyntax-only -x c "$refuses" 2>/dev/null; then
        fail "exact_arithmetic.h accepts $flag"
    fi
done
quietly "$CC" -O3 -fsyntax-only -x c "$refuses"

# ---- built together ----

refusal=$("$CMAKE" -S "$SOURCE_DIR/tests/install/engine" -B "$work/refused" -DCMAKE_C_COMPILER="$CC" -DATTENTION_SOURCE="$SOURCE_DIR" \
    -DATTENTION_BEST_KERNELS=none 2>&1) && fail "ATTENTION_BEST_KERNELS=none is accepted"
[[ $refusal == *"ATTENTION_BEST_KERNELS: expected "*"$KERNELS"*"found"*none* ]] || fail "the refusal of ATTENTION_BEST_KERNELS=none: $refusal"
configure without -DWITH_ATTENTION=OFF
configure with -DATTENTION_BEST_KERNELS="$KERNELS" -DATTENTION_INSTALL=ON -DCMAKE_INSTALL_LIBDIR="$LIBDIR" -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
difference=$(diff <("$CMAKE" -N -L "$work/without" | grep -v WITH_ATTENTION) \
    <("$CMAKE" -N -L "$work/with" | grep -vE '^ATTENTION_(BEST_KERNELS|BLAS|BUILD|COVERAGE|FUZZ|INSTALL|SANITIZE|WERROR)|WITH_ATTENTION|CMAKE_EXPORT|CMAKE_INSTALL_LIBDIR')) ||
    fail "the engine's cache (<: without the library, >: with it): $difference"
compiled=$(grep -F -- " -c $SOURCE_DIR/src/" "$work/with/compile_commands.json")
if grep -v 'include [^ ]*exact_arithmetic\.h' <<<"$compiled" | grep -o ' -c [^"]*'; then
    fail "these sources are compiled without exact_arithmetic.h"
fi

quietly "$CMAKE" --build "$work/without"
quietly "$CMAKE" --build "$work/with" --parallel 2
without=$("$work/without/engine")
with=$("$work/with/engine")
[[ $with == "$without" && $with == *"fast arithmetic on"* ]] || fail "the engine: '$without' without the library, '$with' with it"

# ---- the same bits ----

# One set of kernels is compiled a second time: all have the same flags but for those of the instruction set.
expected=$(LD_LIBRARY_PATH=$LIBRARY_FOLDER "$LIBRARY_BITS" | grep "^$KERNELS ") || fail "this build's library: $expected"
folder=$(dirname "$(find "$work/with" -name libattention.so)")
bits=$(LD_LIBRARY_PATH=$folder "$LIBRARY_BITS") || fail "the engine's library: $bits"
difference=$(diff <(echo "$expected") <(echo "$bits")) || fail "the bits of results (<: this build's, >: the engine's library's): $difference"

# ---- installed together ----

quietly "$CMAKE" --install "$work/with" --prefix "$work/prefix"
cmp "$SOURCE_DIR/tests/install/engine/README.md" "$work/prefix/share/doc/engine/README.md" || fail "the engine's README is not its own"
quietly "$CMAKE" -S "$SOURCE_DIR/tests/install/engine_user" -B "$work/user" -DCMAKE_C_COMPILER="$CC" -DCMAKE_PREFIX_PATH="$work/prefix"
quietly "$CMAKE" --build "$work/user"
printed=$("$work/user/engine_user") || true
[[ $printed == passes ]] || fail "the engine's user: expected 'passes', got '$printed'"

exit $failed
