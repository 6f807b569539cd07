! SPDX-License-Identifier: BSD-3-Clause
!
! test_wrapper.f90: arrays of Fortran, sections included, are the same as copies of them; options,
! contexts and layers.
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
  call check_options()
  call check_context()
  call check_layer()
  call selftest()
  print '(a)', 'wrapper: passed'

contains

  ! Scores of 0, so that what is seen weighs the same.
  subroutine check_options()
    real(c_float), target :: rows(2, 2, 2), keys(2, 3, 2), values(1, 3, 2), result(1, 2, 2), &
                             bias(3, 1), per_head(3, 2, 2), averaged(3, 2)
    logical(c_bool), target :: mask(3)
    integer(c_int32_t), target :: length
    rows = 0
    keys = 0
    values(1, :, 1) = [10, 20, 30]
    values(1, :, 2) = [40, 50, 60]
    bias(:, 1) = [log(3.), 0., 0.]
    mask = [.true., .true., .false.]
    call attend(tensor_of(rows), tensor_of(keys), tensor_of(values), tensor_of(result), &
                attn_mask=tensor_of(mask), bias=tensor_of(bias))
    call check(abs(result(1, 1, 1) - 12.5) < 1e-5, 'a bias is added beside a mask')
    call attend(tensor_of(rows), tensor_of(keys), tensor_of(values), tensor_of(result), &
                is_causal=.true., align_end=.true.)
    call check(all(abs(result(1, :, 1) - [15, 20]) < 1e-4), 'the last row stands at the last key')
    length = 1
    call attend(tensor_of(rows), tensor_of(keys), tensor_of(values), tensor_of(result), &
                key_lengths=tensor_of(length))
    call check(all(abs(result(1, 1, :) - [10, 40]) < 1e-4), 'lengths may be 32-bit')
    call attend(tensor_of(rows), tensor_of(keys), tensor_of(values), tensor_of(result), &
                normalizer=attn_normalizer_linear)
    call check(all(result == 0), 'linear weights are the scores')
    rows(1, 1, 1) = 5
    keys(1, 2, 1) = 1
    call attend(tensor_of(rows), tensor_of(keys), tensor_of(values), tensor_of(result), &
                weights=tensor_of(per_head))
    call attend(tensor_of(rows), tensor_of(keys), tensor_of(values), tensor_of(result), &
                weights=tensor_of(averaged))
    call check(per_head(2, 1, 1) > 0.9, 'weights per head')
    call check(all(abs(sum(per_head, 3)/2 - averaged) < 1e-6), 'weights averaged over the heads')
    call attend(tensor_of(rows), tensor_of(keys), tensor_of(values), tensor_of(result), &
                normalizer=77_c_int32_t, stat=stat, errmsg=errmsg)
    call check(stat == attn_error_unsupported .and. index(errmsg, 'normalizer: ') == 1, trim(errmsg))
  end subroutine check_options

  subroutine check_context()
    type(attention_context) :: context
    type(attention_report) :: report
    type(context_info) :: info
    call context%create(num_threads=2_c_int32_t, engine=attn_engine_fused, gemm=attn_gemm_native, &
                        kernels='baseline', float32_weights=.true.)
    call context%start()
    info = context%describe()
    call check(info%num_threads == 2 .and. info%kernels == 'baseline', 'a context is described')
    call check(info%projection_gemm == attn_gemm_native, 'its products too')
    call attend(tensor_of(query), tensor_of(key), tensor_of(value), tensor_of(plain), &
                context=context, report=report)
    call check(report%engine == attn_engine_fused .and. report%kernels == 'baseline', 'a report')
    call check(report%reason /= '', 'it has a reason')
    call context%create(kernels='abacus', stat=stat, errmsg=errmsg)
    call check(stat == attn_error_unsupported .and. index(errmsg, 'kernels: ') == 1, trim(errmsg))
  end subroutine check_context

  subroutine check_layer()
    type(multihead) :: layer
    type(multihead_sizes) :: sizes
    type(multihead_report) :: report
    type(attention_context) :: context
    real(c_float), target :: tokens(6, 3, 5), result(6, 3, 5), per_head(4, 3, 2, 5), &
                             averaged(4, 3, 5), lse(3, 2, 5), loaded(6, 6), weight(6, 6)
    call layer%create(6_c_int64_t, 2_c_int64_t, bias=.false., batch_first=.true., add_zero_attn=.true.)
    call layer%initialize(1_c_int64_t)
    sizes = layer%describe()
    call check(sizes%head_dim == 3 .and. sizes%kdim == 6 .and. sizes%num_kv_heads == 2, 'sizes')
    call check(sizes%batch_first .and. .not. sizes%bias .and. sizes%dtype == attn_dtype_float32, 'flags')
    call random_number(loaded)
    call context%create(engine=attn_engine_blas, gemm=attn_gemm_native)
    call layer%load('out_proj.weight', tensor_of(loaded), context)
    call layer%read('out_proj.weight', tensor_of(weight))
    call check(all(weight == loaded), 'a parameter is read')
    tokens = 0
    call layer%forward(tensor_of(tokens), tensor_of(tokens), tensor_of(tokens), tensor_of(result), &
                       weights=tensor_of(per_head), lse=tensor_of(lse), context=context, report=report)
    call check(all(abs(per_head - 0.25) < 1e-6), 'weights per head')
    call check(all(abs(lse - log(4.)) < 1e-6), 'lse')
    call check(report%projection_gemm == attn_gemm_native, 'a report of the layer')
    call check(report%attention%engine == attn_engine_blas, 'and of the attention inside')
    call layer%forward(tensor_of(tokens), tensor_of(tokens), tensor_of(tokens), tensor_of(result), &
                       weights=tensor_of(averaged))
    call check(all(abs(averaged - 0.25) < 1e-6), 'weights averaged over the heads')
    call layer%forward(tensor_of(tokens), tensor_of(tokens), tensor_of(tokens), tensor_of(result), &
                       softcap=-1._c_double, stat=stat, errmsg=errmsg)
    call check(stat == 2 .and. index(errmsg, 'attention.softcap: ') == 1, trim(errmsg))
  end subroutine check_layer

  subroutine check(is_right, what)
    logical, intent(in) :: is_right
    character(*), intent(in) :: what
    if (.not. is_right) error stop what
  end subroutine check
end program test_wrapper
