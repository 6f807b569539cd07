! SPDX-License-Identifier: BSD-3-Clause
!
! attention_options.f90: what the calls of attention and of layers are given, and report, as C has
! it. A program uses the module attention, which has what is public of it.
module attention_options
  use, intrinsic :: iso_c_binding
  use attention_abi, only: attn_tensor, attn_dtype_bool, attn_mask_additive, attn_sdpa_set_scale, &
                           attn_sdpa_set_window, attn_sdpa_params, attn_sdpa_report, attn_dropout
  use attention_contexts, only: text_at, longest_text
  implicit none
  private
  public :: attention_report, attention_dropout, report_of, options_of, drop_by, address_of, as_flag, &
            kind_of

  ! What attention ran and why, for people to read. packs: 1 query, 2 key, 4 value, 8 output, added:
  ! what went through a copy.
  type :: attention_report
    integer(c_int32_t) :: engine, gemm, packs
    logical :: depends_on_blas_threads
    integer(c_int64_t) :: row_block, num_blocks, workspace_bytes
    character(longest_text) :: kernels, reason
  end type attention_report

  ! Which weights are dropped, each with this probability: the stream's seed and offset, 64 bits, and
  ! numbers from 0 that are added to those of a weight's place, where a call is a part of a larger one.
  type :: attention_dropout
    real(c_double) :: probability = 0
    integer(c_int64_t) :: seed = 0, offset = 0, batch = 0, head = 0, row = 0, column = 0
  end type attention_dropout

contains

  function address_of(view) result(address)
    type(attn_tensor), intent(in), target, optional :: view
    type(c_ptr) :: address
    address = c_null_ptr
    if (present(view)) address = c_loc(view)
  end function address_of

  integer(c_int32_t) function as_flag(option)
    logical, intent(in), optional :: option
    as_flag = 0
    if (present(option)) as_flag = merge(1_c_int32_t, 0_c_int32_t, option)
  end function as_flag

  ! What a mask means: numbers are added, a logical one is as the call has it.
  integer(c_int32_t) function kind_of(mask, of_logical)
    type(attn_tensor), intent(in), optional :: mask
    integer(c_int32_t), intent(in) :: of_logical
    kind_of = 0
    if (present(mask)) kind_of = merge(of_logical, attn_mask_additive, mask%dtype == attn_dtype_bool)
  end function kind_of

  ! The options of attention, in a layer or not. The views must be targets of the caller.
  function options_of(of_logical, attn_mask, bias, is_causal, scale, enable_gqa, align_end, &
                      query_offset, key_lengths, window, softcap, sinks, alibi_slopes, normalizer, &
                      lse, weights, scores, scores_stage, mask_start, position_bias, block_mask, &
                      block_size, query_starts) result(params)
    integer(c_int32_t), intent(in) :: of_logical
    type(attn_tensor), intent(in), optional, target :: attn_mask, bias, query_offset, key_lengths, &
                                                       sinks, alibi_slopes, lse, weights, &
                                                       scores, mask_start, position_bias, &
                                                       block_mask, query_starts
    logical, intent(in), optional :: is_causal, enable_gqa, align_end
    real(c_double), intent(in), optional :: scale, softcap
    integer(c_int64_t), intent(in), optional :: window(2), block_size(2)
    integer(c_int32_t), intent(in), optional :: normalizer, scores_stage
    type(attn_sdpa_params) :: params
    params%struct_size = c_sizeof(params)
    params%mask = address_of(attn_mask)
    params%mask_kind = kind_of(attn_mask, of_logical)
    params%mask_start = address_of(mask_start)
    params%bias = address_of(bias)
    params%position_bias = address_of(position_bias)
    params%block_mask = address_of(block_mask)
    if (present(block_size)) then
      params%block_rows = block_size(1)
      params%block_columns = block_size(2)
    end if
    params%query_offset = address_of(query_offset)
    params%key_lengths = address_of(key_lengths)
    params%sinks = address_of(sinks)
    params%alibi_slopes = address_of(alibi_slopes)
    params%lse = address_of(lse)
    params%weights = address_of(weights)
    params%scores = address_of(scores)
    if (present(scores_stage)) params%scores_stage = scores_stage
    params%query_starts = address_of(query_starts)
    params%is_causal = as_flag(is_causal)
    params%enable_gqa = as_flag(enable_gqa)
    params%align_end = as_flag(align_end)
    if (present(normalizer)) params%normalizer = normalizer
    if (present(softcap)) params%softcap = softcap
    if (present(scale)) then
      params%set = ior(params%set, attn_sdpa_set_scale)
      params%scale = scale
    end if
    if (present(window)) then
      params%set = ior(params%set, attn_sdpa_set_window)
      params%window_left = window(1)
      params%window_right = window(2)
    end if
  end function options_of

  ! Adds dropout to the options; raw is theirs as long as the call lasts.
  subroutine drop_by(dropout, params, raw)
    type(attention_dropout), intent(in), optional :: dropout
    type(attn_sdpa_params), intent(inout) :: params
    type(attn_dropout), intent(out), target :: raw
    if (.not. present(dropout)) return
    raw = attn_dropout(c_sizeof(raw), dropout%probability, dropout%seed, dropout%offset, &
                       dropout%batch, dropout%head, dropout%row, dropout%column)
    params%dropout = c_loc(raw)
  end subroutine drop_by

  function report_of(raw) result(report)
    type(attn_sdpa_report), intent(in) :: raw
    type(attention_report) :: report
    report = attention_report(raw%engine, raw%gemm, raw%packs, raw%depends_on_blas_threads == 1, &
                              raw%row_block, raw%num_blocks, raw%workspace_bytes, &
                              text_at(raw%kernels), text_at(raw%reason))
  end function report_of
end module attention_options
