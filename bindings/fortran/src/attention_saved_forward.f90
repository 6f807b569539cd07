! SPDX-License-Identifier: BSD-3-Clause
!
! attention_saved_forward.f90: the gradients of a layer. A program uses the module attention, which has
! what is public of it.
module attention_saved_forward
  use, intrinsic :: iso_c_binding
  use attention_abi, only: attn_ok, attn_error_null, attn_error_parameter, attn_error_memory, &
                           attn_tensor, attn_sdpa_params, attn_dropout, attn_rope_params, &
                           attn_sdpa_gradients, attn_mha_params, attn_mha_gradients, &
                           attn_error_set, attn_mha_parameter_count, attn_mha_parameter_describe, &
                           attn_mha_saved_bytes, attn_mha_backward
  use attention_backward, only: sdpa_gradients, raw_gradients
  use attention_contexts, only: attention_context, handle_of, check, text_at, longest_text
  implicit none
  private
  public :: saved_forward, multihead_gradients, parameter_gradient, save_call, forget_call

  ! Masks, biases and the like that a call may be given.
  integer, parameter :: most_views = 15, longest_name = 64

  ! Where the gradient of a parameter goes, by its name in PyTorch's state_dict. A weight (out, in) is
  ! (in, out) here.
  type :: parameter_gradient
    character(longest_name) :: name
    type(attn_tensor) :: gradient
  end type parameter_gradient

  ! As sdpa_gradients: output, and lse and weights where they have any, are given; the others, and those
  ! of parameters, are wanted.
  type, extends(sdpa_gradients) :: multihead_gradients
    type(parameter_gradient), allocatable :: parameters(:)
  end type multihead_gradients

  ! A call's arguments, with copies of all views, and what it saved.
  type :: kept_call
    type(c_ptr) :: layer = c_null_ptr
    type(attn_tensor) :: query, key, value
    type(attn_mha_params) :: params
    type(attn_sdpa_params) :: attention
    type(attn_dropout) :: dropped
    type(attn_rope_params) :: turns
    type(attn_tensor) :: views(most_views)
    integer :: num_views = 0
    integer(c_int64_t), allocatable :: memory(:)
  end type kept_call

  ! A layer's call of forward that was given this as saved, and what its gradients need of it. The layer
  ! with its parameters and the arrays of that call are to be there, and as they were, until the last call
  ! of backward. Not to be copied; freed when it goes out of scope.
  type :: saved_forward
    private
    type(kept_call), pointer :: call => null()
  contains
    procedure :: backward => saved_backward
    final :: saved_finalize
  end type saved_forward

contains

  ! Makes memory for what a forward call of these arguments saves, tells params where, and keeps all of
  ! them.
  subroutine save_call(saved, context, layer, query, key, value, params, status)
    type(saved_forward), intent(inout) :: saved
    type(c_ptr), intent(in) :: context, layer
    type(attn_tensor), intent(in) :: query
    type(attn_tensor), intent(in), optional :: key, value
    type(attn_mha_params), intent(inout) :: params
    integer(c_int32_t), intent(out) :: status
    integer(c_size_t) :: bytes
    integer :: failed
    call forget_call(saved)
    status = attn_mha_saved_bytes(context, layer, query, key, value, params, bytes)
    if (status /= attn_ok) return
    allocate (saved%call)
    allocate (saved%call%memory(bytes/8 + 1), stat=failed)
    if (failed /= 0) then
      call forget_call(saved)
      status = attn_error_set(attn_error_memory, 'saved: no memory'//c_null_char)
      return
    end if
    params%saved = c_loc(saved%call%memory)
    params%saved_bytes = bytes
    saved%call%layer = layer
    saved%call%query = query
    if (present(key)) saved%call%key = key
    if (present(value)) saved%call%value = value
    call keep_options(saved%call, params)
  end subroutine save_call

  subroutine forget_call(saved)
    type(saved_forward), intent(inout) :: saved
    if (associated(saved%call)) deallocate (saved%call)
    nullify (saved%call)
  end subroutine forget_call

  subroutine saved_finalize(self)
    type(saved_forward), intent(inout) :: self
    call forget_call(self)
  end subroutine saved_finalize

  ! Copies the options, and what they point to, to which the copies then point. Outputs are not kept.
  subroutine keep_options(kept, params)
    type(kept_call), intent(inout), target :: kept
    type(attn_mha_params), intent(in) :: params
    type(attn_sdpa_params), pointer :: attention
    type(attn_dropout), pointer :: dropped
    kept%params = params
    call c_f_pointer(params%attention, attention)
    kept%attention = attention
    kept%params%attention = c_loc(kept%attention)
    kept%params%key_padding_mask = kept_view(kept%views, kept%num_views, params%key_padding_mask)
    if (c_associated(attention%dropout)) then
      call c_f_pointer(attention%dropout, dropped)
      kept%dropped = dropped
      kept%attention%dropout = c_loc(kept%dropped)
    end if
    kept%attention%lse = c_null_ptr
    kept%attention%weights = c_null_ptr
    kept%attention%scores = c_null_ptr
    kept%attention%report = c_null_ptr
    kept%attention%mask = kept_view(kept%views, kept%num_views, attention%mask)
    kept%attention%bias = kept_view(kept%views, kept%num_views, attention%bias)
    kept%attention%query_offset = kept_view(kept%views, kept%num_views, attention%query_offset)
    kept%attention%key_lengths = kept_view(kept%views, kept%num_views, attention%key_lengths)
    kept%attention%alibi_slopes = kept_view(kept%views, kept%num_views, attention%alibi_slopes)
    kept%attention%sinks = kept_view(kept%views, kept%num_views, attention%sinks)
    kept%attention%mask_start = kept_view(kept%views, kept%num_views, attention%mask_start)
    kept%attention%position_bias = kept_view(kept%views, kept%num_views, attention%position_bias)
    kept%attention%block_mask = kept_view(kept%views, kept%num_views, attention%block_mask)
    if (c_associated(params%rope)) call keep_rotation(kept, params%rope)
  end subroutine keep_options

  subroutine keep_rotation(kept, rope)
    type(kept_call), intent(inout), target :: kept
    type(c_ptr), intent(in) :: rope
    type(attn_rope_params), pointer :: turns
    call c_f_pointer(rope, turns)
    kept%turns = turns
    kept%params%rope = c_loc(kept%turns)
    kept%turns%frequencies = kept_view(kept%views, kept%num_views, turns%frequencies)
    kept%turns%cos = kept_view(kept%views, kept%num_views, turns%cos)
    kept%turns%sin = kept_view(kept%views, kept%num_views, turns%sin)
    kept%turns%positions = kept_view(kept%views, kept%num_views, turns%positions)
    kept%turns%lengths = kept_view(kept%views, kept%num_views, turns%lengths)
  end subroutine keep_rotation

  ! The address of a copy of the view, the next of `views`; of none if there is none.
  function kept_view(views, num_views, address) result(copy)
    type(attn_tensor), intent(inout), target :: views(:)
    integer, intent(inout) :: num_views
    type(c_ptr), intent(in) :: address
    type(c_ptr) :: copy
    type(attn_tensor), pointer :: view
    copy = c_null_ptr
    if (.not. c_associated(address)) return
    call c_f_pointer(address, view)
    num_views = num_views + 1
    views(num_views) = view
    copy = c_loc(views(num_views))
  end function kept_view

  ! The gradients of the call.
  subroutine saved_backward(self, gradients, context, stat, errmsg)
    class(saved_forward), intent(in) :: self
    type(multihead_gradients), intent(in), target :: gradients
    type(attention_context), intent(in), optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_tensor), allocatable, target :: parameters(:)
    type(attn_sdpa_gradients), target :: inside
    type(attn_mha_gradients) :: raw
    integer(c_int32_t) :: status
    if (.not. associated(self%call)) then
      status = attn_error_set(attn_error_null, 'saved: expected what forward has filled'//c_null_char)
      call check(status, stat, errmsg)
      return
    end if
    call find_parameters(self%call%layer, gradients, parameters, status)
    call check(status, stat, errmsg)
    if (status /= attn_ok) return
    inside = raw_gradients(gradients%sdpa_gradients)
    raw = attn_mha_gradients(c_sizeof(raw), inside%accumulate, 0, inside%output, inside%query, &
                             inside%key, inside%value, c_loc(parameters), &
                             size(parameters, kind=c_int64_t), c_loc(inside))
    inside%accumulate = 0
    inside%output = c_null_ptr
    inside%query = c_null_ptr
    inside%key = c_null_ptr
    inside%value = c_null_ptr
    call check(attn_mha_backward(handle_of(context), self%call%layer, self%call%query, &
                                 self%call%key, self%call%value, self%call%params, raw, &
                                 c_null_ptr, 0_c_size_t), stat, errmsg)
  end subroutine saved_backward

  ! Views in the layer's order, of no data where no gradient is wanted.
  subroutine find_parameters(layer, gradients, views, status)
    type(c_ptr), intent(in) :: layer
    type(multihead_gradients), intent(in) :: gradients
    type(attn_tensor), allocatable, intent(out) :: views(:)
    integer(c_int32_t), intent(out) :: status
    character(longest_text), allocatable :: names(:)
    integer(c_int64_t) :: count, index
    type(c_ptr) :: name
    type(attn_tensor) :: shape
    integer :: i, place
    count = 0
    status = attn_mha_parameter_count(layer, count)
    allocate (views(count), names(count))
    do index = 1, count
      status = attn_mha_parameter_describe(layer, index - 1, name, shape)
      names(index) = text_at(name)
    end do
    if (status /= attn_ok .or. .not. allocated(gradients%parameters)) return
    do i = 1, size(gradients%parameters)
      place = findloc(names, gradients%parameters(i)%name, dim=1)
      if (place == 0) then
        status = attn_error_set(attn_error_parameter, 'gradients.'//trim(gradients%parameters(i)%name)// &
                                ': expected a parameter of the layer'//c_null_char)
        return
      end if
      views(place) = gradients%parameters(i)%gradient
    end do
  end subroutine find_parameters
end module attention_saved_forward
