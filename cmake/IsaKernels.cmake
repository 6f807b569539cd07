# SPDX-License-Identifier: BSD-3-Clause
# Which instruction sets each kernel source is compiled for, and with which flags. To add one: a row
# here and in src/kernels/kernel_tables.h.

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(ATTENTION_ISAS avx512 avx2 baseline)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(ATTENTION_ISAS neon)
else()
  set(ATTENTION_ISAS baseline)
endif()

set(ATTENTION_ISA_FLAGS_baseline "")
set(ATTENTION_ISA_FLAGS_neon "")
set(ATTENTION_ISA_FLAGS_avx2 -mavx2 -mfma)
set(ATTENTION_ISA_FLAGS_avx512
    -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512)
# A source that is not compiled for a set, which takes another set's kernels: kernel_select.c.
set(ATTENTION_ISA_WITHOUT_avx512 /stream_kernels\\.c$)

# attention_isa_kernels(<out-variable> BOTH <source>... FLOAT <source>...): object libraries of every
# source for every ISA, of those after BOTH for both element types, of those after FLOAT for float32;
# the generator expressions of their objects are put into the variable.
function(attention_isa_kernels out)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "BOTH;FLOAT")
  set(objects "")
  set(sources_float ${arg_BOTH} ${arg_FLOAT})
  set(sources_double ${arg_BOTH})
  foreach(isa IN LISTS ATTENTION_ISAS)
    foreach(real float double)
      set(target attention_kernels_${isa}_${real})
      set(sources ${sources_${real}})
      if(DEFINED ATTENTION_ISA_WITHOUT_${isa})
        list(FILTER sources EXCLUDE REGEX ${ATTENTION_ISA_WITHOUT_${isa}})
      endif()
      add_library(${target} OBJECT ${sources})
      target_link_libraries(${target} PRIVATE attention_settings attention_common)
      target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src)
      target_compile_definitions(${target} PRIVATE ATTNI_ISA=${isa} ATTNI_REAL_IS_${real}=1)
      target_compile_options(${target} PRIVATE ${ATTENTION_KERNEL_OPTIMIZATION} -ffp-contract=fast ${ATTENTION_ISA_FLAGS_${isa}})
      # Clang takes most of an hour to instrument these loops for fuzzing; pages watch what they touch.
      set_target_properties(${target} PROPERTIES ATTENTION_UNINSTRUMENTED "${ATTENTION_FUZZ}")
      set_target_properties(${target} PROPERTIES
        POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
      list(APPEND objects $<TARGET_OBJECTS:${target}>)
    endforeach()
  endforeach()
  set(${out} "${objects}" PARENT_SCOPE)
endfunction()
