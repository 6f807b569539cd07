# SPDX-License-Identifier: BSD-3-Clause
# attention_wide: the library with one set of kernels, whose vectors have 64 bytes without an instruction set for them: the compiler
# splits each into those it has. So the number of lanes, the panels, blocks and shuffles of AVX-512 are tested on processors
# without it. The set bears the name of the baseline one, the only one that is compiled in.

list(GET ATTENTION_ISAS -1 any_isa)
# With -O2 gcc 12 spends a minute and a half on stream_kernels.c of a type, for code that is hardly faster.
set(wide_optimization -O1)
if(ATTENTION_SANITIZE)
  set(wide_optimization ${ATTENTION_KERNEL_OPTIMIZATION})
endif()
set(wide_kernels "")
foreach(variant IN LISTS ATTENTION_KERNEL_VARIANTS)
  get_target_property(kernel_sources attention_kernels_${any_isa}_${variant} SOURCES)
  if(variant STREQUAL stored_bfloat16) # with the formula in the place of its instruction
    list(APPEND kernel_sources ${PROJECT_SOURCE_DIR}/src/kernels/pair_kernels.c)
  endif()
  set(target attention_wide_kernels_${variant})
  add_library(${target} OBJECT ${kernel_sources})
  target_link_libraries(${target} PRIVATE attention_settings attention_common)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(${target} PRIVATE ATTNI_ISA=baseline ${ATTENTION_KERNEL_DEFINITIONS_${variant}} ATTNI_VECTOR_BYTES=64)
  # No function takes or returns a vector once all is inlined, so how one would be passed does not matter.
  target_compile_options(${target} PRIVATE ${wide_optimization} -ffp-contract=fast -Wno-psabi)
  list(APPEND wide_kernels $<TARGET_OBJECTS:${target}>)
endforeach()

get_target_property(wide_sources attention_objects SOURCES)
get_target_property(wide_definitions attention_objects COMPILE_DEFINITIONS)
list(FILTER wide_definitions EXCLUDE REGEX "^ATTNI_HAVE_(ISA|PAIRS)_")
add_library(attention_wide STATIC ${wide_sources} ${wide_kernels} $<TARGET_OBJECTS:attention_blas_table>)
target_compile_definitions(attention_wide PRIVATE ${wide_definitions} ATTNI_HAVE_ISA_baseline=1 ATTNI_HAVE_PAIRS_baseline=1)
target_include_directories(attention_wide PUBLIC ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(attention_wide PRIVATE attention_settings attention_blas Threads::Threads m PUBLIC attention_common)
