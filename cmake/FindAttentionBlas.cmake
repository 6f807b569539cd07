# SPDX-License-Identifier: BSD-3-Clause
# Chooses the BLAS behind matrix products: the INTERFACE target attention_blas, and for attention.pc
# and the CMake package
#   ATTENTION_BLAS_NAME        openblas, blas, blis, netlib or reference
#   ATTENTION_BLAS_LINK_FLAGS  list of what a static link needs, by name (-lopenblas), not by path

set(ATTENTION_BLAS "" CACHE STRING
    "BLAS to use: openblas, blas, blis, netlib, reference (our own product); empty chooses")
set_property(CACHE ATTENTION_BLAS PROPERTY STRINGS "" openblas blas blis netlib reference)
set(ATTENTION_BLAS_SYMBOL_PREFIX "" CACHE STRING
    "Put before every BLAS symbol, for example scipy_ for vendored builds")
set(ATTENTION_BLAS_SYMBOL_SUFFIX "" CACHE STRING "Put after every BLAS symbol")
set(ATTENTION_BLAS_LIBRARIES "" CACHE STRING
    "Libraries or linker flags of the BLAS, instead of looking for it")

find_package(PkgConfig)
include(CheckCSourceCompiles)

# attention_take_blas(<name> FLAGS <flag>... LIBRARIES <library or target>...): the libraries become
# attention_blas, unless one was taken before or they lack the C interface.
function(attention_take_blas name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "FLAGS;LIBRARIES")
  if(TARGET attention_blas OR NOT arg_LIBRARIES)
    return()
  endif()
  set(symbol ${ATTENTION_BLAS_SYMBOL_PREFIX}cblas_sgemm${ATTENTION_BLAS_SYMBOL_SUFFIX})
  string(MD5 key "${symbol};${arg_LIBRARIES}")
  set(CMAKE_REQUIRED_LIBRARIES ${arg_LIBRARIES})
  set(CMAKE_REQUIRED_QUIET ON)
  check_c_source_compiles("void ${symbol}(void); int main(void) { ${symbol}(); return 0; }"
                          ATTENTION_BLAS_LINKS_${key})
  if(NOT ATTENTION_BLAS_LINKS_${key})
    message(STATUS "No ${symbol} in ${arg_LIBRARIES}")
    return()
  endif()
  add_library(attention_blas INTERFACE)
  target_link_libraries(attention_blas INTERFACE ${arg_LIBRARIES})
  set(ATTENTION_BLAS_NAME ${name} PARENT_SCOPE)
  set(ATTENTION_BLAS_LINK_FLAGS ${arg_FLAGS} PARENT_SCOPE)
endfunction()

# Libraries named by path, -l flag or bare name, as flags that mean the same on another machine.
function(attention_link_flags out)
  set(flags "")
  foreach(library IN LISTS ARGN)
    if(IS_ABSOLUTE "${library}")
      get_filename_component(library "${library}" NAME_WE)
      string(REGEX REPLACE "^lib" "-l" library "${library}")
    elseif(NOT library MATCHES "^-")
      string(PREPEND library "-l")
    endif()
    list(APPEND flags "${library}")
  endforeach()
  set(${out} "${flags}" PARENT_SCOPE)
endfunction()

# A library by its pkg-config module, else by its name in the linker's folders and the folders given
# after it.
macro(attention_look_for_blas name module library)
  if(PkgConfig_FOUND AND NOT TARGET attention_blas)
    pkg_check_modules(ATTENTION_${module} QUIET IMPORTED_TARGET ${module})
    if(ATTENTION_${module}_FOUND)
      attention_take_blas(${name} FLAGS -l${library} LIBRARIES PkgConfig::ATTENTION_${module})
    endif()
  endif()
  if(NOT TARGET attention_blas)
    find_library(ATTENTION_LIBRARY_${name} ${library} PATH_SUFFIXES ${ARGN})
    mark_as_advanced(ATTENTION_LIBRARY_${name})
    if(ATTENTION_LIBRARY_${name})
      attention_take_blas(${name} FLAGS -l${library} LIBRARIES ${ATTENTION_LIBRARY_${name}})
    endif()
  endif()
endmacro()

set(ATTENTION_BLAS_NAME "")
set(ATTENTION_BLAS_LINK_FLAGS "")

if(NOT ATTENTION_BLAS MATCHES "^(|openblas|blas|blis|netlib|reference)$")
  message(FATAL_ERROR "ATTENTION_BLAS: expected openblas, blas, blis, netlib or reference, "
                      "got '${ATTENTION_BLAS}'")
elseif(ATTENTION_BLAS STREQUAL "reference")
  add_library(attention_blas INTERFACE)
  set(ATTENTION_BLAS_NAME reference)
elseif(ATTENTION_BLAS_LIBRARIES)
  # The name then only says what kind of library it is.
  attention_link_flags(flags ${ATTENTION_BLAS_LIBRARIES})
  set(name "${ATTENTION_BLAS}")
  if(NOT name)
    set(name blas)
  endif()
  attention_take_blas(${name} FLAGS ${flags} LIBRARIES ${ATTENTION_BLAS_LIBRARIES})
elseif(ATTENTION_BLAS STREQUAL "blis")
  attention_look_for_blas(blis blis blis blis-pthread blis-openmp blis-serial)
elseif(ATTENTION_BLAS STREQUAL "netlib")
  # Most systems have a libcblas; Debian keeps the reference BLAS, its C interface included, in a
  # folder of its own.
  attention_look_for_blas(netlib cblas cblas)
  attention_look_for_blas(netlib_blas cblas-netlib blas blas)
  if(TARGET attention_blas)
    set(ATTENTION_BLAS_NAME netlib)
  endif()
else()
  if(NOT ATTENTION_BLAS STREQUAL "blas")
    attention_look_for_blas(openblas openblas openblas)
  endif()
  if(NOT ATTENTION_BLAS STREQUAL "openblas")
    attention_look_for_blas(blas blas blas)
    if(NOT TARGET attention_blas)
      find_package(BLAS)
      attention_link_flags(flags ${BLAS_LINKER_FLAGS} ${BLAS_LIBRARIES})
      attention_take_blas(blas FLAGS ${flags} LIBRARIES ${BLAS_LINKER_FLAGS} ${BLAS_LIBRARIES})
    endif()
  endif()
endif()

if(NOT TARGET attention_blas)
  message(FATAL_ERROR "No BLAS with the C interface found (ATTENTION_BLAS='${ATTENTION_BLAS}'). "
                      "Install one, for example Debian's libopenblas-dev (scripts/setup does), "
                      "or name it with -DATTENTION_BLAS_LIBRARIES=...")
endif()
message(STATUS "BLAS for matrix products: ${ATTENTION_BLAS_NAME}")
