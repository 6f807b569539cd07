! SPDX-License-Identifier: BSD-3-Clause
!
! run_cases.f90: the cases that every language runs, through the module attention.
! Usage: run_cases <folder of cases>
program run_cases
  use, intrinsic :: iso_c_binding
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan, ieee_is_finite
  use attention
  use case_file
  implicit none

  ! Memory for the gradient that stands at the same place of the case's results.
  type :: room_type
    integer(c_int8_t), allocatable :: bytes(:)
  end type room_type

  integer, parameter :: fewest_cases = 60, fewest_errors = 5
  character(1024) :: folder, name
  type(case_type), allocatable, target :: made
  integer :: list, status, cases, errors, failures
  logical :: is_good

  call get_command_argument(1, folder)
  cases = 0
  errors = 0
  failures = 0
  open (newunit=list, file=trim(folder)//'/cases.txt', status='old', action='read')
  do
    read (list, '(a)', iostat=status) name
    if (status /= 0) exit
    allocate (made)
    call read_case(trim(folder)//'/'//trim(name)//'.case', made)
    call run(made, trim(name), is_good)
    if (made%error_code == 0) then
      cases = cases + 1
    else
      errors = errors + 1
    end if
    if (.not. is_good) failures = failures + 1
    deallocate (made)
  end do
  print '(a,i0,a,i0,a,i0,a)', 'fortran: ', cases, ' cases, ', errors, ' errors, ', failures, ' failures'
  if (failures > 0 .or. cases < fewest_cases .or. errors < fewest_errors) stop 1, quiet=.true.

contains

  ! An input's view; a null pointer, which is an absent argument, if the case has none.
  function input(made, name) result(view)
    type(case_type), intent(in), target :: made
    character(*), intent(in) :: name
    type(attn_tensor), pointer :: view
    integer :: place
    view => null()
    place = find_tensor(made%tensors, made%num_tensors, name)
    if (place > 0) then
      allocate (view)
      view = made%tensors(place)%view()
    end if
  end function input

  ! Memory for a result, lse of the scores' type, others of query's; null if the case does not expect it.
  function result_view(made, name, room) result(view)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    integer(c_int8_t), allocatable, target, intent(inout) :: room(:)
    type(attn_tensor), pointer :: view
    integer :: place
    view => null()
    place = find_tensor(made%expected, made%num_expected, name)
    if (place > 0) then
      allocate (view)
      view = new_view(made, name, made%expected(place)%shape, room)
    end if
  end function result_view

  ! The main result; of a call to be refused query's shape with `features` columns.
  function main_view(made, name, features, room) result(view)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    integer(c_int64_t), intent(in) :: features
    integer(c_int8_t), allocatable, target, intent(inout) :: room(:)
    type(attn_tensor), pointer :: view
    integer(c_int64_t), allocatable :: shape(:)
    view => result_view(made, name, room)
    if (associated(view)) return
    shape = made%tensors(find_tensor(made%tensors, made%num_tensors, 'query'))%shape
    shape(size(shape)) = features
    allocate (view)
    view = new_view(made, name, shape, room)
  end function main_view

  integer(c_int32_t) function result_dtype(made, name)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    result_dtype = made%tensors(find_tensor(made%tensors, made%num_tensors, 'query'))%dtype
    if (name == 'lse' .and. result_dtype /= attn_dtype_float64) result_dtype = attn_dtype_float32
  end function result_dtype

  function new_view(made, name, shape, room) result(view)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    integer(c_int64_t), intent(in) :: shape(:)
    integer(c_int8_t), allocatable, target, intent(inout) :: room(:)
    type(attn_tensor) :: view
    allocate (room(8*product(shape)), source=0_c_int8_t)
    view = tensor_at(c_loc(room), result_dtype(made, name), shape)
  end function new_view

  ! ---- calls ----

  ! The names that only this call has are `own`; those of attention are known in both.
  subroutine refuse_unknown(made, own)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: own
    character(:), allocatable :: known
    integer :: i
    known = own//'query key value attn_mask bias query_offset key_lengths sinks alibi_slopes '// &
            'is_causal scale align_end window_left window_right softcap normalizer lse '// &
            'mask_start position_bias block_mask block_rows block_columns '// &
            'dropout_probability dropout_seed dropout_offset dropout_batch dropout_head '// &
            'dropout_row dropout_column '
    do i = 1, made%num_options
      if (index(known, ' '//trim(made%options(i)%name)//' ') == 0) &
        error stop 'unknown: '//trim(made%options(i)%name)
    end do
    do i = 1, made%num_tensors
      if (index(known, ' '//trim(made%tensors(i)%name)//' ') == 0 .and. &
          index(made%tensors(i)%name, 'parameter.') /= 1 .and. &
          index(made%tensors(i)%name, 'gradient.') /= 1) &
        error stop 'unknown: '//trim(made%tensors(i)%name)
    end do
    do i = 1, made%num_expected
      if (index(known, ' '//trim(made%expected(i)%name)//' ') == 0 .and. &
          index(made%expected(i)%name, 'gradient.') /= 1) &
        error stop 'unknown: '//trim(made%expected(i)%name)
    end do
  end subroutine refuse_unknown

  logical function flag(made, name, absent)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    integer, intent(in) :: absent
    flag = option_integer(made, name, absent) /= 0
  end function flag

  integer(c_int32_t) function normalizer_of(name)
    character(*), intent(in) :: name
    select case (name)
    case ('', 'softmax')
      normalizer_of = attn_normalizer_softmax
    case ('sigmoid')
      normalizer_of = attn_normalizer_sigmoid
    case ('linear')
      normalizer_of = attn_normalizer_linear
    case default
      error stop 'unknown normalizer: '//name
    end select
  end function normalizer_of

  subroutine run(made, name, is_good)
    type(case_type), intent(in), target :: made
    character(*), intent(in) :: name
    logical, intent(out) :: is_good
    integer(c_int8_t), allocatable, target :: output(:), lse(:), weights(:)
    type(room_type), target :: rooms(made%num_expected)
    character(512) :: errmsg
    integer :: stat, i
    errmsg = ''
    if (made%call_name == 'sdpa') then
      call run_sdpa(made, output, lse, weights, rooms, stat, errmsg)
    else if (made%call_name == 'mha') then
      call run_mha(made, output, lse, weights, rooms, stat, errmsg)
    else
      error stop 'unknown call: '//trim(made%call_name)
    end if
    is_good = stat == made%error_code .and. errmsg == made%error_text
    if (.not. is_good) print '(a,": status ",i0," ",a)', name, stat, trim(errmsg)
    if (stat /= 0) return
    call compare(made, name, 'output', output, is_good)
    call compare(made, name, 'attn_output', output, is_good)
    call compare(made, name, 'lse', lse, is_good)
    call compare(made, name, 'weights', weights, is_good)
    call compare(made, name, 'attn_weights', weights, is_good)
    do i = 1, made%num_expected
      if (index(made%expected(i)%name, 'gradient.') == 1) &
        call compare(made, name, trim(made%expected(i)%name), rooms(i)%bytes, is_good)
    end do
  end subroutine run

  ! Options that are absent where 0 would mean something: unallocated, which is an absent argument.
  subroutine find_optional(made, scale, window)
    type(case_type), intent(in) :: made
    real(c_double), allocatable, intent(out) :: scale
    integer(c_int64_t), allocatable, intent(out) :: window(:)
    if (has_option(made, 'scale')) scale = option_real(made, 'scale')
    if (has_option(made, 'window_left') .or. has_option(made, 'window_right')) window = &
      [option_integer(made, 'window_left', -1), option_integer(made, 'window_right', -1)]
  end subroutine find_optional

  ! Likewise unallocated where nothing is dropped.
  subroutine find_dropout(made, dropout)
    type(case_type), intent(in) :: made
    type(attention_dropout), allocatable, intent(out) :: dropout
    if (.not. has_option(made, 'dropout_probability')) return
    dropout = attention_dropout(option_real(made, 'dropout_probability'), &
                                option_integer(made, 'dropout_seed', 0), &
                                option_integer(made, 'dropout_offset', 0), &
                                option_integer(made, 'dropout_batch', 0), &
                                option_integer(made, 'dropout_head', 0), &
                                option_integer(made, 'dropout_row', 0), &
                                option_integer(made, 'dropout_column', 0))
  end subroutine find_dropout

  ! What the case is given of gradients; of no type if it has none.
  function given(made, name) result(view)
    type(case_type), intent(in), target :: made
    character(*), intent(in) :: name
    type(attn_tensor) :: view
    integer :: place
    place = find_tensor(made%tensors, made%num_tensors, name)
    if (place > 0) view = made%tensors(place)%view()
  end function given

  ! Likewise a place for one that is expected.
  function wanted(made, name, rooms) result(view)
    type(case_type), intent(in) :: made
    character(*), intent(in) :: name
    type(room_type), intent(inout), target :: rooms(:)
    type(attn_tensor) :: view
    integer :: place
    place = find_tensor(made%expected, made%num_expected, name)
    if (place > 0) view = new_view(made, name, made%expected(place)%shape, rooms(place)%bytes)
  end function wanted

  ! Gradients of a layer, and, without parameters, of attention.
  function gradients_of(made, rooms) result(gradients)
    type(case_type), intent(in), target :: made
    type(room_type), intent(inout), target :: rooms(:)
    type(multihead_gradients) :: gradients
    character(:), allocatable :: name
    integer :: i
    gradients%output = given(made, 'gradient.'//merge('attn_output', 'output     ', made%call_name == 'mha'))
    gradients%weights = given(made, 'gradient.attn_weights')
    gradients%query = wanted(made, 'gradient.query', rooms)
    gradients%key = wanted(made, 'gradient.key', rooms)
    gradients%value = wanted(made, 'gradient.value', rooms)
    gradients%mask = wanted(made, 'gradient.attn_mask', rooms)
    allocate (gradients%parameters(0))
    do i = 1, made%num_expected
      name = trim(made%expected(i)%name)
      if (index(name, 'gradient.parameter.') == 1) gradients%parameters = &
        [gradients%parameters, parameter_gradient(name(20:), wanted(made, name, rooms))]
    end do
  end function gradients_of

  ! Room for lse, too, where gradients are computed from it.
  function lse_view(made, room) result(view)
    type(case_type), intent(in) :: made
    integer(c_int8_t), allocatable, target, intent(inout) :: room(:)
    type(attn_tensor), pointer :: view
    integer :: place
    view => result_view(made, 'lse', room)
    if (associated(view) .or. .not. has_tensor(made, 'gradient.output')) return
    place = find_tensor(made%expected, made%num_expected, 'output')
    allocate (view)
    associate (shape => made%expected(place)%shape)
      view = new_view(made, 'lse', shape(:size(shape) - 1), room)
    end associate
  end function lse_view

  subroutine run_sdpa(made, output, lse, weights, rooms, stat, errmsg)
    type(case_type), intent(in), target :: made
    integer(c_int8_t), allocatable, target, intent(inout) :: output(:), lse(:), weights(:)
    type(room_type), intent(inout), target :: rooms(:)
    integer, intent(out) :: stat
    character(*), intent(inout) :: errmsg
    type(attn_tensor), pointer :: value, made_output, made_lse
    type(multihead_gradients), target :: gradients
    real(c_double), allocatable :: scale
    integer(c_int64_t), allocatable :: window(:)
    type(attention_dropout), allocatable :: dropout
    call refuse_unknown(made, ' enable_gqa output weights ')
    value => input(made, 'value')
    call find_optional(made, scale, window)
    call find_dropout(made, dropout)
    made_output => main_view(made, 'output', value%shape(value%rank), output)
    made_lse => lse_view(made, lse)
    call attend(input(made, 'query'), input(made, 'key'), value, made_output, &
                attn_mask=input(made, 'attn_mask'), bias=input(made, 'bias'), &
                is_causal=flag(made, 'is_causal', 0), scale=scale, &
                enable_gqa=flag(made, 'enable_gqa', 0), align_end=flag(made, 'align_end', 0), &
                query_offset=input(made, 'query_offset'), &
                key_lengths=input(made, 'key_lengths'), window=window, &
                softcap=option_real(made, 'softcap'), sinks=input(made, 'sinks'), &
                alibi_slopes=input(made, 'alibi_slopes'), &
                normalizer=normalizer_of(option_text(made, 'normalizer')), &
                lse=made_lse, weights=result_view(made, 'weights', weights), &
                mask_start=input(made, 'mask_start'), &
                position_bias=input(made, 'position_bias'), block_mask=input(made, 'block_mask'), &
                block_size=int([option_integer(made, 'block_rows', 0), &
                                option_integer(made, 'block_columns', 0)], c_int64_t), &
                dropout=dropout, stat=stat, errmsg=errmsg)
    if (stat /= 0 .or. .not. has_tensor(made, 'gradient.output')) return
    gradients = gradients_of(made, rooms)
    call attend_backward(input(made, 'query'), input(made, 'key'), value, made_output, &
                         gradients%sdpa_gradients, attn_mask=input(made, 'attn_mask'), &
                         is_causal=flag(made, 'is_causal', 0), scale=scale, &
                         enable_gqa=flag(made, 'enable_gqa', 0), lse=made_lse, stat=stat, &
                         errmsg=errmsg)
  end subroutine run_sdpa

  ! 0, which is the layer's, if the case has none.
  integer(c_int32_t) function parameter_dtype_of(made)
    type(case_type), intent(in) :: made
    parameter_dtype_of = 0
    if (has_option(made, 'parameter_dtype')) &
      parameter_dtype_of = dtype_of(option_text(made, 'parameter_dtype'))
  end function parameter_dtype_of

  subroutine run_mha(made, output, lse, weights, rooms, stat, errmsg)
    type(case_type), intent(in), target :: made
    integer(c_int8_t), allocatable, target, intent(inout) :: output(:), lse(:), weights(:)
    type(room_type), intent(inout), target :: rooms(:)
    integer, intent(out) :: stat
    character(*), intent(inout) :: errmsg
    type(multihead) :: layer
    type(saved_forward), allocatable :: saved
    type(attn_tensor), pointer :: query
    real(c_double), allocatable :: scale
    integer(c_int64_t), allocatable :: window(:)
    integer :: i
    call refuse_unknown(made, ' key_padding_mask embed_dim num_heads kdim vdim qdim head_dim '// &
                        'value_head_dim num_kv_heads no_bias add_bias_kv add_zero_attn '// &
                        'batch_first need_weights average_attn_weights parameter_dtype '// &
                        'attn_output attn_weights ')
    query => input(made, 'query')
    call layer%create(option_integer(made, 'embed_dim', 0), option_integer(made, 'num_heads', 0), &
                      bias=.not. flag(made, 'no_bias', 0), &
                      add_bias_kv=flag(made, 'add_bias_kv', 0), &
                      add_zero_attn=flag(made, 'add_zero_attn', 0), &
                      kdim=option_integer(made, 'kdim', 0), vdim=option_integer(made, 'vdim', 0), &
                      batch_first=flag(made, 'batch_first', 0), &
                      qdim=option_integer(made, 'qdim', 0), &
                      head_dim=option_integer(made, 'head_dim', 0), &
                      value_head_dim=option_integer(made, 'value_head_dim', 0), &
                      num_kv_heads=option_integer(made, 'num_kv_heads', 0), &
                      dtype=query%dtype, parameter_dtype=parameter_dtype_of(made), stat=stat, errmsg=errmsg)
    do i = 1, made%num_tensors
      if (stat /= 0) return
      if (index(made%tensors(i)%name, 'parameter.') == 1) &
        call layer%load(made%tensors(i)%name(11:), made%tensors(i)%view(), stat=stat, errmsg=errmsg)
    end do
    if (stat /= 0) return
    call find_optional(made, scale, window)
    ! Unallocated it is an absent argument.
    if (has_tensor(made, 'gradient.attn_output')) allocate (saved)
    call layer%forward(query, input(made, 'key'), input(made, 'value'), &
                       main_view(made, 'attn_output', option_integer(made, 'embed_dim', 0), output), &
                       key_padding_mask=input(made, 'key_padding_mask'), &
                       attn_mask=input(made, 'attn_mask'), bias=input(made, 'bias'), &
                       is_causal=flag(made, 'is_causal', 0), scale=scale, &
                       align_end=flag(made, 'align_end', 0), &
                       query_offset=input(made, 'query_offset'), &
                       key_lengths=input(made, 'key_lengths'), window=window, &
                       softcap=option_real(made, 'softcap'), sinks=input(made, 'sinks'), &
                       alibi_slopes=input(made, 'alibi_slopes'), &
                       normalizer=normalizer_of(option_text(made, 'normalizer')), &
                       lse=result_view(made, 'lse', lse), &
                       weights=result_view(made, 'attn_weights', weights), &
                       stat=stat, errmsg=errmsg, saved=saved)
    if (stat == 0 .and. allocated(saved)) &
      call saved%backward(gradients_of(made, rooms), stat=stat, errmsg=errmsg)
  end subroutine run_mha

  ! ---- comparison ----

  ! is_good becomes false if a result is not as expected.
  subroutine compare(made, name, what, room, is_good)
    type(case_type), intent(in), target :: made
    character(*), intent(in) :: name, what
    integer(c_int8_t), allocatable, target, intent(in) :: room(:)
    logical, intent(inout) :: is_good
    real(c_double), pointer :: wanted(:), double(:)
    real(c_float), pointer :: single(:)
    integer(c_int16_t), pointer :: half(:)
    real(c_double) :: found
    integer(c_int64_t) :: count, i
    integer :: place
    place = find_tensor(made%expected, made%num_expected, what)
    if (place == 0) return
    count = product(made%expected(place)%shape)
    call c_f_pointer(c_loc(made%expected(place)%bytes), wanted, [count])
    call c_f_pointer(c_loc(room), double, [count])
    call c_f_pointer(c_loc(room), single, [count])
    call c_f_pointer(c_loc(room), half, [count])
    do i = 1, count
      select case (result_dtype(made, what))
      case (attn_dtype_float64)
        found = double(i)
      case (attn_dtype_bfloat16)
        found = from_bfloat16(half(i))
      case (attn_dtype_float16)
        found = from_float16(half(i))
      case default
        found = single(i)
      end select
      if (is_near(found, wanted(i), made%expected(place)%tolerance)) cycle
      print '(a,": ",a,"(",i0,"): expected ",g0,", got ",g0)', name, what, i, wanted(i), found
      is_good = .false.
      return
    end do
  end subroutine compare

  logical function is_near(found, wanted, tolerance)
    real(c_double), intent(in) :: found, wanted, tolerance
    if (ieee_is_nan(wanted)) then
      is_near = ieee_is_nan(found)
    else if (.not. ieee_is_finite(wanted)) then
      is_near = found == wanted
    else
      is_near = abs(found - wanted) <= tolerance
    end if
  end function is_near
end program run_cases
