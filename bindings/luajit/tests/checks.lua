-- SPDX-License-Identifier: BSD-3-Clause
-- What tests of the wrapper are made of: assertions, and a run of all functions of a table.

local attention = require "attention"

local checks = {}

function checks.equal(expected, actual)
  assert(expected == actual, ("expected %s, got %s"):format(tostring(expected), tostring(actual)))
end

function checks.close(expected, actual)
  assert(math.abs(expected - actual) < 1e-5, ("expected %g, got %g"):format(expected, actual))
end

function checks.fails(code, message, call, ...)
  local succeeded, failure = pcall(call, ...)
  assert(not succeeded, "expected an error")
  assert(attention.is_error(failure), failure)
  checks.equal(code, failure.code)
  assert(failure.message:find(message, 1, true), failure.message)
  return failure
end

-- Runs the tests, prints a summary and ends the program.
function checks.run(tests)
  local failures, names = 0, {}
  for name in pairs(tests) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local succeeded, reason = xpcall(tests[name], function(reason)
      return debug.traceback(tostring(reason))
    end)
    if not succeeded then
      failures = failures + 1
      print(("%s: %s"):format(name, reason))
    end
  end
  print(("%d tests of the wrapper, %d failures"):format(#names, failures))
  os.exit(failures == 0)
end

return checks
