! SPDX-License-Identifier: BSD-3-Clause
!
! test_halves.f90: numbers of 16 bits: their conversion, attention on them, layers that keep them.
program test_halves
  use, intrinsic :: iso_c_binding
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan, ieee_value, ieee_quiet_nan, &
                                           ieee_negative_inf, ieee_positive_inf
  use attention
  implicit none
  integer, parameter :: embed_dim = 8, rows = 3
  integer(c_int32_t), parameter :: dtypes(2) = [attn_dtype_bfloat16, attn_dtype_float16]
  integer, parameter :: digits(2) = [8, 11]
  integer :: which

  call check_float16()
  call check_bfloat16()
  do which = 1, 2
    call check_attention(dtypes(which), digits(which))
  end do
  call check_mixed()
  call check_float32_weights()
  call check_float32_weights('avx512_bf16')
  call check_float32_weights('neon_bf16')
  call check_layer(attn_dtype_bfloat16, attn_dtype_bfloat16, 8)
  call check_layer(attn_dtype_float16, attn_dtype_bfloat16, 11)
  call check_refused_layer()
  print '(a)', '16 bits: passed'

contains

  subroutine check_float16()
    real(c_float), parameter :: step = 2._c_float**(-24)
    real(c_float) :: reals(13), wide
    integer :: bits(13), i
    reals = [1., -2., 65504., 65519., 65520., step, step/2, 1.5*step, 1023*step, 1023.5*step, &
             1024*step, 1 + 2._c_float**(-11), 1 + 3*2._c_float**(-11)]
    bits = [int(z'3c00'), int(z'c000'), int(z'7bff'), int(z'7bff'), int(z'7c00'), 1, 0, 2, &
            int(z'3ff'), int(z'400'), int(z'400'), int(z'3c00'), int(z'3c02')]
    do i = 1, size(bits)
      call check(unsigned(to_float16(reals(i))) == bits(i), 'float16 of a number')
    end do
    call check(unsigned(to_float16(-0._c_float)) == int(z'8000'), 'float16 of -0')
    call check(unsigned(to_float16(ieee_value(wide, ieee_negative_inf))) == int(z'fc00'), 'of -inf')
    call check(ieee_is_nan(from_float16(to_float16(ieee_value(wide, ieee_quiet_nan)))), 'of NaN')
    do i = -32768, 32767
      wide = from_float16(int(i, c_int16_t))
      call check(ieee_is_nan(wide) .eqv. iand(i, 32767) > int(z'7c00'), 'NaN of float16')
      if (.not. ieee_is_nan(wide)) call check(to_float16(wide) == i, 'float16 and back')
    end do
  end subroutine check_float16

  subroutine check_bfloat16()
    real(c_float) :: reals(7), wide
    integer :: bits(7), i
    reals = [1._c_float, -2._c_float, huge(wide), transfer(65536_c_int32_t, wide), &
             1 + 2._c_float**(-8), 1 + 2._c_float**(-8) + 2._c_float**(-23), 1 + 3*2._c_float**(-8)]
    bits = [int(z'3f80'), int(z'c000'), int(z'7f80'), 1, int(z'3f80'), int(z'3f81'), int(z'3f82')]
    do i = 1, size(bits)
      call check(unsigned(to_bfloat16(reals(i))) == bits(i), 'bfloat16 of a number')
    end do
    call check(unsigned(to_bfloat16(ieee_value(wide, ieee_positive_inf))) == int(z'7f80'), 'of inf')
    wide = transfer(int(z'7f800001', c_int32_t), wide)
    call check(ieee_is_nan(from_bfloat16(to_bfloat16(wide))), 'of NaN')
    do i = -32768, 32767
      wide = from_bfloat16(int(i, c_int16_t))
      if (.not. ieee_is_nan(wide)) call check(to_bfloat16(wide) == i, 'bfloat16 and back')
    end do
  end subroutine check_bfloat16

  integer function unsigned(bits)
    integer(c_int16_t), intent(in) :: bits
    unsigned = iand(int(bits), 65535)
  end function unsigned

  elemental integer(c_int16_t) function narrowed(number, dtype)
    real(c_float), intent(in) :: number
    integer(c_int32_t), intent(in) :: dtype
    narrowed = merge(to_bfloat16(number), to_float16(number), dtype == attn_dtype_bfloat16)
  end function narrowed

  elemental real(c_float) function widened(bits, dtype)
    integer(c_int16_t), intent(in) :: bits
    integer(c_int32_t), intent(in) :: dtype
    widened = merge(from_bfloat16(bits), from_float16(bits), dtype == attn_dtype_bfloat16)
  end function widened

  ! Within half a step of a type of so many bits and what float32 is off by.
  logical function are_near(found, wanted, bits)
    real(c_float), intent(in) :: found(:, :), wanted(:, :)
    integer, intent(in) :: bits
    are_near = any(wanted /= 0) .and. &
               all(abs(found - wanted) <= 2.**(exponent(abs(wanted) + 1e-5) - 1 - bits) + 1e-5)
  end function are_near

  function numbers() result(made)
    real(c_float) :: made(embed_dim, rows)
    integer :: i
    made = reshape([(mod(i*37 + 11, 64)/32._c_float - 1, i=1, embed_dim*rows)], [embed_dim, rows])
  end function numbers

  subroutine check_attention(dtype, bits)
    integer(c_int32_t), intent(in) :: dtype
    integer, intent(in) :: bits
    integer(c_int16_t), target :: narrow(embed_dim, rows), stored(embed_dim, rows)
    real(c_float), target :: wide(embed_dim, rows), expected(embed_dim, rows), &
                             unrounded(embed_dim, rows), lse(rows), sums(rows)
    narrow = narrowed(numbers(), dtype)
    wide = widened(narrow, dtype)
    call attend(tensor_of(wide), tensor_of(wide), tensor_of(wide), tensor_of(expected), &
                is_causal=.true., lse=tensor_of(lse))
    call attend(tensor_of(narrow, dtype), tensor_of(narrow, dtype), tensor_of(narrow, dtype), &
                tensor_of(stored, dtype), is_causal=.true., lse=tensor_of(sums))
    call check(are_near(widened(stored, dtype), expected, bits), 'attention on 16 bits')
    call check(all(lse == sums), 'its lse')
    call attend(tensor_of(narrow, dtype), tensor_of(narrow, dtype), tensor_of(narrow, dtype), &
                tensor_of(unrounded), is_causal=.true.)
    call check(all(unrounded == expected), 'its output in float32')
  end subroutine check_attention

  ! Keys are every other row of a larger array.
  subroutine check_mixed()
    integer(c_int16_t), target :: key(embed_dim, 2*rows), value(embed_dim, rows)
    real(c_float), target :: query(embed_dim, rows), wide_key(embed_dim, rows), &
                             wide_value(embed_dim, rows), output(embed_dim, rows), &
                             expected(embed_dim, rows)
    real(c_double), target :: double(embed_dim, rows)
    type(attn_tensor) :: none
    integer :: stat
    character(200) :: errmsg
    query = numbers()
    key = -1
    key(:, 1::2) = to_bfloat16(query)
    value = to_float16(query)
    wide_key = from_bfloat16(key(:, 1::2))
    wide_value = from_float16(value)
    call attend(tensor_of(query), tensor_of(wide_key), tensor_of(wide_value), tensor_of(expected))
    call attend(tensor_of(query), tensor_of(key(:, 1::2), attn_dtype_bfloat16), &
                tensor_of(value, attn_dtype_float16), tensor_of(output))
    call check(are_near(output, expected, 24), 'keys and values of other types')
    double = 0
    call attend(tensor_of(value, attn_dtype_float16), tensor_of(double), tensor_of(double), &
                tensor_of(output), stat=stat, errmsg=errmsg)
    call check(stat == 4 .and. errmsg == 'key: expected dtype float32, bfloat16 or float16, got '// &
               'float64', trim(errmsg))
    none = tensor_of(value, attn_dtype_float32)
    call check(none%dtype == 0, 'two bytes are no float32')
  end subroutine check_mixed

  ! Of two keys; bfloat16 has no number within 0.0019 of the second's weight, e^(-77/256).
  subroutine check_float32_weights(kernels)
    character(*), intent(in), optional :: kernels
    type(attention_context) :: context
    integer(c_int16_t), target :: query(1, 8), key(1, 2), value(1, 2)
    real(c_float), target :: output(1, 8)
    integer :: stat
    character(200) :: errmsg
    call context%create(kernels=kernels, float32_weights=.true., stat=stat, errmsg=errmsg)
    if (present(kernels) .and. stat == attn_error_unsupported) then
      print '(a)', 'not on this machine: '//trim(errmsg)
      return
    end if
    call check(stat == 0, 'a context with weights of float32')
    query = to_bfloat16(1._c_float)
    key(1, :) = to_bfloat16([0._c_float, -77._c_float/256])
    value(1, :) = to_bfloat16([0._c_float, 1._c_float])
    call attend(tensor_of(query, attn_dtype_bfloat16), tensor_of(key, attn_dtype_bfloat16), &
                tensor_of(value, attn_dtype_bfloat16), tensor_of(output), context=context)
    call check(all(abs(output - 1/(1 + exp(77._c_float/256))) <= 1e-5), 'weights are of float32')
  end subroutine check_float32_weights

  ! One without bias, of whose two parameters another of float32 gets the same numbers.
  subroutine check_layer(dtype, parameter_dtype, bits)
    integer(c_int32_t), intent(in) :: dtype, parameter_dtype
    integer, intent(in) :: bits
    type(multihead) :: layer, wide_layer
    type(multihead_sizes) :: sizes
    integer(c_int16_t), target :: in_proj(embed_dim, 3*embed_dim), out_proj(embed_dim, embed_dim), &
                                  tokens(embed_dim, rows), output(embed_dim, rows)
    real(c_float), target :: wide_in(embed_dim, 3*embed_dim), wide_out(embed_dim, embed_dim), &
                             wide(embed_dim, rows), expected(embed_dim, rows)
    call layer%create(8_c_int64_t, 2_c_int64_t, bias=.false., dtype=dtype, &
                      parameter_dtype=parameter_dtype)
    call layer%initialize(1_c_int64_t)
    sizes = layer%describe()
    call check(sizes%dtype == dtype .and. sizes%parameter_dtype == parameter_dtype, 'its types')
    call layer%read('in_proj_weight', tensor_of(in_proj, parameter_dtype))
    call layer%read('out_proj.weight', tensor_of(out_proj, parameter_dtype))
    wide_in = widened(in_proj, parameter_dtype)
    wide_out = widened(out_proj, parameter_dtype)
    call wide_layer%create(8_c_int64_t, 2_c_int64_t, bias=.false.)
    call wide_layer%load('in_proj_weight', tensor_of(wide_in))
    call wide_layer%load('out_proj.weight', tensor_of(wide_out))

    tokens = narrowed(numbers(), dtype)
    wide = widened(tokens, dtype)
    call wide_layer%forward(tensor_of(wide), tensor_of(wide), tensor_of(wide), tensor_of(expected))
    call layer%forward(tensor_of(tokens, dtype), tensor_of(tokens, dtype), &
                       tensor_of(tokens, dtype), tensor_of(output, dtype))
    call check(are_near(widened(output, dtype), expected, bits), 'a layer in 16 bits')
  end subroutine check_layer

  subroutine check_refused_layer()
    type(multihead) :: layer
    integer :: stat
    character(200) :: errmsg
    call layer%create(8_c_int64_t, 2_c_int64_t, dtype=attn_dtype_float64, &
                      parameter_dtype=attn_dtype_float16, stat=stat, errmsg=errmsg)
    call check(stat == 4 .and. errmsg == 'parameter_dtype: expected float64, or 0, beside dtype '// &
               'float64, got float16', trim(errmsg))
  end subroutine check_refused_layer

  subroutine check(is_right, what)
    logical, intent(in) :: is_right
    character(*), intent(in) :: what
    if (.not. is_right) error stop what
  end subroutine check
end program test_halves
