#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Checks layer_rules.txt on a source tree: which folder includes from which, what only some files
# may use, file names that are unique. Prints one line per violation, "path:line: what", and fails
# if there is one.
# Usage: check_layers.sh <root of the source tree>
set -euo pipefail

rules=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/layer_rules.txt
cd "$1"
export LC_ALL=C

# cli, bench, examples and public headers are users of the library: they see public headers alone.
mapfile -t sources < <(find src cli bench examples include -type f \
    \( -name '*.[ch]' -o -name '*.cpp' -o -name '*.h.in' \) 2>/dev/null | sort)

violations=$(awk '
function report(line, what) { printf "%s:%d: %s\n", FILENAME, line, what }

# The code of a line: comments go, strings become "". A comment may go on in the next line.
function code_of(line,    code, at, end) {
    code = ""
    while (line != "") {
        if (in_comment) {
            end = index(line, "*/")
            if (end == 0) return code
            line = substr(line, end + 2)
            in_comment = 0
        } else if (match(line, /\/\*|\/\/|"([^"\\]|\\.)*"|\047([^\047\\]|\\.)*\047/) == 0) {
            return code line
        } else {
            at = substr(line, RSTART, RLENGTH)
            code = code substr(line, 1, RSTART - 1)
            line = substr(line, RSTART + RLENGTH)
            if (at == "//") return code
            if (at == "/*") in_comment = 1
            else code = code "\"\""
        }
    }
    return code
}

function check_include(name,    folder) {
    folder = name
    if (!sub(/\/.*/, "", folder)) folder = ""
    if (layer == "") {
        if (folder in allowed) report(FNR, "a user of the library includes \"" name "\" of its insides")
    } else if (!(folder in allowed)) {
        report(FNR, "include \"" name "\" does not begin with a folder of src")
    } else if (folder != layer && !index(allowed[layer], " " folder " ")) {
        report(FNR, layer " may not include from " folder ": \"" name "\"")
    }
}

FNR == 1 {
    in_comment = 0
    layer = ""
    if (FILENAME ~ /^src\//) {
        split(FILENAME, parts, "/")
        layer = parts[2]
        if (!(layer in allowed)) report(1, "no layer is named " layer)
    }
}

NR == FNR {
    if ($1 == "layer") {
        allowed[$2] = " "
        for (i = 3; i <= NF; i++) allowed[$2] = allowed[$2] $i " "
    } else if ($1 == "word" || $1 == "call") {
        where[++rules] = $2
        expression[rules] = "(^|[^A-Za-z0-9_])(" $3 ")" ($1 == "call" ? "[ \t]*\\(" : "($|[^A-Za-z0-9_])")
    } else if ($1 != "copies" && $0 !~ /^(#|$)/) {
        report(FNR, "not a rule: " $0)
    }
    next
}

{
    if (!in_comment && $0 ~ /^[ \t]*#[ \t]*include[ \t]*"/) {
        split($0, quoted, "\"")
        check_include(quoted[2])
        code = quoted[2]
    } else {
        code = code_of($0)
    }
    if (layer == "") next
    for (rule = 1; rule <= rules; rule++) {
        if (index(FILENAME, where[rule]) != 1 && match(code, expression[rule])) {
            found = substr(code, RSTART, RLENGTH)
            gsub(/^[^A-Za-z0-9_]|[^A-Za-z0-9_]+$/, "", found)
            report(FNR, "\"" found "\" belongs to " where[rule])
        }
    }
}
' "$rules" "${sources[@]}")

# A file is named without its folder in talk, in messages and in headings.
duplicates=$(find src cli bench tests -type f ! -name CMakeLists.txt ! -name README.md 2>/dev/null | awk '
NR == FNR { if ($1 == "copies") copies[$2]; next }
{
    for (path in copies) if (match($0, path) == 1) next
    name = $0
    sub(/.*\//, "", name)
    if (name in first) printf "%s:1: has the name of %s\n", $0, first[name]; else first[name] = $0
}' "$rules" -)

if [[ -n $violations$duplicates ]]; then
    printf '%s\n' "$violations" "$duplicates" | sed '/^$/d'
    exit 1
fi
