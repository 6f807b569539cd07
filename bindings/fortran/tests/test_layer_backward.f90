! SPDX-License-Identifier: BSD-3-Clause
!
! test_layer_backward.f90: what a layer's gradients are taken from, and how they are asked for; their
! numbers are those of the exported cases.
program test_layer_backward
  use, intrinsic :: iso_c_binding
  use attention
  implicit none
  integer, parameter :: embed_dim = 8, rows = 3, heads = 2
  real(c_double), parameter :: step = 1e-4_c_double
  real(c_double), target :: tokens(embed_dim, rows), given(embed_dim, rows), mask(rows, rows), &
                            of_lse(rows, heads), output(embed_dim, rows), lse(rows, heads)
  type(multihead) :: layer
  integer :: stat
  character(200) :: errmsg

  call random_number(tokens)
  call random_number(given)
  call random_number(mask)
  call random_number(of_lse)
  call layer%create(int(embed_dim, c_int64_t), int(heads, c_int64_t), dtype=attn_dtype_float64)
  call layer%initialize(7_c_int64_t)
  call check_same_output()
  call check_differences()
  call check_calls()
  call check_refusals()
  print '(a)', 'gradients of a layer: passed'

contains

  subroutine check_same_output()
    real(c_double), target :: same(embed_dim, rows)
    type(saved_forward) :: saved
    call attend_tokens(.true.)
    same = output
    call layer%forward(tensor_of(tokens), tensor_of(tokens), tensor_of(tokens), tensor_of(output), &
                       is_causal=.true., saved=saved)
    call check(all(same == output), 'a call that saves computes what forward does')
  end subroutine check_same_output

  subroutine attend_tokens(is_causal)
    logical, intent(in) :: is_causal
    call layer%forward(tensor_of(tokens), tensor_of(tokens), tensor_of(tokens), tensor_of(output), &
                       is_causal=is_causal)
  end subroutine attend_tokens

  ! What the gradients below are of.
  real(c_double) function loss()
    call layer%forward(tensor_of(tokens), tensor_of(tokens), tensor_of(tokens), tensor_of(output), &
                       attn_mask=tensor_of(mask), lse=tensor_of(lse))
    loss = sum(output*given) + sum(lse*of_lse)
  end function loss

  subroutine check_differences()
    real(c_double), target :: found(rows, rows)
    real(c_double) :: above, expected
    type(saved_forward) :: saved
    type(multihead_gradients) :: wanted
    integer :: i, j
    call layer%forward(tensor_of(tokens), tensor_of(tokens), tensor_of(tokens), tensor_of(output), &
                       attn_mask=tensor_of(mask), saved=saved)
    wanted%output = tensor_of(given)
    wanted%lse = tensor_of(of_lse)
    wanted%mask = tensor_of(found)
    call saved%backward(wanted)
    do j = 1, rows
      do i = 1, rows
        mask(i, j) = mask(i, j) + step
        above = loss()
        mask(i, j) = mask(i, j) - 2*step
        expected = (above - loss())/(2*step)
        mask(i, j) = mask(i, j) + step
        call check(abs(found(i, j) - expected) < 1e-6_c_double, 'a gradient is a difference')
      end do
    end do
  end subroutine check_differences

  ! Each has its own memory; the views that a call was given may be gone.
  subroutine check_calls()
    real(c_double), target :: of_query(embed_dim, rows), alone(embed_dim, rows), of_bias(embed_dim)
    type(saved_forward) :: first, second
    type(multihead_gradients) :: wanted
    call layer%forward(tensor_of(tokens), tensor_of(tokens), tensor_of(tokens), tensor_of(output), &
                       saved=first)
    call layer%forward(tensor_of(tokens), tensor_of(tokens), tensor_of(tokens), tensor_of(output), &
                       is_causal=.true., saved=second)
    wanted%output = tensor_of(given)
    wanted%query = tensor_of(of_query)
    wanted%parameters = [parameter_gradient('out_proj.bias', tensor_of(of_bias))]
    call first%backward(wanted)
    alone = of_query
    call check(all(abs(of_bias - sum(given, dim=2)) < 1e-12_c_double), 'the bias gets all rows')
    call second%backward(wanted)
    call check(any(of_query /= alone), 'another call has other gradients')
    call first%backward(wanted)
    call check(all(of_query == alone), 'the same call has the same')
    wanted%accumulate = .true.
    call first%backward(wanted)
    call check(all(abs(of_query - 2*alone) < 1e-12_c_double), 'gradients add up')
  end subroutine check_calls

  subroutine check_refusals()
    real(c_double), target :: room(embed_dim), cached(4, rows, heads)
    integer(c_int64_t), target :: length = rows
    type(saved_forward) :: saved
    type(multihead_gradients) :: wanted
    type(kv_places) :: cache
    wanted%output = tensor_of(given)
    call saved%backward(wanted, stat=stat, errmsg=errmsg)
    call expect(1, 'saved: expected what forward has filled')
    call layer%forward(tensor_of(tokens), tensor_of(tokens), tensor_of(tokens), tensor_of(output), &
                       saved=saved)
    wanted%parameters = [parameter_gradient('bias_k', tensor_of(room))]
    call saved%backward(wanted, stat=stat, errmsg=errmsg)
    call expect(7, 'gradients.bias_k: expected a parameter of the layer')
    deallocate (wanted%parameters)
    wanted%sinks = tensor_of(room(:heads))
    call saved%backward(wanted, stat=stat, errmsg=errmsg)
    call expect(2, 'gradients.attention.sinks: ')
    cache = kv_places(tensor_of(cached), tensor_of(cached), lengths=tensor_of(length))
    call layer%forward(tensor_of(tokens), tensor_of(tokens), tensor_of(tokens), tensor_of(output), &
                       cache=cache, saved=saved, stat=stat, errmsg=errmsg)
    call expect(11, 'cache: ')
    call saved%backward(wanted, stat=stat, errmsg=errmsg)
    call expect(1, 'saved: ')
  end subroutine check_refusals

  subroutine expect(code, beginning)
    integer, intent(in) :: code
    character(*), intent(in) :: beginning
    call check(stat == code .and. index(errmsg, beginning) == 1, trim(errmsg))
  end subroutine expect

  subroutine check(holds, what)
    logical, intent(in) :: holds
    character(*), intent(in) :: what
    if (holds) return
    print '(a)', what
    error stop
  end subroutine check
end program test_layer_backward
