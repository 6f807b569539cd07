# SPDX-License-Identifier: BSD-3-Clause
# Toolchain file: builds for 64-bit ARM on another machine, with Debian's cross compiler, and runs
# what was built in qemu's user mode. The libraries that tests need are looked for in
# build/aarch64-root, where scripts/setup --all unpacks them, and never among the machine's own.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
# Without one for ARM there is no C++; the machine's own compiler must not be taken for it.
find_program(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

# The C library, as Debian's libc6-dev-arm64-cross lays it.
set(c_library /usr/aarch64-linux-gnu)
set(unpacked ${CMAKE_CURRENT_LIST_DIR}/../build/aarch64-root)
cmake_path(NORMAL_PATH unpacked)

set(CMAKE_FIND_ROOT_PATH ${unpacked} ${c_library})
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${unpacked})
set(ENV{PKG_CONFIG_LIBDIR} ${unpacked}/usr/lib/aarch64-linux-gnu/pkgconfig)
set(ENV{PKG_CONFIG_PATH} "")

# An early processor: it traps on instructions that the kernels must not count on.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu cortex-a53 -L ${c_library})
