! SPDX-License-Identifier: BSD-3-Clause
!
! attention_abi.f90: libattention's C interface, as far as the module attention uses it. Names,
! order and types are those of the C headers; tests/layout.awk compares structs and constants with
! them.
module attention_abi
  use, intrinsic :: iso_c_binding
  implicit none
  public

  integer(c_int32_t), parameter :: attn_ok = 0, attn_error_null = 1, attn_error_parameter = 7, &
                                   attn_error_memory = 9, attn_error_unsupported = 11, &
                                   attn_max_rank = 8
  integer(c_int32_t), parameter :: attn_dtype_float32 = 1, attn_dtype_float64 = 2, &
                                   attn_dtype_bool = 3, attn_dtype_int64 = 4, &
                                   attn_dtype_bfloat16 = 5, attn_dtype_float16 = 6, &
                                   attn_dtype_int32 = 7, attn_dtype_int8 = 8, attn_dtype_uint8 = 9, &
                                   attn_dtype_int4x2 = 12, attn_dtype_q8_0 = 13, &
                                   attn_dtype_q4_0 = 14, attn_dtype_uint4x2 = 15
  integer(c_int32_t), parameter :: attn_engine_auto = 0, attn_engine_blas = 1, attn_engine_fused = 2
  integer(c_int32_t), parameter :: attn_gemm_auto = 0, attn_gemm_blas = 1, attn_gemm_native = 2
  integer(c_int32_t), parameter :: attn_mask_none = 0, attn_mask_additive = 1, &
                                   attn_mask_bool_include = 2, attn_mask_bool_exclude = 3
  integer(c_int32_t), parameter :: attn_normalizer_softmax = 0, attn_normalizer_sigmoid = 1, &
                                   attn_normalizer_linear = 2
  integer(c_int32_t), parameter :: attn_score_scaled = 0, attn_score_capped = 1, &
                                   attn_score_masked = 2
  integer(c_int32_t), parameter :: attn_qk_norm_none = 0, attn_qk_norm_head = 1, &
                                   attn_qk_norm_all_heads = 2
  integer(c_int32_t), parameter :: attn_sdpa_set_scale = 1, attn_sdpa_set_window = 2

  type, bind(c) :: attn_tensor
    type(c_ptr) :: data = c_null_ptr
    integer(c_int32_t) :: dtype = 0, rank = 0
    integer(c_int64_t) :: shape(attn_max_rank) = 0, strides(attn_max_rank) = 0
  end type attn_tensor

  type, bind(c) :: attn_context_config
    integer(c_int64_t) :: struct_size = 0
    integer(c_int32_t) :: num_threads = 0, parallel_for_width = 0, engine = 0, gemm = 0
    type(c_ptr) :: kernels = c_null_ptr
    type(c_funptr) :: parallel_for = c_null_funptr
    type(c_ptr) :: parallel_for_state = c_null_ptr
    type(c_funptr) :: allocate = c_null_funptr, deallocate = c_null_funptr
    type(c_ptr) :: allocator_state = c_null_ptr
    integer(c_int32_t) :: float32_weights = 0, reserved = 0
  end type attn_context_config

  type, bind(c) :: attn_context_info
    integer(c_int64_t) :: struct_size = 0
    integer(c_int32_t) :: num_threads = 0, engine = 0, gemm = 0, attention_gemm = 0, &
                          projection_gemm = 0, blas_is_serial = 0
    type(c_ptr) :: kernels = c_null_ptr, blas = c_null_ptr
  end type attn_context_info

  type, bind(c) :: attn_kv
    integer(c_int64_t) :: struct_size = 0
    type(c_ptr) :: key = c_null_ptr, value = c_null_ptr, page_table = c_null_ptr, &
                   page_starts = c_null_ptr, starts = c_null_ptr, lengths = c_null_ptr, &
                   key_scale = c_null_ptr, value_scale = c_null_ptr, key_zero = c_null_ptr, &
                   value_zero = c_null_ptr
  end type attn_kv

  type, bind(c) :: attn_kv_append_params
    integer(c_int64_t) :: struct_size = 0
    type(c_ptr) :: starts = c_null_ptr, positions = c_null_ptr
  end type attn_kv_append_params

  type, bind(c) :: attn_sdpa_params
    integer(c_int64_t) :: struct_size = 0
    integer(c_int32_t) :: set = 0, is_causal = 0
    real(c_double) :: scale = 0, softcap = 0
    integer(c_int64_t) :: window_left = 0, window_right = 0
    integer(c_int32_t) :: enable_gqa = 0, align_end = 0, normalizer = 0, mask_kind = 0
    type(c_ptr) :: mask = c_null_ptr, bias = c_null_ptr, query_offset = c_null_ptr, &
                   key_lengths = c_null_ptr, alibi_slopes = c_null_ptr, sinks = c_null_ptr, &
                   lse = c_null_ptr, weights = c_null_ptr, report = c_null_ptr, kv = c_null_ptr, &
                   query_starts = c_null_ptr, scores = c_null_ptr
    integer(c_int32_t) :: scores_stage = 0, reserved = 0
    type(c_ptr) :: mask_start = c_null_ptr, position_bias = c_null_ptr, block_mask = c_null_ptr
    integer(c_int64_t) :: block_rows = 0, block_columns = 0
    type(c_ptr) :: dropout = c_null_ptr
  end type attn_sdpa_params

  type, bind(c) :: attn_dropout
    integer(c_int64_t) :: struct_size = 0
    real(c_double) :: probability = 0
    integer(c_int64_t) :: seed = 0, offset = 0, batch = 0, head = 0, row = 0, column = 0
  end type attn_dropout

  type, bind(c) :: attn_sdpa_report
    integer(c_int64_t) :: struct_size = 0
    integer(c_int32_t) :: engine = 0, gemm = 0, depends_on_blas_threads = 0, packs = 0
    integer(c_int64_t) :: row_block = 0, num_blocks = 0, workspace_bytes = 0
    type(c_ptr) :: kernels = c_null_ptr, reason = c_null_ptr
  end type attn_sdpa_report

  type, bind(c) :: attn_sdpa_gradients
    integer(c_int64_t) :: struct_size = 0
    integer(c_int32_t) :: accumulate = 0, reserved = 0
    type(c_ptr) :: output = c_null_ptr, lse = c_null_ptr, weights = c_null_ptr, &
                   query = c_null_ptr, key = c_null_ptr, value = c_null_ptr, mask = c_null_ptr, &
                   bias = c_null_ptr, position_bias = c_null_ptr, alibi_slopes = c_null_ptr, &
                   sinks = c_null_ptr
  end type attn_sdpa_gradients

  type, bind(c) :: attn_sdpa_backward_report
    integer(c_int64_t) :: struct_size = 0
    integer(c_int32_t) :: whole_heads = 0, staged = 0
    integer(c_int64_t) :: num_items = 0, row_block = 0, key_block = 0, workspace_bytes = 0
    type(c_ptr) :: kernels = c_null_ptr, reason = c_null_ptr
  end type attn_sdpa_backward_report

  type, bind(c) :: attn_merge_params
    integer(c_int64_t) :: struct_size = 0
    type(c_ptr) :: sinks = c_null_ptr
  end type attn_merge_params

  type, bind(c) :: attn_rope_params
    integer(c_int64_t) :: struct_size = 0, rotary_dim = 0
    real(c_double) :: base = 0, magnitude = 0
    integer(c_int32_t) :: interleaved = 0, inverse = 0
    type(c_ptr) :: frequencies = c_null_ptr, cos = c_null_ptr, sin = c_null_ptr, &
                   positions = c_null_ptr, lengths = c_null_ptr
  end type attn_rope_params

  type, bind(c) :: attn_rms_norm_params
    integer(c_int64_t) :: struct_size = 0
    type(c_ptr) :: weight = c_null_ptr
    real(c_double) :: epsilon = 0, weight_offset = 0
  end type attn_rms_norm_params

  type, bind(c) :: attn_mha_config
    integer(c_int64_t) :: struct_size = 0, embed_dim = 0, num_heads = 0, kdim = 0, vdim = 0, &
                          qdim = 0, num_kv_heads = 0, head_dim = 0, value_head_dim = 0
    integer(c_int32_t) :: dtype = 0, no_bias = 0, add_bias_kv = 0, add_zero_attn = 0, &
                          batch_first = 0, parameter_dtype = 0, qk_norm = 0, reserved = 0
    real(c_double) :: qk_norm_epsilon = 0, qk_norm_weight_offset = 0
  end type attn_mha_config

  type, bind(c) :: attn_mha_init_params
    integer(c_int64_t) :: struct_size = 0, seed = 0
  end type attn_mha_init_params

  type, bind(c) :: attn_mha_params
    integer(c_int64_t) :: struct_size = 0
    integer(c_int32_t) :: key_padding_mask_kind = 0, reserved = 0
    type(c_ptr) :: key_padding_mask = c_null_ptr, attention = c_null_ptr, cache = c_null_ptr, &
                   rope = c_null_ptr, saved = c_null_ptr
    integer(c_int64_t) :: saved_bytes = 0
  end type attn_mha_params

  type, bind(c) :: attn_mha_gradients
    integer(c_int64_t) :: struct_size = 0
    integer(c_int32_t) :: accumulate = 0, reserved = 0
    type(c_ptr) :: output = c_null_ptr, query = c_null_ptr, key = c_null_ptr, value = c_null_ptr, &
                   parameters = c_null_ptr
    integer(c_int64_t) :: num_parameters = 0
    type(c_ptr) :: attention = c_null_ptr
  end type attn_mha_gradients

  type, bind(c) :: attn_mha_report
    integer(c_int64_t) :: struct_size = 0
    integer(c_int32_t) :: projection_gemm = 0, depends_on_blas_threads = 0
    integer(c_int64_t) :: workspace_bytes = 0
    type(c_ptr) :: kernels = c_null_ptr, attention = c_null_ptr
  end type attn_mha_report

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

    integer(c_int32_t) function attn_error_set(status, detail) bind(c)
      import :: c_int32_t, c_char
      integer(c_int32_t), value :: status
      character(kind=c_char), intent(in) :: detail(*)
    end function attn_error_set

    integer(c_int32_t) function attn_context_create(config, context) bind(c)
      import :: attn_context_config, c_ptr, c_int32_t
      type(attn_context_config), intent(in) :: config
      type(c_ptr), intent(out) :: context
    end function attn_context_create

    integer(c_int32_t) function attn_context_start(context) bind(c)
      import :: c_ptr, c_int32_t
      type(c_ptr), value :: context
    end function attn_context_start

    integer(c_int32_t) function attn_context_describe(context, info) bind(c)
      import :: attn_context_info, c_ptr, c_int32_t
      type(c_ptr), value :: context
      type(attn_context_info), intent(inout) :: info
    end function attn_context_describe

    subroutine attn_context_destroy(context) bind(c)
      import :: c_ptr
      type(c_ptr), value :: context
    end subroutine attn_context_destroy

    integer(c_int32_t) function attn_kv_append(context, kv, key, value, params) bind(c)
      import :: attn_tensor, attn_kv, attn_kv_append_params, c_ptr, c_int32_t
      type(c_ptr), value :: context
      type(attn_kv), intent(in) :: kv
      type(attn_tensor), intent(in) :: key, value
      type(attn_kv_append_params), intent(in) :: params
    end function attn_kv_append

    integer(c_int32_t) function attn_sdpa(context, query, key, value, params, output, workspace, &
                                          workspace_bytes) bind(c)
      import :: attn_tensor, attn_sdpa_params, c_ptr, c_int32_t, c_size_t
      type(c_ptr), value :: context, workspace
      type(attn_tensor), intent(in) :: query, output
      type(attn_tensor), intent(in), optional :: key, value
      type(attn_sdpa_params), intent(in) :: params
      integer(c_size_t), value :: workspace_bytes
    end function attn_sdpa

    integer(c_int32_t) function attn_sdpa_backward(context, query, key, value, params, output, &
                                                   gradients, workspace, workspace_bytes) bind(c)
      import :: attn_tensor, attn_sdpa_params, attn_sdpa_gradients, c_ptr, c_int32_t, c_size_t
      type(c_ptr), value :: context, workspace
      type(attn_tensor), intent(in) :: query, output
      type(attn_tensor), intent(in), optional :: key, value
      type(attn_sdpa_params), intent(in) :: params
      type(attn_sdpa_gradients), intent(in) :: gradients
      integer(c_size_t), value :: workspace_bytes
    end function attn_sdpa_backward

    integer(c_int32_t) function attn_sdpa_backward_explain(context, query, key, value, params, &
                                                           output, gradients, report) bind(c)
      import :: attn_tensor, attn_sdpa_params, attn_sdpa_gradients, attn_sdpa_backward_report, &
                c_ptr, c_int32_t
      type(c_ptr), value :: context
      type(attn_tensor), intent(in) :: query, output
      type(attn_tensor), intent(in), optional :: key, value
      type(attn_sdpa_params), intent(in) :: params
      type(attn_sdpa_gradients), intent(in) :: gradients
      type(attn_sdpa_backward_report), intent(inout) :: report
    end function attn_sdpa_backward_explain

    integer(c_int32_t) function attn_sdpa_merge(context, count, outputs, lses, params, output, &
                                                lse) bind(c)
      import :: attn_tensor, attn_merge_params, c_ptr, c_int32_t, c_int64_t
      type(c_ptr), value :: context
      integer(c_int64_t), value :: count
      type(attn_tensor), intent(in) :: outputs(*), output
      type(attn_tensor), intent(in), optional :: lses(*), lse
      type(attn_merge_params), intent(in) :: params
    end function attn_sdpa_merge

    integer(c_int32_t) function attn_rope(context, input, params, output) bind(c)
      import :: attn_tensor, attn_rope_params, c_ptr, c_int32_t
      type(c_ptr), value :: context
      type(attn_tensor), intent(in) :: input, output
      type(attn_rope_params), intent(in) :: params
    end function attn_rope

    integer(c_int32_t) function attn_rms_norm(context, input, params, output) bind(c)
      import :: attn_tensor, attn_rms_norm_params, c_ptr, c_int32_t
      type(c_ptr), value :: context
      type(attn_tensor), intent(in) :: input, output
      type(attn_rms_norm_params), intent(in) :: params
    end function attn_rms_norm

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

    integer(c_int32_t) function attn_mha_describe(layer, config) bind(c)
      import :: attn_mha_config, c_ptr, c_int32_t
      type(c_ptr), value :: layer
      type(attn_mha_config), intent(inout) :: config
    end function attn_mha_describe

    integer(c_int32_t) function attn_mha_parameter_count(layer, count) bind(c)
      import :: c_ptr, c_int32_t, c_int64_t
      type(c_ptr), value :: layer
      integer(c_int64_t), intent(inout) :: count
    end function attn_mha_parameter_count

    integer(c_int32_t) function attn_mha_parameter_describe(layer, index, name, shape) bind(c)
      import :: attn_tensor, c_ptr, c_int32_t, c_int64_t
      type(c_ptr), value :: layer
      integer(c_int64_t), value :: index
      type(c_ptr), intent(inout) :: name
      type(attn_tensor), intent(inout) :: shape
    end function attn_mha_parameter_describe

    integer(c_int32_t) function attn_mha_load_parameter(context, layer, name, values, params) bind(c)
      import :: attn_tensor, c_ptr, c_int32_t, c_char
      type(c_ptr), value :: context, layer, params
      character(kind=c_char), intent(in) :: name(*)
      type(attn_tensor), intent(in) :: values
    end function attn_mha_load_parameter

    integer(c_int32_t) function attn_mha_read_parameter(context, layer, name, values) bind(c)
      import :: attn_tensor, c_ptr, c_int32_t, c_char
      type(c_ptr), value :: context, layer
      character(kind=c_char), intent(in) :: name(*)
      type(attn_tensor), intent(in) :: values
    end function attn_mha_read_parameter

    integer(c_int32_t) function attn_mha_init_parameters(context, layer, params) bind(c)
      import :: attn_mha_init_params, c_ptr, c_int32_t
      type(c_ptr), value :: context, layer
      type(attn_mha_init_params), intent(in) :: params
    end function attn_mha_init_parameters

    integer(c_int32_t) function attn_mha_explain(context, layer, query, key, value, params, &
                                                 output, report) bind(c)
      import :: attn_tensor, attn_mha_params, attn_mha_report, c_ptr, c_int32_t
      type(c_ptr), value :: context, layer
      type(attn_tensor), intent(in) :: query, output
      type(attn_tensor), intent(in), optional :: key, value
      type(attn_mha_params), intent(in) :: params
      type(attn_mha_report), intent(inout) :: report
    end function attn_mha_explain

    integer(c_int32_t) function attn_selftest(context, params) bind(c)
      import :: c_ptr, c_int32_t
      type(c_ptr), value :: context, params
    end function attn_selftest

    integer(c_int32_t) function attn_mha_forward(context, layer, query, key, value, params, &
                                                 output, workspace, workspace_bytes) bind(c)
      import :: attn_tensor, attn_mha_params, c_ptr, c_int32_t, c_size_t
      type(c_ptr), value :: context, layer, workspace
      type(attn_tensor), intent(in) :: query, output
      type(attn_tensor), intent(in), optional :: key, value
      type(attn_mha_params), intent(in) :: params
      integer(c_size_t), value :: workspace_bytes
    end function attn_mha_forward

    integer(c_int32_t) function attn_mha_saved_bytes(context, layer, query, key, value, params, &
                                                     bytes) bind(c)
      import :: attn_tensor, attn_mha_params, c_ptr, c_int32_t, c_size_t
      type(c_ptr), value :: context, layer
      type(attn_tensor), intent(in) :: query
      type(attn_tensor), intent(in), optional :: key, value
      type(attn_mha_params), intent(in) :: params
      integer(c_size_t), intent(inout) :: bytes
    end function attn_mha_saved_bytes

    integer(c_int32_t) function attn_mha_backward(context, layer, query, key, value, params, &
                                                  gradients, workspace, workspace_bytes) bind(c)
      import :: attn_tensor, attn_mha_params, attn_mha_gradients, c_ptr, c_int32_t, c_size_t
      type(c_ptr), value :: context, layer, workspace
      type(attn_tensor), intent(in) :: query, key, value
      type(attn_mha_params), intent(in) :: params
      type(attn_mha_gradients), intent(in) :: gradients
      integer(c_size_t), value :: workspace_bytes
    end function attn_mha_backward
  end interface
end module attention_abi
