-- SPDX-License-Identifier: BSD-3-Clause
-- Writes a C program that compiles only if the declarations here are those of the installed headers:
--   luajit check_declarations.lua >check.c && cc -c check.c
-- The functions are declared once more, which C allows if the types agree; of structs the sizes and
-- every field's place and type are compared, of enums every value.

local ffi = require "ffi"
local abi = require "attention.abi"

local counts = {functions = 0, fields = 0, constants = 0}

local function write(kind, ...)
  counts[kind] = counts[kind] + 1
  print(string.format(...))
end

local function check_field(struct, declaration)
  local type_name, field, array = declaration:match("^%s*(.-)%s*([%w_]+)(%[?%d*%]?);$")
  write("fields", '_Static_assert(offsetof(%s, %s) == %d, "place of %s.%s");', struct, field,
        ffi.offsetof(struct, field), struct, field)
  print(('_Static_assert(__builtin_types_compatible_p(__typeof__(((%s *)0)->%s), %s%s), "type of %s.%s");'):format(
    struct, field, type_name, array, struct, field))
end

print("#include <stddef.h>\n#include <attention/attention.h>")
for struct, body in abi.declarations:gmatch("typedef struct ([%w_]+) (%b{})") do
  print(('_Static_assert(sizeof(%s) == %d, "size of %s");'):format(struct, ffi.sizeof(struct), struct))
  for declaration in body:gmatch("[^\n{}]+;") do
    check_field(struct, declaration)
  end
end
for body in abi.declarations:gmatch("enum [%w_]+ (%b{})") do
  for name, value in body:gmatch("(ATTN_[%w_]+) = (%d+)") do
    write("constants", '_Static_assert(%s == %s, "value of %s");', name, value, name)
  end
end
for declaration in ("\n" .. abi.declarations):gmatch("\n(%a[%w_ %*]+attn_[%w_]+%b();)") do
  write("functions", "%s", declaration)
end
for kind, count in pairs(counts) do
  assert(count > 20, kind .. " not found in the declarations")
end
