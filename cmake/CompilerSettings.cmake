# SPDX-License-Identifier: BSD-3-Clause
# attention_settings: an INTERFACE target with the warnings, language settings and sanitizers every
# target of the project shares; and, for the folders below, arithmetic that is exact whatever a
# project around this one chose. Nothing of it reaches a consumer.

find_package(Threads REQUIRED)
include(CheckCCompilerFlag)

# After the flags of the environment, of the cache and of an enclosing project, before a target's own:
# clang's -fno-fast-math would undo a kernel's -ffp-contract=fast.
add_compile_options(-fno-fast-math -fno-finite-math-only -fno-associative-math -fno-reciprocal-math -fsigned-zeros)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU") # To clang it is no more than these together, but it would trap too.
  add_compile_options(-fno-unsafe-math-optimizations)
endif()
foreach(flag IN ITEMS no-single-precision-constant no-approx-func denormal-fp-math=ieee)
  string(MAKE_C_IDENTIFIER "ATTENTION_HAVE_FLAG_${flag}" known)
  check_c_compiler_flag(-f${flag} ${known})
  if(${known})
    add_compile_options(-f${flag})
  endif()
endforeach()
# What gets past these flags is refused by the preprocessor.
add_compile_options("SHELL:-include \"${PROJECT_SOURCE_DIR}/src/base/exact_arithmetic.h\"")

# A linker command with -ffast-math or -Ofast adds a constructor that makes whoever loads the library
# flush subnormal numbers to zero; -Ofast is undone by nothing but another -O.
add_link_options(-fno-fast-math -fno-unsafe-math-optimizations -O3)
check_c_compiler_flag(-mno-daz-ftz ATTENTION_HAVE_FLAG_no_daz_ftz)
if(ATTENTION_HAVE_FLAG_no_daz_ftz)
  add_link_options(-mno-daz-ftz)
endif()

add_library(attention_settings INTERFACE)
# Warnings are for those who change the library: an enclosing project may have made them errors.
if(PROJECT_IS_TOP_LEVEL OR ATTENTION_WERROR)
  target_compile_options(attention_settings INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wundef -Wcast-qual -Wwrite-strings -Wpointer-arith -Wvla
    -Wconversion -Wno-sign-conversion
    $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes>
    $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>)
endif()
if(ATTENTION_WERROR)
  target_compile_options(attention_settings INTERFACE -Werror)
endif()
# Neither changes a value: they say that nobody looks at errno or at floating-point exception flags
# after our arithmetic.
target_compile_options(attention_settings INTERFACE -fno-math-errno -fno-trapping-math)
# POSIX threads, clocks and CPU affinity are used; nothing else of the GNU extensions is.
target_compile_definitions(attention_settings INTERFACE _GNU_SOURCE)

# Line numbers are all the debug information that a finding shows, and the rest takes long to make. A watched kernel takes minutes to
# optimize, and is no more watched for it.
set(ATTENTION_KERNEL_OPTIMIZATION -O3)
if(ATTENTION_SANITIZE)
  set(ATTENTION_KERNEL_OPTIMIZATION -O1)
  target_compile_options(attention_settings INTERFACE
    $<$<NOT:$<BOOL:$<TARGET_PROPERTY:ATTENTION_UNINSTRUMENTED>>>:-fsanitize=${ATTENTION_SANITIZE}>
    $<$<NOT:$<BOOL:$<TARGET_PROPERTY:ATTENTION_UNINSTRUMENTED>>>:-fno-sanitize-recover=all>
    -fno-omit-frame-pointer -g1)
  target_link_options(attention_settings INTERFACE -fsanitize=${ATTENTION_SANITIZE})
endif()

# These come after a target's own options. Without optimization every condition of the source is a
# branch of the program, in kernels too.
if(ATTENTION_COVERAGE)
  target_compile_options(attention_settings INTERFACE --coverage -fprofile-update=atomic -O0)
  target_compile_definitions(attention_settings INTERFACE ATTENTION_COVERAGE=1)
  target_link_options(attention_settings INTERFACE --coverage)
endif()
