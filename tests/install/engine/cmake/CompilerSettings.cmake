# SPDX-License-Identifier: BSD-3-Clause
# The engine's settings, in a module called as one of the library's.

if(TARGET engine)
  message(FATAL_ERROR "the engine's settings are included a second time")
endif()
add_compile_options(-ffast-math -ffinite-math-only)
add_link_options(-Ofast -ffast-math)
