! SPDX-License-Identifier: BSD-3-Clause
!
! attention_halves.f90: numbers of 16 bits, each an integer(c_int16_t) of its bits, from and to
! real(c_float). A real becomes the nearest number, of two as near the one whose last bit is 0.
module attention_halves
  use, intrinsic :: iso_c_binding
  implicit none
  private
  public :: to_bfloat16, from_bfloat16, to_float16, from_float16

  ! Bits of float32: the sign, infinity, 2^-14 (float16's smallest normal number), and what the
  ! exponents of the same number in float16 and float32 differ by.
  integer(c_int64_t), parameter :: sign_bit = int(z'80000000', c_int64_t), &
                                   infinity = int(z'7f800000', c_int64_t), &
                                   normal = ishft(113_c_int64_t, 23), moved = ishft(112_c_int64_t, 23)

contains

  ! As numbers from 0 on, in an integer that has room for sums of them.
  elemental integer(c_int64_t) function bits_of(number)
    real(c_float), intent(in) :: number
    bits_of = iand(int(transfer(number, 0_c_int32_t), c_int64_t), int(z'ffffffff', c_int64_t))
  end function bits_of

  elemental real(c_float) function real_of(bits)
    integer(c_int64_t), intent(in) :: bits
    real_of = transfer(int(merge(bits - 2*sign_bit, bits, bits >= sign_bit), c_int32_t), 0._c_float)
  end function real_of

  ! The lower 16 bits.
  elemental integer(c_int16_t) function short_of(bits)
    integer(c_int64_t), intent(in) :: bits
    integer(c_int64_t) :: low
    low = iand(bits, int(z'ffff', c_int64_t))
    short_of = int(merge(low - 65536, low, low >= 32768), c_int16_t)
  end function short_of

  elemental integer(c_int64_t) function last_kept_bit(bits, dropped)
    integer(c_int64_t), intent(in) :: bits
    integer, intent(in) :: dropped
    last_kept_bit = iand(ishft(bits, -dropped), 1_c_int64_t)
  end function last_kept_bit

  ! A bfloat16 is the upper half of a float32.
  elemental integer(c_int16_t) function to_bfloat16(number)
    real(c_float), intent(in) :: number
    integer(c_int64_t) :: bits
    bits = bits_of(number)
    if (iand(bits, sign_bit - 1) > infinity) then
      bits = ior(bits, int(z'400000', c_int64_t))
    else
      bits = bits + int(z'7fff', c_int64_t) + last_kept_bit(bits, 16)
    end if
    to_bfloat16 = short_of(ishft(bits, -16))
  end function to_bfloat16

  elemental real(c_float) function from_bfloat16(bits)
    integer(c_int16_t), intent(in) :: bits
    from_bfloat16 = real_of(ishft(iand(int(bits, c_int64_t), int(z'ffff', c_int64_t)), 16))
  end function from_bfloat16

  ! A float16 is IEEE 754's binary16, infinite from 65520 on.
  elemental integer(c_int16_t) function to_float16(number)
    real(c_float), intent(in) :: number
    integer(c_int64_t) :: size, rounded
    size = iand(bits_of(number), sign_bit - 1)
    if (size > infinity) then
      rounded = int(z'7e00', c_int64_t)
    else if (size >= int(z'477ff000', c_int64_t)) then
      rounded = int(z'7c00', c_int64_t)
    else if (size < normal) then ! a multiple of 2^-24: adding 1/2 rounds to one
      rounded = bits_of(real_of(size) + 0.5_c_float) - bits_of(0.5_c_float)
    else
      rounded = ishft(size - moved + int(z'fff', c_int64_t) + last_kept_bit(size, 13), -13)
    end if
    to_float16 = short_of(rounded + ishft(iand(bits_of(number), sign_bit), -16))
  end function to_float16

  elemental real(c_float) function from_float16(bits)
    integer(c_int16_t), intent(in) :: bits
    integer(c_int64_t) :: size
    size = ishft(iand(int(bits, c_int64_t), int(z'7fff', c_int64_t)), 13)
    if (size >= ishft(31_c_int64_t, 23)) then
      size = size + 2*moved
    else if (size >= ishft(1_c_int64_t, 23)) then
      size = size + moved
    else ! read as a normal number a subnormal one is by 2^-14 too large
      size = bits_of(real_of(size + normal) - real_of(normal))
    end if
    if (bits < 0) size = size + sign_bit
    from_float16 = real_of(size)
  end function from_float16
end module attention_halves
