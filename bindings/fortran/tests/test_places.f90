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
  call check_integers(attn_dtype_int8, 127, 1. / 64)
  call check_integers(attn_dtype_uint8, 255, 1. / 128)
  call check_integers(attn_dtype_int4x2, 7, 1. / 4)
  call check_scale_of_floats()
  call check_blocks()
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

  ! A cache with a scale for each row, and where there is no sign a zero. Keys are integers times step
  ! from 0 to highest, and so are exactly what is stored.
  subroutine check_integers(dtype, highest, step)
    integer(c_int32_t), intent(in) :: dtype
    integer, intent(in) :: highest
    real(c_float), intent(in) :: step
    integer, parameter :: room = 4, new = 3
    integer(c_int8_t), allocatable, target :: key(:, :, :), value(:, :, :)
    real(c_float), target :: new_key(features, new, heads), new_value(features, new, heads), &
                             key_scale(1, room, heads), value_scale(1, room, heads), &
                             key_zero(1, room, heads), value_zero(1, room, heads), &
                             exact(features, 1, heads), found(features, 1, heads)
    integer(c_int64_t), target :: in_use
    type(kv_places) :: kv
    integer :: i
    in_use = new
    new_key = reshape([(mod(5 * i, highest) * step, i = 1, size(new_key))], shape(new_key))
    new_key(1, :, :) = highest * step
    call random_number(new_value)
    allocate(key(merge(features / 2, features, dtype == attn_dtype_int4x2), room, heads))
    allocate(value, mold=key)
    key_zero = 0
    value_zero = 0
    kv = kv_places(tensor_of(key, dtype), tensor_of(value, dtype), lengths=tensor_of(in_use), &
                   key_scale=tensor_of(key_scale), value_scale=tensor_of(value_scale))
    if (dtype == attn_dtype_uint8) kv%key_zero = tensor_of(key_zero)
    if (dtype == attn_dtype_uint8) kv%value_zero = tensor_of(value_zero)
    call kv_append(kv, tensor_of(new_key), tensor_of(new_value))
    call check(all(meant(key, dtype, key_scale, key_zero) == new_key), 'keys are kept')
    call check(all(abs(meant(value, dtype, value_scale, value_zero) - new_value) <= &
                   maxval(value_scale(:, :new, :)) / 2 + 1e-6), 'values are near')
    call attend(tensor_of(queries(:, :1, :)), tensor_of(new_key), tensor_of(new_value), tensor_of(exact))
    call attend(tensor_of(queries(:, :1, :)), kv, tensor_of(found))
    call check(all(exact > 0) .and. &
               all(abs(found - exact) <= maxval(value_scale(:, :new, :)) / 2 + 1e-6), 'sums are near')
  end subroutine check_integers

  ! ggml's: a scale and 32 values, here one block for each of two rows of a head.
  subroutine check_blocks()
    integer, parameter :: block_bytes = 34
    integer(c_int8_t), target :: key(block_bytes, 2), value(block_bytes, 2)
    real(c_float), target :: rows(32, 2, 1), query(32, 1, 1), exact(32, 1, 1), found(32, 1, 1)
    integer(c_int64_t), parameter :: blocks(3) = [1, 2, 1]
    type(kv_places) :: kv
    integer :: i
    rows = reshape([(2. * i - 127, i = 1, 64)], shape(rows))
    rows(32, :, 1) = 127
    query = 1. / 1024
    kv = kv_places(tensor_at(c_loc(key), attn_dtype_q8_0, blocks), tensor_at(c_loc(value), attn_dtype_q8_0, blocks))
    call kv_append_at_start(kv, tensor_of(rows))
    call attend(tensor_of(query), tensor_of(rows), tensor_of(rows), tensor_of(exact))
    call attend(tensor_of(query), kv, tensor_of(found))
    ! Scores of 32 products, at most 1, move sums of values up to 127.
    call check(all(abs(found - exact) <= 127 * 32 * epsilon(1._c_float)), 'blocks of scale 1 are their integers')
  end subroutine check_blocks

  subroutine kv_append_at_start(kv, rows)
    type(kv_places), intent(in) :: kv
    type(attn_tensor), intent(in) :: rows
    integer(c_int64_t), target :: positions(2) = [0, 1]
    call kv_append(kv, rows, rows, positions=tensor_of(positions))
  end subroutine kv_append_at_start

  ! The numbers of three rows of each head.
  function meant(bytes, dtype, scale, zero) result(numbers)
    integer(c_int8_t), intent(in) :: bytes(:, :, :)
    integer(c_int32_t), intent(in) :: dtype
    real(c_float), intent(in) :: scale(:, :, :), zero(:, :, :)
    real(c_float) :: numbers(features, 3, heads)
    integer :: elements(features, 3, heads)
    if (dtype == attn_dtype_int4x2) then
      elements(1::2, :, :) = signed_half(iand(int(bytes(:, :3, :)), 15))
      elements(2::2, :, :) = signed_half(ishft(iand(int(bytes(:, :3, :)), 255), -4))
    else
      elements = int(bytes(:, :3, :))
      if (dtype == attn_dtype_uint8) elements = iand(elements, 255)
    end if
    numbers = (elements - spread(zero(1, :3, :), 1, features)) * spread(scale(1, :3, :), 1, features)
  end function meant

  elemental integer function signed_half(bits)
    integer, intent(in) :: bits
    signed_half = bits - merge(16, 0, bits > 7)
  end function signed_half

  subroutine check_scale_of_floats()
    type(kv_places) :: kv
    real(c_float), target :: one(1, 1, 1), output(features, 6, heads)
    integer(c_int8_t), target :: bytes(2)
    type(attn_tensor) :: view
    one = 1
    kv = kv_places(tensor_of(keys), tensor_of(values), starts=tensor_of(key_starts), key_scale=tensor_of(one))
    call attend(tensor_of(queries), kv, tensor_of(output), query_starts=tensor_of(query_starts), &
                stat=stat, errmsg=errmsg)
    call check(stat == 2 .and. errmsg == 'kv.key_scale: expected NULL beside kv.key of float32, whose '// &
               'elements are not scaled', trim(errmsg))
    view = tensor_of(bytes)
    call check(view%dtype == attn_dtype_int8, 'bytes have a sign')
    view = tensor_of(bytes, attn_dtype_bfloat16)
    call check(view%dtype == 0, 'bytes are no numbers of 16 bits')
  end subroutine check_scale_of_floats

  subroutine check(is_right, what)
    logical, intent(in) :: is_right
    character(*), intent(in) :: what
    if (.not. is_right) error stop what
  end subroutine check
end program test_places
