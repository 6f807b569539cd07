# SPDX-License-Identifier: BSD-3-Clause
include(CMakeFindDependencyMacro)
find_dependency(attention COMPONENTS static)
include("${CMAKE_CURRENT_LIST_DIR}/engineTargets.cmake")
