# SPDX-License-Identifier: BSD-3-Clause
# Finds the MPIs of this machine: ATTENTION_MPIS becomes the list of openmpi and mpich that are here, and of each there is
# attention_<mpi>, an INTERFACE target that compiles and links as the MPI's own compiler does, and ATTENTION_MPIEXEC_<mpi>.
# A machine may have both at once, as Debian's packages do, so CMake's FindMPI, which finds one, is not asked.

set(ATTENTION_MPIS "")
set(ATTENTION_MPI_MACRO_openmpi OMPI_MAJOR_VERSION)
set(ATTENTION_MPI_MACRO_mpich MPICH_VERSION)
include(CheckCSourceCompiles)

# What the compiler wrapper says it would add: include folders, and the libraries by their paths.
function(attention_read_mpi_wrapper mpi)
  execute_process(COMMAND ${ATTENTION_MPICC_${mpi}} -show OUTPUT_VARIABLE words ERROR_QUIET RESULT_VARIABLE failed)
  if(failed)
    return()
  endif()
  separate_arguments(words UNIX_COMMAND "${words}")
  set(includes ${words})
  list(FILTER includes INCLUDE REGEX "^-I")
  list(TRANSFORM includes REPLACE "^-I" "")
  set(folders ${words})
  list(FILTER folders INCLUDE REGEX "^-L")
  list(TRANSFORM folders REPLACE "^-L" "")
  set(names ${words})
  list(FILTER names INCLUDE REGEX "^-l")
  set(libraries "")
  foreach(name IN LISTS names)
    string(REGEX REPLACE "^-l" "" name "${name}")
    find_library(ATTENTION_MPI_LIBRARY_${mpi}_${name} ${name} HINTS ${folders})
    mark_as_advanced(ATTENTION_MPI_LIBRARY_${mpi}_${name})
    list(APPEND libraries ${ATTENTION_MPI_LIBRARY_${mpi}_${name}})
  endforeach()
  set(CMAKE_REQUIRED_INCLUDES ${includes})
  set(CMAKE_REQUIRED_LIBRARIES ${libraries})
  check_c_source_compiles("#include <mpi.h>
    #ifndef ${ATTENTION_MPI_MACRO_${mpi}}
    #error another MPI
    #endif
    int main(void) { return MPI_Finalize(); }" ATTENTION_HAVE_MPI_${mpi})
  if(ATTENTION_HAVE_MPI_${mpi})
    add_library(attention_${mpi} INTERFACE)
    target_include_directories(attention_${mpi} SYSTEM INTERFACE ${includes})
    target_link_libraries(attention_${mpi} INTERFACE ${libraries})
    set(ATTENTION_MPIS ${ATTENTION_MPIS} ${mpi} PARENT_SCOPE)
  endif()
endfunction()

foreach(mpi IN ITEMS openmpi mpich)
  find_program(ATTENTION_MPICC_${mpi} NAMES mpicc.${mpi} mpicc)
  find_program(ATTENTION_MPIEXEC_${mpi} NAMES mpiexec.${mpi} mpiexec)
  mark_as_advanced(ATTENTION_MPICC_${mpi} ATTENTION_MPIEXEC_${mpi})
  if(ATTENTION_MPICC_${mpi})
    attention_read_mpi_wrapper(${mpi})
  endif()
endforeach()
if(ATTENTION_MPIS)
  message(STATUS "Attention over MPI: ${ATTENTION_MPIS}")
endif()
