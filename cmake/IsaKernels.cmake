# SPDX-License-Identifier: BSD-3-Clause
# Which instruction sets each kernel source is compiled for, and with which flags. To add one: a row
# here and in src/kernels/kernel_tables.h.

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(ATTENTION_ISAS avx512 avx2 baseline)
  set(ATTENTION_PAIR_ISAS avx512)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(ATTENTION_ISAS neon)
  set(ATTENTION_PAIR_ISAS neon)
else()
  set(ATTENTION_ISAS baseline)
endif()

# Kernels are most of the time that compiling takes, so those of better sets may be left out; never those below, so that the
# library runs on every processor of the architecture.
list(GET ATTENTION_ISAS 0 best_isa)
set(ATTENTION_BEST_KERNELS ${best_isa} CACHE STRING "Best instruction set that kernels are compiled for; runnable: this machine's; lowest")
set_property(CACHE ATTENTION_BEST_KERNELS PROPERTY STRINGS ${ATTENTION_ISAS} runnable lowest)
set(best_isa ${ATTENTION_BEST_KERNELS})
if(best_isa MATCHES "^(runnable|lowest)$")
  list(GET ATTENTION_ISAS -1 best_isa)
endif()
if(ATTENTION_BEST_KERNELS STREQUAL "runnable" AND EXISTS /proc/cpuinfo AND NOT CMAKE_CROSSCOMPILING)
  file(STRINGS /proc/cpuinfo cpu_flags REGEX "^flags" LIMIT_COUNT 1)
  if(cpu_flags MATCHES " avx512vl")
    set(best_isa avx512)
  elseif(cpu_flags MATCHES " avx2")
    set(best_isa avx2)
  endif()
endif()
list(FIND ATTENTION_ISAS "${best_isa}" isas_above)
if(isas_above LESS 0)
  list(JOIN ATTENTION_ISAS ", " known_isas)
  message(FATAL_ERROR "ATTENTION_BEST_KERNELS: expected ${known_isas}, runnable or lowest, found ${best_isa}")
endif()
list(SUBLIST ATTENTION_ISAS ${isas_above} -1 ATTENTION_ISAS)
if(NOT ATTENTION_PAIR_ISAS IN_LIST ATTENTION_ISAS) # There is one at most.
  set(ATTENTION_PAIR_ISAS "")
endif()

# Instruction sets that may also have a dot product of pairs of bfloat16, and the flags for it.
set(ATTENTION_PAIR_FLAGS_avx512 -mavx512bf16)
set(ATTENTION_PAIR_FLAGS_neon -march=armv8.2-a+bf16)

set(ATTENTION_ISA_FLAGS_baseline "")
set(ATTENTION_ISA_FLAGS_neon "")
set(ATTENTION_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(ATTENTION_ISA_FLAGS_avx512
    -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512)
# A variant's source that is not compiled for a set, which takes another set's kernels: kernel_select.c.
set(ATTENTION_ISA_WITHOUT_avx512_stored_float32 /stream_kernels\\.c$)

# What a kernel source is compiled for: an element type, or a type that float32 is stored as.
set(ATTENTION_KERNEL_VARIANTS float double stored_float32 stored_bfloat16 stored_float16 stored_int8)
foreach(real IN ITEMS float double)
  set(ATTENTION_KERNEL_DEFINITIONS_${real} ATTNI_REAL_IS_${real}=1)
endforeach()
foreach(type IN ITEMS float32 bfloat16 float16 int8)
  set(ATTENTION_KERNEL_DEFINITIONS_stored_${type} ATTNI_REAL_IS_float=1 ATTNI_STORED_IS_${type}=1)
endforeach()

# attention_kernel_objects(<target> <isa> <variant> <flags> <source>...): an object library of kernel sources.
function(attention_kernel_objects target isa variant flags)
  add_library(${target} OBJECT ${ARGN})
  target_link_libraries(${target} PRIVATE attention_settings attention_common)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(${target} PRIVATE ATTNI_ISA=${isa} ${ATTENTION_KERNEL_DEFINITIONS_${variant}})
  target_compile_options(${target} PRIVATE ${ATTENTION_KERNEL_OPTIMIZATION} -ffp-contract=fast ${flags})
  # Clang takes most of an hour to instrument these loops for fuzzing; pages watch what they touch.
  set_target_properties(${target} PROPERTIES ATTENTION_UNINSTRUMENTED "${ATTENTION_FUZZ}")
  set_target_properties(${target} PROPERTIES
    POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
endfunction()

# attention_isa_kernels(<out-variable> BOTH|DOUBLE|FLOAT|STORED|INTEGERS|PAIRS <source>...): object libraries of every source for every
# ISA, of those after BOTH for both element types, of those after DOUBLE or FLOAT for float64 or float32, of those after
# STORED for every storage type of float32, of those after INTEGERS for int8 too, of those after PAIRS for each of ATTENTION_PAIR_ISAS; the generator expressions of their objects are put into the variable.
function(attention_isa_kernels out)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "BOTH;DOUBLE;FLOAT;STORED;INTEGERS;PAIRS")
  set(objects "")
  set(sources_float ${arg_BOTH} ${arg_FLOAT})
  set(sources_double ${arg_BOTH} ${arg_DOUBLE})
  foreach(type IN ITEMS float32 bfloat16 float16)
    set(sources_stored_${type} ${arg_STORED} ${arg_INTEGERS})
  endforeach()
  set(sources_stored_int8 ${arg_INTEGERS})
  foreach(isa IN LISTS ATTENTION_ISAS)
    foreach(variant IN LISTS ATTENTION_KERNEL_VARIANTS)
      set(target attention_kernels_${isa}_${variant})
      set(sources ${sources_${variant}})
      if(DEFINED ATTENTION_ISA_WITHOUT_${isa}_${variant})
        list(FILTER sources EXCLUDE REGEX ${ATTENTION_ISA_WITHOUT_${isa}_${variant}})
      endif()
      attention_kernel_objects(${target} ${isa} ${variant} "${ATTENTION_ISA_FLAGS_${isa}}" ${sources})
      list(APPEND objects $<TARGET_OBJECTS:${target}>)
    endforeach()
  endforeach()
  foreach(isa IN LISTS ATTENTION_PAIR_ISAS)
    set(target attention_kernels_${isa}_pairs)
    attention_kernel_objects(${target} ${isa} stored_bfloat16
      "${ATTENTION_ISA_FLAGS_${isa}};${ATTENTION_PAIR_FLAGS_${isa}}" ${arg_PAIRS})
    list(APPEND objects $<TARGET_OBJECTS:${target}>)
  endforeach()
  set(${out} "${objects}" PARENT_SCOPE)
endfunction()
