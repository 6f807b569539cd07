#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Checks what the shared library shows to the loader: its exported symbols, the libraries and
# functions it asks for, its flags.
# Usage: check_shared_library.sh <readelf> <library> <exported_symbols.txt> <include folder> <major version>
set -euo pipefail

readelf=$1
library=$2
expected=$3
include=$4
major=$5
failed=0

fail() {
    echo "$1"
    failed=1
}

export LC_ALL=C
dynamic=$("$readelf" -W -d "$library")
segments=$("$readelf" -W -l "$library")

# Columns of readelf: number, value, size, type, binding, visibility, section, name@@version. The
# version nodes are absolute symbols.
symbols=$("$readelf" -W --dyn-syms "$library" | awk '$1 ~ /^[0-9]+:$/ && $5 != "LOCAL"')
exported=$(awk '$7 != "UND" && $7 != "ABS" { print $8 }' <<<"$symbols" | sort)
if ! difference=$(diff <(sort "$expected") <(echo "$exported")); then
    fail "exported symbols differ from exported_symbols.txt (<: only in the list, >: only in the library):"
    echo "$difference"
fi

# A function marked ATTN_API in a header is exported, and nothing else is.
declared=$(cat "$include"/attention/*.h "$include"/attention/version.h.in | tr '\n' ' ' | grep -o 'ATTN_API[^;(]*(' |
    sed -n 's/.*[ *]\(attn_[a-z0-9_]*\)($/\1/p' | sort)
if ! difference=$(diff <(echo "$declared") <(awk -F@ '{ print $1 }' <<<"$exported")); then
    fail "exported symbols differ from the ATTN_API functions of the headers (<: only declared, >: only exported):"
    echo "$difference"
fi

soname=$(sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p' <<<"$dynamic")
[[ $soname == "libattention.so.$major" ]] || fail "soname: expected libattention.so.$major, got '$soname'"

while read -r needed; do
    case $needed in
        libc.so.* | libm.so.* | libpthread.so.* | ld-linux* | libc.musl*) ;;
        libopenblas*.so.* | libblas*.so.* | libcblas*.so.* | libblis*.so.*) ;;
        *) fail "the library needs $needed; expected only the C library and a BLAS" ;;
    esac
done < <(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$dynamic")

# What would print, end the process, or change its environment or signals.
forbidden='^(f?printf|v?fprintf|vprintf|puts|fputs|putchar|fputc|putc|fwrite|perror|fopen|fclose|stdout|stderr|__f?printf_chk|'
forbidden+='__v?fprintf_chk|abort|_?exit|_Exit|quick_exit|atexit|signal|sigaction|raise|kill|setenv|putenv|unsetenv|fesetround|'
forbidden+='openblas_set_num_threads|omp_set_num_threads)$'
imported=$(awk '$7 == "UND" { sub(/@.*/, "", $8); print $8 }' <<<"$symbols" | grep -E "$forbidden" || true)
[[ -z $imported ]] || fail "the library calls what it must not: ${imported//$'\n'/ }"

grep -q TEXTREL <<<"$dynamic" && fail "the library has text relocations"
grep -qE 'GNU_STACK.* RW +0x' <<<"$segments" || fail "the library asks for an executable stack"
grep -q GNU_RELRO <<<"$segments" || fail "the library has no read-only relocations"
grep -qE 'FLAGS_1.*NODELETE' <<<"$dynamic" || fail "the library may be unloaded under its threads: no NODELETE flag"

exit $failed
