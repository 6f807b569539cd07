#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Compiles every public header alone, in each language standard, with warnings as errors;
# attention.h must include all of them.
# Usage: check_headers.sh c|c++ <include folder> <folder of the generated version.h> <compiler>
set -euo pipefail

language=$1
include=$2
generated=$3
compiler=$4

case $language in
    c) standards=(c99 c11 c17) ;;
    c++) standards=(c++11 c++17) ;;
    *) echo "language: expected c or c++, got '$language'"; exit 2 ;;
esac

headers=$(cd "$include/attention" && ls -- *.h)
failed=0
for header in $headers version.h; do
    [[ $header == attention.h ]] || grep -qF "#include <attention/$header>" "$include/attention/attention.h" || {
        echo "attention.h does not include $header"
        failed=1
    }
done
for standard in "${standards[@]}"; do
    for header in $headers version.h; do
        # Included twice, so that a missing guard shows; the typedef because C wants something in
        # every file.
        printf '#include <attention/%s>\n#include <attention/%s>\ntypedef int not_empty;\n' "$header" "$header" |
            "$compiler" -x "$language" -std="$standard" -pedantic-errors -Wall -Wextra -Werror -fsyntax-only \
                -I "$include" -I "$generated" - || { echo "$header does not compile as $standard"; failed=1; }
    done
done
exit $failed
