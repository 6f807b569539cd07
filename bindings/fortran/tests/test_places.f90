! SPDX-License-Identifier: BSD-3-Clause
!
! test_places.f90: keys and values in caches, ragged and in pages, and ragged queries.
program test_places
  use, intrinsic :: iso_c_binding
  use attention
  implicit none
  integer, parameter :: features = 4, heads = 2, page = 4
  ! Where the keys and the queries of three sequences are, one behind the other.
  integer(c_int64_t), target :: key_starts(4) = [0, 5, 6, 13], query_starts(4) = [0, 2, 3, 6], &
                                lengths(3) = [5, 1, 7], page_starts(4) = [0, 2, 3, 5]
  ! Pages in no order; an entry that no key needs is no page.
  integer(c_int32_t), target :: page_table(2, 3) = reshape([3, 1, 5, -1, 0, 2], [2, 3]), &
                                page_list(5) = [3, 1, 5, 0, 2]
  real(c_float), target :: keys(features, 13, heads), values(features, 13, heads), &
                           queries(features, 6, heads), expected(features, 6, heads), &
                           key_pages(features, page, heads, 0:5), value_pages(features, page, heads, 0:5)
  integer :: stat
  character(200) :: errmsg

  call random_number(keys)
  call random_number(values)
  call random_number(queries)
  call attend_one_by_one()
  call check_places()
  call check_positions()
  call check_errors()
  print '(a)', 'places: passed'

contains

  subroutine attend_one_by_one()
    integer(c_int64_t) :: b, k, l, q, r
    do b = 1, 3
      k = key_starts(b) + 1
      l = key_starts(b + 1)
      q = query_starts(b) + 1
      r = query_starts(b + 1)
      call attend(tensor_of(queries(:, q:r, :)), tensor_of(keys(:, k:l, :)), tensor_of(values(:, k:l, :)), &
                  tensor_of(expected(:, q:r, :)), is_causal=.true., align_end=.true.)
    end do
    call check(all(expected > 0), 'every row sees a key')
  end subroutine attend_one_by_one

  function paged() result(kv)
    type(kv_places) :: kv
    key_pages = 0
    value_pages = 0
    kv = kv_places(tensor_of(key_pages), tensor_of(value_pages), page_table=tensor_of(page_table), &
                   lengths=tensor_of(lengths))
  end function paged

  ! To the bit.
  subroutine check_same(kv, what)
    type(kv_places), intent(in) :: kv
    character(*), intent(in) :: what
    real(c_float), target :: output(features, 6, heads)
    type(attention_report) :: report
    output = -1
    call attend(tensor_of(queries), kv, tensor_of(output), is_causal=.true., align_end=.true., &
                query_starts=tensor_of(query_starts), report=report)
    call check(all(output == expected), what)
    call check(report%engine == attn_engine_fused, 'a report')
  end subroutine check_same

  subroutine check_places()
    type(kv_places) :: kv
    call check_same(kv_places(tensor_of(keys), tensor_of(values), starts=tensor_of(key_starts)), &
                    'ragged rows are single sequences')
    kv = paged()
    call kv_append(kv, tensor_of(keys), tensor_of(values), starts=tensor_of(key_starts))
    call check_same(kv, 'pages are single sequences')
    kv%page_table = tensor_of(page_list)
    kv%page_starts = tensor_of(page_starts)
    call check_same(kv, 'so are pages of all sequences')
  end subroutine check_places

  subroutine check_positions()
    type(kv_places) :: kv
    real(c_float), target :: rows(features, 1, heads, 3)
    real(c_float) :: stored(features, page, heads, 0:5)
    integer(c_int32_t), target :: positions(1, 3) = reshape([2, -1, 6], [1, 3])
    call random_number(rows)
    kv = paged()
    kv%lengths = attn_tensor()
    call kv_append(kv, tensor_of(rows), tensor_of(rows), positions=tensor_of(positions))
    stored = 0
    stored(:, 3, :, 3) = rows(:, 1, :, 1)
    stored(:, 3, :, 2) = rows(:, 1, :, 3)
    call check(all(key_pages == stored) .and. all(value_pages == stored), 'positions are places')
  end subroutine check_positions

  subroutine check_errors()
    type(kv_places) :: kv
    integer(c_int64_t), target :: beyond(4) = [0, 5, 6, 14]
    real(c_float), target :: output(features, 6, heads)
    output = -1
    kv = kv_places(tensor_of(keys), tensor_of(values), starts=tensor_of(beyond))
    call attend(tensor_of(queries), kv, tensor_of(output), query_starts=tensor_of(query_starts), &
                stat=stat, errmsg=errmsg)
    call check(stat == 2 .and. all(output == -1), 'starts beyond the keys are a status')
    call check(errmsg == 'kv.starts: expected 6 (the element before it) to 13, got 14 at element 3', trim(errmsg))
    kv = paged()
    kv%value = attn_tensor()
    call kv_append(kv, tensor_of(keys), tensor_of(values), stat=stat, errmsg=errmsg)
    call check(stat == 1 .and. errmsg == 'kv.value: expected a tensor, got NULL', trim(errmsg))
  end subroutine check_errors

  subroutine check(is_right, what)
    logical, intent(in) :: is_right
    character(*), intent(in) :: what
    if (.not. is_right) error stop what
  end subroutine check
end program test_places
