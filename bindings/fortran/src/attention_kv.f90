! SPDX-License-Identifier: BSD-3-Clause
!
! attention_kv.f90: where keys and values of sequences lie, and new ones stored there. A program
! uses the module attention, which has what is public of it.
module attention_kv
  use, intrinsic :: iso_c_binding
  use attention_abi, only: attn_tensor, attn_kv, attn_kv_append_params, attn_kv_append
  use attention_contexts, only: attention_context, handle_of, check
  use attention_options, only: address_of
  implicit none
  private
  public :: kv_places, kv_append, raw_places, present_view

  ! key (E, C, Hk, batch axes), of which lengths are in use; with starts (B + 1) one sequence behind
  ! the other, (E, total, Hk); with page_table (M, batch axes), or (P) and page_starts (B + 1), in
  ! pages, (E, page, Hk, pages). value likewise. What is left out is absent. kv.h says where a key
  ! is. Integers mean (element - zero) * scale: of key's rank, each length a divisor of key's (in
  ! values). kv_append writes a scale and a zero that each row has, and reads coarser ones.
  type :: kv_places
    type(attn_tensor) :: key, value
    type(attn_tensor) :: page_table = attn_tensor(), page_starts = attn_tensor(), &
                         starts = attn_tensor(), lengths = attn_tensor(), &
                         key_scale = attn_tensor(), value_scale = attn_tensor(), &
                         key_zero = attn_tensor(), value_zero = attn_tensor()
  end type kv_places

contains

  ! The C struct, which points to the views of kv: a target of the caller.
  function raw_places(kv) result(raw)
    type(kv_places), intent(in), target :: kv
    type(attn_kv) :: raw
    raw = attn_kv(c_sizeof(raw), present_view(kv%key), present_view(kv%value), &
                  present_view(kv%page_table), present_view(kv%page_starts), &
                  present_view(kv%starts), present_view(kv%lengths), &
                  present_view(kv%key_scale), present_view(kv%value_scale), &
                  present_view(kv%key_zero), present_view(kv%value_zero))
  end function raw_places

  function present_view(view) result(address)
    type(attn_tensor), intent(in), target :: view
    type(c_ptr) :: address
    address = c_null_ptr
    if (view%dtype /= 0) address = c_loc(view)
  end function present_view

  ! Stores new rows, converted, key (E, L, Hk, batch axes) and value (Ev, L, Hv, batch axes), at the
  ! end of lengths, which count them already, or at positions (L, batch axes); with starts (B + 1)
  ! key is (E, total, Hk). Nothing is written after an error.
  subroutine kv_append(kv, key, value, starts, positions, context, stat, errmsg)
    type(kv_places), intent(in), target :: kv
    type(attn_tensor), intent(in) :: key, value
    type(attn_tensor), intent(in), optional, target :: starts, positions
    type(attention_context), intent(in), optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_kv_append_params) :: params
    params = attn_kv_append_params(c_sizeof(params), address_of(starts), address_of(positions))
    call check(attn_kv_append(handle_of(context), raw_places(kv), key, value, params), stat, errmsg)
  end subroutine kv_append
end module attention_kv
