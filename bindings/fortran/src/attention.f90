! SPDX-License-Identifier: BSD-3-Clause
!
! attention.f90: scaled dot-product and multi-head attention. The C headers are the manual.
!
! Axes. Fortran's first index is the fastest, C's the last, so an array of shape (E, L, H, N) here is
! the C tensor (N, H, L, E): the same memory, the axes named backwards. Nothing is copied, sections
! included.
!
! Errors. With stat= the status is returned, and errmsg= gets the library's line; without it an error
! stops the program, as allocate does.
module attention
  use, intrinsic :: iso_c_binding
  use attention_abi, only: attn_tensor, attn_normalizer_softmax, attn_normalizer_sigmoid, &
                           attn_normalizer_none
  use attention_abi, only: abi_ok => attn_ok, attn_dtype_bool, attn_dtype_float32, &
                           attn_dtype_float64, attn_mask_additive, attn_mask_bool_include, &
                           attn_mask_bool_exclude, attn_sdpa_set_scale, attn_sdpa_set_window, &
                           attn_sdpa_enable_gqa, attn_on, attn_off, attn_sdpa_params, &
                           attn_mha_config, attn_mha_params, attention_view, attn_tensor_init, &
                           attn_last_error_copy, attn_sdpa, attn_mha_create, attn_mha_destroy, &
                           attn_mha_load_parameter, attn_mha_init_parameters, attn_mha_forward
  implicit none
  private
  public :: attn_tensor, tensor_of, tensor_at, attend, multihead
  public :: attn_normalizer_softmax, attn_normalizer_sigmoid, attn_normalizer_none

  integer, parameter :: longest_line = 512

  ! A layer: torch.nn.MultiheadAttention in evaluation mode. Not to be copied; it is freed when it
  ! goes out of scope.
  type :: multihead
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure :: create => multihead_create
    procedure :: load => multihead_load
    procedure :: initialize => multihead_initialize
    procedure :: forward => multihead_forward
    procedure :: destroy => multihead_destroy
    final :: multihead_finalize
  end type multihead

contains

  ! ---- views ----

  ! A view of an array: real(c_float), real(c_double), integer(c_int64_t) or logical(c_bool). The
  ! array must live, and be a target, as long as the view is used.
  function tensor_of(array) result(view)
    type(*), dimension(..), intent(in), target :: array
    type(attn_tensor) :: view
    call attention_view(array, view)
  end function tensor_of

  ! A view of contiguous memory, with the shape as C has it.
  function tensor_at(address, dtype, shape, stat, errmsg) result(view)
    type(c_ptr), intent(in) :: address
    integer(c_int32_t), intent(in) :: dtype
    integer(c_int64_t), intent(in) :: shape(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_tensor) :: view
    call report(attn_tensor_init(view, address, dtype, size(shape, kind=c_int32_t), shape), stat, &
                errmsg)
  end function tensor_at

  function address_of(view) result(address)
    type(attn_tensor), intent(in), target, optional :: view
    type(c_ptr) :: address
    address = c_null_ptr
    if (present(view)) address = c_loc(view)
  end function address_of

  ! ---- errors ----

  subroutine report(status, stat, errmsg)
    integer(c_int32_t), intent(in) :: status
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    character(longest_line) :: line
    if (present(stat)) stat = status
    if (status == abi_ok) return
    line = last_error()
    if (present(errmsg)) errmsg = line
    if (.not. present(stat)) error stop line
  end subroutine report

  function last_error() result(line)
    character(longest_line) :: line
    character(kind=c_char) :: buffer(longest_line)
    integer :: i
    line = ''
    do i = 1, int(attn_last_error_copy(buffer, int(longest_line, c_size_t))) - 1
      line(i:i) = buffer(i)
    end do
  end function last_error

  ! ---- options ----

  integer(c_int32_t) function as_flag(option, absent)
    logical, intent(in), optional :: option
    integer(c_int32_t), intent(in) :: absent
    as_flag = absent
    if (present(option)) as_flag = merge(1_c_int32_t, 0_c_int32_t, option)
  end function as_flag

  integer(c_int32_t) function as_switch(option)
    logical, intent(in), optional :: option
    as_switch = attn_on
    if (present(option)) as_switch = merge(attn_on, attn_off, option)
  end function as_switch

  ! What a mask means: numbers are added, a logical one is as the call has it.
  integer(c_int32_t) function kind_of(mask, of_logical)
    type(attn_tensor), intent(in), optional :: mask
    integer(c_int32_t), intent(in) :: of_logical
    kind_of = 0
    if (present(mask)) kind_of = merge(of_logical, attn_mask_additive, mask%dtype == attn_dtype_bool)
  end function kind_of

  ! ---- scaled dot-product attention ----

  ! query (E, L, Hq, ...), key (E, S, Hk, ...), value (Ev, S, Hv, ...), output (Ev, L, Hq, ...).
  ! attn_mask, broadcastable to (S, L, Hq, ...): .true. takes part, numbers are added. window is left
  ! and right of a row's position, -1 for all. lse (L, Hq, ...) and weights (S, L, Hq, ...) are
  ! outputs, computed if present.
  subroutine attend(query, key, value, output, attn_mask, is_causal, scale, enable_gqa, &
                    query_offset, key_lengths, window, softcap, sinks, alibi_slopes, normalizer, &
                    lse, weights, stat, errmsg)
    type(attn_tensor), intent(in) :: query, key, value, output
    type(attn_tensor), intent(in), optional, target :: attn_mask, query_offset, key_lengths, &
                                                       sinks, alibi_slopes, lse, weights
    logical, intent(in), optional :: is_causal, enable_gqa
    real(c_double), intent(in), optional :: scale, softcap
    integer(c_int64_t), intent(in), optional :: window(2)
    integer(c_int32_t), intent(in), optional :: normalizer
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_sdpa_params) :: params
    params%struct_size = c_sizeof(params)
    params%mask = address_of(attn_mask)
    params%mask_kind = kind_of(attn_mask, attn_mask_bool_include)
    params%query_offset = address_of(query_offset)
    params%key_lengths = address_of(key_lengths)
    params%sinks = address_of(sinks)
    params%alibi_slopes = address_of(alibi_slopes)
    params%lse = address_of(lse)
    params%weights = address_of(weights)
    params%is_causal = as_flag(is_causal, 0_c_int32_t)
    if (as_flag(enable_gqa, 0_c_int32_t) == 1) params%flags = attn_sdpa_enable_gqa
    if (present(normalizer)) params%normalizer = normalizer
    if (present(softcap)) params%softcap = softcap
    if (present(scale)) then
      params%flags = ior(params%flags, attn_sdpa_set_scale)
      params%scale = scale
    end if
    if (present(window)) then
      params%flags = ior(params%flags, attn_sdpa_set_window)
      params%window_left = window(1)
      params%window_right = window(2)
    end if
    call report(attn_sdpa(c_null_ptr, query, key, value, params, output, c_null_ptr, 0_c_size_t), &
                stat, errmsg)
  end subroutine attend

  ! ---- multi-head attention ----

  ! Sizes that are absent or 0 are PyTorch's defaults. is_double: parameters and tensors are of
  ! real(c_double).
  subroutine multihead_create(self, embed_dim, num_heads, bias, add_bias_kv, add_zero_attn, kdim, &
                              vdim, batch_first, qdim, head_dim, value_head_dim, num_kv_heads, &
                              is_double, stat, errmsg)
    class(multihead), intent(inout) :: self
    integer(c_int64_t), intent(in) :: embed_dim, num_heads
    integer(c_int64_t), intent(in), optional :: kdim, vdim, qdim, head_dim, value_head_dim, &
                                                num_kv_heads
    logical, intent(in), optional :: bias, add_bias_kv, add_zero_attn, batch_first, is_double
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_mha_config) :: config
    config%struct_size = c_sizeof(config)
    config%embed_dim = embed_dim
    config%num_heads = num_heads
    if (present(kdim)) config%kdim = kdim
    if (present(vdim)) config%vdim = vdim
    if (present(qdim)) config%qdim = qdim
    if (present(head_dim)) config%head_dim = head_dim
    if (present(value_head_dim)) config%value_head_dim = value_head_dim
    if (present(num_kv_heads)) config%num_kv_heads = num_kv_heads
    config%bias = as_switch(bias)
    config%add_bias_kv = as_flag(add_bias_kv, 0_c_int32_t)
    config%add_zero_attn = as_flag(add_zero_attn, 0_c_int32_t)
    config%batch_first = as_flag(batch_first, 0_c_int32_t)
    config%dtype = merge(attn_dtype_float64, attn_dtype_float32, &
                         as_flag(is_double, 0_c_int32_t) == 1)
    call self%destroy()
    call report(attn_mha_create(c_null_ptr, config, self%handle), stat, errmsg)
  end subroutine multihead_create

  ! Copies a parameter in, by PyTorch's name. A weight that PyTorch has as (out, in) is (in, out) here.
  subroutine multihead_load(self, name, values, stat, errmsg)
    class(multihead), intent(inout) :: self
    character(*), intent(in) :: name
    type(attn_tensor), intent(in) :: values
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call report(attn_mha_load_parameter(self%handle, trim(name)//c_null_char, values), stat, errmsg)
  end subroutine multihead_load

  ! Fresh random parameters.
  subroutine multihead_initialize(self, seed, stat, errmsg)
    class(multihead), intent(inout) :: self
    integer(c_int64_t), intent(in) :: seed
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call report(attn_mha_init_parameters(self%handle, seed), stat, errmsg)
  end subroutine multihead_initialize

  ! query (qdim, N, L), with batch_first (qdim, L, N), unbatched (qdim, L); key, value, output
  ! likewise. key_padding_mask (S, N) and attn_mask (S, L) or (S, L, N * H): .true. is left out,
  ! numbers are added. attn_weights (T, L, N), or (T, L, H, N) with average_attn_weights=.false., is
  ! an output, computed if present.
  subroutine multihead_forward(self, query, key, value, output, key_padding_mask, attn_mask, &
                               attn_weights, average_attn_weights, is_causal, stat, errmsg)
    class(multihead), intent(in) :: self
    type(attn_tensor), intent(in) :: query, key, value, output
    type(attn_tensor), intent(in), optional, target :: key_padding_mask, attn_mask, attn_weights
    logical, intent(in), optional :: average_attn_weights, is_causal
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_mha_params) :: params
    params%struct_size = c_sizeof(params)
    params%key_padding_mask = address_of(key_padding_mask)
    params%key_padding_mask_kind = kind_of(key_padding_mask, attn_mask_bool_exclude)
    params%attn_mask = address_of(attn_mask)
    params%attn_mask_kind = kind_of(attn_mask, attn_mask_bool_exclude)
    params%attn_weights = address_of(attn_weights)
    params%average_attn_weights = as_switch(average_attn_weights)
    params%is_causal = as_flag(is_causal, 0_c_int32_t)
    call report(attn_mha_forward(c_null_ptr, self%handle, query, key, value, params, output, &
                                 c_null_ptr, 0_c_size_t), stat, errmsg)
  end subroutine multihead_forward

  subroutine multihead_destroy(self)
    class(multihead), intent(inout) :: self
    call attn_mha_destroy(self%handle)
    self%handle = c_null_ptr
  end subroutine multihead_destroy

  subroutine multihead_finalize(self)
    type(multihead), intent(inout) :: self
    call attn_mha_destroy(self%handle)
    self%handle = c_null_ptr
  end subroutine multihead_finalize
end module attention
