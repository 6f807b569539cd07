! SPDX-License-Identifier: BSD-3-Clause
!
! test_layer_cache.f90: steps of a layer with a cache, a rotation and norms are the whole sequence.
program test_layer_cache
  use, intrinsic :: iso_c_binding
  use attention
  implicit none
  integer, parameter :: embed_dim = 8, rows = 5, room = 6, head_dim = 4
  integer, parameter :: ends(0:3) = [0, 3, 4, 5]
  real(c_float), target :: input(embed_dim, rows), whole(embed_dim, rows), output(embed_dim, rows), &
                           again(embed_dim, 1)
  real(c_float), target :: keys(head_dim, room, 1), values(head_dim, room, 1)
  integer(c_int64_t), target :: length(1)
  type(multihead) :: layer
  type(multihead_sizes) :: sizes
  type(kv_places) :: cache
  type(rotation) :: turns = rotation(base=500)
  integer :: i

  call random_number(input)
  call layer%create(int(embed_dim, c_int64_t), 2_c_int64_t, num_kv_heads=1_c_int64_t, &
                    head_dim=int(head_dim, c_int64_t), qk_norm=attn_qk_norm_head, &
                    qk_norm_epsilon=1d-6, qk_norm_weight_offset=1d0)
  call layer%initialize(3_c_int64_t)
  sizes = layer%describe()
  call check(sizes%qk_norm == attn_qk_norm_head .and. sizes%qk_norm_weight_offset == 1, 'the sizes')
  call layer%forward(tensor_of(input), tensor_of(input), tensor_of(input), tensor_of(whole), &
                     is_causal=.true., rope=turns)
  cache = kv_places(tensor_of(keys), tensor_of(values))
  cache%lengths = tensor_of(length)
  cache%lengths%rank = 0 ! one sequence, no batch axis
  do i = 1, 3
    length = ends(i)
    call step(ends(i - 1) + 1, ends(i))
  end do
  call check(all(abs(output - whole) < 1e-5), 'steps are the whole')
  call layer%forward(tensor_of(input(:, rows:rows)), output=tensor_of(again), is_causal=.true., &
                     cache=cache, rope=turns)
  call check(all(abs(again(:, 1) - whole(:, rows)) < 1e-5), 'the cache is read alone')
  print '(a)', 'layer cache: passed'

contains

  subroutine step(first, last)
    integer, intent(in) :: first, last
    call layer%forward(tensor_of(input(:, first:last)), tensor_of(input(:, first:last)), &
                       tensor_of(input(:, first:last)), tensor_of(output(:, first:last)), &
                       is_causal=.true., cache=cache, rope=turns)
  end subroutine step

  subroutine check(is_right, what)
    logical, intent(in) :: is_right
    character(*), intent(in) :: what
    if (.not. is_right) error stop 'failed: '//what
  end subroutine check
end program test_layer_cache
