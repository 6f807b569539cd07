#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Tests check_layers.sh: a tree that keeps the rules passes; every violation, planted alone, is the
# one thing reported.
set -euo pipefail

check=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/check_layers.sh
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failed=0

write() {
    mkdir -p "$tree/$(dirname "$1")"
    printf '%s\n' "${@:2}" >"$tree/$1"
}

# What is allowed, near every rule's edge.
write include/attention/tensor.h '#include <stdint.h>'
write src/base/error.h '__attribute__((format(printf, 1, 2)))'
write src/base/error.c '#include "base/error.h"' 'vsnprintf(buffer, 4, format, list);'
write src/base/cpu_features.c '#include <cpuid.h>' 'return __builtin_cpu_supports("avx2");'
write src/tensor/tensor.c '#include "base/error.h"' '/* printf("abort()"); cblas_sgemm' ' #include "sdpa/sdpa.h" */' '// exit(1);'
write src/kernels/row_kernels.h '#include <immintrin.h>' 'typedef float vector __attribute__((vector_size(32)));'
write src/context/context.c '#include <signal.h>' '#include "kernels/row_kernels.h"' 'const char *text = "printf(\"abort();";'
write src/blas_library/blas_linked.c '#include <cblas.h>' '#include "base/error.h"' 'cblas_sgemm();'
write src/multihead/multihead.c '#include <attention/multihead.h>' '#include "sdpa/sdpa.h"'
write cli/attn_main.c '#include "attn_options.h"' 'printf("%d", 1); exit(0);'
write bench/attn_bench.c '#include "option_parsing.h"' 'typedef float v __attribute__((vector_size(16)));'
write examples/01_sdpa.c '#include <attention/attention.h>'
write tests/tensor/test_tensor.c '#include "tensor/tensor.h"'
write tests/tensor/CMakeLists.txt ''
write tests/gemm/CMakeLists.txt ''
write tests/abi/0.1/include/attention/error.h ''
write tests/abi/0.2/include/attention/error.h ''

if ! report=$("$check" "$tree"); then
    echo "a tree that keeps the rules: expected no report, got:"
    echo "$report"
    failed=1
fi

# expect_report <file> <line of code> <what the report must say>: as the second line of a new file.
expect_report() {
    local report expected="$1:2: $3"
    write "$1" '' "$2"
    report=$("$check" "$tree") && report="no failure; $report"
    if [[ $report != "$expected"* || $report == *$'\n'* ]]; then
        echo "$1 with the line: $2"
        echo "  expected: $expected"
        echo "  got:      $report"
        failed=1
    fi
    rm "$tree/$1"
}

# Every pair of folders that no rule allows, upward and sideways.
layers=(base tensor blas_library kernels context gemm softmax rotary norm problem fused blas gradients sdpa multihead selftest)
rules=$(dirname "$check")/layer_rules.txt
pairs=0
for from in "${layers[@]}"; do
    allowed=$(sed -n "s/^layer $from\( \|$\)//p" "$rules")
    for to in "${layers[@]}"; do
        [[ $from == "$to" || " $(xargs <<<"$allowed") " == *" $to "* ]] && continue
        top=$(sed -n "s/^order $from .* //p" "$rules")
        expect_report "src/$from/${top:-planted}.c" "#include \"$to/some.h\"" "$from may not include from $to"
        pairs=$((pairs + 1))
    done
done
# 16 folders have 240 ordered pairs; the rules allow 70.
if ((pairs != 170)); then
    echo "include directions: expected 170 forbidden pairs, got $pairs; is a rule new or gone?"
    failed=1
fi

expect_report src/sdpa/sdpa_run.c '#include "sdpa_plan.h"' 'include "sdpa_plan.h" does not begin with a folder of src'
expect_report cli/planted.c '#include "base/error.h"' 'a user of the library includes "base/error.h"'
expect_report bench/planted.c '#include "context/thread_pool.h"' 'a user of the library includes "context/thread_pool.h"'
expect_report examples/planted.cpp '#include "tensor/tensor.h"' 'a user of the library includes "tensor/tensor.h"'
expect_report include/attention/planted.h '  #  include "base/error.h"' 'a user of the library includes "base/error.h"'

expect_report src/gemm/planted.c '#include <cblas.h>' '"cblas.h" belongs to src/blas_library/blas_linked.c'
expect_report src/sdpa/sdpa_run.c 'int x = cblas_dgemm(1);' '"cblas_dgemm" belongs to src/blas_library/blas_linked.c'
expect_report src/softmax/planted.c '#include <immintrin.h>' '"immintrin.h" belongs to src/kernels/'
expect_report src/gemm/planted.c '#include <arm_neon.h>' '"arm_neon.h" belongs to src/kernels/'
expect_report src/base/planted.c 'typedef float v __attribute__((vector_size(16)));' '"vector_size" belongs to src/kernels/'
expect_report src/sdpa/sdpa_run.c '__m256 x = _mm256_add_ps(a, b);' '"__m256" belongs to src/kernels/'
expect_report src/kernels/planted.c 'if (__builtin_cpu_supports("avx2")) {' '"__builtin_cpu_supports" belongs to src/base/cpu_features.c'
expect_report src/base/planted.c '#include <cpuid.h>' '"cpuid.h" belongs to src/base/cpu_features.c'
expect_report src/context/planted.c 'getauxval(AT_HWCAP);' '"getauxval" belongs to src/base/cpu_features.c'

for call in printf fprintf puts putchar perror fopen abort exit _exit quick_exit raise longjmp assert setenv signal fesetround; do
    expect_report src/multihead/planted.c "$call(1);" "\"$call\" belongs to nowhere"
done
expect_report src/base/planted.c 'write(stderr);' '"stderr" belongs to nowhere'
expect_report src/base/planted.c 'FILE *file = NULL;' '"FILE" belongs to nowhere'
expect_report src/gemm/planted.c 'openblas_set_num_threads(1);' '"openblas_set_num_threads" belongs to nowhere'
expect_report src/base/planted.c 'x = 1; /* why */ abort(); /* y' '"abort" belongs to nowhere'

# Inside a folder with an order: each file may not include the one above it, nor the lowest the
# highest. Headers include as sources do.
upward=0
while read -r _ folder names; do
    read -ra modules <<<"$names"
    for ((i = 0; i < ${#modules[@]}; i++)); do
        above=${modules[i + 1]:-${modules[-1]}}
        from=$((i + 1 < ${#modules[@]} ? i : 0))
        ending=$([[ $((i % 2)) == 0 ]] && echo c || echo h)
        expect_report "src/$folder/${modules[from]}.$ending" "#include \"$folder/$above.h\"" \
            "\"$folder/$above.h\" stands above $folder/${modules[from]}"
        upward=$((upward + 1))
    done
done < <(grep '^order ' "$rules")
# Seven orders, of 6, 18, 17, 5, 16, 10 and 8 names.
if ((upward != 81)); then
    echo "orders: expected 81 upward includes, got $upward; is a file new or gone?"
    failed=1
fi
expect_report src/fused/fused_engine.c '#include "fused/planted.h"' '"fused/planted.h" is not in the order of fused'

# Every function is declared by the header of the file that defines it.
write src/fused/fused_state.h 'typedef struct steps { int (*score)(int);' '} steps; enum { ONE };' 'typedef int (*step)(int);'
write src/fused/fused_item.h '#include "fused/fused_state.h"' 'static inline int attni_one(void) {' 'return 1; }' 'void attni_go(int (*next)(void),' 'int to);'
write src/fused/fused_item.c '#include "fused/fused_item.h"' 'static int two(void);' \
    "#define CALL(x) \\" '    void attni_else(x);' 'void attni_go(int (*next)(void),' 'int to) {' 'if (to) { attni_one(); } }'
write src/fused/fused_lanes.h '#include "fused/fused_state.h"' 'extern const steps attni_steps;'
write src/fused/fused_lanes.c '#include "fused/fused_lanes.h"' 'const steps attni_steps = {.score = 0};'
if ! report=$("$check" "$tree"); then
    echo "an order that is kept: expected no report, got:"
    echo "$report"
    failed=1
fi
expect_report src/fused/fused_rows.h 'void attni_missing(void);' 'attni_missing is not defined in src/fused/fused_rows.c'
expect_report src/fused/fused_rows.h 'void attni_go(int (*next)(void), int to);' 'attni_go is not defined in src/fused/fused_rows.c'
expect_report src/fused/fused_keys.c 'void attni_steps_run(int item);' 'attni_steps_run is declared in a source, not in its header'
expect_report src/fused/fused_keys.c 'extern void attni_steps_run(int item);' 'attni_steps_run is declared in a source, not in its header'
expect_report src/blas/blas_state.h 'int attni_rows(void);' 'is data alone, but has the function attni_rows'
expect_report src/blas/blas_state.h 'static inline int attni_rows(void) { return 1; }' 'is data alone, but has the function attni_rows'

expect_report src/fused/fused_plan.c 'const attn_sdpa_params *params;' '"attn_sdpa_params" is not for src/fused/'
expect_report src/blas/blas_rows.h 'attn_sdpa_report *report;' '"attn_sdpa_report" is not for src/blas/'

write src/fused/planted.c ''
report=$("$check" "$tree") && report="no failure; $report"
if [[ $report != "src/fused/planted.c:1: is not in the order of fused" ]]; then
    echo "a file that the order does not name: got: $report"
    failed=1
fi
rm "$tree/src/fused/planted.c"

# A release's copies lie in its own folder and nowhere else.
for twin in tests/sdpa/error.c tests/abi/error.c tests/sdpa/tests/abi/0.1/error.c; do
    write "$twin" ''
    report=$("$check" "$tree") && report="no failure; $report"
    if [[ $report != *"error.c:1: has the name of "*"error.c" || $report == *$'\n'* ]]; then
        echo "two files of one name, with $twin: got: $report"
        failed=1
    fi
    rm "$tree/$twin"
done

exit $failed
