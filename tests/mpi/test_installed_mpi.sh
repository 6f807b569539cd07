#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Uses an installed libattention-mpi-<mpi> as others do, by pkg-config and by CMake, and looks at what it shows to the loader.
# Usage: test_installed_mpi.sh <mpi> <mpicc> <mpiexec> <library folder> <word of mpiexec>...
# tests/mpi/CMakeLists.txt sets the variables it reads.
set -euo pipefail

: "${SOURCE_DIR:?}" "${BUILD_DIR:?}" "${CMAKE:?}" "${PKG_CONFIG:?}" "${READELF:?}" "${MAJOR:?}"
mpi=$1 mpicc=$2 mpiexec=("$3" "${@:5}") libdir=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LC_ALL=C
failed=0

fail() {
    echo "FAILED: $1"
    failed=1
}

"$CMAKE" --install "$BUILD_DIR" --prefix "$work/installed" >/dev/null
prefix=$work/moved
mv "$work/installed" "$prefix"
library=$prefix/$libdir/libattention-mpi-$mpi.so
export LD_LIBRARY_PATH=$prefix/$libdir PKG_CONFIG_PATH=$prefix/$libdir/pkgconfig

# What a header declares is exported, and nothing else is.
exported=$("$READELF" -W --dyn-syms "$library" | awk '$1 ~ /^[0-9]+:$/ && $5 != "LOCAL" && $7 != "UND" && $7 != "ABS" { sub(/@.*/, "", $8); print $8 }' | sort)
declared=$(tr '\n' ' ' <"$prefix/include/attention/mpi.h" | grep -o 'ATTN_API[^;(]*(' | sed -n 's/.*[ *]\(attn_mpi_[a-z0-9_]*\)($/\1/p' | sort)
difference=$(diff <(echo "$declared") <(echo "$exported")) ||
    fail "symbols (<: only declared, >: only exported): $difference"
dynamic=$("$READELF" -W -d "$library")
grep -q "SONAME.*\[libattention-mpi-$mpi\.so\.$MAJOR\]" <<<"$dynamic" || fail "soname: $dynamic"
needed=$(sed -n 's/.*(NEEDED).*\[\(.*\)\.so.*\]/\1/p' <<<"$dynamic" | sort | tr '\n' ' ')
[[ $needed =~ ^libattention\ libc\ (libm\ )?lib(mpi|mpich)\ $ ]] || fail "it needs $needed"
if grep -E 'R(UN)?PATH' <<<"$dynamic"; then
    fail "the installed library has a run path"
fi

# The header stands alone in every standard; of C++ that of MPI may want its own.
for standard in c99 c11 c17; do
    printf '#include <attention/mpi.h>\n#include <attention/mpi.h>\ntypedef int not_empty;\n' |
        "$mpicc" -x c -std=$standard -Wall -Wextra -Werror -fsyntax-only -I "$prefix/include" - || fail "mpi.h as $standard"
done

read -ra flags <<<"$("$PKG_CONFIG" --cflags --libs "attention-mpi-$mpi")"
"$mpicc" -std=c99 -Wall -Wextra -Werror "$SOURCE_DIR/examples/mpi/long_sequence.c" "${flags[@]}" -lm -o "$work/by_pkg_config"
"$CMAKE" -S "$SOURCE_DIR/tests/mpi/consumer" -B "$work/cmake" -DCMAKE_C_COMPILER="$mpicc" -DCMAKE_PREFIX_PATH="$prefix" -DMPI="$mpi" \
    -DPROGRAM="$SOURCE_DIR/examples/mpi/long_sequence.c" >"$work/log" || { cat "$work/log"; fail "find_package"; }
"$CMAKE" --build "$work/cmake" >"$work/log" || { cat "$work/log"; fail "the build by find_package"; }
for program in "$work/by_pkg_config" "$work/cmake/program"; do
    printed=$(ATTN_NUM_THREADS=1 "${mpiexec[@]}" -n 2 "$program" 400 2>&1) || fail "$program"
    [[ $printed == *"400 rows on 2 ranks: "*"the worst error of the rows looked at is "* ]] || fail "$program prints: $printed"
done
exit $failed
