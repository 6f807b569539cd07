# SPDX-License-Identifier: BSD-3-Clause
import copy
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import libattention
from libattention import MultiheadAttention

NEAR = {"rtol": 1e-5, "atol": 2e-6}


def torch_layer(**options):
    torch.manual_seed(0)
    layer = torch.nn.MultiheadAttention(**{"embed_dim": 8, "num_heads": 2, **options}).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def test_int8_keeps_each_row_within_half_a_step(rng):
    theirs = torch_layer(embed_dim=24)
    ours = MultiheadAttention.from_torch(theirs, parameter_dtype="int8")
    kept = ours.state_dict(quantized=True)
    found = ours.state_dict()
    for name, exact in theirs.state_dict().items():
        exact = exact.numpy()
        assert found[name].dtype == "float32"
        if exact.ndim == 1:
            np.testing.assert_array_equal(found[name], exact)
            continue
        scale = kept[name + ".scale"][:, None]
        assert kept[name].dtype == "int8"
        assert abs(kept[name].astype("int32")).max() == 127
        np.testing.assert_array_equal(found[name], kept[name] * scale)
        assert (abs(found[name] - exact) <= scale * (0.5 + 1e-5)).all()
        np.testing.assert_allclose(scale, abs(exact).max(1, keepdims=True) / 127, rtol=1e-6)
    wide = MultiheadAttention(24, 2)
    wide.load_state_dict(found)
    query = rng.normal(size=(5, 3, 24)).astype("float32")
    np.testing.assert_allclose(ours(query, query, query)[0], wide(query, query, query)[0], **NEAR)


def test_int8_takes_integers_with_their_scales(rng):
    integers = rng.integers(-128, 128, (24, 8)).astype("int8")
    scale = rng.uniform(0.001, 0.01, (24, 1)).astype("float16")
    ours = MultiheadAttention(8, 2, bias=False, parameter_dtype="int8")
    projection = np.eye(8, dtype="float32")
    state = {
        "in_proj_weight": torch.from_numpy(integers),
        "in_proj_weight.scale": scale,
        "out_proj.weight": projection,
    }
    ours.load_state_dict(state)
    kept = ours.state_dict(quantized=True)
    np.testing.assert_array_equal(kept["in_proj_weight"], integers)
    np.testing.assert_array_equal(kept["in_proj_weight.scale"], scale[:, 0].astype("float32"))
    with pytest.raises(libattention.Error, match="in_proj_weight: expected dtype"):
        ours.load_state_dict({name: state[name] for name in ("in_proj_weight", "out_proj.weight")})
    with pytest.raises(libattention.Error, match=r"k_proj_weight\.scale: expected to be read only"):
        ours.load_state_dict({**state, "k_proj_weight.scale": scale})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"batch_first": True},
        {"kdim": 5, "vdim": 6},
        {"add_bias_kv": True, "add_zero_attn": True},
        {"dtype": torch.float64},
    ],
)
def test_from_torch(options):
    theirs = torch_layer(**options)
    ours = MultiheadAttention.from_torch(theirs)
    dtype = theirs.out_proj.weight.dtype
    query, key, value = (
        torch.randn(3, 3, width, dtype=dtype)
        for width in (8, options.get("kdim", 8), options.get("vdim", 8))
    )
    expected = theirs(query, key, value)
    for one, other in zip(ours(query, key, value), expected):
        assert isinstance(one, torch.Tensor)
        np.testing.assert_allclose(one.numpy(), other.detach().numpy(), **NEAR)
    assert ours(query, key, value, need_weights=False)[1] is None


def test_state_dict_is_pytorchs():
    theirs = torch_layer()
    ours = MultiheadAttention.from_torch(theirs)
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict())
    for name, values in theirs.state_dict().items():
        np.testing.assert_array_equal(state[name], values.numpy())


def test_parameters_in_parts(rng):
    layer, parts = MultiheadAttention(8, 2), MultiheadAttention(8, 2)
    state = layer.state_dict()
    weight, bias = state.pop("in_proj_weight"), state.pop("in_proj_bias")
    for index, name in enumerate("qkv"):
        state[f"{name}_proj_weight"] = weight[8 * index : 8 * index + 8]
        state[f"{name}_proj_bias"] = bias[8 * index : 8 * index + 8]
    parts.load_state_dict(state)
    x = rng.normal(size=(3, 1, 8)).astype("float32")
    np.testing.assert_array_equal(layer(x, x, x)[0], parts(x, x, x)[0])


def test_from_safetensors(tmp_path, rng):
    layer = MultiheadAttention(8, 2, kdim=5, vdim=6, add_bias_kv=True, batch_first=True)
    path = tmp_path / "model.safetensors"
    save_file({f"block.attn.{name}": array for name, array in layer.state_dict().items()}, path)
    loaded = MultiheadAttention.from_safetensors(path, "block.attn.", num_heads=2, batch_first=True)
    arrays = [rng.normal(size=(2, 3, width)).astype("float32") for width in (8, 5, 6)]
    np.testing.assert_array_equal(layer(*arrays)[0], loaded(*arrays)[0])
    with pytest.raises(libattention.Error, match="num_heads: not in the metadata"):
        MultiheadAttention.from_safetensors(path, "block.attn.")
    state = layer.state_dict()
    save_file(state, path, metadata={"num_heads": "2"})
    told = MultiheadAttention.from_safetensors(path, batch_first=True)
    np.testing.assert_array_equal(layer(*arrays)[0], told(*arrays)[0])
    with pytest.raises(libattention.Error, match=r"prefix: no other\.out_proj\.weight"):
        MultiheadAttention.from_safetensors(path, "other.", num_heads=2)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("average", [False, True])
def test_shapes_of_outputs_and_weights(rng, batch_first, average):
    layer = MultiheadAttention(8, 2, add_zero_attn=True, batch_first=batch_first)
    query, key = (rng.normal(size=(length, 3, 8)).astype("float32") for length in (4, 5))
    if batch_first:
        query, key = query.swapaxes(0, 1), key.swapaxes(0, 1)
    output, weights = layer(query, key, key, average_attn_weights=average)
    assert output.shape == query.shape
    assert weights.shape == ((3, 4, 6) if average else (3, 2, 4, 6))
    single = [one[0] if batch_first else one[:, 0] for one in (query, key)]
    output, weights = layer(single[0], single[1], single[1], average_attn_weights=average)
    assert output.shape == (4, 8)
    assert weights.shape == ((4, 6) if average else (2, 4, 6))


def test_true_in_a_mask_is_left_out(rng):
    layer = MultiheadAttention(8, 2, batch_first=True)
    x = rng.normal(size=(1, 3, 8)).astype("float32")
    padding = np.array([[False, False, True]])
    _, weights = layer(x, x, x, key_padding_mask=padding)
    assert (weights[..., 2] == 0).all()
    hidden = np.triu(np.ones((3, 3), bool), 1)
    _, weights = layer(x, x, x, attn_mask=hidden)
    assert (weights[0][hidden] == 0).all()
    np.testing.assert_array_equal(weights, layer(x, x, x, is_causal=True)[1])


def test_general_sizes(rng):
    layer = MultiheadAttention(
        6, 4, qdim=5, kdim=7, vdim=3, head_dim=2, value_head_dim=9, num_kv_heads=2
    )
    shapes = {name: array.shape for name, array in layer.state_dict().items()}
    assert shapes["q_proj_weight"] == (8, 5)
    assert shapes["v_proj_weight"] == (18, 3)
    assert shapes["out_proj.weight"] == (6, 36)
    arrays = [rng.normal(size=(4, 2, width)).astype("float32") for width in (5, 7, 3)]
    assert layer(*arrays)[0].shape == (4, 2, 6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "batch_first": True, "dtype": "float64"},
        {"qdim": 5, "kdim": 7, "vdim": 3, "head_dim": 2, "value_head_dim": 9, "num_kv_heads": 2},
        {"add_bias_kv": True, "add_zero_attn": True},
        {"dtype": "bfloat16"},
        {"parameter_dtype": "float16"},
        {"parameter_dtype": "int8"},
        {"dtype": "float16", "parameter_dtype": "float32"},
    ],
)
def test_a_layer_tells_what_makes_another_of_its_kind(options):
    layer = MultiheadAttention(16, 4, **options)
    assert {name: layer.config[name] for name in options} == options
    assert layer.config["head_dim"] == layer.head_dim == options.get("head_dim", 4)
    again = MultiheadAttention(**layer.config)
    assert again.config == layer.config
    assert repr(again) == repr(layer)
    assert eval(repr(layer)).config == layer.config
    shapes = [
        {name: array.shape for name, array in one.state_dict().items()} for one in (layer, again)
    ]
    assert shapes[0] == shapes[1]


def test_a_layer_has_pytorchs_attributes():
    theirs = torch_layer(kdim=5, vdim=6, batch_first=True, dropout=0.25)
    ours = MultiheadAttention.from_torch(theirs)
    for name in ("embed_dim", "num_heads", "kdim", "vdim", "head_dim", "batch_first", "dropout"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_explain_tells_of_the_layer_and_of_its_attention(rng):
    layer = MultiheadAttention(32, 4, batch_first=True)
    x = rng.normal(size=(2, 6, 32)).astype("float32")
    report = layer.explain(x, x, x, is_causal=True)
    heads = x.reshape(2, 6, 4, 8).swapaxes(1, 2)
    inside = libattention.explain(heads, heads, heads, is_causal=True)
    assert report["projection_gemm"] == "native"
    assert report["kernels"] == libattention.info()["kernels"]
    assert not report["depends_on_blas_threads"]
    assert report["attention"]["engine"] == inside["engine"] == "fused"
    assert report["attention"]["reason"] == inside["reason"]
    assert report["workspace_bytes"] > report["attention"]["workspace_bytes"] > 0
    silent = layer.explain(x, x, x, need_weights=False)
    assert silent["workspace_bytes"] > 0
    blas = libattention.Context(engine="blas", gemm="native")
    assert layer.explain(x, x, x, context=blas)["attention"]["engine"] == "blas"


def test_explain_names_what_it_refuses(rng):
    layer = MultiheadAttention(32, 4, batch_first=True)
    x = rng.normal(size=(2, 6, 32)).astype("float32")
    with pytest.raises(libattention.Error, match="attn_mask: expected shape"):
        layer.explain(x, x, x, attn_mask=np.zeros((2, 6, 6), bool))


def test_averaged_weights_are_the_mean_of_those_per_head(rng):
    layer = MultiheadAttention(32, 4, add_bias_kv=True, batch_first=True)
    x = rng.normal(size=(2, 6, 32)).astype("float32")
    per_head = layer(x, x, x, average_attn_weights=False)[1]
    averaged = layer(x, x, x)[1]
    assert per_head.shape == (2, 4, 6, 7)
    assert averaged.shape == (2, 6, 7)
    np.testing.assert_allclose(averaged, per_head.mean(axis=1, dtype="float64"), **NEAR)
    assert np.abs(per_head[:, 0] - averaged).max() > 1e-2


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_lse_is_that_of_the_weights(rng, batch_first, need_weights):
    layer = MultiheadAttention(8, 2, batch_first=batch_first, dtype="float64")
    x = rng.normal(size=(3, 3, 8))
    output, weights, lse = layer(x, x, x, need_weights=need_weights, return_lse=True)
    np.testing.assert_array_equal(output, layer(x, x, x)[0])
    assert (weights is not None) == need_weights
    # Scores are weights' logarithms and lse: of the same scores without a sum.
    scores = layer(x, x, x, average_attn_weights=False, normalizer="linear")[1]
    assert lse.shape == (3, 2, 3)
    np.testing.assert_allclose(lse, np.log(np.exp(scores).sum(axis=-1)), rtol=1e-12)
    single = x[0] if batch_first else x[:, 0]
    np.testing.assert_allclose(
        layer(single, single, single, return_lse=True)[2], lse[0], rtol=1e-12
    )


def test_lse_of_torch_tensors_and_where_there_is_none(rng):
    layer = MultiheadAttention(8, 2)
    x = torch.randn(3, 1, 8)
    found = layer(x, x, x, return_lse=True)
    assert [type(one) for one in found] == [torch.Tensor] * 3
    with pytest.raises(libattention.Error, match="return_lse: ") as caught:
        layer(x, x, x, return_lse=True, normalizer="sigmoid")
    assert caught.value.name == "ATTN_ERROR_VALUE"


def test_a_layer_takes_all_options_at_once(rng):
    layer = MultiheadAttention(8, 2, batch_first=True)
    x = rng.normal(size=(2, 4, 8)).astype("float32")
    output, weights, lse = layer(
        x,
        x,
        x,
        key_padding_mask=np.zeros((2, 4), bool),
        attn_mask=np.zeros((4, 4), bool),
        bias=np.zeros((4, 4), "float32"),
        query_offset=[0, 0],
        key_lengths=[4, 4],
        sinks=[-np.inf, -np.inf],
        alibi_slopes=[0.0, 0.0],
        return_lse=True,
    )
    for one, other in zip((output, weights, lse), layer(x, x, x, return_lse=True)):
        np.testing.assert_allclose(one, other, **NEAR)


# ---- copies ----


class Named(MultiheadAttention):
    """Somebody's own, with an attribute."""

    name = "nobody"


@pytest.mark.parametrize(
    "again", [lambda layer: pickle.loads(pickle.dumps(layer)), copy.deepcopy, copy.copy]
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "batch_first": True, "dtype": "float64"},
        {"qdim": 8, "kdim": 7, "vdim": 3, "head_dim": 2, "value_head_dim": 9, "num_kv_heads": 2},
        {"add_bias_kv": True, "add_zero_attn": True, "dropout": 0.5},
        {"dtype": "float16"},
        {"parameter_dtype": "bfloat16"},
        {"parameter_dtype": "int8"},
        {"parameter_dtype": "int8", "kdim": 5, "vdim": 7},
    ],
)
def test_layers_can_be_pickled_and_copied(rng, again, options):
    layer = Named(8, 4, **options)
    layer.name = "mine"
    twin = again(layer)
    assert type(twin) is Named
    assert (twin.name, twin.dropout, repr(twin)) == ("mine", layer.dropout, repr(layer))
    arrays = [
        rng.normal(size=(4, 2, width)).astype(layer.dtype) for width in (8, layer.kdim, layer.vdim)
    ]
    expected = layer(*arrays)
    for one, other in zip(twin(*arrays), expected):
        np.testing.assert_array_equal(one, other)
    twin.init_parameters(1)
    np.testing.assert_array_equal(layer(*arrays)[0], expected[0])
    assert (twin(*arrays)[0] != expected[0]).any()


@pytest.mark.parametrize("again", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy])
def test_contexts_are_copied_by_their_settings(again):
    context = libattention.Context(3, engine="blas", kernels="baseline", gemm="native")
    assert again(context).info() == context.info()
    assert again(context) is not context


def test_a_load_that_fails_changes_nothing():
    layer = MultiheadAttention(8, 2)
    before = layer.state_dict()
    other = {name: np.zeros_like(values) for name, values in before.items()}
    for wrong in (np.zeros(9, "float32"), np.zeros(8, "int64")):
        with pytest.raises(libattention.Error):
            layer.load_state_dict({**other, "out_proj.bias": wrong})
        for name, values in layer.state_dict().items():
            np.testing.assert_array_equal(values, before[name])


def test_new_layers_differ_and_a_seed_repeats():
    one, other = MultiheadAttention(8, 2), MultiheadAttention(8, 2)
    assert (one.state_dict()["in_proj_weight"] != other.state_dict()["in_proj_weight"]).any()
    for layer in (one, other):
        layer.init_parameters(5)
    np.testing.assert_array_equal(
        one.state_dict()["in_proj_weight"], other.state_dict()["in_proj_weight"]
    )


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: MultiheadAttention(7, 2), "embed_dim: "),
        (lambda: MultiheadAttention(8, 0), "num_heads: "),
        (
            lambda: MultiheadAttention(8, 2, dtype="int8"),
            "dtype: expected one of float32, float64, bfloat16, float16, got 'int8'",
        ),
        (
            lambda: MultiheadAttention(8, 2, parameter_dtype="half"),
            "parameter_dtype: expected one of float32, float64, bfloat16, float16, int8, got ",
        ),
        (
            lambda: MultiheadAttention(8, 2, parameter_dtype="float64"),
            "parameter_dtype: expected float32, bfloat16, float16 or int8, got float64",
        ),
        (lambda: MultiheadAttention(8, 2).load_state_dict({}), "mapping: lacks in_proj_weight, "),
        (lambda: load_more(), "name: "),
        (lambda: call(np.zeros((2, 8), "float64")), "query: expected dtype float32"),
        (lambda: call(np.zeros((2, 7), "float32")), "query: expected shape"),
        (lambda: call(np.zeros((2, 8), "float32"), attn_mask=np.zeros((2, 3), bool)), "attn_mask:"),
    ],
)
def test_refusals_name_the_argument(make, text):
    with pytest.raises(libattention.Error) as caught:
        make()
    assert str(caught.value).startswith(text)


def load_more():
    layer = MultiheadAttention(8, 2)
    layer.load_state_dict({**layer.state_dict(), "norm.weight": np.zeros(8, "float32")})


def call(query, **options):
    key = np.zeros((2, 8), "float32")
    return MultiheadAttention(8, 2)(query, key, key, **options)
