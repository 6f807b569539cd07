# SPDX-License-Identifier: BSD-3-Clause
# Runs PROGRAM (test_golden) on a directory that must be refused: exit status 1 and a message that says why.
#   EMULATOR  a command that runs PROGRAM, where it was cross compiled; else empty
#   WHAT   empty, missing, broken (a file that is no safetensors file) or foreign (a safetensors file without an op)
#   PLACE  where directories may be made

set(directory ${PLACE}/refused_${WHAT})
file(REMOVE_RECURSE ${directory})
if(NOT WHAT STREQUAL "missing")
  file(MAKE_DIRECTORY ${directory})
endif()

if(WHAT STREQUAL "empty")
  set(expected "no golden cases: .* holds no .safetensors file")
elseif(WHAT STREQUAL "missing")
  set(expected "no golden cases: .* cannot be read")
elseif(WHAT STREQUAL "broken")
  file(WRITE ${directory}/text.safetensors "this is no header of a safetensors file")
  set(expected "FAILED text: .*1 failures")
elseif(WHAT STREQUAL "foreign")
  # Header of 2 bytes, "{}": a valid file without tensors and options.
  execute_process(COMMAND printf "\\002\\000\\000\\000\\000\\000\\000\\000{}" OUTPUT_FILE ${directory}/bare.safetensors)
  set(expected "FAILED bare: unknown op")
endif()

separate_arguments(emulator UNIX_COMMAND "${EMULATOR}")
execute_process(COMMAND ${emulator} ${PROGRAM} ${directory} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT status STREQUAL "1")
  message(FATAL_ERROR "expected exit status 1, got ${status}\n${output}")
endif()
if(NOT output MATCHES "${expected}")
  message(FATAL_ERROR "expected a message like \"${expected}\", got\n${output}")
endif()
