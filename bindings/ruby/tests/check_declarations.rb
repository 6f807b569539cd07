# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

# Writes a C program that compiles only if the declarations here are those of the installed headers:
#   ruby check_declarations.rb >check.c && cc -c check.c
# The functions are declared once more, which C allows if the types agree; of structs the sizes and
# every field's place and type are compared, of enums every value.

require 'attention/abi'

ABI = Attention::ABI

def check_struct(name, fields)
  struct = ABI::STRUCTS.fetch(name)
  puts %{_Static_assert(sizeof(#{name}) == #{struct.size}, "size of #{name}");}
  fields.each do |declaration|
    type, field, array = declaration.match(/\A(.*?)(\w+)(\[\d+\])?\z/).captures
    puts %{_Static_assert(offsetof(#{name}, #{field}) == #{struct.offsetof(field)}, "place of #{name}.#{field}");}
    puts "_Static_assert(__builtin_types_compatible_p(__typeof__(((#{name} *)0)->#{field}), #{type}#{array}), " \
         "\"type of #{name}.#{field}\");"
  end
end

constants = ABI::DECLARATIONS.scan(/\bATTN_\w+(?= =)/)
prototypes = ABI::DECLARATIONS.scan(/^[a-z].*\([^()]*\);$|^[a-z][^;{}]*\battn_\w+\([^;]*\);/)
[constants, prototypes, ABI::FIELDS.values.flatten].each { |found| raise 'declarations not found' if found.size < 20 }

puts '#include <stddef.h>', '#include <attention/attention.h>'
ABI::FIELDS.each { |name, fields| check_struct(name, fields) }
constants.each { |name| puts %{_Static_assert(#{name} == #{ABI.const_get(name)}, "value of #{name}");} }
puts prototypes
