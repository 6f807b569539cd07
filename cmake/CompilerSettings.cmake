# SPDX-License-Identifier: BSD-3-Clause
# attention_settings: an INTERFACE target with the warnings, language settings and sanitizers every
# target of the project shares. Nothing of it reaches a consumer.

find_package(Threads REQUIRED)

add_library(attention_settings INTERFACE)
target_compile_options(attention_settings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wundef -Wcast-qual -Wwrite-strings -Wpointer-arith -Wvla
  -Wconversion -Wno-sign-conversion
  $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes>
  $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>)
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
