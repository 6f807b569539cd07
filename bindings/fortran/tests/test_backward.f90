! SPDX-License-Identifier: BSD-3-Clause
!
! test_backward.f90: gradients against differences of the forward call, in real(c_double).
program test_backward
  use, intrinsic :: iso_c_binding
  use attention
  implicit none
  integer, parameter :: features = 4, rows = 3, num_keys = 5, heads = 2
  integer, parameter :: query_size = features*rows*heads, key_size = features*num_keys*heads, &
                        mask_size = num_keys*rows, all_inputs = query_size + 2*key_size + mask_size
  real(c_double), parameter :: step = 1e-4_c_double
  ! Query, key, value and mask, one behind the other, and so their gradients.
  real(c_double), target :: inputs(all_inputs), found(all_inputs)
  real(c_double), target :: output(features, rows, heads), lse(rows, heads)
  real(c_double), target :: of_output(features, rows, heads), of_lse(rows, heads)
  integer :: stat
  character(200) :: errmsg

  call random_number(inputs)
  call random_number(of_output)
  call random_number(of_lse)
  call check_differences()
  call check_places()
  call check_refusals()
  print '(a)', 'gradients: passed'

contains

  ! Views of the parts of such an array.
  subroutine views_of(values, query, key, value, mask)
    real(c_double), intent(in), target, contiguous :: values(:)
    type(attn_tensor), intent(out) :: query, key, value, mask
    query = view_at(values, 1, [heads, rows, features])
    key = view_at(values, 1 + query_size, [heads, num_keys, features])
    value = view_at(values, 1 + query_size + key_size, [heads, num_keys, features])
    mask = view_at(values, 1 + query_size + 2*key_size, [rows, num_keys])
  end subroutine views_of

  function view_at(values, first, shape) result(view)
    real(c_double), intent(in), target, contiguous :: values(:)
    integer, intent(in) :: first, shape(:)
    type(attn_tensor) :: view
    view = tensor_at(c_loc(values(first)), attn_dtype_float64, int(shape, c_int64_t))
  end function view_at

  ! What the gradients are of.
  real(c_double) function loss()
    type(attn_tensor) :: query, key, value, mask
    call views_of(inputs, query, key, value, mask)
    call attend(query, key, value, tensor_of(output), attn_mask=mask, is_causal=.true., &
                lse=tensor_of(lse))
    loss = sum(output*of_output) + sum(lse*of_lse)
  end function loss

  subroutine check_differences()
    type(attn_tensor) :: query, key, value, mask
    type(sdpa_gradients) :: gradients
    real(c_double) :: above, expected
    integer :: times, i
    expected = loss()
    gradients%output = tensor_of(of_output)
    gradients%lse = tensor_of(of_lse)
    call views_of(found, gradients%query, gradients%key, gradients%value, gradients%mask)
    call views_of(inputs, query, key, value, mask)
    do times = 1, 2
      gradients%accumulate = times == 2
      expected = loss()
      call attend_backward(query, key, value, tensor_of(output), gradients, attn_mask=mask, &
                           is_causal=.true., lse=tensor_of(lse))
      do i = 1, all_inputs
        inputs(i) = inputs(i) + step
        above = loss()
        inputs(i) = inputs(i) - 2*step
        expected = times*(above - loss())/(2*step)
        inputs(i) = inputs(i) + step
        call check(abs(found(i) - expected) < 1e-6_c_double, 'a gradient is a difference')
      end do
    end do
  end subroutine check_differences

  ! In the cache's shape, and 0 past its length.
  subroutine check_places()
    integer(c_int64_t), target :: length = 2
    real(c_double), target :: keys(features, num_keys, heads), of_keys(features, num_keys, heads)
    real(c_double), target :: queries(features, rows, heads)
    type(kv_places) :: kv
    type(sdpa_gradients) :: gradients
    type(backward_report) :: report
    call random_number(keys)
    call random_number(queries)
    of_keys = 7
    kv = kv_places(tensor_of(keys), tensor_of(keys), lengths=tensor_of(length))
    call attend(tensor_of(queries), kv, tensor_of(output), lse=tensor_of(lse))
    gradients%output = tensor_of(output)
    gradients%key = tensor_of(of_keys)
    call attend_backward(tensor_of(queries), kv, tensor_of(output), gradients, lse=tensor_of(lse))
    call check(all(of_keys(:, :2, :) /= 0), 'keys in use have gradients')
    call check(all(of_keys(:, 3:, :) == 0), 'others have none')
    call attend_backward(tensor_of(queries), kv, tensor_of(output), gradients, lse=tensor_of(lse), &
                         report=report)
    call check(report%num_items > 0 .and. report%workspace_bytes > 0 .and. report%reason /= '', &
               'a call tells what it ran')
  end subroutine check_places

  subroutine check_refusals()
    type(attn_tensor) :: query, key, value, mask
    type(sdpa_gradients) :: gradients
    call views_of(inputs, query, key, value, mask)
    call attend_backward(query, key, value, tensor_of(output), gradients, lse=tensor_of(lse), &
                         stat=stat, errmsg=errmsg)
    call check(stat == 1 .and. errmsg == 'gradients.output: expected a tensor, got NULL', trim(errmsg))
    gradients%output = tensor_of(of_output)
    gradients%sinks = tensor_of(of_lse(1, :))
    call attend_backward(query, key, value, tensor_of(output), gradients, lse=tensor_of(lse), &
                         stat=stat, errmsg=errmsg)
    call check(stat == 2 .and. errmsg == 'gradients.sinks: expected NULL without sinks', trim(errmsg))
  end subroutine check_refusals

  subroutine check(holds, what)
    logical, intent(in) :: holds
    character(*), intent(in) :: what
    if (holds) return
    print '(a)', what
    error stop
  end subroutine check
end program test_backward
