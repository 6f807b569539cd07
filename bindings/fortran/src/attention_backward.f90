! SPDX-License-Identifier: BSD-3-Clause
!
! attention_backward.f90: the gradients of scaled dot-product attention. A program uses the module
! attention, which has what is public of it.
module attention_backward
  use, intrinsic :: iso_c_binding
  use attention_abi, only: attn_tensor, attn_mask_bool_include, attn_kv, attn_sdpa_params, &
                           attn_sdpa_gradients, attn_sdpa_backward_report, attn_sdpa_backward, &
                           attn_sdpa_backward_explain, attn_ok
  use attention_contexts, only: attention_context, handle_of, check, text_at, longest_text
  use attention_kv, only: kv_places, raw_places, present_view
  use attention_options, only: options_of, as_flag
  implicit none
  private
  public :: sdpa_gradients, attend_backward, backward_report, raw_gradients

  ! What the gradients of attention ran and why, for people to read. whole_heads: an item walks all keys
  ! of a head, else threads share a head; staged: how many gradients are summed apart before they are
  ! written; num_items: 0 where none of query, key and value is wanted.
  type :: backward_report
    logical :: whole_heads
    integer(c_int32_t) :: staged
    integer(c_int64_t) :: num_items, row_block, key_block, workspace_bytes
    character(longest_text) :: kernels, reason
  end type backward_report

  ! output, and lse and weights where they have any, are given: the gradients of what attend wrote.
  ! The others are wanted, each with the axes of what it is of; what is left out is not. With
  ! accumulate they are added to what is there.
  type :: sdpa_gradients
    type(attn_tensor) :: output
    type(attn_tensor) :: lse = attn_tensor(), weights = attn_tensor()
    type(attn_tensor) :: query = attn_tensor(), key = attn_tensor(), value = attn_tensor()
    type(attn_tensor) :: mask = attn_tensor(), bias = attn_tensor(), &
                         position_bias = attn_tensor(), alibi_slopes = attn_tensor(), &
                         sinks = attn_tensor()
    logical :: accumulate = .false.
  end type sdpa_gradients

  ! The gradients of a call of attend with the same arguments and options: output, and lse, which
  ! softmax needs, are as that wrote them. query, key, value, output, gradients; or query, kv, output,
  ! gradients, with keys and values elsewhere, where their gradients lie likewise.
  interface attend_backward
    procedure :: backward_tensors, backward_places
  end interface attend_backward

contains

  subroutine backward_tensors(query, key, value, output, gradients, attn_mask, is_causal, scale, &
                              enable_gqa, bias, align_end, query_offset, key_lengths, window, &
                              softcap, sinks, alibi_slopes, normalizer, lse, query_starts, context, &
                              stat, errmsg, mask_start, position_bias, report)
    type(attn_tensor), intent(in) :: query, key, value, output
    type(sdpa_gradients), intent(in), target :: gradients
    type(attn_tensor), intent(in), optional, target :: attn_mask, bias, query_offset, key_lengths, &
                                                       sinks, alibi_slopes, lse, query_starts, &
                                                       mask_start, position_bias
    logical, intent(in), optional :: is_causal, enable_gqa, align_end
    real(c_double), intent(in), optional :: scale, softcap
    integer(c_int64_t), intent(in), optional :: window(2)
    integer(c_int32_t), intent(in), optional :: normalizer
    type(attention_context), intent(in), optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(backward_report), intent(out), optional :: report
    type(attn_sdpa_params) :: params
    params = options_of(attn_mask_bool_include, attn_mask, bias, is_causal, scale, enable_gqa, &
                        align_end, query_offset, key_lengths, window, softcap, sinks, alibi_slopes, &
                        normalizer, lse, mask_start=mask_start, position_bias=position_bias, &
                        query_starts=query_starts)
    call run(query, output, gradients, params, key, value, context, report, stat, errmsg)
  end subroutine backward_tensors

  subroutine backward_places(query, kv, output, gradients, attn_mask, is_causal, scale, enable_gqa, &
                             bias, align_end, query_offset, key_lengths, window, softcap, sinks, &
                             alibi_slopes, normalizer, lse, query_starts, context, stat, errmsg, &
                             mask_start, position_bias, report)
    type(attn_tensor), intent(in) :: query, output
    type(kv_places), intent(in), target :: kv
    type(sdpa_gradients), intent(in), target :: gradients
    type(attn_tensor), intent(in), optional, target :: attn_mask, bias, query_offset, key_lengths, &
                                                       sinks, alibi_slopes, lse, query_starts, &
                                                       mask_start, position_bias
    logical, intent(in), optional :: is_causal, enable_gqa, align_end
    real(c_double), intent(in), optional :: scale, softcap
    integer(c_int64_t), intent(in), optional :: window(2)
    integer(c_int32_t), intent(in), optional :: normalizer
    type(attention_context), intent(in), optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(backward_report), intent(out), optional :: report
    type(attn_sdpa_params) :: params
    type(attn_kv), target :: places
    params = options_of(attn_mask_bool_include, attn_mask, bias, is_causal, scale, enable_gqa, &
                        align_end, query_offset, key_lengths, window, softcap, sinks, alibi_slopes, &
                        normalizer, lse, mask_start=mask_start, position_bias=position_bias, &
                        query_starts=query_starts)
    places = raw_places(kv)
    params%kv = c_loc(places)
    call run(query, output, gradients, params, context=context, report=report, stat=stat, &
             errmsg=errmsg)
  end subroutine backward_places

  subroutine run(query, output, gradients, params, key, value, context, report, stat, errmsg)
    type(attn_tensor), intent(in) :: query, output
    type(sdpa_gradients), intent(in), target :: gradients
    type(attn_sdpa_params), intent(in) :: params
    type(attn_tensor), intent(in), optional :: key, value
    type(attention_context), intent(in), optional :: context
    type(backward_report), intent(out), optional :: report
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_sdpa_gradients) :: raw
    type(attn_sdpa_backward_report) :: explained
    integer(c_int32_t) :: status
    raw = raw_gradients(gradients)
    status = attn_sdpa_backward(handle_of(context), query, key, value, params, output, raw, &
                                c_null_ptr, 0_c_size_t)
    call check(status, stat, errmsg)
    if (.not. present(report) .or. status /= attn_ok) return
    explained%struct_size = c_sizeof(explained)
    call check(attn_sdpa_backward_explain(handle_of(context), query, key, value, params, output, &
                                          raw, explained))
    report = backward_report(explained%whole_heads == 1, explained%staged, explained%num_items, &
                             explained%row_block, explained%key_block, explained%workspace_bytes, &
                             text_at(explained%kernels), text_at(explained%reason))
  end subroutine run

  ! The C struct, which points to the views of gradients: a target of the caller.
  function raw_gradients(gradients) result(raw)
    type(sdpa_gradients), intent(in), target :: gradients
    type(attn_sdpa_gradients) :: raw
    raw%struct_size = c_sizeof(raw)
    raw%accumulate = as_flag(gradients%accumulate)
    raw%output = present_view(gradients%output)
    raw%lse = present_view(gradients%lse)
    raw%weights = present_view(gradients%weights)
    raw%query = present_view(gradients%query)
    raw%key = present_view(gradients%key)
    raw%value = present_view(gradients%value)
    raw%mask = present_view(gradients%mask)
    raw%bias = present_view(gradients%bias)
    raw%position_bias = present_view(gradients%position_bias)
    raw%alibi_slopes = present_view(gradients%alibi_slopes)
    raw%sinks = present_view(gradients%sinks)
  end function raw_gradients
end module attention_backward
