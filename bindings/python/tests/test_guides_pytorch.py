# SPDX-License-Identifier: BSD-3-Clause
"""The guides' tables of PyTorch's arguments and of masks: each row is PyTorch's call, and the same
as the row says."""

import itertools

import guide_caches
import guide_parts
import guide_rotary
import guide_tables
import numpy as np
import pytest
import torch
from guide_tables import merged
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import scaled_dot_product_attention as torch_attention

import libattention
from libattention import KV, MultiheadAttention, scaled_dot_product_attention
from libattention._library import ffi, lib
from libattention._options import NO_OPTIONS, Options, make_params
from libattention._outputs import BOOL_MASK
from libattention._tensors import Views

N, H, L, S, E, EV = 2, 4, 5, 7, 8, 6
torch.manual_seed(3)
QUERY, KEY, VALUE = torch.randn(N, H, L, E), torch.randn(N, H, S, E), torch.randn(N, H, S, EV)
HIDDEN = torch.tensor([[False, True, False, False, True, False, False]] * L) | (
    torch.arange(S) > torch.arange(L)[:, None] + 3
)
BIAS = torch.randn(H, L, S)


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found), expected, rtol=1e-5, atol=1e-5)


def differs(found, other):
    assert (torch.as_tensor(found) - other).abs().max() > 1e-3


# ---- scaled_dot_product_attention ----


def compare(theirs, **ours):
    """PyTorch's call beside this one, which its options make a difference to."""
    expected = torch_attention(QUERY, KEY, VALUE, **theirs)
    close(scaled_dot_product_attention(QUERY, KEY, VALUE, **ours), expected)
    if ours:
        differs(scaled_dot_product_attention(QUERY, KEY, VALUE), expected)


def arguments():
    compare({})


def bool_mask():
    compare({"attn_mask": ~HIDDEN}, attn_mask=~HIDDEN)
    close(with_kind(lib.ATTN_MASK_BOOL_INCLUDE, ~HIDDEN), masked(~HIDDEN))


def float_mask():
    compare({"attn_mask": BIAS}, attn_mask=BIAS)
    close(with_kind(lib.ATTN_MASK_ADDITIVE, BIAS), masked(BIAS))


def masked(mask):
    return torch_attention(QUERY, KEY, VALUE, attn_mask=mask)


def with_kind(kind, mask):
    """attn_sdpa with the mask, and what the kind says of it."""
    return run(Options(attn_mask=mask), kind)


def run(options=NO_OPTIONS, mask_kind=0, weights=None):
    """attn_sdpa itself: its output, or the weights where there is a place for them."""
    views = Views()
    inputs = views.add_inputs(QUERY, KEY, VALUE)
    params = make_params(options, views, BOOL_MASK)
    params.mask_kind = mask_kind
    if weights is not None:
        params.weights = views.add_array(weights, "weights")
    output = torch.empty(N, H, L, EV)
    target = views.add_array(output, "output")
    views.finish()
    assert lib.attn_sdpa(ffi.NULL, *inputs, params, target, ffi.NULL, 0) == 0
    return output if weights is None else weights


def dropout():
    compare({"dropout_p": 0.0})
    with pytest.raises(libattention.Error, match="dropout_p: expected 0"):
        scaled_dot_product_attention(QUERY, KEY, VALUE, dropout_p=0.1)
    given = libattention.Dropout(0.5, seed=3)
    output, weights = scaled_dot_product_attention(
        QUERY, KEY, VALUE, dropout=given, return_weights=True
    )
    kept = weights != 0
    close(weights, torch.softmax(QUERY @ KEY.mT / E**0.5, dim=-1) * kept / (1 - 0.5))
    close(output, weights @ VALUE)
    assert kept.any()
    assert not kept.all()


def is_causal():
    compare({"is_causal": True}, is_causal=True)
    both = ~HIDDEN & (torch.arange(S) <= torch.arange(L)[:, None])
    compare({"attn_mask": both}, attn_mask=~HIDDEN, is_causal=True)


def scale():
    compare({"scale": 0.3}, scale=0.3)


def grouped():
    few = KEY[:, :2], VALUE[:, :2]
    expected = torch_attention(QUERY, *few, enable_gqa=True)
    close(scaled_dot_product_attention(QUERY, *few, enable_gqa=True), expected)
    with pytest.raises(libattention.Error):
        scaled_dot_product_attention(QUERY, *few)


def added_bias():
    theirs = {"attn_mask": BIAS.masked_fill(HIDDEN, float("-inf"))}
    compare(theirs, attn_mask=~HIDDEN, bias=BIAS)
    compare(theirs, bias=theirs["attn_mask"])


def bias_by_distance():
    table = torch.randn(H, 7)
    distance = torch.arange(S) - torch.arange(L)[:, None]
    compare({"attn_mask": table[:, distance.clamp(-3, 3) + 3]}, position_bias=table)


def by_blocks():
    """BlockMask's lists of partial and of full blocks, as one array."""
    size = (2, 3)
    lists = create_block_mask(lambda b, h, q, k: k <= q + h, N, H, L, S, "cpu", size)
    blocks = torch.zeros((N, H, -(-L // size[0]), -(-S // size[1])), dtype=torch.uint8)
    for kind, counts, indices in (
        (2, lists.kv_num_blocks, lists.kv_indices),
        (1, lists.full_kv_num_blocks, lists.full_kv_indices),
    ):
        for at in itertools.product(*map(range, counts.shape)):
            blocks[at][indices[at][: counts[at]].long()] = kind
    assert set(blocks.unique().tolist()) == {0, 1, 2}
    mask = torch.arange(S) <= torch.arange(L)[:, None] + torch.arange(H)[:, None, None]
    compare({"attn_mask": mask}, attn_mask=mask, block_mask=blocks, block_size=size)


def lower_right():
    theirs = {"attn_mask": causal_lower_right(L, S)}
    compare(theirs, is_causal=True, align_end=True)
    compare(theirs, is_causal=True, query_offset=S - L)
    whole = torch_attention(KEY, KEY, VALUE, is_causal=True)  # of which a cache has the last row
    last = scaled_dot_product_attention(KEY[:, :, -1:], KEY, VALUE, is_causal=True, align_end=True)
    close(last, whole[:, :, -1:])


def ragged():
    lengths = [7, 3]
    expected = torch.cat(
        [
            torch_attention(QUERY[i : i + 1], KEY[i : i + 1, :, :n], VALUE[i : i + 1, :, :n])
            for i, n in enumerate(lengths)
        ]
    )
    for dtype in (torch.int32, torch.int64):
        tensor = torch.tensor(lengths, dtype=dtype)
        close(scaled_dot_product_attention(QUERY, KEY, VALUE, key_lengths=tensor), expected)
    key, value = (
        torch.cat([one[i, :, :n] for i, n in enumerate(lengths)], dim=1) for one in (KEY, VALUE)
    )
    found = scaled_dot_product_attention(
        torch.cat(list(QUERY), dim=1),
        kv=KV(key, value, starts=[0, 7, 10]),
        query_starts=[0, L, 2 * L],
    )
    close(found, torch.cat(list(expected), dim=1))


def returned_weights():
    weights = scaled_dot_product_attention(QUERY, KEY, VALUE, return_weights=True)[1]
    expected = torch.softmax(QUERY @ KEY.mT / E**0.5, dim=-1)
    close(weights, expected)
    for shape, found in (((N, H, L, S), expected), ((N, L, S), expected.mean(dim=1))):
        close(run(weights=torch.empty(shape)), found)


ATTENTION = {
    "`query`, `key`, `value`": ("", arguments),
    "`attn_mask`, bool": ("mask mask_kind ATTN_MASK_BOOL_INCLUDE", bool_mask),
    "`attn_mask`, float": ("mask mask_kind ATTN_MASK_ADDITIVE", float_mask),
    "`dropout_p`": ("dropout attn_dropout Dropout probability seed", dropout),
    "`is_causal`": ("is_causal", is_causal),
    "`scale`": ("set ATTN_SDPA_SET_SCALE scale", scale),
    "`enable_gqa`": ("enable_gqa", grouped),
    "a bias added into `attn_mask`": ("bias", added_bias),
    "a bias by distance, as `flex_attention` takes it in `score_mod`": (
        "position_bias",
        bias_by_distance,
    ),
    "`flex_attention`'s `block_mask`": (
        "block_mask block_rows block_columns mask attn_mask block_size",
        by_blocks,
    ),
    "`torch.nn.attention.bias.causal_lower_right`, a KV cache": (
        "is_causal align_end query_offset",
        lower_right,
    ),
    "nested tensors, ragged batches": ("key_lengths query_starts kv starts KV key value", ragged),
    "weights, which PyTorch does not return": ("weights return_weights True", returned_weights),
}


# ---- nn.MultiheadAttention ----


def layers(**options):
    theirs = torch.nn.MultiheadAttention(
        **{"embed_dim": 32, "num_heads": H, "batch_first": True, **options}
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return theirs, MultiheadAttention.from_torch(theirs)


def inputs_of(theirs):
    shapes = [(L, theirs.embed_dim), (S, theirs.kdim), (S, theirs.vdim)]
    dtype = theirs.out_proj.weight.dtype
    tensors = [torch.randn(N, *shape, dtype=dtype) for shape in shapes]
    return tensors if theirs.batch_first else [one.transpose(0, 1) for one in tensors]


@torch.no_grad()
def compare_layers(arguments=None, **options):
    """A layer made with these options, called with these arguments."""
    theirs, ours = layers(**options)
    inputs = inputs_of(theirs)
    for found, expected in zip(
        ours(*inputs, **(arguments or {})), theirs(*inputs, **(arguments or {}))
    ):
        if expected is None:
            assert found is None
        else:
            close(found, expected)
    return ours


def sizes():
    config = compare_layers(kdim=10, vdim=12).config
    assert [config[name] for name in ("embed_dim", "num_heads", "kdim", "vdim")] == [32, H, 10, 12]
    assert MultiheadAttention(8, 2).kdim == 8  # which is 0 in C


def no_bias():
    assert "in_proj_bias" not in compare_layers(bias=False).state_dict()


def switches():
    for one, other, batch_first in itertools.product((False, True), repeat=3):
        compare_layers(add_bias_kv=one, add_zero_attn=other, batch_first=batch_first)


def dtype():
    assert compare_layers(dtype=torch.float64).dtype == "float64"
    plain = MultiheadAttention(8, 2)
    assert (plain.dtype, plain.config["parameter_dtype"]) == ("float32", "float32")
    for name in ("float64", "bfloat16", "float16"):
        _, ours = layers(dtype=getattr(torch, name))
        assert (ours.dtype, ours.config["parameter_dtype"]) == (name, name)
    kept = MultiheadAttention(8, 2, parameter_dtype="float16")
    assert (kept.dtype, kept.state_dict()["out_proj.bias"].dtype) == ("float32", "float16")


def ignored_dropout():
    compare_layers(dropout=0.5)


def state_dict():
    theirs, ours = layers(add_bias_kv=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, values in theirs.state_dict().items():
        close(ours.state_dict()[name], values)


def load_state_dict():
    theirs, first = layers()
    ours = MultiheadAttention(32, H, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    inputs = inputs_of(theirs)
    close(ours(*inputs)[0], first(*inputs)[0])


CONSTRUCTOR = {
    "`embed_dim`, `num_heads`, `kdim`, `vdim`": ("kdim None", sizes),
    "`bias=False`": ("no_bias", no_bias),
    "`add_bias_kv`, `add_zero_attn`, `batch_first`": ("", switches),
    "`dtype`": ("dtype parameter_dtype", dtype),
    "`dropout`": ("attention dropout Dropout", ignored_dropout),
    "`state_dict()`": (
        "attn_mha_parameter_describe attn_mha_read_parameter state_dict",
        state_dict,
    ),
    "`load_state_dict()`": (
        "attn_mha_load_parameter load_state_dict from_torch from_safetensors",
        load_state_dict,
    ),
}


def inputs():
    compare_layers()


def padding():
    hidden = torch.arange(S) >= torch.tensor([[7], [4]])
    compare_layers({"key_padding_mask": hidden})
    compare_layers({"key_padding_mask": torch.randn(N, S)})


def layer_mask():
    for mask in (HIDDEN, HIDDEN.repeat(N * H, 1, 1), BIAS[0], torch.randn(N * H, L, S)):
        compare_layers({"attn_mask": mask})


@torch.no_grad()
def mask_of_heads():
    theirs, ours = layers()
    inputs = inputs_of(theirs)
    found = ours(*inputs, attn_mask=BIAS[None])[0]
    close(found, theirs(*inputs, attn_mask=BIAS.repeat(N, 1, 1))[0])
    differs(found, theirs(*inputs)[0])


@torch.no_grad()
def causal_layer():
    theirs, ours = layers()
    inputs = inputs_of(theirs)
    hidden = torch.arange(S) > torch.arange(L)[:, None]
    close(ours(*inputs, is_causal=True)[0], theirs(*inputs, attn_mask=hidden)[0])


def weights_of_a_layer():
    compare_layers({"need_weights": True})


def no_weights():
    compare_layers({"need_weights": False})


def weights_per_head():
    compare_layers({"average_attn_weights": False})


FORWARD = {
    "`query`, `key`, `value`": ("", inputs),
    "`key_padding_mask` (N, S)": (
        "key_padding_mask key_padding_mask_kind ATTN_MASK_BOOL_EXCLUDE ATTN_MASK_ADDITIVE",
        padding,
    ),
    "`attn_mask` (L, S) or (N * H, L, S)": ("attention mask mask_kind", layer_mask),
    "a mask (H, L, S) for all batches, repeated N times in PyTorch": (
        "attention mask",
        mask_of_heads,
    ),
    "`is_causal`, a hint": ("attention is_causal", causal_layer),
    "`need_weights=False`": ("attention weights NULL", no_weights),
    "`need_weights=True`": ("attention weights", weights_of_a_layer),
    "`average_attn_weights=False`": ("attention weights", weights_per_head),
}


# ---- masks ----


def excluding_mask():
    close(with_kind(lib.ATTN_MASK_BOOL_EXCLUDE, HIDDEN), masked(~HIDDEN))
    differs(with_kind(lib.ATTN_MASK_BOOL_EXCLUDE, HIDDEN), masked(HIDDEN))
    layer_mask()
    padding()


def added_mask():
    infinite = BIAS.masked_fill(HIDDEN, float("-inf"))
    close(with_kind(lib.ATTN_MASK_ADDITIVE, infinite), masked(infinite))
    compare_layers({"attn_mask": infinite[0]})


KINDS = {
    "`ATTN_MASK_BOOL_INCLUDE`": ("scaled_dot_product_attention attn_mask", bool_mask),
    "`ATTN_MASK_BOOL_EXCLUDE`": ("nn MultiheadAttention", excluding_mask),
    "`ATTN_MASK_ADDITIVE`": ("", added_mask),
}


def compare_hiding(seen, **options):
    """Options beside a mask that says the same, at two places of the rows."""
    for offset in (0, 2):
        position = torch.arange(L)[:, None] + offset
        expected = torch_attention(QUERY, KEY, VALUE, attn_mask=seen(torch.arange(S), position))
        found = scaled_dot_product_attention(QUERY, KEY, VALUE, query_offset=offset, **options)
        close(found, expected)
        differs(found, torch_attention(QUERY, KEY, VALUE))


def hidden_by_causality():
    compare_hiding(lambda j, p: j <= p, is_causal=True)


def hidden_by_a_window():
    compare_hiding(lambda j, p: (p - 2 <= j) & (j <= p + 1), window=(2, 1))
    compare_hiding(lambda j, p: j <= p + 1, window=(-1, 1))
    compare_hiding(lambda j, p: p - 2 <= j, window=(2, -1))


def hidden_by_length():
    compare_hiding(lambda j, p: (j < 4).expand(L, S), key_lengths=4)


HIDING = {
    "`is_causal`": ("", hidden_by_causality),
    "`window_left`, `window_right`": ("", hidden_by_a_window),
    "`key_lengths`": ("", hidden_by_length),
}


# ---- all of them ----

TESTS = {
    "coming-from-pytorch.md": {
        ("torch.nn.functional.scaled_dot_product_attention", "PyTorch"): ATTENTION,
        ("torch.nn.MultiheadAttention", "PyTorch's constructor"): CONSTRUCTOR,
        ("torch.nn.MultiheadAttention", "PyTorch's `forward`"): FORWARD,
    },
    "caches.md": {
        ("Caches, pages and batches without padding", "keys and values lie"): guide_caches.PLACES,
    },
    "long-contexts.md": {
        ("Options of a part", "the whole's"): guide_parts.OPTIONS,
    },
    "rotary-positions.md": {
        ("Which rotation", "a model has"): guide_rotary.ROTATIONS,
        ("Which norm", "a model has"): guide_rotary.NORMS,
    },
    "masks.md": {
        ("Masks and their polarity", "kind"): KINDS,
        ("What hides a key without a mask", "option"): HIDING,
    },
}
ROWS = [
    (guide, table, first)
    for guide, of_guide in TESTS.items()
    for table, tests in of_guide.items()
    for first in tests
]


def test_every_table_of_the_guides_has_tests():
    """Those of ONNX are elsewhere."""
    found = {
        guide.name: guide_tables.tables(guide.name) for guide in guide_tables.GUIDES.glob("*.md")
    }
    of_onnx = found.pop("coming-from-onnx.md")
    assert len(of_onnx) == 5
    assert {name: list(one) for name, one in found.items() if one} == {
        name: list(one) for name, one in TESTS.items()
    }
    for guide, of_guide in TESTS.items():
        for table, tests in of_guide.items():
            guide_tables.check_rows(found[guide][table], tests)


def test_names_of_the_tables_are_those_of_the_library():
    """Every name with an underscore in a C column is in a header, or is Python's or PyTorch's."""
    headers = "".join(one.read_text() for one in (guide_tables.ROOT / "include").rglob("*.h*"))
    known = {
        *dir(MultiheadAttention),
        "return_weights",
        "attn_mask",
        "block_size",
        "scaled_dot_product_attention",
    }
    known.update(("block_size", "mask_mod"))
    known.update(("total_sequence_length", "nonpad_kv_seqlen", "write_indices"))
    for guide in guide_tables.GUIDES.glob("*.md"):
        for rows in guide_tables.tables(guide.name).values():
            for first, others in rows.items():
                for name in guide_tables.names(others):
                    assert "_" not in name or name in headers or name in known, (first, name)


@pytest.mark.parametrize(("guide", "table", "first"), ROWS)
def test_row(guide, table, first):
    TESTS[guide][table][first][1]()


def test_heads_lie_side_by_side():
    """What the other tests of tables rest on."""
    x = np.arange(24.0).reshape(1, 3, 8)
    np.testing.assert_array_equal(merged(guide_tables.split(x, 2)), x)
    np.testing.assert_array_equal(guide_tables.split(x, 2)[0, 1, 2], x[0, 2, 4:])
