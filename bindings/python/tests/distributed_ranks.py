# SPDX-License-Identifier: BSD-3-Clause
"""What test_distributed.py has several ranks run: calls over all of them against one call, and
errors of one rank that all have."""

import sys

import numpy as np
from mpi4py import MPI

import libattention
from libattention.distributed import attention, attention_backward

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


def whole_call(length):
    """Query, key, value, grad_output, grad_lse, bias, sinks, slopes, of the whole."""
    random = np.random.default_rng(1)
    query, grad_output = random.normal(size=(2, 2, 4, length, 8)).astype("float32")
    key, value = random.normal(size=(2, 2, 2, length, 8)).astype("float32")
    grad_lse = random.normal(size=(2, 4, length)).astype("float32")
    bias = random.normal(size=(length, length)).astype("float32")
    sinks, slopes = random.random(size=(2, 4)).astype("float32")
    return query, key, value, grad_output, grad_lse, bias, sinks, slopes


OF = ("query", "key", "value", "bias", "sinks", "alibi_slopes")


def check_close(found, expected, name):
    # By backward.h some thousands of 2^-24, of sums of some tens of numbers below 10.
    error = np.abs(np.asarray(found) - np.asarray(expected)).max(initial=0)
    assert error < 1e-3, (name, error)


def check_gradients(scheme, placement, convert, normalizer="softmax"):
    length = 4 * SIZE
    query, key, value, grad_output, grad_lse, bias, sinks, slopes = whole_call(length)
    is_softmax = normalizer == "softmax"
    if scheme == "heads":
        bias = bias[:1]
    options = {"enable_gqa": True, "is_causal": True, "alibi_slopes": slopes, "bias": bias}
    options |= {"normalizer": normalizer, "dropout": libattention.Dropout(0.3, seed=5)}
    if is_softmax:
        options["sinks"] = sinks
    wanted = [name for name in OF if name != "sinks" or is_softmax]
    found = libattention.scaled_dot_product_attention(
        query, key, value, return_lse=is_softmax, **options
    )
    output, lse = found if is_softmax else (found, None)
    expected = libattention.scaled_dot_product_attention_backward(
        grad_output, query, key, value, output, lse, wanted=wanted,
        grad_lse=grad_lse if is_softmax else None, **options,
    )  # fmt: skip
    keys = rows_of(placement, length)
    rows = np.arange(length) if scheme == "decode" else keys
    own_bias = bias if scheme in ("heads", "decode") else bias[rows]
    given = [convert(x) for x in (grad_output[:, :, rows], query[:, :, rows], key[:, :, keys])]
    given += [convert(value[:, :, keys]), convert(output[:, :, rows])]
    given.append(None if lse is None else convert(lse[:, :, rows]))
    gradients = attention_backward(
        *given, COMM, scheme=scheme, placement=placement, wanted=wanted,
        grad_lse=convert(grad_lse[:, :, rows]) if is_softmax else None,
        **{**options, "bias": convert(own_bias)},
    )  # fmt: skip
    check_close(gradients.query, expected.query[:, :, rows], "query")
    check_close(gradients.key, expected.key[:, :, keys], "key")
    check_close(gradients.value, expected.value[:, :, keys], "value")
    of_bias = expected.bias if scheme in ("heads", "decode") else expected.bias[rows]
    check_close(gradients.bias, of_bias, "bias")
    check_close(gradients.alibi_slopes, expected.alibi_slopes, "alibi_slopes")
    if is_softmax:
        check_close(gradients.sinks, expected.sinks, "sinks")


def check_autograd(scheme, dtype):
    """PyTorch's gradients of a loss over all ranks' rows."""
    import torch

    length = 4 * SIZE
    arrays = [torch.from_numpy(x).to(dtype) for x in whole_call(length)]
    query, key, value, weights, _, _, sinks, _ = arrays
    rows = rows_of("zigzag", length)
    wholes = [x.clone().requires_grad_() for x in (query, key, value, sinks)]
    options = {"enable_gqa": True, "is_causal": True, "return_lse": True}
    output, lse = libattention.scaled_dot_product_attention(*wholes[:3], sinks=wholes[3], **options)
    ((output * weights).sum() + lse.sum()).backward()
    owns = [x[:, :, rows].clone().requires_grad_() for x in (query, key, value)]
    owns.append(sinks.clone().requires_grad_())
    output, lse = attention(
        *owns[:3], COMM, sinks=owns[3], scheme=scheme, placement="zigzag", **options
    )
    assert output.dtype == dtype
    ((output * weights[:, :, rows]).sum() + lse.sum()).backward()
    step = 1e-4 if dtype == torch.float32 else 2**-6
    for own, whole in zip(owns, wholes):
        expected = whole.grad if own.dim() == 1 else whole.grad[:, :, rows]
        assert own.grad.dtype == dtype
        assert torch.allclose(own.grad, expected, rtol=step, atol=10 * step), (scheme, dtype)


def check_autograd_refusals():
    import torch

    if SIZE > 1:
        own = torch.ones(2, 3, 4, requires_grad=RANK != 1)
        name, text = refusal(own, own, own, COMM)
        assert name == "ATTN_ERROR_VALUE", text
        assert "gradients: expected the same to be wanted on all ranks" in text, text
    own = torch.ones(2, 3, 4, requires_grad=True)
    name, text = refusal(own, own, own, COMM, out=torch.empty(2, 3, 4))
    assert (name, text[:12]) == ("ATTN_ERROR_UNSUPPORTED", "rank 0: out:"), text


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
        for scheme in ("ring", "heads"):
            check_autograd(scheme, torch.float32)
            check_autograd(scheme, torch.bfloat16)
        check_autograd_refusals()
    for convert in kinds:
        for scheme in ("auto", "ring", "heads", "decode"):
            for placement in ("contiguous", "zigzag"):
                check(scheme, placement, convert)
                check(scheme, placement, convert, is_causal=True, softcap=3.0)
                check_gradients(scheme, placement, convert)
            check_gradients(scheme, "zigzag", convert, "sigmoid")
        check_refusals(convert)
    if RANK == 0:
        print(f"{len(kinds)} kinds on {SIZE} ranks")


main()
