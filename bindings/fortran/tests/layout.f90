! SPDX-License-Identifier: BSD-3-Clause
!
! layout.f90: prints the layout of attention_abi's structs; see layout.c.
program layout
  use, intrinsic :: iso_c_binding
  use attention_abi
  implicit none
  type(attn_tensor), target :: tensor
  type(attn_context_params), target :: context
  type(attn_sdpa_params), target :: sdpa
  type(attn_mha_config), target :: config
  type(attn_mha_params), target :: mha
  call show('attn_tensor', c_loc(tensor), c_loc(tensor%strides), c_sizeof(tensor))
  call show('attn_context_params', c_loc(context), c_loc(context%allocator_state), c_sizeof(context))
  call show('attn_sdpa_params', c_loc(sdpa), c_loc(sdpa%report), c_sizeof(sdpa))
  call show('attn_mha_config', c_loc(config), c_loc(config%reserved), c_sizeof(config))
  call show('attn_mha_params', c_loc(mha), c_loc(mha%attention), c_sizeof(mha))
  print '(a,7(" ",i0))', 'constants', attn_max_rank, attn_dtype_int64, attn_mask_bool_exclude, &
    attn_normalizer_none, attn_sdpa_enable_gqa, attn_on, attn_off
contains
  subroutine show(name, start, last, size)
    character(*), intent(in) :: name
    type(c_ptr), intent(in) :: start, last
    integer(c_size_t), intent(in) :: size
    print '(a,2(" ",i0))', name, transfer(last, 0_c_intptr_t) - transfer(start, 0_c_intptr_t), size
  end subroutine show
end program layout
