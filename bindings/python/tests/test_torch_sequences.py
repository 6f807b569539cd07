# SPDX-License-Identifier: BSD-3-Clause
"""Gradients where queries are ragged or keys lie elsewhere (query_starts, kv): those of one call
for each sequence. And what is refused."""

import itertools

import numpy as np
import pytest
import torch
from torch_cases import double

from libattention import KV, Dropout, Error, KVCache, kv_append
from libattention import scaled_dot_product_attention as sdpa

# PyTorch's forward mode warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
HEADS, FEATURES, VALUES = 2, 3, 2
ROWS, KEYS = [3, 0, 2], [2, 4, 3]  # of each sequence
ROOM = 5
QUERY_STARTS, KEY_STARTS = [1, 4, 4, 6], [0, 2, 6, 9]  # row 0 of queries is of no sequence
DROPOUT = Dropout(0.4, seed=3)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.compiler.reset()


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def ragged(total, features):
    return double(HEADS, total, features).requires_grad_()


def roomy(features):
    return double(len(KEYS), HEADS, ROOM, features).requires_grad_()


def queries(are_ragged):
    return (
        ragged(7, FEATURES) if are_ragged else roomy(FEATURES)[:, :, :3].detach().requires_grad_()
    )


def place(keys):
    """Key and value, and a function of them that tells where they lie."""
    lengths = torch.tensor(KEYS)
    if keys == "behind one another":
        given = ragged(10, FEATURES), ragged(10, VALUES)
        return given, lambda key, value: KV(key, value, starts=KEY_STARTS, lengths=[2, 3, 3])
    given = roomy(FEATURES), roomy(VALUES)
    if keys == "rooms":
        return given, lambda key, value: KV(key, value, lengths=lengths)
    return given, None


OPTIONS = {
    "causal": lambda rows: {"is_causal": True, "align_end": True},
    "masks": lambda rows: {
        "attn_mask": double(HEADS, *rows, 5).requires_grad_(),
        "bias": double(1, 5).requires_grad_(),
        "sinks": double(HEADS).requires_grad_(),
    },
    "dropout": lambda rows: {"dropout": DROPOUT, "softcap": 2.0},
}


def of_sequence(number, array, starts, counts, are_ragged):
    """Its rows, (1, H, rows, ...)."""
    if are_ragged:
        return array[:, starts[number] : starts[number] + counts[number]][None]
    return array[number : number + 1, :, : counts[number]]


def one_by_one(query, key, value, are_ragged, keys, options):
    """Outputs of a call for each sequence."""
    found = []
    for number, length in enumerate(KEYS):
        behind = keys == "behind one another"
        counts = [2, 3, 3] if behind else [ROOM] * 3 if keys == "tensors" else KEYS
        rows = ROWS if are_ragged else [3] * 3
        one = of_sequence(number, query, QUERY_STARTS, rows, are_ragged)
        pair = [of_sequence(number, each, KEY_STARTS, counts, behind) for each in (key, value)]
        own = dict(options)
        for name in ("attn_mask", "bias"):
            if name in own:
                mask = own[name][..., : counts[number]]
                is_of_rows = name == "attn_mask" and are_ragged
                first = QUERY_STARTS[number]
                own[name] = mask[:, first : first + rows[number]] if is_of_rows else mask
        if "dropout" in own:
            own["dropout"] = DROPOUT._replace(batch=number)
        assert length >= 0
        found.append(sdpa(one, *pair, **own, return_lse=True))
    return found


def loss_of(found, are_ragged, numbers):
    output, lse = found
    parts = []
    for number in range(3):
        rows = slice(QUERY_STARTS[number], QUERY_STARTS[number] + ROWS[number])
        one = (output[:, rows], lse[:, rows]) if are_ragged else (output[number], lse[number])
        parts.append(one)
    return sum(
        out.square().sum() + number * lse.sum() for number, (out, lse) in zip(numbers, parts)
    )


PRODUCT = [
    some
    for some in itertools.product(
        (True, False), ("behind one another", "rooms", "tensors"), OPTIONS
    )
    if some[0] or some[1] != "tensors"
]


@pytest.mark.parametrize(("are_ragged", "keys", "options"), PRODUCT)
def test_gradients_are_those_of_each_sequence_alone(are_ragged, keys, options):
    query, ((key, value), to_kv) = queries(are_ragged), place(keys)
    named = OPTIONS[options]([7] if are_ragged else [3])
    given = {"query_starts": QUERY_STARTS} if are_ragged else {}
    leaves = [query, key, value, *(one for one in named.values() if isinstance(one, torch.Tensor))]
    numbers = (1.0, 2.0, 3.0)
    if to_kv is None:
        found = sdpa(query, key, value, **given, **named, return_lse=True)
    else:
        found = sdpa(query, kv=to_kv(key, value), **given, **named, return_lse=True)
    each = one_by_one(query, key, value, are_ragged, keys, named)
    expected = sum(
        output.square().sum() + number * lse.sum() for number, (output, lse) in zip(numbers, each)
    )
    loss = loss_of(found, are_ragged, numbers)
    same(loss, expected)
    for one, other in zip(*(torch.autograd.grad(x, leaves) for x in (loss, expected))):
        same(one, other)


def test_gradients_are_those_of_differences():
    query, (key, value) = ragged(7, FEATURES), place("behind one another")[0]
    bias, blocks = double(1, 5).requires_grad_(), torch.tensor([[1, 2, 0]], dtype=torch.uint8)

    def call(query, key, value, bias):
        kv = KV(key, value, starts=KEY_STARTS)
        options = {"bias": bias, "block_mask": blocks, "block_size": (9, 2), "dropout": DROPOUT}
        found = sdpa(
            query, kv=kv, query_starts=QUERY_STARTS, **options, return_lse=True,
            return_weights=True,
        )  # fmt: skip
        return tuple(torch.where(one.isfinite(), one, 0) for one in found)

    assert torch.autograd.gradcheck(call, (query, key, value, bias))
    with pytest.raises(Error, match=r"^query_starts, kv.starts: are not known to the formula"):
        torch.autograd.gradgradcheck(call, (query, key, value, bias))
    with pytest.raises(Error, match=r"^query_starts, kv.starts: are not known to the formula"):
        torch.func.jvp(lambda one: call(one, key, value, bias), (query,), (query,))


@pytest.mark.parametrize("columns", ["mask", "blocks", "none"])
@pytest.mark.parametrize("are_ragged", [True, False])
def test_the_operator_keeps_pytorchs_rules(are_ragged, columns):
    """Shapes that are told without numbers, above all."""
    query, (key, value) = queries(are_ragged), place("behind one another")[0]
    starts = torch.tensor(KEY_STARTS)
    options = {"key_starts": starts, "key_lengths": torch.tensor([2, 3, 3]), "return_weights": True}
    if are_ragged:
        options["query_starts"] = torch.tensor(QUERY_STARTS)
    if columns == "mask":
        options["attn_mask"] = double(1, 6)
    if columns == "blocks":
        blocks = torch.ones(1, 3, dtype=torch.uint8)
        options.update(block_mask=blocks, block_rows=9, block_columns=2)
    found = torch.ops.libattention.sdpa(query, key, value, **options)
    assert found[2].shape[-1] == {"mask": 6, "blocks": 6, "none": 10}[columns]
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    if columns == "mask":
        checks += ("test_aot_dispatch_dynamic",)
    operator = torch.ops.libattention.sdpa.default
    outcome = torch.library.opcheck(operator, (query, key, value), options, test_utils=checks)
    assert set(outcome.values()) == {"SUCCESS"}


def test_compiled_and_mapped():
    query, ((key, value), to_kv) = ragged(7, FEATURES), place("behind one another")

    def call(query, key, value):
        return sdpa(query, kv=to_kv(key, value), query_starts=torch.tensor(QUERY_STARTS)).sum()

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    given = (query, key, value)
    for one, other in zip(*(torch.autograd.grad(f(*given), given) for f in (compiled, call))):
        assert torch.equal(one, other)
    many = double(2, *query.shape)
    found = torch.vmap(torch.func.grad(call), (0, None, None))(many, key, value)
    for one, of_one in zip(found, many):
        same(one, torch.func.grad(call)(of_one, key.detach(), value.detach()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_and_autocast(dtype):
    query, ((key, value), to_kv) = ragged(7, FEATURES), place("behind one another")
    wide = [one.detach().to(dtype).float().requires_grad_() for one in (query, key, value)]
    with torch.autocast("cpu", dtype):
        found = sdpa(wide[0], kv=to_kv(*wide[1:]), query_starts=QUERY_STARTS)
    narrow = [one.detach().to(dtype).requires_grad_() for one in wide]
    output = sdpa(narrow[0], kv=to_kv(*narrow[1:]), query_starts=QUERY_STARTS)
    assert torch.equal(found, output)
    exact = sdpa(wide[0], kv=to_kv(*wide[1:]), query_starts=QUERY_STARTS)
    direction = torch.rand(output.shape).to(dtype)
    some = torch.autograd.grad(output, narrow, direction)
    others = torch.autograd.grad(exact, wide, direction.float())
    eps = torch.finfo(dtype).eps
    for one, other in zip(some, others):  # rounded once
        torch.testing.assert_close(one.float(), other, rtol=eps, atol=1e-6)


def test_a_cache_of_rooms_has_gradients_of_queries():
    cache = KVCache(2, HEADS, FEATURES, capacity=4, dtype=torch.float64)
    cache.append(double(2, HEADS, 3, FEATURES), double(2, HEADS, 3, FEATURES))
    query = double(2, HEADS, 1, FEATURES).requires_grad_()
    dropped = cache.attend(query, dropout=DROPOUT)
    (found,) = torch.autograd.grad(dropped.sum(), query, retain_graph=True)
    kv = cache.kv()
    options = {"is_causal": True, "align_end": True, "dropout": DROPOUT}
    (expected,) = torch.autograd.grad(
        sdpa(query, kv.key, kv.value, key_lengths=kv.lengths, **options).sum(), query
    )
    same(found, expected)
    cache.truncate(2)
    cache.append(*(double(2, HEADS, 1, FEATURES) for _ in range(2)))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        dropped.sum().backward()


def test_what_a_call_writes_is_noticed():
    query, out = double(2, HEADS, 3, FEATURES).requires_grad_(), double(2, HEADS, 3, FEATURES)
    loss = (query * out).sum()
    with torch.no_grad():
        sdpa(query, query, query, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with torch.inference_mode():
        room = torch.zeros(1, HEADS, 3, FEATURES)
        kv_append(KV(room, room.clone(), lengths=[3]), room.clone(), room.clone())


def test_what_has_no_gradients_is_refused_by_name():
    query, key = double(1, HEADS, 2, FEATURES).float(), double(1, HEADS, 4, FEATURES).float()
    wanted, whole = query.clone().requires_grad_(), KV(key, key)
    two = torch.cat([key, key])
    integers = KV(key.to(torch.int8), key.to(torch.int8), key_scale=torch.ones(1, 1, 1, 1))
    reason = "cannot be given where a tensor requires grad"
    for text, call in {
        f"kv.page_table: {reason}": lambda: sdpa(wanted, kv=KV(key, key, page_table=[[0]])),
        f"kv.key, kv.value: integers {reason}": lambda: sdpa(wanted, kv=integers),
        "query: expected a torch.Tensor where a tensor requires grad": lambda: sdpa(
            query.numpy(), kv=KV(key, key.clone().requires_grad_())
        ),
        f"out: {reason}": lambda: sdpa(wanted, kv=whole, out=torch.empty_like(query)),
        f"return_scores: {reason}": lambda: sdpa(wanted, kv=whole, return_scores="masked"),
        "key: expected None beside kv, which has": lambda: sdpa(wanted, key, kv=whole),
        "key_lengths: expected None beside kv": lambda: sdpa(wanted, kv=whole, key_lengths=2),
        "query_starts: expected ": lambda: sdpa(wanted[0], *(two, two), query_starts=[0, 1, 1, 2]),
    }.items():
        with pytest.raises(Error) as caught:
            call()
        assert str(caught.value).startswith(text)
    with torch.no_grad():
        assert sdpa(wanted, kv=KV(key, key, page_table=[[0]])).shape == query.shape


def test_what_is_no_tensor_is_none_of_pytorchs_matter():
    query = np.ones((HEADS, 4, FEATURES), "float32")
    with torch.autocast("cpu"):
        found = sdpa(query, query, query, query_starts=[0, 1, 4])
    assert type(found) is np.ndarray
