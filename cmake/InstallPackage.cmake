# SPDX-License-Identifier: BSD-3-Clause
# What is installed, and how others find it: headers, libraries, attention.pc, the CMake package,
# the licence. Nothing installed holds a path of the build machine, so the whole prefix may be
# moved.

include(CMakePackageConfigHelpers)

# <prefix>/<dir>, or dir itself where it is absolute.
function(attention_join_prefix out prefix dir)
  cmake_path(APPEND prefix "${dir}")
  set(${out} "${prefix}" PARENT_SCOPE)
endfunction()

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/attention ${PROJECT_BINARY_DIR}/include/attention
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
# An enclosing project that asked for the folders before has CMAKE_INSTALL_DOCDIR hold its own name.
set(doc_dir ${CMAKE_INSTALL_DOCDIR})
if(NOT PROJECT_IS_TOP_LEVEL)
  set(doc_dir ${CMAKE_INSTALL_DATAROOTDIR}/doc/attention)
endif()
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/README.md DESTINATION ${doc_dir})

# Each library has an export set of its own, so that a program of the shared library never meets the
# needs of the static one.
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/attention)
set_target_properties(attention_common PROPERTIES EXPORT_NAME headers)
install(TARGETS attention_common EXPORT attentionHeaders
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT attentionHeaders NAMESPACE attention:: DESTINATION ${package_dir})
if(ATTENTION_BUILD_SHARED)
  set_target_properties(attention_shared PROPERTIES EXPORT_NAME attention)
  install(TARGETS attention_shared EXPORT attentionShared)
  if(TARGET attention_blas_module)
    get_target_property(module_dir attention_blas_module ATTENTION_FOLDER)
    install(TARGETS attention_blas_module DESTINATION ${CMAKE_INSTALL_LIBDIR}/${module_dir})
  endif()
  install(EXPORT attentionShared NAMESPACE attention:: DESTINATION ${package_dir})
endif()
if(ATTENTION_BUILD_STATIC)
  install(TARGETS attention_static EXPORT attentionStatic)
  install(EXPORT attentionStatic NAMESPACE attention:: DESTINATION ${package_dir})
endif()

# Each MPI's library is a component of its own. What it exports holds nothing of the MPI, which a program brings itself.
if(TARGET attention_shared AND ATTENTION_MPIS)
  install(FILES ${PROJECT_SOURCE_DIR}/mpi/include/attention/mpi.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/attention)
  foreach(mpi IN LISTS ATTENTION_MPIS)
    set_target_properties(attention_mpi_${mpi} PROPERTIES EXPORT_NAME mpi_${mpi})
    install(TARGETS attention_mpi_${mpi} EXPORT attentionMpi_${mpi})
    install(EXPORT attentionMpi_${mpi} NAMESPACE attention:: DESTINATION ${package_dir})
  endforeach()
endif()

# The attn program (cli/ installs it) finds the shared library from where it lies itself.
if(TARGET attn AND TARGET attention::attention)
  file(RELATIVE_PATH library_from_program "/${CMAKE_INSTALL_BINDIR}" "/${CMAKE_INSTALL_LIBDIR}")
  set_target_properties(attn PROPERTIES INSTALL_RPATH "$ORIGIN/${library_from_program}")
endif()

set(package ${PROJECT_BINARY_DIR}/package)
configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/attentionConfig.cmake.in ${package}/attentionConfig.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
# Until 1.0 a minor release may break the ABI; from then on only a major one does.
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(compatibility SameMinorVersion)
else()
  set(compatibility SameMajorVersion)
endif()
write_basic_package_version_file(${package}/attentionConfigVersion.cmake
                                 COMPATIBILITY ${compatibility})
install(FILES ${package}/attentionConfig.cmake ${package}/attentionConfigVersion.cmake
        DESTINATION ${package_dir})

# attention.pc finds the prefix from where it lies itself.
file(RELATIVE_PATH up_to_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" up_to_prefix "${up_to_prefix}")
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(ATTENTION_PC_PREFIX "${CMAKE_INSTALL_PREFIX}")
else()
  set(ATTENTION_PC_PREFIX "\${pcfiledir}/${up_to_prefix}")
endif()
attention_join_prefix(ATTENTION_PC_INCLUDEDIR "\${prefix}" "${CMAKE_INSTALL_INCLUDEDIR}")
attention_join_prefix(ATTENTION_PC_LIBDIR "\${prefix}" "${CMAKE_INSTALL_LIBDIR}")
string(JOIN " " ATTENTION_PC_LIBS_PRIVATE ${ATTENTION_BLAS_LINK_FLAGS} -lm -lpthread)
configure_file(${PROJECT_SOURCE_DIR}/attention.pc.in ${package}/attention.pc @ONLY)
install(FILES ${package}/attention.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
foreach(ATTENTION_PC_MPI IN LISTS ATTENTION_MPIS)
  set(file ${package}/attention-mpi-${ATTENTION_PC_MPI}.pc)
  configure_file(${PROJECT_SOURCE_DIR}/mpi/attention-mpi.pc.in ${file} @ONLY)
  install(FILES ${file} DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
