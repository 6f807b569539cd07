! SPDX-License-Identifier: BSD-3-Clause
!
! attention_steps.f90: what models do around attention: results over parts of the keys put together,
! rotary positions, RMS normalisation. A program uses the module attention, which has what is public
! of it.
module attention_steps
  use, intrinsic :: iso_c_binding
  use attention_abi, only: attn_tensor, attn_merge_params, attn_rope_params, attn_rms_norm_params, &
                           attn_sdpa_merge, attn_rope, attn_rms_norm
  use attention_contexts, only: attention_context, handle_of, check
  use attention_kv, only: present_view
  use attention_options, only: address_of, as_flag
  implicit none
  private
  public :: partial_result, merge_parts, rope, rms_norm, rotation, raw_rotation

  ! What attend made of some of the keys: output (Ev, L, ...) and lse (L, ...).
  type :: partial_result
    type(attn_tensor) :: output
    type(attn_tensor) :: lse = attn_tensor()
  end type partial_result

  ! What a layer does to projected queries and keys before they meet: the arguments of rope. What is
  ! left out is absent.
  type :: rotation
    integer(c_int64_t) :: rotary_dim = 0
    real(c_double) :: base = 0, magnitude = 0
    logical :: interleaved = .false., inverse = .false.
    type(attn_tensor) :: frequencies = attn_tensor(), cos = attn_tensor(), sin = attn_tensor(), &
                         positions = attn_tensor(), lengths = attn_tensor()
  end type rotation

contains

  ! The C struct, which points to the views of given: a target of the caller.
  function raw_rotation(given) result(raw)
    type(rotation), intent(in), target :: given
    type(attn_rope_params) :: raw
    raw = attn_rope_params(c_sizeof(raw), given%rotary_dim, given%base, given%magnitude, &
                           as_flag(given%interleaved), as_flag(given%inverse), &
                           present_view(given%frequencies), present_view(given%cos), &
                           present_view(given%sin), present_view(given%positions), &
                           present_view(given%lengths))
  end function raw_rotation

  ! output, and lse if present, are of the keys of all parts; both may be those of a part. If no part
  ! has an lse, outputs are added. sinks (Hq) or (1): logits that no part has counted.
  subroutine merge_parts(parts, output, lse, sinks, context, stat, errmsg)
    type(partial_result), intent(in) :: parts(:)
    type(attn_tensor), intent(in) :: output
    type(attn_tensor), intent(in), optional :: lse
    type(attn_tensor), intent(in), optional, target :: sinks
    type(attention_context), intent(in), optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_merge_params) :: params
    type(attn_tensor) :: outputs(size(parts)), lses(size(parts))
    integer(c_int32_t) :: status
    outputs = parts%output
    lses = parts%lse
    params = attn_merge_params(c_sizeof(params), address_of(sinks))
    if (any(lses%dtype /= 0)) then
      status = attn_sdpa_merge(handle_of(context), size(parts, kind=c_int64_t), outputs, lses, &
                               params, output, lse)
    else
      status = attn_sdpa_merge(handle_of(context), size(parts, kind=c_int64_t), outputs, &
                               params=params, output=output, lse=lse)
    end if
    call check(status, stat, errmsg)
  end subroutine merge_parts

  ! Rotates the features of input (E, L, H, batch axes) by the positions of its rows; output may be
  ! input. frequencies (R / 2) instead of base; cos and sin instead of both, (R / 2, P) with positions
  ! or lengths, else (R / 2, L, batch axes). positions (L, batch axes); or lengths, over the batch
  ! axes, of which input has the last rows.
  subroutine rope(input, output, rotary_dim, base, magnitude, interleaved, inverse, frequencies, cos, &
                  sin, positions, lengths, context, stat, errmsg)
    type(attn_tensor), intent(in) :: input, output
    integer(c_int64_t), intent(in), optional :: rotary_dim
    real(c_double), intent(in), optional :: base, magnitude
    logical, intent(in), optional :: interleaved, inverse
    type(attn_tensor), intent(in), optional, target :: frequencies, cos, sin, positions, lengths
    type(attention_context), intent(in), optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_rope_params) :: params
    params%struct_size = c_sizeof(params)
    if (present(rotary_dim)) params%rotary_dim = rotary_dim
    if (present(base)) params%base = base
    if (present(magnitude)) params%magnitude = magnitude
    params%interleaved = as_flag(interleaved)
    params%inverse = as_flag(inverse)
    params%frequencies = address_of(frequencies)
    params%cos = address_of(cos)
    params%sin = address_of(sin)
    params%positions = address_of(positions)
    params%lengths = address_of(lengths)
    call check(attn_rope(handle_of(context), input, params, output), stat, errmsg)
  end subroutine rope

  ! Divides each row of input (E, ...) by the root of the mean of its squares; output may be input.
  ! weight, mostly (E), is a factor, weight_offset added to it.
  subroutine rms_norm(input, output, weight, epsilon, weight_offset, context, stat, errmsg)
    type(attn_tensor), intent(in) :: input, output
    type(attn_tensor), intent(in), optional, target :: weight
    real(c_double), intent(in), optional :: epsilon, weight_offset
    type(attention_context), intent(in), optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_rms_norm_params) :: params
    params%struct_size = c_sizeof(params)
    params%weight = address_of(weight)
    if (present(epsilon)) params%epsilon = epsilon
    if (present(weight_offset)) params%weight_offset = weight_offset
    call check(attn_rms_norm(handle_of(context), input, params, output), stat, errmsg)
  end subroutine rms_norm
end module attention_steps
