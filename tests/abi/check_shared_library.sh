#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Checks what the shared library shows to the loader: its exported symbols, the libraries and
# functions it asks for, its flags.
# Usage: check_shared_library.sh <readelf> <library> <exported_symbols.txt> <undefined_symbols.txt> <include folder> <major version>
set -euo pipefail

readelf=$1
library=$2
expected=$3
undefined=$4
include=$5
major=$6
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
        libc.so | libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | ld-linux* | libc.musl*) ;;
        *) fail "the library needs $needed; expected only the C library" ;;
    esac
done < <(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$dynamic")

# What would print, end the process, or change its environment or signals is not in the list.
allowed=$(sed '/^#/d;/^$/d' "$undefined" | sort -u)
imported=$(awk '$7 == "UND" { sub(/@.*/, "", $8); print $8 }' <<<"$symbols" | sort -u)
unexpected=$(comm -13 <(echo "$allowed") <(echo "$imported"))
[[ -z $unexpected ]] || fail "the library asks for what is not in undefined_symbols.txt: ${unexpected//$'\n'/ }"

# Only what compilers put there runs when the library is loaded: one entry each, all of pointers.
constructors=$("$readelf" -W -s "$library" | awk '$4 == "FUNC" { print $8 }' |
    grep -cE '^(frame_dummy|__cpu_indicator_init|init_have_lse_atomics|__init_cpu_features(_constructor)?)$' || true)
initial_bytes=$(sed -n 's/.*(INIT_ARRAYSZ) *\([0-9]*\) .*/\1/p' <<<"$dynamic")
((${initial_bytes:-0} <= 8 * constructors)) ||
    fail "the library has constructors: expected $constructors entries (the compiler's), got $initial_bytes bytes"

# When it is unloaded, the one hook beside the compiler's.
destructors=$("$readelf" -W -s "$library" | awk '$4 == "FUNC" { print $8 }' | grep -cE '^__do_global_dtors_aux$' || true)
final_bytes=$(sed -n 's/.*(FINI_ARRAYSZ) *\([0-9]*\) .*/\1/p' <<<"$dynamic")
((${final_bytes:-0} == 8 * (destructors + 1))) ||
    fail "destructors: expected $destructors of the compiler and one, got $final_bytes bytes"

# The loader has thread-local memory for a few libraries that are loaded late, musl's for none.
grep -q STATIC_TLS <<<"$dynamic" && fail "the library asks for static thread-local memory"
grep -qE '^ *TLS ' <<<"$segments" && fail "the library has thread-local variables"

grep -q TEXTREL <<<"$dynamic" && fail "the library has text relocations"
grep -qE 'GNU_STACK.* RW +0x' <<<"$segments" || fail "the library asks for an executable stack"
grep -q GNU_RELRO <<<"$segments" || fail "the library has no read-only relocations"
grep -qE 'FLAGS_1.* NOW|BIND_NOW' <<<"$dynamic" || fail "the library's relocations are not all read-only: it is not bound at once (-z now)"
grep -qE 'FLAGS_1.*NODELETE' <<<"$dynamic" || fail "the library may be unloaded under its threads: no NODELETE flag"

exit $failed
