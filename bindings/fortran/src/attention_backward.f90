! SPDX-License-Identifier: BSD-3-Clause
!
! attention_backward.f90: the gradients of scaled dot-product attention. A program uses the module
! attention, which has what is public of it.
module attention_backward
  use, intrinsic :: iso_c_binding
  use attention_abi, only: attn_tensor, attn_mask_bool_include, attn_kv, attn_sdpa_params, &
                           attn_sdpa_gradients, attn_sdpa_backward
  use attention_contexts, only: attention_context, handle_of, check
  use attention_kv, only: kv_places, raw_places, present_view
  use attention_options, only: options_of, as_flag
  implicit none
  private
  public :: sdpa_gradients, attend_backward

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
                              stat, errmsg, mask_start, position_bias)
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
    type(attn_sdpa_params) :: params
    params = options_of(attn_mask_bool_include, attn_mask, bias, is_causal, scale, enable_gqa, &
                        align_end, query_offset, key_lengths, window, softcap, sinks, alibi_slopes, &
                        normalizer, lse, mask_start=mask_start, position_bias=position_bias, &
                        query_starts=query_starts)
    call check(attn_sdpa_backward(handle_of(context), query, key, value, params, output, &
                                  raw_gradients(gradients), c_null_ptr, 0_c_size_t), stat, errmsg)
  end subroutine backward_tensors

  subroutine backward_places(query, kv, output, gradients, attn_mask, is_causal, scale, enable_gqa, &
                             bias, align_end, query_offset, key_lengths, window, softcap, sinks, &
                             alibi_slopes, normalizer, lse, query_starts, context, stat, errmsg, &
                             mask_start, position_bias)
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
    type(attn_sdpa_params) :: params
    type(attn_kv), target :: places
    params = options_of(attn_mask_bool_include, attn_mask, bias, is_causal, scale, enable_gqa, &
                        align_end, query_offset, key_lengths, window, softcap, sinks, alibi_slopes, &
                        normalizer, lse, mask_start=mask_start, position_bias=position_bias, &
                        query_starts=query_starts)
    places = raw_places(kv)
    params%kv = c_loc(places)
    call check(attn_sdpa_backward(handle_of(context), query, params=params, output=output, &
                                  gradients=raw_gradients(gradients), workspace=c_null_ptr, &
                                  workspace_bytes=0_c_size_t), stat, errmsg)
  end subroutine backward_places

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
