! SPDX-License-Identifier: BSD-3-Clause
!
! attention_contexts.f90: contexts, and how the library says that something went wrong. A program
! uses the module attention, which has what is public of it.
module attention_contexts
  use, intrinsic :: iso_c_binding
  use attention_abi, only: attn_ok, attn_context_config, attn_context_info, attn_last_error_copy, &
                           attn_context_create, attn_context_start, attn_context_describe, &
                           attn_context_destroy, attn_selftest
  implicit none
  private
  public :: attention_context, context_info, selftest, handle_of, check, text_at, longest_text

  integer, parameter :: longest_line = 512, longest_text = 200

  ! Threads and kernels that calls run with; those without one use the process's default. Not to be
  ! copied; it is freed when it goes out of scope.
  type :: attention_context
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure :: create => context_create
    procedure :: start => context_start
    procedure :: describe => context_describe
    procedure :: destroy => context_destroy
    final :: context_finalize
  end type attention_context

  ! What a context runs with: engine is one of attn_engine_*, the others of attn_gemm_*.
  type :: context_info
    integer(c_int32_t) :: num_threads, engine, gemm, attention_gemm, projection_gemm
    logical :: blas_is_serial
    character(longest_text) :: kernels, blas
  end type context_info

contains

  ! ---- errors and texts ----

  subroutine check(status, stat, errmsg)
    integer(c_int32_t), intent(in) :: status
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    character(longest_line) :: line
    if (present(stat)) stat = status
    if (status == attn_ok) return
    line = last_error()
    if (present(errmsg)) errmsg = line
    if (.not. present(stat)) error stop line
  end subroutine check

  function last_error() result(line)
    character(longest_line) :: line
    character(kind=c_char) :: buffer(longest_line)
    integer :: i
    line = ''
    do i = 1, int(attn_last_error_copy(buffer, int(longest_line, c_size_t))) - 1
      line(i:i) = buffer(i)
    end do
  end function last_error

  ! One of the library's static texts; cut if it is longer.
  function text_at(address) result(text)
    type(c_ptr), intent(in) :: address
    character(longest_text) :: text
    character(kind=c_char), pointer :: letters(:)
    integer :: i
    call c_f_pointer(address, letters, [longest_text])
    text = ''
    do i = 1, longest_text
      if (letters(i) == c_null_char) return
      text(i:i) = letters(i)
    end do
  end function text_at

  ! ---- contexts ----

  function handle_of(context) result(handle)
    type(attention_context), intent(in), optional :: context
    type(c_ptr) :: handle
    handle = c_null_ptr
    if (present(context)) handle = context%handle
  end function handle_of

  ! num_threads: 0 for the CPUs of this process; engine, gemm: attn_engine_* and attn_gemm_*; kernels
  ! by name. Where query, key and value are bfloat16 and the kernels multiply pairs of them, the
  ! weights of many rows are rounded to it; float32_weights=.true. keeps them float32.
  subroutine context_create(self, num_threads, engine, gemm, kernels, float32_weights, stat, errmsg)
    class(attention_context), intent(inout) :: self
    integer(c_int32_t), intent(in), optional :: num_threads, engine, gemm
    character(*), intent(in), optional :: kernels
    logical, intent(in), optional :: float32_weights
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(attn_context_config) :: config
    character(kind=c_char, len=:), allocatable, target :: name
    config%struct_size = c_sizeof(config)
    if (present(num_threads)) config%num_threads = num_threads
    if (present(engine)) config%engine = engine
    if (present(gemm)) config%gemm = gemm
    if (present(kernels)) then
      name = trim(kernels)//c_null_char
      config%kernels = c_loc(name)
    end if
    if (present(float32_weights)) then
      config%float32_weights = merge(1_c_int32_t, 0_c_int32_t, float32_weights)
    end if
    call self%destroy()
    call check(attn_context_create(config, self%handle), stat, errmsg)
  end subroutine context_create

  ! Starts the threads now, which the first large call would do.
  subroutine context_start(self, stat, errmsg)
    class(attention_context), intent(in) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call check(attn_context_start(self%handle), stat, errmsg)
  end subroutine context_start

  ! What it runs with; of a context that was not created, the default one.
  function context_describe(self) result(info)
    class(attention_context), intent(in) :: self
    type(context_info) :: info
    type(attn_context_info) :: raw
    raw%struct_size = c_sizeof(raw)
    call check(attn_context_describe(self%handle, raw))
    info = context_info(raw%num_threads, raw%engine, raw%gemm, raw%attention_gemm, &
                        raw%projection_gemm, raw%blas_is_serial == 1, text_at(raw%kernels), &
                        text_at(raw%blas))
  end function context_describe

  subroutine context_destroy(self)
    class(attention_context), intent(inout) :: self
    call attn_context_destroy(self%handle)
    self%handle = c_null_ptr
  end subroutine context_destroy

  subroutine context_finalize(self)
    type(attention_context), intent(inout) :: self
    call self%destroy()
  end subroutine context_finalize

  ! An error unless this machine computes what has a known result.
  subroutine selftest(context, stat, errmsg)
    type(attention_context), intent(in), optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call check(attn_selftest(handle_of(context), c_null_ptr), stat, errmsg)
  end subroutine selftest
end module attention_contexts
