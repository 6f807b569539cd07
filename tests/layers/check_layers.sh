#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Checks layer_rules.txt on a source tree: which folder includes from which, in which order the files
# of a folder stand, what only some files may use, file names that are unique, but those that a tool
# asks for in each folder. Prints one line per violation, "path:line: what", and fails if there is one.
# Usage: check_layers.sh <root of the source tree>
set -euo pipefail

rules=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/layer_rules.txt
cd "$1"
export LC_ALL=C

# mpi, cli, bench, examples and public headers are users of the library: they see public headers alone.
mapfile -t sources < <(find src mpi cli bench examples include -type f \
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
    } else if (folder == layer && module in place) {
        if (!(module_of(name) in place)) report(FNR, "\"" name "\" is not in the order of " layer)
        else if (place[module_of(name)] > place[module]) report(FNR, "\"" name "\" stands above " module)
    }
}

# <folder>/<file> without its ending: a source and its header are one module.
function module_of(path) {
    sub(/^src\//, "", path)
    sub(/\.[^.\/]*$/, "", path)
    return path
}

# Collects the text outside of all braces, statement by statement.
function scan(code,    at, mark) {
    while (at = match(code, /[{};]/)) {
        mark = substr(code, at, 1)
        if (depth == 0) end_statement(statement " " substr(code, 1, at - 1), mark)
        if (mark == "{") depth++
        if (mark == "}" && depth > 0) depth--
        statement = ""
        code = substr(code, at + 1)
    }
    if (depth == 0) statement = statement " " code
}

# A function is declared (mark ";") or defined (mark "{"); no other statement matters.
function end_statement(text, mark,    name) {
    if (mark == "}" || text ~ /=|^[ \t]*(typedef|_Static_assert)/) return
    if (!match(text, /[A-Za-z_][A-Za-z0-9_]*[ \t]*\(/)) return
    name = substr(text, RSTART, RLENGTH)
    sub(/[ \t]*\($/, "", name)
    if (FILENAME in is_data) {
        report(FNR, "is data alone, but has the function " name)
    } else if (mark == "{") {
        defined[module, name]
    } else if (text ~ /(^|[ \t])static[ \t]/) {
        return
    } else if (FILENAME ~ /\.c$/) {
        report(FNR, name " is declared in a source, not in its header")
    } else {
        declared[++declarations] = name
        declared_by[declarations] = module
        declared_at[declarations] = FILENAME ":" FNR
    }
}

# What match() found in code, without the characters around it.
function word_at(code,    found) {
    found = substr(code, RSTART, RLENGTH)
    gsub(/^[^A-Za-z0-9_]|[^A-Za-z0-9_]+$/, "", found)
    return found
}

FNR == 1 {
    in_comment = 0
    layer = module = statement = ""
    depth = is_directive = 0
    if (FILENAME ~ /^src\//) {
        split(FILENAME, parts, "/")
        layer = parts[2]
        module = module_of(FILENAME)
        if (!(layer in allowed)) report(1, "no layer is named " layer)
        else if (layer in ordered && !(module in place)) report(1, "is not in the order of " layer)
    }
}

NR == FNR {
    if ($1 == "layer") {
        allowed[$2] = " "
        for (i = 3; i <= NF; i++) allowed[$2] = allowed[$2] $i " "
    } else if ($1 == "order") {
        ordered[$2]
        for (i = 3; i <= NF; i++) place[$2 "/" $i] = i
    } else if ($1 == "data") {
        is_data[$2]
    } else if ($1 == "without") {
        barred_where[++bars] = $2
        barred[bars] = "(^|[^A-Za-z0-9_])(" $3 ")($|[^A-Za-z0-9_])"
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
        code = "# " quoted[2]
    } else {
        code = code_of($0)
    }
    if (layer == "") next
    for (rule = 1; rule <= rules; rule++) {
        if (index(FILENAME, where[rule]) != 1 && match(code, expression[rule])) {
            report(FNR, "\"" word_at(code) "\" belongs to " where[rule])
        }
    }
    for (bar = 1; bar <= bars; bar++) {
        if (index(FILENAME, barred_where[bar]) == 1 && match(code, barred[bar])) {
            report(FNR, "\"" word_at(code) "\" is not for " barred_where[bar])
        }
    }
    if (is_directive || code ~ /^[ \t]*#/) is_directive = code ~ /\\$/
    else if (module in place) scan(code)
}

END {
    for (i = 1; i <= declarations; i++) {
        if (!((declared_by[i], declared[i]) in defined)) {
            printf "%s: %s is not defined in src/%s.c\n", declared_at[i], declared[i], declared_by[i]
        }
    }
}
' "$rules" "${sources[@]}")

# A file is named without its folder in talk, in messages and in headings.
duplicates=$(find src cli bench tests -type f ! -name CMakeLists.txt ! -name README.md ! -name __init__.py 2>/dev/null | awk '
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
