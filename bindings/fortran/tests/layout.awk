# SPDX-License-Identifier: BSD-3-Clause
#
# Makes two programs of attention_abi.f90 that print the same if its structs and constants are those
# of the C headers: with -v language=c by the headers, with -v language=fortran by the module. Each
# prints every field's place, every struct's size and every constant.

# Joins lines that end with &.
/&$/ { joined = joined substr($0, 1, length($0) - 1); next }
{ line = joined $0; joined = "" }

line ~ /parameter ::/ {
    count = split(substr(line, index(line, "::") + 2), entries, ",")
    for (i = 1; i <= count; ++i) {
        sub(/=.*/, "", entries[i])
        add_number(trimmed(entries[i]), language == "c" ? toupper(trimmed(entries[i])) : trimmed(entries[i]))
    }
}

line ~ /type, bind\(c\) ::/ { struct = trimmed(substr(line, index(line, "::") + 2)); add_struct(); next }
line ~ /end type/ { struct = "" }

struct != "" && line ~ /::/ {
    fields = substr(line, index(line, "::") + 2)
    gsub(/\([a-z_]+\)/, "", fields)
    count = split(fields, entries, ",")
    for (i = 1; i <= count; ++i) {
        sub(/=.*/, "", entries[i])
        add_field(trimmed(entries[i]))
    }
}

function trimmed(text) {
    gsub(/[ \t]/, "", text)
    return text
}

function add_number(name, value) {
    body = body (language == "c" ? "printf(\"" name " %d\\n\", " value ");\n" \
                                 : "print '(a,\" \",i0)', '" name "', " value "\n")
}

function add_struct() {
    declarations = declarations "type(" struct "), target :: x_" struct "\n"
    body = body (language == "c" ? "printf(\"" struct " %zu\\n\", sizeof(" struct "));\n" \
                                 : "print '(a,\" \",i0)', '" struct "', c_sizeof(x_" struct ")\n")
}

function add_field(name) {
    body = body (language == "c" ? "printf(\"" struct "." name " %zu\\n\", offsetof(" struct ", " name "));\n" \
                                 : "print '(a,\" \",i0)', '" struct "." name "', transfer(c_loc(x_" struct "%" name \
                                   "), 0_c_intptr_t) - &\n  transfer(c_loc(x_" struct "), 0_c_intptr_t)\n")
}

END {
    if (language == "c")
        printf "#include <attention/attention.h>\n#include <stdio.h>\nint main(void) {\n%sreturn 0;\n}\n", body
    else
        printf "program layout\nuse, intrinsic :: iso_c_binding\nuse attention_abi\nimplicit none\n%s%send program\n", \
            declarations, body
}
