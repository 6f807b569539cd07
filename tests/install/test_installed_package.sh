#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Installs a build, moves the prefix elsewhere, and uses the library from there: pkg-config and
# CMake, shared and static, C and C++, the examples alone. Prints only what fails.
# tests/install/CMakeLists.txt sets the variables it reads.
set -euo pipefail

: "${SOURCE_DIR:?}" "${BUILD_DIR:?}" "${VERSION:?}" "${LIBDIR:?}" "${BINDIR:?}" "${BLAS:?}"
: "${CMAKE:?}" "${CC:?}" "${PKG_CONFIG:?}" "${READELF:?}"
consumer=$SOURCE_DIR/tests/install/consumer
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
export LC_ALL=C
read -ra sanitize <<<"${SANITIZE_FLAGS:-}"
warnings=(-Wall -Wextra -Wpedantic -Werror)

fail() {
    echo "FAILED: $1"
    failed=1
}

# Runs a command; a failure is reported with its output.
quietly() {
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log"
        fail "$*"
        return 1
    }
}

# expect_run <what> <shared|static> <program>: it prints the right number, and links the library the
# way it should.
expect_run() {
    local printed needed
    printed=$(LD_LIBRARY_PATH="$moved/$LIBDIR" "$3" 2>&1) || true
    [[ $printed == "$VERSION 3.000" ]] || fail "$1: expected '$VERSION 3.000', got '$printed'"
    needed=$("$READELF" -d "$3" | grep -c 'NEEDED.*libattention\.so' || true)
    [[ $2 == shared && $needed == 1 || $2 == static && $needed == 0 ]] || fail "$1: not linked to the $2 library"
}

flags_of() {
    PKG_CONFIG_PATH="$1/$LIBDIR/pkgconfig" "$PKG_CONFIG" "${@:2}" attention
}

# compile <prefix> <compiler and flags> -- <flags for pkg-config>
compile() {
    local prefix=$1 command=() flags
    shift
    while [[ $1 != -- ]]; do
        command+=("$1")
        shift
    done
    shift
    flags=$(flags_of "$prefix" --cflags --libs "$@")
    read -ra flags_words <<<"$flags"
    quietly "${command[@]}" "${sanitize[@]}" "${flags_words[@]}"
}

# configure <folder> <flags>: the consumer's CMake project.
configure() {
    "$CMAKE" -S "$consumer" -B "$work/$1" -DCMAKE_C_COMPILER="$CC" \
        -DCMAKE_C_FLAGS="${sanitize[*]}" -DCMAKE_PREFIX_PATH="$moved" "${@:2}"
}

quietly "$CMAKE" --install "$BUILD_DIR" --prefix "$work/installed"
moved=$work/moved
mv "$work/installed" "$moved"

# What is there, and nothing of the machine that built it.
headers_in() {
    find "$@" -type f -printf '%f\n' | sed 's/\.in$//' | sort
}
sources=("$SOURCE_DIR/include/attention")
if compgen -G "$moved/$LIBDIR/libattention-mpi-*.so" >/dev/null; then
    sources+=("$SOURCE_DIR/mpi/include/attention") # tests/mpi uses what is installed of it
fi
difference=$(diff <(headers_in "${sources[@]}") <(headers_in "$moved/include/attention")) ||
    fail "headers (<: only in the source, >: only installed): $difference"
for path in "$LIBDIR/libattention.so" "$LIBDIR/libattention.so.${VERSION%%.*}" "$LIBDIR/libattention.a"; do
    [[ -e $moved/$path ]] || fail "$path was not installed"
done
if [[ $BLAS != reference ]]; then
    module=$LIBDIR/attention-${VERSION%%.*}/blas.so
    [[ -e $moved/$module ]] || fail "$module was not installed"
    if "$READELF" -d "$moved/$module" | grep -E 'R(UN)?PATH'; then
        fail "the installed module has a run path"
    fi
fi
find "$moved" -name LICENSE | grep -q . || fail "LICENSE was not installed"
find "$moved" -name README.md | grep -q . || fail "README.md was not installed"
if grep -rIlF -e "$SOURCE_DIR" -e "$BUILD_DIR" -e "$work" "$moved"; then
    fail "the files above hold a path of the build"
fi
if "$READELF" -d "$moved/$LIBDIR/libattention.so" | grep -E 'R(UN)?PATH'; then
    fail "the installed library has a run path"
fi

if compile "$moved" "$CC" "${warnings[@]}" -std=c99 "$consumer/consumer.c" -o "$work/c_shared" --; then
    expect_run "pkg-config, C, shared" shared "$work/c_shared"
fi
if [[ -n ${CXX:-} ]] &&
    compile "$moved" "$CXX" "${warnings[@]}" -std=c++17 "$consumer/consumer.cpp" -o "$work/cpp_shared" --; then
    expect_run "pkg-config, C++, shared" shared "$work/cpp_shared"
fi
[[ $(flags_of "$moved" --modversion) == "$VERSION" ]] || fail "pkg-config --modversion"

# The linker prefers a shared library, so the static one is tested where there is no other.
cp -a "$moved" "$work/static_only"
rm "$work/static_only/$LIBDIR"/libattention.so*
if compile "$work/static_only" "$CC" "${warnings[@]}" "$consumer/consumer.c" -o "$work/c_static" -- --static; then
    expect_run "pkg-config --static" static "$work/c_static"
fi

for component in shared static; do
    if quietly configure "cmake_$component" -DCONSUMER_COMPONENT=$component -DCONSUMER_VERSION="${VERSION%.*}" &&
        quietly "$CMAKE" --build "$work/cmake_$component"; then
        expect_run "find_package, $component" $component "$work/cmake_$component/consumer"
    fi
done

# Without the BLAS's library (no library is found under /nowhere) the shared library is as usable as
# ever; the static one says why not.
nowhere=(-DCMAKE_FIND_ROOT_PATH=/nowhere -DCMAKE_FIND_ROOT_PATH_MODE_LIBRARY=ONLY)
quietly configure no_blas_shared "${nowhere[@]}" || true
if [[ $BLAS != reference ]]; then
    if configure no_blas_static "${nowhere[@]}" -DCONSUMER_COMPONENT=static >"$work/log" 2>&1; then
        fail "find_package, static, without a BLAS: found"
    fi
    grep -q 'attention::attention_static needs lib' "$work/log" ||
        fail "find_package, static, without a BLAS: the BLAS is not named"
fi

# Until 1.0 a minor release may break the ABI: neither an older nor a newer one is asked for in
# vain.
IFS=. read -r major minor _ <<<"$VERSION"
if configure newer -DCONSUMER_VERSION="$major.$((minor + 1))" >"$work/log" 2>&1; then
    fail "find_package accepts a newer minor release than is installed"
fi
if ((major == 0 && minor > 0)) && configure older -DCONSUMER_VERSION="$major.$((minor - 1))" >"$work/log" 2>&1; then
    fail "find_package accepts an older minor release"
fi

# Every example compiles alone, with nothing but what pkg-config says.
for example in "$SOURCE_DIR"/examples/*.c; do
    compile "$moved" "$CC" "$example" -o "$work/example" -- || true
done
if [[ -n ${CXX:-} ]]; then
    for example in "$SOURCE_DIR"/examples/*.cpp; do
        compile "$moved" "$CXX" -std=c++17 "$example" -o "$work/example" -- || true
    done
fi

# The program finds the library beside it without help.
if [[ -x $moved/$BINDIR/attn ]]; then
    quietly env -u LD_LIBRARY_PATH "$moved/$BINDIR/attn" --version || fail "the moved attn program does not start"
    described=$(env -u LD_LIBRARY_PATH "$moved/$BINDIR/attn" info | grep '^  blas ')
    [[ $described != *"cannot be loaded"* ]] || fail "the moved library does not find its BLAS: $described"
fi

# In a larger project the library brings neither tests nor programs nor an installation.
cat >"$work/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(larger LANGUAGES C)
add_subdirectory("$SOURCE_DIR" attention)
if(NOT TARGET attention::attention OR NOT TARGET attention::attention_static
   OR ATTENTION_BUILD_TESTS OR ATTENTION_BUILD_CLI OR ATTENTION_BUILD_EXAMPLES OR ATTENTION_BUILD_BENCH OR ATTENTION_INSTALL)
  message(FATAL_ERROR "as a subproject: wrong targets or options")
endif()
END
quietly "$CMAKE" -S "$work" -B "$work/larger" -DCMAKE_C_COMPILER="$CC" || true

exit $failed
