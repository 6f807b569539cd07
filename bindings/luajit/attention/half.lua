-- SPDX-License-Identifier: BSD-3-Clause
-- Numbers of 16 bits from and to Lua's, by their definition: a sign, an exponent, a fraction. A type's
-- numbers grow with their bits, which count the steps from 0.

local half = {}

local formats = {}
for dtype, bits in pairs {bfloat16 = {exponent = 8, fraction = 7}, float16 = {exponent = 5, fraction = 10}} do
  formats[dtype] = {
    fraction = bits.fraction,
    -- numbers below 2^lowest are as far apart as those above it
    lowest = 2 - 2 ^ (bits.exponent - 1),
    infinity = (2 ^ bits.exponent - 1) * 2 ^ bits.fraction,
  }
end

-- Whether a dtype is one of these.
function half.is(dtype)
  return formats[dtype] ~= nil
end

local function nearest_even(number)
  local below = math.floor(number)
  local rest = number - below
  return (rest > 0.5 or rest == 0.5 and below % 2 == 1) and below + 1 or below
end

-- The bits of a number that is not negative.
local function size_bits(format, size)
  if size == 0 or size == math.huge then
    return size == 0 and 0 or format.infinity
  end
  local _, exponent = math.frexp(size)
  local binade = math.max(exponent - 1, format.lowest)
  local steps = nearest_even(math.ldexp(size, format.fraction - binade))
  return math.min(steps + (binade - format.lowest) * 2 ^ format.fraction, format.infinity)
end

-- The bits of the nearest number, of two as near the one whose last bit is 0; from half a step beyond
-- the largest number on it is infinite.
function half.bits(dtype, number)
  local format = formats[dtype]
  if number ~= number then
    return format.infinity + 2 ^ (format.fraction - 1)
  end
  local is_negative = number < 0 or 1 / number < 0
  return size_bits(format, math.abs(number)) + (is_negative and 0x8000 or 0)
end

-- Exactly the number that the bits are.
function half.number(dtype, bits)
  local format = formats[dtype]
  local size, sign = bits % 0x8000, bits >= 0x8000 and -1 or 1
  if size >= format.infinity then
    return size == format.infinity and sign * math.huge or 0 / 0
  end
  local binade = math.floor(size / 2 ^ format.fraction)
  local steps = size - math.max(binade - 1, 0) * 2 ^ format.fraction
  return sign * math.ldexp(steps, math.max(binade - 1, 0) + format.lowest - format.fraction)
end

return half
