! SPDX-License-Identifier: BSD-3-Clause
!
! test_wrapper.f90: arrays of Fortran, sections included, are the same as copies of them.
program test_wrapper
  use, intrinsic :: iso_c_binding
  use attention
  implicit none
  real(c_float), target :: query(8, 5, 2), key(8, 7, 2), value(8, 7, 2), plain(8, 5, 2), wide(16, 5, 2)
  integer(c_int64_t), target :: numbers(3)
  integer :: stat
  character(200) :: errmsg

  call random_number(query)
  call random_number(key)
  call random_number(value)
  call attend(tensor_of(query), tensor_of(key), tensor_of(value), tensor_of(plain), is_causal=.true.)

  ! An output that is a section; inputs read backwards twice.
  wide = -1
  call attend(tensor_of(query(8:1:-1, :, :)), tensor_of(key(8:1:-1, :, :)), tensor_of(value), &
              tensor_of(wide(2::2, :, :)), is_causal=.true.)
  call check(all(abs(wide(2::2, :, :) - plain) < 1e-6), 'a section is written in place')
  call check(all(wide(1::2, :, :) == -1), 'what is between is left alone')
  call check(all(plain(:, 1, :) == value(:, 1, :)), 'the first row sees the first key')

  numbers = 0
  call attend(tensor_of(query), tensor_of(key(1:4, :, :)), tensor_of(value), tensor_of(plain), &
              stat=stat, errmsg=errmsg)
  call check(stat == 3, 'a wrong shape is a status')
  call check(errmsg == 'key: expected shape (..., S, E=8) as query''s last axis, got (2, 7, 4)', trim(errmsg))
  call attend(tensor_of(numbers), tensor_of(key), tensor_of(value), tensor_of(plain), stat=stat)
  call check(stat /= 0, 'integers are refused')
  print '(a)', 'wrapper: passed'

contains

  subroutine check(is_right, what)
    logical, intent(in) :: is_right
    character(*), intent(in) :: what
    if (.not. is_right) error stop what
  end subroutine check
end program test_wrapper
