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
                           attn_normalizer_linear, attn_score_scaled, attn_score_capped, &
                           attn_score_masked, attn_qk_norm_none, attn_qk_norm_head, &
                           attn_qk_norm_all_heads, attn_engine_auto, attn_engine_blas, &
                           attn_engine_fused, attn_gemm_auto, attn_gemm_blas, attn_gemm_native, &
                           attn_error_unsupported, attn_dtype_float32, attn_dtype_float64, &
                           attn_dtype_bfloat16, attn_dtype_float16, attn_dtype_int8, &
                           attn_dtype_uint8, attn_dtype_int4x2, attn_dtype_uint4x2, &
                           attn_dtype_q8_0, attn_dtype_q4_0
  use attention_abi, only: abi_ok => attn_ok, attn_mask_bool_include, attn_mask_bool_exclude, attn_kv, &
                           attn_rope_params, attn_sdpa_params, attn_sdpa_report, attn_dropout, &
                           attn_mha_config, attn_mha_params, &
                           attn_mha_report, attn_mha_init_params, attention_view, &
                           attn_tensor_init, attn_sdpa, attn_mha_create, attn_mha_describe, &
                           attn_mha_destroy, attn_mha_load_parameter, attn_mha_read_parameter, &
                           attn_mha_init_parameters, attn_mha_explain, attn_mha_forward
  use attention_contexts, only: attention_context, context_info, selftest, handle_of, check, &
                                text_at, longest_text
  use attention_options, only: attention_report, attention_dropout, report_of, options_of, drop_by, &
                               address_of, as_flag, kind_of
  use attention_kv, only: kv_places, kv_append, raw_places
  use attention_backward, only: sdpa_gradients, attend_backward, backward_report
  use attention_saved_forward, only: saved_forward, multihead_gradients, parameter_gradient, save_call, &
                                     forget_call
  use attention_steps, only: partial_result, merge_parts, rope, rms_norm, rotation, raw_rotation
  use attention_halves, only: to_bfloat16, from_bfloat16, to_float16, from_float16
  implicit none
  private
  public :: to_bfloat16, from_bfloat16, to_float16, from_float16
  public :: attn_dtype_float32, attn_dtype_float64, attn_dtype_bfloat16, attn_dtype_float16
  public :: attn_dtype_int8, attn_dtype_uint8, attn_dtype_int4x2, attn_dtype_uint4x2, attn_dtype_q8_0, &
            attn_dtype_q4_0
  public :: attn_tensor, tensor_of, tensor_at, attend, selftest
  public :: kv_places, kv_append
  public :: sdpa_gradients, attend_backward, backward_report
  public :: saved_forward, multihead_gradients, parameter_gradient
  public :: partial_result, merge_parts, rope, rms_norm, rotation
  public :: attn_qk_norm_none, attn_qk_norm_head, attn_qk_norm_all_heads
  public :: attention_context, context_info, multihead, multihead_sizes
  public :: attention_report, multihead_report, attention_dropout
  public :: attn_normalizer_softmax, attn_normalizer_sigmoid, attn_normalizer_linear
  public :: attn_score_scaled, attn_score_capped, attn_score_masked
  public :: attn_engine_auto, attn_engine_blas, attn_engine_fused
  public :: attn_gemm_auto, attn_gemm_blas, attn_gemm_native
  public :: attn_error_unsupported

  type :: multihead_report
    integer(c_int32_t) :: projection_gemm
    logical :: depends_on_blas_threads
    integer(c_int64_t) :: workspace_bytes
    character(longest_text) :: kernels
    type(attention_report) :: attention
  end type multihead_report

  ! What a layer is. Its types are attn_dtype_*.
  type :: multihead_sizes
    integer(c_int64_t) :: embed_dim, num_heads, kdim, vdim, qdim, num_kv_heads, head_dim, &
                          value_head_dim
    logical :: bias, add_bias_kv, add_zero_attn, batch_first
    integer(c_int32_t) :: dtype, parameter_dtype, qk_norm
    real(c_double) :: qk_norm_epsilon, qk_norm_weight_offset
  end type multihead_sizes

  ! A layer: torch.nn.MultiheadAttention in evaluation mode. Not to be copied; it is freed when it
  ! goes out of scope.
  type :: multihead
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure :: create => multihead_create
    procedure :: describe => multihead_describe
    procedure :: load => multihead_load
    procedure :: read => multihead_read
    procedure :: initialize => multihead_initialize
    procedure :: forward => multihead_forward
    procedure :: destroy => multihead_destroy
    final :: multihead_finalize
  end type multihead

  ! query (E, L, Hq, ...), key (E, S, Hk, ...), value (Ev, S, Hv, ...), output (Ev, L, Hq, ...); or
  ! query, kv, output, with keys and values elsewhere.
  ! All of real(c_double); or query, key and value each of real(c_float) or 16 bits, output and weights
  ! of query's type or real(c_float), lse of real(c_float).
  ! attn_mask, broadcastable to (S, L, Hq, ...): .true. takes part, numbers are added; bias: numbers
  ! beside it; position_bias (2 R + 1, Hq or 1): numbers by a key's distance from its row, at most R.
  ! mask_start: the number, from 0, of the key that attn_mask's first column belongs to; keys before it
  ! are visible, those behind its last column hidden. block_mask, bytes of attn_dtype_uint8
  ! broadcastable to (columns of blocks, rows of blocks, Hq, ...): what a block of block_size(1) rows
  ! and block_size(2) keys is, 0 hidden and never read, 1 visible, 2 visible where attn_mask is. window
  ! is left and right of a row's position, -1 for all. dropout: which weights are dropped. With
  ! query_starts (B + 1) query is (E, total, Hq), one sequence behind the other, and output, lse and
  ! weights are likewise.
  ! lse (L, Hq, ...), weights, per head (S, L, Hq, ...) or averaged (S, L, ...), and scores (S, L, Hq,
  ! ...) are outputs, computed if present; scores_stage: attn_score_*.
  interface attend
    procedure :: attend_tensors, attend_places
  end interface attend

  ! A view of an array or a section. It lives no longer than the array, so the compiler takes nothing
  ! that is gone after the statement: the argument is a pointer, or a target that one could point to. Of
  ! numbers of 16 bits it is their bits, and the second argument says which type they are of; so it does
  ! of bytes that are not integers of 8 bits with a sign.
  interface tensor_of
    procedure :: tensor_of_float, tensor_of_double, tensor_of_int64, tensor_of_int32, tensor_of_bool, &
      tensor_of_bits, tensor_of_int8
  end interface tensor_of

contains

  ! ---- views ----

  function tensor_of_float(array) result(view)
    real(c_float), dimension(..), pointer, intent(in) :: array
    type(attn_tensor) :: view
    call attention_view(array, view)
  end function tensor_of_float

  function tensor_of_double(array) result(view)
    real(c_double), dimension(..), pointer, intent(in) :: array
    type(attn_tensor) :: view
    call attention_view(array, view)
  end function tensor_of_double

  function tensor_of_int64(array) result(view)
    integer(c_int64_t), dimension(..), pointer, intent(in) :: array
    type(attn_tensor) :: view
    call attention_view(array, view)
  end function tensor_of_int64

  function tensor_of_int32(array) result(view)
    integer(c_int32_t), dimension(..), pointer, intent(in) :: array
    type(attn_tensor) :: view
    call attention_view(array, view)
  end function tensor_of_int32

  function tensor_of_bool(array) result(view)
    logical(c_bool), dimension(..), pointer, intent(in) :: array
    type(attn_tensor) :: view
    call attention_view(array, view)
  end function tensor_of_bool

  ! dtype: attn_dtype_bfloat16 or attn_dtype_float16; with another the view is of none, as above.
  function tensor_of_bits(array, dtype) result(view)
    integer(c_int16_t), dimension(..), pointer, intent(in) :: array
    integer(c_int32_t), intent(in) :: dtype
    type(attn_tensor) :: view
    call attention_view(array, view)
    if (any(dtype == [attn_dtype_bfloat16, attn_dtype_float16])) view%dtype = dtype
  end function tensor_of_bits

  ! dtype: attn_dtype_int8 if left out, attn_dtype_uint8, or attn_dtype_int4x2 or attn_dtype_uint4x2: two
  ! values in each byte. With another the view is of none, as above.
  function tensor_of_int8(array, dtype) result(view)
    integer(c_int8_t), dimension(..), pointer, intent(in) :: array
    integer(c_int32_t), intent(in), optional :: dtype
    type(attn_tensor) :: view
    call attention_view(array, view)
    if (.not. present(dtype)) return
    view%dtype = merge(dtype, 0_c_int32_t, any(dtype == [attn_dtype_int8, attn_dtype_uint8, &
                                                         attn_dtype_int4x2, attn_dtype_uint4x2]))
  end function tensor_of_int8

  ! A view of contiguous memory, with the shape as C has it.
  function tensor_at(address, dtype, shape, stat, errmsg) result(view)
    type(c_ptr), intent(in) :: address
    integer(c_int32_t), intent(in) :: dtype
    integer(c_int64_t), intent(in) :: shape(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_tensor) :: view
    call check(attn_tensor_init(view, address, dtype, size(shape, kind=c_int32_t), shape), stat, errmsg)
  end function tensor_at

  ! ---- scaled dot-product attention ----

  subroutine attend_tensors(query, key, value, output, attn_mask, is_causal, scale, enable_gqa, bias, &
                            align_end, query_offset, key_lengths, window, softcap, sinks, &
                            alibi_slopes, normalizer, lse, weights, query_starts, context, report, &
                            stat, errmsg, scores, scores_stage, mask_start, position_bias, &
                            block_mask, block_size, dropout)
    type(attn_tensor), intent(in) :: query, key, value, output
    type(attn_tensor), intent(in), optional, target :: attn_mask, bias, query_offset, key_lengths, &
                                                       sinks, alibi_slopes, lse, weights, &
                                                       scores, query_starts, mask_start, &
                                                       position_bias, block_mask
    logical, intent(in), optional :: is_causal, enable_gqa, align_end
    real(c_double), intent(in), optional :: scale, softcap
    integer(c_int64_t), intent(in), optional :: window(2), block_size(2)
    integer(c_int32_t), intent(in), optional :: normalizer, scores_stage
    type(attention_context), intent(in), optional :: context
    type(attention_report), intent(out), optional :: report
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attention_dropout), intent(in), optional :: dropout
    type(attn_sdpa_params) :: params
    type(attn_dropout), target :: dropped
    params = options_of(attn_mask_bool_include, attn_mask, bias, is_causal, scale, enable_gqa, &
                        align_end, query_offset, key_lengths, window, softcap, sinks, alibi_slopes, &
                        normalizer, lse, weights, scores, scores_stage, mask_start, position_bias, &
                        block_mask, block_size, query_starts)
    call drop_by(dropout, params, dropped)
    call run(query, output, params, key, value, context, report, stat, errmsg)
  end subroutine attend_tensors

  subroutine attend_places(query, kv, output, attn_mask, is_causal, scale, enable_gqa, bias, &
                           align_end, query_offset, key_lengths, window, softcap, sinks, &
                           alibi_slopes, normalizer, lse, weights, query_starts, context, report, &
                           stat, errmsg, scores, scores_stage, mask_start, position_bias, &
                           block_mask, block_size, dropout)
    type(attn_tensor), intent(in) :: query, output
    type(kv_places), intent(in), target :: kv
    type(attn_tensor), intent(in), optional, target :: attn_mask, bias, query_offset, key_lengths, &
                                                       sinks, alibi_slopes, lse, weights, &
                                                       scores, query_starts, mask_start, &
                                                       position_bias, block_mask
    logical, intent(in), optional :: is_causal, enable_gqa, align_end
    real(c_double), intent(in), optional :: scale, softcap
    integer(c_int64_t), intent(in), optional :: window(2), block_size(2)
    integer(c_int32_t), intent(in), optional :: normalizer, scores_stage
    type(attention_context), intent(in), optional :: context
    type(attention_report), intent(out), optional :: report
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attention_dropout), intent(in), optional :: dropout
    type(attn_sdpa_params) :: params
    type(attn_dropout), target :: dropped
    type(attn_kv), target :: places
    params = options_of(attn_mask_bool_include, attn_mask, bias, is_causal, scale, enable_gqa, &
                        align_end, query_offset, key_lengths, window, softcap, sinks, alibi_slopes, &
                        normalizer, lse, weights, scores, scores_stage, mask_start, position_bias, &
                        block_mask, block_size, query_starts)
    call drop_by(dropout, params, dropped)
    places = raw_places(kv)
    params%kv = c_loc(places)
    call run(query, output, params, context=context, report=report, stat=stat, errmsg=errmsg)
  end subroutine attend_places

  subroutine run(query, output, params, key, value, context, report, stat, errmsg)
    type(attn_tensor), intent(in) :: query, output
    type(attn_sdpa_params), intent(inout) :: params
    type(attn_tensor), intent(in), optional :: key, value
    type(attention_context), intent(in), optional :: context
    type(attention_report), intent(out), optional :: report
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_sdpa_report), target :: raw
    integer(c_int32_t) :: status
    raw%struct_size = c_sizeof(raw)
    if (present(report)) params%report = c_loc(raw)
    status = attn_sdpa(handle_of(context), query, key, value, params, output, c_null_ptr, 0_c_size_t)
    call check(status, stat, errmsg)
    if (present(report) .and. status == abi_ok) report = report_of(raw)
  end subroutine run

  ! ---- multi-head attention ----

  ! Sizes that are absent or 0 are PyTorch's defaults. dtype: attn_dtype_* of query, key, value and
  ! output, else float32; parameter_dtype: of the parameters that the layer keeps, else dtype. qk_norm:
  ! attn_qk_norm_*, what rms_norm does to projected queries and keys, with its epsilon and offset.
  subroutine multihead_create(self, embed_dim, num_heads, bias, add_bias_kv, add_zero_attn, kdim, &
                              vdim, batch_first, qdim, head_dim, value_head_dim, num_kv_heads, &
                              dtype, parameter_dtype, stat, errmsg, qk_norm, qk_norm_epsilon, &
                              qk_norm_weight_offset)
    class(multihead), intent(inout) :: self
    integer(c_int64_t), intent(in) :: embed_dim, num_heads
    integer(c_int64_t), intent(in), optional :: kdim, vdim, qdim, head_dim, value_head_dim, &
                                                num_kv_heads
    logical, intent(in), optional :: bias, add_bias_kv, add_zero_attn, batch_first
    integer(c_int32_t), intent(in), optional :: dtype, parameter_dtype, qk_norm
    real(c_double), intent(in), optional :: qk_norm_epsilon, qk_norm_weight_offset
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
    if (present(bias)) config%no_bias = as_flag(.not. bias)
    config%add_bias_kv = as_flag(add_bias_kv)
    config%add_zero_attn = as_flag(add_zero_attn)
    config%batch_first = as_flag(batch_first)
    if (present(dtype)) config%dtype = dtype
    if (present(parameter_dtype)) config%parameter_dtype = parameter_dtype
    if (present(qk_norm)) config%qk_norm = qk_norm
    if (present(qk_norm_epsilon)) config%qk_norm_epsilon = qk_norm_epsilon
    if (present(qk_norm_weight_offset)) config%qk_norm_weight_offset = qk_norm_weight_offset
    call self%destroy()
    call check(attn_mha_create(c_null_ptr, config, self%handle), stat, errmsg)
  end subroutine multihead_create

  ! What the layer is, with every size.
  function multihead_describe(self) result(sizes)
    class(multihead), intent(in) :: self
    type(multihead_sizes) :: sizes
    type(attn_mha_config) :: raw
    raw%struct_size = c_sizeof(raw)
    call check(attn_mha_describe(self%handle, raw))
    sizes = multihead_sizes(raw%embed_dim, raw%num_heads, raw%kdim, raw%vdim, raw%qdim, &
                            raw%num_kv_heads, raw%head_dim, raw%value_head_dim, raw%no_bias == 0, &
                            raw%add_bias_kv == 1, raw%add_zero_attn == 1, raw%batch_first == 1, &
                            raw%dtype, raw%parameter_dtype, raw%qk_norm, raw%qk_norm_epsilon, &
                            raw%qk_norm_weight_offset)
  end function multihead_describe

  ! Copies a parameter in, by PyTorch's name. A weight that PyTorch has as (out, in) is (in, out) here.
  subroutine multihead_load(self, name, values, context, stat, errmsg)
    class(multihead), intent(inout) :: self
    character(*), intent(in) :: name
    type(attn_tensor), intent(in) :: values
    type(attention_context), intent(in), optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call check(attn_mha_load_parameter(handle_of(context), self%handle, trim(name)//c_null_char, &
                                       values, c_null_ptr), stat, errmsg)
  end subroutine multihead_load

  ! Copies a parameter out into an array of its shape.
  subroutine multihead_read(self, name, values, context, stat, errmsg)
    class(multihead), intent(in) :: self
    character(*), intent(in) :: name
    type(attn_tensor), intent(in) :: values
    type(attention_context), intent(in), optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call check(attn_mha_read_parameter(handle_of(context), self%handle, trim(name)//c_null_char, &
                                       values), stat, errmsg)
  end subroutine multihead_read

  ! Fresh random parameters.
  subroutine multihead_initialize(self, seed, context, stat, errmsg)
    class(multihead), intent(inout) :: self
    integer(c_int64_t), intent(in) :: seed
    type(attention_context), intent(in), optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_mha_init_params) :: params
    params = attn_mha_init_params(c_sizeof(params), seed)
    call check(attn_mha_init_parameters(handle_of(context), self%handle, params), stat, errmsg)
  end subroutine multihead_initialize

  ! query (qdim, N, L), with batch_first (qdim, L, N), unbatched (qdim, L); key, value, output
  ! likewise. key_padding_mask (S, N) and attn_mask (S, L), (S, L, N * H) or (S, L, H, N): .true. is
  ! left out, numbers are added. weights, averaged (T, L, N) or per head (T, L, H, N), scores (T, L, H,
  ! N) and lse (L, H, N) are outputs, computed if present. The other options are attend's.
  ! rope: queries and keys are rotated. cache: keys and values of earlier calls, (D, C, Hk, N), with
  ! lengths, which count the new rows already: those of this call are stored behind them, and all are
  ! attended to; without key and value it is only read. saved: what saved%backward needs of this call.
  subroutine multihead_forward(self, query, key, value, output, key_padding_mask, attn_mask, &
                               is_causal, scale, bias, align_end, query_offset, key_lengths, window, &
                               softcap, sinks, alibi_slopes, normalizer, lse, weights, context, &
                               report, stat, errmsg, scores, scores_stage, mask_start, &
                               position_bias, block_mask, block_size, cache, rope, dropout, saved)
    class(multihead), intent(in) :: self
    type(attn_tensor), intent(in) :: query, output
    type(attn_tensor), intent(in), optional :: key, value
    type(kv_places), intent(in), optional, target :: cache
    type(rotation), intent(in), optional, target :: rope
    type(attn_tensor), intent(in), optional, target :: key_padding_mask, attn_mask, bias, &
                                                       query_offset, key_lengths, sinks, &
                                                       alibi_slopes, lse, weights, scores, &
                                                       mask_start, position_bias, block_mask
    logical, intent(in), optional :: is_causal, align_end
    real(c_double), intent(in), optional :: scale, softcap
    integer(c_int64_t), intent(in), optional :: window(2), block_size(2)
    integer(c_int32_t), intent(in), optional :: normalizer, scores_stage
    type(attention_context), intent(in), optional :: context
    type(multihead_report), intent(out), optional :: report
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attention_dropout), intent(in), optional :: dropout
    type(saved_forward), intent(inout), optional :: saved
    type(attn_mha_params) :: params
    type(attn_dropout), target :: dropped
    type(attn_sdpa_params), target :: attention
    type(attn_kv), target :: places
    type(attn_rope_params), target :: turns
    integer(c_int32_t) :: status
    attention = options_of(attn_mask_bool_exclude, attn_mask, bias, is_causal, scale, .false., &
                           align_end, query_offset, key_lengths, window, softcap, sinks, &
                           alibi_slopes, normalizer, lse, weights, scores, scores_stage, mask_start, &
                           position_bias, block_mask, block_size)
    call drop_by(dropout, attention, dropped)
    params%struct_size = c_sizeof(params)
    params%key_padding_mask = address_of(key_padding_mask)
    params%key_padding_mask_kind = kind_of(key_padding_mask, attn_mask_bool_exclude)
    params%attention = c_loc(attention)
    if (present(cache)) then
      places = raw_places(cache)
      params%cache = c_loc(places)
    end if
    if (present(rope)) then
      turns = raw_rotation(rope)
      params%rope = c_loc(turns)
    end if
    status = abi_ok
    if (present(saved)) &
      call save_call(saved, handle_of(context), self%handle, query, key, value, params, status)
    if (status == abi_ok) &
      status = attn_mha_forward(handle_of(context), self%handle, query, key, value, params, output, &
                                c_null_ptr, 0_c_size_t)
    if (present(saved) .and. status /= abi_ok) call forget_call(saved)
    call check(status, stat, errmsg)
    if (present(report) .and. status == abi_ok) &
      report = explanation(handle_of(context), self%handle, query, key, value, params, output)
  end subroutine multihead_forward

  ! What a forward call that went well has run.
  function explanation(context, layer, query, key, value, params, output) result(report)
    type(c_ptr), intent(in) :: context, layer
    type(attn_tensor), intent(in) :: query, output
    type(attn_tensor), intent(in), optional :: key, value
    type(attn_mha_params), intent(in) :: params
    type(multihead_report) :: report
    type(attn_sdpa_report), target :: inside
    type(attn_mha_report) :: raw
    inside%struct_size = c_sizeof(inside)
    raw%struct_size = c_sizeof(raw)
    raw%attention = c_loc(inside)
    call check(attn_mha_explain(context, layer, query, key, value, params, output, raw))
    report = multihead_report(raw%projection_gemm, raw%depends_on_blas_threads == 1, &
                              raw%workspace_bytes, text_at(raw%kernels), report_of(inside))
  end function explanation

  subroutine multihead_destroy(self)
    class(multihead), intent(inout) :: self
    call attn_mha_destroy(self%handle)
    self%handle = c_null_ptr
  end subroutine multihead_destroy

  subroutine multihead_finalize(self)
    type(multihead), intent(inout) :: self
    call self%destroy()
  end subroutine multihead_finalize
end module attention
