# SPDX-License-Identifier: BSD-3-Clause
# Toolchain file: builds with musl instead of glibc, by Debian's musl-tools, for this machine. The
# libraries that tests need are looked for in build/musl-root, where scripts/musl puts them, and
# never among the machine's own, which are glibc's.

set(CMAKE_C_COMPILER musl-gcc)
set(CMAKE_CXX_COMPILER "") # There is no C++ library for musl.

set(unpacked ${CMAKE_CURRENT_LIST_DIR}/../build/musl-root)
cmake_path(NORMAL_PATH unpacked)
set(ENV{PKG_CONFIG_LIBDIR} ${unpacked}/lib/pkgconfig)
set(ENV{PKG_CONFIG_PATH} "")

# The libraries of a library are the C library, which the linker of musl-tools has elsewhere.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,--unresolved-symbols=ignore-in-shared-libs")
