! SPDX-License-Identifier: BSD-3-Clause
!
! case_file.f90: reads the case files that the library's build exports (tests/interop/README.md).
module case_file
  use, intrinsic :: iso_c_binding
  use attention, only: attn_tensor, tensor_at
  implicit none
  private
  public :: case_type, case_tensor, read_case, has_tensor, has_option, option_text, option_integer, &
            option_real, find_tensor, dtype_of

  integer, parameter :: most_records = 40, longest_line = 1024

  type :: case_tensor
    character(64) :: name = ''
    integer(c_int32_t) :: dtype = 0
    integer(c_int64_t), allocatable :: shape(:)
    real(c_double) :: tolerance = 0
    integer(c_int8_t), allocatable :: bytes(:)
  contains
    procedure :: view
  end type case_tensor

  type :: case_option
    character(64) :: name = ''
    character(256) :: value = ''
  end type case_option

  type :: case_type
    character(16) :: call_name = ''
    type(case_option) :: options(most_records)
    type(case_tensor) :: tensors(most_records), expected(most_records)
    integer :: num_options = 0, num_tensors = 0, num_expected = 0
    integer :: error_code = 0
    character(longest_line) :: error_text = ''
  end type case_type

contains

  function view(self)
    class(case_tensor), intent(in), target :: self
    type(attn_tensor) :: view
    view = tensor_at(c_loc(self%bytes), self%dtype, self%shape)
  end function view

  subroutine read_case(path, made)
    character(*), intent(in) :: path
    type(case_type), intent(out) :: made
    character(longest_line) :: line
    integer :: unit, status
    open (newunit=unit, file=path, access='stream', form='unformatted', status='old', action='read')
    do
      call read_line(unit, line, status)
      if (status /= 0) exit
      call read_record(unit, line, made)
    end do
    close (unit)
  end subroutine read_case

  subroutine read_line(unit, line, status)
    integer, intent(in) :: unit
    character(*), intent(out) :: line
    integer, intent(out) :: status
    character :: one
    integer :: length
    line = ''
    length = 0
    do
      read (unit, iostat=status) one
      if (status /= 0 .or. one == new_line('a')) return
      length = length + 1
      line(length:length) = one
    end do
  end subroutine read_line

  ! Takes the first word off the line.
  subroutine take_word(line, word)
    character(*), intent(inout) :: line
    character(*), intent(out) :: word
    integer :: blank
    blank = index(line, ' ')
    word = line(:blank - 1)
    line = line(blank + 1:)
  end subroutine take_word

  subroutine read_record(unit, line, made)
    integer, intent(in) :: unit
    character(*), intent(inout) :: line
    type(case_type), intent(inout) :: made
    character(64) :: record, word
    call take_word(line, record)
    select case (record)
    case ('call')
      made%call_name = trim(line)
    case ('option')
      made%num_options = made%num_options + 1
      call take_word(line, made%options(made%num_options)%name)
      made%options(made%num_options)%value = trim(line)
    case ('tensor')
      made%num_tensors = made%num_tensors + 1
      call take_word(line, made%tensors(made%num_tensors)%name)
      call read_elements(unit, line, made%tensors(made%num_tensors))
    case ('expect')
      made%num_expected = made%num_expected + 1
      call take_word(line, made%expected(made%num_expected)%name)
      call take_word(line, word)
      read (word, *) made%expected(made%num_expected)%tolerance
      call read_elements(unit, line, made%expected(made%num_expected))
    case ('error')
      call take_word(line, word)
      read (word, *) made%error_code
      made%error_text = line
    case default
      error stop 'unknown record: '//trim(record)
    end select
  end subroutine read_record

  integer(c_int32_t) function dtype_of(name)
    character(*), intent(in) :: name
    character(*), parameter :: names(9) = [character(8) :: 'float32', 'float64', 'bool', 'int64', &
                                           'bfloat16', 'float16', 'int32', 'int8', 'uint8']
    dtype_of = findloc(names, name, dim=1, kind=c_int32_t)
    if (dtype_of == 0) error stop 'unknown dtype: '//trim(name)
  end function dtype_of

  subroutine read_elements(unit, line, tensor)
    integer, intent(in) :: unit
    character(*), intent(inout) :: line
    type(case_tensor), intent(inout) :: tensor
    integer, parameter :: widths(9) = [4, 8, 1, 8, 2, 2, 4, 1, 1]
    character(64) :: word
    integer :: rank
    call take_word(line, word)
    tensor%dtype = dtype_of(word)
    call take_word(line, word)
    read (word, *) rank
    allocate (tensor%shape(rank))
    if (rank > 0) read (line, *) tensor%shape
    allocate (tensor%bytes(product(tensor%shape)*widths(tensor%dtype)))
    read (unit) tensor%bytes
  end subroutine read_elements

  ! ---- what a case holds ----

  integer function find_option(made, name)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    do find_option = made%num_options, 1, -1
      if (made%options(find_option)%name == name) return
    end do
  end function find_option

  integer function find_tensor(tensors, count, name)
    type(case_tensor), intent(in) :: tensors(:)
    integer, intent(in) :: count
    character(*), intent(in) :: name
    do find_tensor = count, 1, -1
      if (tensors(find_tensor)%name == name) return
    end do
  end function find_tensor

  logical function has_tensor(made, name)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    has_tensor = find_tensor(made%tensors, made%num_tensors, name) > 0
  end function has_tensor

  logical function has_option(made, name)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    has_option = find_option(made, name) > 0
  end function has_option

  function option_text(made, name) result(text)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    character(:), allocatable :: text
    text = ''
    if (has_option(made, name)) text = trim(made%options(find_option(made, name))%value)
  end function option_text

  integer(c_int64_t) function option_integer(made, name, absent)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    integer, intent(in) :: absent
    character(:), allocatable :: text
    option_integer = absent
    text = option_text(made, name)
    if (text /= '') read (text, *) option_integer
  end function option_integer

  real(c_double) function option_real(made, name)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    character(:), allocatable :: text
    option_real = 0
    text = option_text(made, name)
    if (text /= '') read (text, *) option_real
  end function option_real
end module case_file
