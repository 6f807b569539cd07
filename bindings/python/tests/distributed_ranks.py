# SPDX-License-Identifier: BSD-3-Clause
"""What test_distributed.py has several ranks run: calls over all of them against one call, and
errors of one rank that all have."""

import sys

import numpy as np
from mpi4py import MPI

import libattention
from libattention.distributed import attention

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.Get_rank(), COMM.Get_size()


def rows_of(placement, rows):
    """The rank's rows of the whole; rows is a multiple of 2 * SIZE."""
    if placement == "contiguous":
        return np.arange(rows).reshape(SIZE, -1)[RANK]
    stretches = np.arange(rows).reshape(2 * SIZE, -1)
    return np.concatenate([stretches[RANK], stretches[2 * SIZE - 1 - RANK]])


def check(scheme, placement, convert, **options):
    random = np.random.default_rng(0)
    length = 6 * SIZE
    query = random.normal(size=(2, 4, length, 8)).astype("float32")
    key, value = random.normal(size=(2, 2, 2, length, 8)).astype("float32")
    seen = (random.random((length, length)) < 0.9) | np.eye(length, dtype=bool)
    mask = seen if scheme == "ring" else None
    expected, expected_lse = libattention.scaled_dot_product_attention(
        query, key, value, mask, enable_gqa=True, return_lse=True, **options
    )
    keys = rows_of(placement, length)
    queries = np.arange(length) if scheme == "decode" else keys
    output, lse = attention(
        *(convert(x[:, :, rows]) for x, rows in ((query, queries), (key, keys), (value, keys))),
        COMM,
        None if mask is None else convert(mask[queries]),
        enable_gqa=True,
        scheme=scheme,
        placement=placement,
        return_lse=True,
        **options,
    )
    assert isinstance(output, type(convert(query)))
    # By merge.h and sdpa.h some hundreds of 2^-24, of numbers below 4.
    assert np.abs(np.asarray(output) - expected[:, :, queries]).max() < 1e-4
    assert np.abs(np.asarray(lse) - expected_lse[:, :, queries]).max() < 1e-4


def refusal(*arguments, **options):
    try:
        attention(*arguments, **options)
    except libattention.Error as error:
        return error.name, str(error)
    raise AssertionError("was not refused")


def check_refusals(convert):
    good = convert(np.ones((2, 3, 4), "float32"))
    lines = [
        refusal(
            good if RANK != SIZE - 1 else convert(np.ones((2, 3, 4), "int64")), good, good, COMM
        ),
        refusal(good, good, good, COMM, scheme="star" if RANK == 0 else "ring"),
        refusal(good, good, good if RANK != SIZE - 1 else good[:, :2], COMM, scheme="ring"),
    ]
    if SIZE > 1:
        lines.append(refusal(good, good, good, COMM, softcap=2.0 + RANK))
        assert lines[3][0] == "ATTN_MPI_ERROR_DISAGREE", lines[3]
    assert lines[0][1].startswith(f"rank {SIZE - 1}: query: "), lines[0]
    assert lines[1] == (
        "ATTN_ERROR_VALUE",
        "rank 0: scheme: expected one of 'auto', 'ring', 'heads', 'decode', got 'star'",
    )
    assert lines[2][0] == "ATTN_ERROR_SHAPE", lines[2]
    assert lines[2][1].startswith(f"rank {SIZE - 1}: "), lines[2]
    assert all(found == lines for found in COMM.allgather(lines))


def main():
    kinds = [np.asarray]
    if "torch" in sys.argv:
        import torch

        kinds.append(torch.from_numpy)
        wanting = torch.ones(2, 3, 4, requires_grad=True)
        name, text = refusal(wanting, wanting, wanting, COMM)
        assert name == "ATTN_ERROR_UNSUPPORTED", text
        assert "requires grad" in text, text
    for convert in kinds:
        for scheme in ("auto", "ring", "heads", "decode"):
            for placement in ("contiguous", "zigzag"):
                check(scheme, placement, convert)
                check(scheme, placement, convert, is_causal=True, softcap=3.0)
        check_refusals(convert)
    if RANK == 0:
        print(f"{len(kinds)} kinds on {SIZE} ranks")


main()
