! SPDX-License-Identifier: BSD-3-Clause
!
! attention_abi.f90: libattention's C interface, as far as the module attention uses it. Names,
! order and types are those of the C headers; tests/check_layout.f90 compares the structs with them.
module attention_abi
  use, intrinsic :: iso_c_binding
  implicit none
  public

  integer(c_int32_t), parameter :: attn_ok = 0, attn_max_rank = 8
  integer(c_int32_t), parameter :: attn_dtype_float32 = 1, attn_dtype_float64 = 2, &
                                   attn_dtype_bool = 3, attn_dtype_int64 = 4
  integer(c_int32_t), parameter :: attn_mask_none = 0, attn_mask_additive = 1, &
                                   attn_mask_bool_include = 2, attn_mask_bool_exclude = 3
  integer(c_int32_t), parameter :: attn_normalizer_softmax = 0, attn_normalizer_sigmoid = 1, &
                                   attn_normalizer_none = 2
  integer(c_int64_t), parameter :: attn_sdpa_set_scale = 1, attn_sdpa_set_window = 2, &
                                   attn_sdpa_enable_gqa = 4
  integer(c_int32_t), parameter :: attn_on = 1, attn_off = 2

  type, bind(c) :: attn_tensor
    type(c_ptr) :: data = c_null_ptr
    integer(c_int32_t) :: dtype = 0, rank = 0
    integer(c_int64_t) :: shape(attn_max_rank) = 0, strides(attn_max_rank) = 0
  end type attn_tensor

  type, bind(c) :: attn_context_params
    integer(c_int64_t) :: struct_size = 0
    integer(c_int32_t) :: num_threads = 0, engine = 0, gemm = 0, reserved = 0
    type(c_ptr) :: kernels = c_null_ptr
    type(c_funptr) :: parallel_for = c_null_funptr
    type(c_ptr) :: parallel_for_state = c_null_ptr
    type(c_funptr) :: allocate = c_null_funptr, deallocate = c_null_funptr
    type(c_ptr) :: allocator_state = c_null_ptr
  end type attn_context_params

  type, bind(c) :: attn_sdpa_params
    integer(c_int64_t) :: struct_size = 0, flags = 0
    real(c_double) :: scale = 0, softcap = 0
    integer(c_int64_t) :: window_left = 0, window_right = 0
    integer(c_int32_t) :: is_causal = 0, normalizer = 0, mask_kind = 0, reserved = 0
    type(c_ptr) :: mask = c_null_ptr, query_offset = c_null_ptr, key_lengths = c_null_ptr, &
                   alibi_slopes = c_null_ptr, sinks = c_null_ptr, lse = c_null_ptr, &
                   weights = c_null_ptr, report = c_null_ptr
  end type attn_sdpa_params

  type, bind(c) :: attn_mha_config
    integer(c_int64_t) :: struct_size = 0, embed_dim = 0, num_heads = 0, kdim = 0, vdim = 0, &
                          qdim = 0, num_kv_heads = 0, head_dim = 0, value_head_dim = 0
    integer(c_int32_t) :: dtype = 0, bias = 0, add_bias_kv = 0, add_zero_attn = 0, &
                          batch_first = 0, reserved = 0
  end type attn_mha_config

  type, bind(c) :: attn_mha_params
    integer(c_int64_t) :: struct_size = 0
    integer(c_int32_t) :: key_padding_mask_kind = 0, attn_mask_kind = 0, is_causal = 0, &
                          average_attn_weights = 0
    type(c_ptr) :: key_padding_mask = c_null_ptr, attn_mask = c_null_ptr, &
                   attn_weights = c_null_ptr, attention = c_null_ptr
  end type attn_mha_params

  interface
    subroutine attention_view(array, view) bind(c)
      import :: attn_tensor
      type(*), dimension(..), intent(in) :: array
      type(attn_tensor), intent(out) :: view
    end subroutine attention_view

    integer(c_int32_t) function attn_tensor_init(tensor, data, dtype, rank, shape) bind(c)
      import :: attn_tensor, c_ptr, c_int32_t, c_int64_t
      type(attn_tensor), intent(inout) :: tensor
      type(c_ptr), value :: data
      integer(c_int32_t), value :: dtype, rank
      integer(c_int64_t), intent(in) :: shape(*)
    end function attn_tensor_init

    integer(c_size_t) function attn_last_error_copy(buffer, buffer_bytes) bind(c)
      import :: c_size_t, c_char
      character(kind=c_char), intent(out) :: buffer(*)
      integer(c_size_t), value :: buffer_bytes
    end function attn_last_error_copy

    integer(c_int32_t) function attn_context_create(params, context) bind(c)
      import :: attn_context_params, c_ptr, c_int32_t
      type(attn_context_params), intent(in) :: params
      type(c_ptr), intent(out) :: context
    end function attn_context_create

    subroutine attn_context_destroy(context) bind(c)
      import :: c_ptr
      type(c_ptr), value :: context
    end subroutine attn_context_destroy

    integer(c_int32_t) function attn_sdpa(context, query, key, value, params, output, workspace, &
                                          workspace_bytes) bind(c)
      import :: attn_tensor, attn_sdpa_params, c_ptr, c_int32_t, c_size_t
      type(c_ptr), value :: context, workspace
      type(attn_tensor), intent(in) :: query, key, value, output
      type(attn_sdpa_params), intent(in) :: params
      integer(c_size_t), value :: workspace_bytes
    end function attn_sdpa

    integer(c_int32_t) function attn_mha_create(context, config, layer) bind(c)
      import :: attn_mha_config, c_ptr, c_int32_t
      type(c_ptr), value :: context
      type(attn_mha_config), intent(in) :: config
      type(c_ptr), intent(out) :: layer
    end function attn_mha_create

    subroutine attn_mha_destroy(layer) bind(c)
      import :: c_ptr
      type(c_ptr), value :: layer
    end subroutine attn_mha_destroy

    integer(c_int32_t) function attn_mha_load_parameter(layer, name, values) bind(c)
      import :: attn_tensor, c_ptr, c_int32_t, c_char
      type(c_ptr), value :: layer
      character(kind=c_char), intent(in) :: name(*)
      type(attn_tensor), intent(in) :: values
    end function attn_mha_load_parameter

    integer(c_int32_t) function attn_mha_init_parameters(layer, seed) bind(c)
      import :: c_ptr, c_int32_t, c_int64_t
      type(c_ptr), value :: layer
      integer(c_int64_t), value :: seed
    end function attn_mha_init_parameters

    integer(c_int32_t) function attn_mha_forward(context, layer, query, key, value, params, &
                                                 output, workspace, workspace_bytes) bind(c)
      import :: attn_tensor, attn_mha_params, c_ptr, c_int32_t, c_size_t
      type(c_ptr), value :: context, layer, workspace
      type(attn_tensor), intent(in) :: query, key, value, output
      type(attn_mha_params), intent(in) :: params
      integer(c_size_t), value :: workspace_bytes
    end function attn_mha_forward
  end interface
end module attention_abi
