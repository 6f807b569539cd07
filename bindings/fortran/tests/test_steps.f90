! SPDX-License-Identifier: BSD-3-Clause
!
! test_steps.f90: scores, and what models do around attention: parts put together, positions,
! normalisation.
program test_steps
  use, intrinsic :: iso_c_binding
  use, intrinsic :: ieee_arithmetic, only: ieee_value, ieee_negative_inf
  use attention
  implicit none
  integer, parameter :: features = 4, rows = 3, num_keys = 5
  real(c_float), target :: query(features, rows), keys(features, num_keys)
  integer :: stat
  character(200) :: errmsg

  call random_number(query)
  call random_number(keys)
  call check_parts()
  call check_sums()
  call check_scores()
  call check_positions()
  call check_tables()
  call check_rows()
  print '(a)', 'steps: passed'

contains

  subroutine check_parts()
    real(c_float), target :: whole(features, rows), whole_lse(rows), outputs(features, rows, 2), &
                             lses(rows, 2), sinks(1) = [0.5]
    call attend(tensor_of(query), tensor_of(keys), tensor_of(keys), tensor_of(whole), &
                sinks=tensor_of(sinks), lse=tensor_of(whole_lse))
    call attend(tensor_of(query), tensor_of(keys(:, :2)), tensor_of(keys(:, :2)), &
                tensor_of(outputs(:, :, 1)), lse=tensor_of(lses(:, 1)))
    call attend(tensor_of(query), tensor_of(keys(:, 3:)), tensor_of(keys(:, 3:)), &
                tensor_of(outputs(:, :, 2)), lse=tensor_of(lses(:, 2)))
    call merge_parts([partial_result(tensor_of(outputs(:, :, 1)), tensor_of(lses(:, 1))), &
                      partial_result(tensor_of(outputs(:, :, 2)), tensor_of(lses(:, 2)))], &
                     tensor_of(outputs(:, :, 1)), lse=tensor_of(lses(:, 1)), sinks=tensor_of(sinks))
    call check(all(abs(outputs(:, :, 1) - whole) < 1e-5), 'parts are the whole')
    call check(all(abs(lses(:, 1) - whole_lse) < 1e-5), 'and so is their lse')
  end subroutine check_parts

  subroutine check_sums()
    real(c_float), target :: one(2, 1), sum(2, 1), lse(1) = 0
    integer(c_int16_t), target :: other(2, 1)
    type(partial_result) :: parts(2)
    one(:, 1) = [1, 2]
    other(:, 1) = to_bfloat16([3., -1.])
    parts = [partial_result(tensor_of(one)), partial_result(tensor_of(other, attn_dtype_bfloat16))]
    call merge_parts(parts, tensor_of(sum))
    call check(all(sum(:, 1) == [4, 1]), 'parts without lse are added')
    parts(1)%lse = tensor_of(lse)
    call merge_parts(parts, tensor_of(sum), stat=stat, errmsg=errmsg)
    call check(stat == 4 .and. errmsg == 'lses[1]: expected a dtype of enum attn_dtype, got invalid', trim(errmsg))
    call merge_parts(parts(:0), tensor_of(sum), stat=stat, errmsg=errmsg)
    call check(stat == 2 .and. errmsg == 'count: expected 1 and up, got 0', trim(errmsg))
    call check(all(sum(:, 1) == [4, 1]), 'an error leaves the output')
  end subroutine check_sums

  subroutine check_scores()
    real(c_float), target :: output(features, rows), scaled(num_keys, rows), masked(num_keys, rows)
    real(c_float) :: expected(num_keys, rows)
    integer :: row
    call attend(tensor_of(query), tensor_of(keys), tensor_of(keys), tensor_of(output), is_causal=.true., &
                scale=2._c_double, scores=tensor_of(scaled))
    call attend(tensor_of(query), tensor_of(keys), tensor_of(keys), tensor_of(output), is_causal=.true., &
                scale=2._c_double, scores=tensor_of(masked), scores_stage=attn_score_masked)
    expected = 2 * matmul(transpose(keys), query)
    call check(all(abs(scaled - expected) < 1e-5), 'scaled scores')
    do row = 1, rows
      call check(all(masked(:row, row) == scaled(:row, row)), 'masked scores of keys that are seen')
      call check(all(masked(row + 1:, row) == ieee_value(1._c_float, ieee_negative_inf)), 'and not')
    end do
  end subroutine check_scores

  subroutine check_positions()
    real(c_float), target :: output(features, 2), turns(2) = [1., 0.25]
    real(c_float) :: input(features, 2), angles(2)
    integer(c_int32_t), target :: positions(2) = [7, -3]
    integer :: row
    input = query(:, :2)
    call rope(tensor_of(query(:, :2)), tensor_of(output), frequencies=tensor_of(turns), &
              positions=tensor_of(positions))
    do row = 1, 2
      angles = positions(row) * turns
      call check(all(abs(output(:, row) - [input(:2, row) * cos(angles) - input(3:, row) * sin(angles), &
                                           input(3:, row) * cos(angles) + input(:2, row) * sin(angles)]) &
                     < 1e-5), 'positions turn pairs')
    end do
    call rope(tensor_of(output), tensor_of(output), inverse=.true., frequencies=tensor_of(turns), &
              positions=tensor_of(positions))
    call check(all(abs(output - input) < 1e-5), 'and back')
  end subroutine check_positions

  subroutine check_tables()
    real(c_float), target :: input(5, 1), output(5, 1), cosines(2, 1), sines(2, 1)
    input(:, 1) = [1, 2, 3, 4, 5]
    cosines(:, 1) = [0, 1]
    sines(:, 1) = [1, 0]
    call rope(tensor_of(input), tensor_of(output), rotary_dim=4_c_int64_t, interleaved=.true., &
              magnitude=2._c_double, cos=tensor_of(cosines), sin=tensor_of(sines))
    call check(all(output(:, 1) == [-4, 2, 6, 8, 5]), 'tables are taken as they are')
    call rope(tensor_of(input), tensor_of(output), rotary_dim=3_c_int64_t, stat=stat, errmsg=errmsg)
    call check(stat == 2 .and. errmsg == 'rotary_dim: expected an even number, 0 to E=5, got 3', trim(errmsg))
  end subroutine check_tables

  ! 12.5 + 3.5 is 16.
  subroutine check_rows()
    real(c_float), target :: row(2, 1), weight(2) = [0, 1]
    row(:, 1) = [3, 4]
    call rms_norm(tensor_of(row), tensor_of(row), weight=tensor_of(weight), epsilon=3.5_c_double, &
                  weight_offset=1._c_double)
    call check(all(row(:, 1) == [0.75, 2.]), 'rows are normalised')
  end subroutine check_rows

  subroutine check(is_right, what)
    logical, intent(in) :: is_right
    character(*), intent(in) :: what
    if (.not. is_right) error stop what
  end subroutine check
end program test_steps
