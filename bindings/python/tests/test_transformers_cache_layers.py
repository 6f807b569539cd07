# SPDX-License-Identifier: BSD-3-Clause
"""Layers of AttentionCache: what they return is what transformers' own layers do, as exactly as
their dtype allows, in memory of a known size."""

import copy
import os
from random import Random

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)

import libattention
from libattention.integrations._hf_calls import Call, computed, eager_formula
from libattention.integrations._hf_layers import AttentionLayer, HybridLayer
from libattention.integrations._hf_rows import MIN_SPARE
from libattention.integrations._hf_stored import StoredRows
from libattention.integrations.transformers import AttentionCache

BATCH, KV_HEADS, HEADS, WIDTH, VALUE_WIDTH = 2, 2, 4, 8, 6


def rows(count, batch=BATCH, dtype=torch.float32):
    """Keys and values."""
    return (
        torch.randn(batch, KV_HEADS, count, WIDTH, dtype=dtype),
        torch.randn(batch, KV_HEADS, count, VALUE_WIDTH, dtype=dtype),
    )


# ---- as transformers' layers ----


OPERATIONS = ("update", "update", "update", "crop", "reorder_cache", "batch_repeat_interleave",
              "batch_select_indices", "reset")  # fmt: skip


def arguments_of(name, random, batch, newest):
    """What an operation may be given, where a layer has so many sequences, and so many new rows
    that none was taken back since."""
    if name == "update":
        return rows(random.randint(1, 9), batch)
    if name == "crop":
        return (-random.randint(1, newest),)
    if name == "reorder_cache":
        return (torch.tensor(random.choices(range(batch), k=batch)),)
    if name == "batch_repeat_interleave":
        return (2 if batch < 8 else 1,)
    if name == "batch_select_indices":
        return (torch.tensor(random.sample(range(batch), -(-batch // 2))),)
    return ()


def outcome(layer, name, arguments):
    """What an operation returns, or that it is refused."""
    try:
        return getattr(layer, name)(*arguments)
    except (libattention.Error, RuntimeError):
        return "refused"


def assert_same_layer(ours, theirs):
    assert ours.get_seq_length() == theirs.get_seq_length()
    assert ours.get_mask_sizes(3) == theirs.get_mask_sizes(3)
    assert ours.get_max_length() == theirs.get_max_length()
    assert (ours.is_sliding, ours.is_initialized) == (theirs.is_sliding, theirs.is_initialized)
    if not theirs.is_initialized:
        assert ours.keys is ours.values is None
        return
    kept = ours.keys.shape[2]  # of those that theirs keep the ones that are seen
    assert torch.equal(ours.keys, theirs.keys[:, :, theirs.keys.shape[2] - kept :])
    assert torch.equal(ours.values, theirs.values[:, :, theirs.values.shape[2] - kept :])


@pytest.mark.parametrize("window", [None, 2, 5, 40])
@pytest.mark.parametrize("is_recording", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_layer_is_what_transformers_own_is(window, is_recording, seed):
    ours = AttentionLayer(sliding_window=window)
    theirs = DynamicLayer() if window is None else DynamicSlidingWindowLayer(window)
    if is_recording:
        for layer in (ours, theirs):
            getattr(layer, "activate_past_recording", lambda: None)()
    random, refused, newest = Random(seed), 0, 0
    for _ in range(60):
        batch = theirs.keys.shape[0] if theirs.is_initialized else BATCH
        # Theirs fail on a layer without rows, and of recorded ones a crop drops the rest.
        name = random.choice(OPERATIONS) if newest else "update"
        sizes, arguments = ours.get_mask_sizes(1), arguments_of(name, random, batch, newest)
        found, expected = (outcome(layer, name, arguments) for layer in (ours, theirs))
        newest = {"crop": 0, "reset": 0}.get(name, newest)
        newest = arguments[0].shape[2] if name == "update" else newest
        if name == "update":
            assert all(map(torch.equal, found, expected))
            assert sizes[0] - 1 + arguments[0].shape[2] == found[0].shape[2]
        else:
            assert found == expected
        refused += found == "refused"
        assert_same_layer(ours, theirs)
    assert window == 40 or (refused > 0) == (window in (2, 5) and not is_recording)


def test_a_layer_with_states_has_both():
    ours = HybridLayer(sliding_window=4, number_of_states=2)
    theirs = LinearAttentionAndSlidingWindowAttentionLayer(4, number_of_states=2)
    states = torch.randn(BATCH, 5, 3)
    for layer in (ours, theirs):
        layer.activate_past_recording()
        layer.update_conv_state(states, 0, conv_kernel_size=2)
        layer.update_conv_state(states, 1, conv_kernel_size=2)
    key, value = rows(7)
    found, expected = ours.update(key, value), theirs.update(key, value)
    assert all(map(torch.equal, found, expected))
    for layer in (ours, theirs):
        layer.crop(-1)
        layer.reorder_cache(torch.tensor([1, 0]))
    assert ours.get_seq_length() == theirs.get_seq_length() == 6
    assert torch.equal(ours.keys, theirs.keys)
    assert torch.equal(ours.conv_states[1], theirs.conv_states[1])
    ours.reset()
    assert ours.get_seq_length() == 0
    assert not any(ours.has_previous_state.values())


def test_a_number_of_rows_to_take_back_is_not_positive():
    layer = AttentionLayer()
    layer.update(*rows(3))
    with pytest.raises(libattention.Error, match=r"^tokens_to_remove: expected 0 or minus"):
        layer.crop(2)
    layer.crop(-9)
    assert layer.get_seq_length() == 0


def test_rows_that_a_window_has_dropped_do_not_come_back():
    layer = AttentionLayer(sliding_window=4)
    layer.activate_past_recording()
    layer.update(*rows(9))
    layer.crop(-2)
    with pytest.raises(libattention.Error, match=r"^tokens_to_remove: -1 makes rows visible that"):
        layer.crop(-1)
    assert layer.get_seq_length() == 7
    assert layer.keys.shape[2] == 3


# ---- what is stored ----

FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("stored", FLOATS)
@pytest.mark.parametrize("model", FLOATS)
def test_floats_are_rounded_once(stored, model):
    layer = AttentionLayer(stored)
    given = rows(5, dtype=model)
    layer.update(*(one[:, :, :2] for one in given))
    found = layer.update(*(one[:, :, 2:] for one in given))
    for one, two in zip(found, given, strict=True):
        assert one.dtype == model
        assert torch.equal(one + 0, two.to(stored).to(model))
        assert isinstance(one, StoredRows) == (stored != model)


@pytest.mark.parametrize("model", FLOATS)
def test_integers_are_off_by_half_a_scale_at_most(model):
    layer = AttentionLayer(torch.int8)
    given = rows(70, dtype=model)
    given[0][:, :, 3] = 0
    for start in range(0, 70, 7):
        found = layer.update(*(one[:, :, start : start + 7] for one in given))
    layer.reorder_cache(torch.tensor([1, 0]))
    assert torch.equal(layer.keys + 0, (found[0] + 0)[[1, 0]])
    for one, two in zip(found, given, strict=True):
        largest = two.double().abs().amax(-1, keepdim=True)
        # An element is rounded once more to float32 as it is divided, and to the model's dtype.
        eps = torch.finfo(torch.float32).eps + torch.finfo(model).eps
        assert ((one.double() - two.double()).abs() <= largest * (1 / 254 + eps)).all()


def test_keys_and_values_of_different_types_keep_theirs():
    key, value = rows(3)
    layer = AttentionLayer()
    found = layer.update(key.bfloat16(), value)
    assert [one.dtype for one in found] == [torch.bfloat16, torch.float32]
    assert torch.equal(found[0] + 0, key.bfloat16())
    assert torch.equal(found[1], value)


def call_of(query, key, value, **options):
    shape = (query.shape[0], 1, query.shape[2], key.shape[2])
    mask = torch.ones(shape, dtype=torch.bool).tril(key.shape[2] - query.shape[2])
    mask[0, :, :, :2] = False
    found = Call(torch.nn.Identity(), query, key, value, mask, 0.0, 0.3, False, None, None, None,
                 True, {}, False)  # fmt: skip
    return found._replace(**options)


OPTIONS = {
    "mask": {},
    "softcap": {"softcap": 2.0},
    "sinks": {"sinks": torch.linspace(-1, 1, HEADS)},
    "bias": {"bias": torch.randn(1, HEADS, 3, 9, generator=torch.Generator().manual_seed(2))},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.int8])
@pytest.mark.parametrize("model", [torch.float64, torch.float32, torch.bfloat16])
def test_attention_reads_what_is_stored(stored, model, options):
    layer = AttentionLayer(stored)
    query = torch.randn(BATCH, HEADS, 3, WIDTH, dtype=model)
    key, value = layer.update(*rows(9, dtype=model))
    call = call_of(query, key, value, **options)
    found = computed(call, libattention.scaled_dot_product_attention)
    # The numbers that elements mean, exactly: the product of an integer of 8 bits and a float32.
    exact = [
        one.stored.double() * (1 if one.scale is None else one.scale.double())
        if isinstance(one, StoredRows)
        else one.double()
        for one in (key, value)
    ]
    wide = {
        name: one.double() if torch.is_tensor(one) else one
        for name, one in options.items()
    }  # fmt: skip
    oracle = call_of(query.double(), *exact, **wide)
    visible = torch.zeros(oracle.mask.shape, dtype=torch.float64)
    visible[~oracle.mask] = -torch.inf
    expected = eager_formula(oracle._replace(mask=visible))
    largest = exact[1].abs().max().item()
    for one, two, size in zip(found, expected, (largest, 1.0), strict=True):
        # Scores: sums of WIDTH products and what is added; weights: exponentials of them.
        eps = torch.finfo(torch.float32).eps
        scores = 0.3 * query.double().abs().amax() * exact[0].abs().amax() * WIDTH + 4
        bound = 2 * size * (WIDTH + 9 + 8) * eps * scores + size * torch.finfo(model).eps
        assert (one.double() - two).abs().max() <= bound


def test_integers_change_a_result_within_what_their_scales_allow():
    """Scores change by d at most: scale * sum |q| * (the largest |k|) / 254. Weights then change by
    factors of exp(-2 d) to exp(2 d), by exp(2 d) - 1 in sum at most, each times the largest |v|;
    the values themselves by a 254th of that."""
    query, (key, value) = torch.randn(BATCH, HEADS, 1, WIDTH), rows(90)
    attend = libattention.scaled_dot_product_attention
    layer = AttentionLayer(torch.int8)
    found, _ = computed(call_of(query, *layer.update(key, value)), attend)
    expected, _ = computed(call_of(query, key, value), attend)
    delta = 0.3 * query.abs().sum(-1).max() * key.abs().max() / 254
    largest = value.abs().max()
    bound = largest * (torch.expm1(2 * delta) + 1 / 254)
    difference = (found - expected).abs().max()
    print(f"off by {difference:.4f}, by {bound:.4f} at most")
    assert 0 < difference <= bound + 1e-5


# ---- memory ----


def test_floats_of_the_models_dtype_are_views_of_memory_that_stays():
    layer, given = AttentionLayer(), rows(20)
    first, _ = layer.update(*given)
    address = first.data_ptr()
    for _ in range(MIN_SPARE):
        key, _ = layer.update(*rows(1))
        assert key.data_ptr() == address
    key, _ = layer.update(*rows(1))
    assert key.data_ptr() != address
    assert torch.equal(key[:, :, :20], given[0])
    assert torch.equal(first, given[0])


def bytes_of(count, element, scale=0):
    """Of so many rows."""
    return BATCH * KV_HEADS * count * ((WIDTH + VALUE_WIDTH) * element + 2 * scale)


@pytest.mark.parametrize(
    ("dtype", "sizes"), [(None, (4, 0)), (torch.bfloat16, (2, 0)), (torch.int8, (1, 4))]
)
def test_memory_is_an_eighth_more_than_is_needed(dtype, sizes):
    layer = AttentionLayer(dtype)
    layer.update(*rows(800))
    assert layer.nbytes == bytes_of(900, *sizes)
    for _ in range(101):
        layer.update(*rows(1))
    assert layer.nbytes == bytes_of(901 + 901 // 8, *sizes)
    layer.reset()
    assert layer.nbytes == 0


def test_memory_for_the_most_rows_is_made_once():
    cache, addresses = AttentionCache(dtype=torch.float16, max_length=500), set()
    for _ in range(50):
        key, _ = cache.update(*rows(10), 0)
        addresses.add(key.stored.data_ptr())
        assert cache.nbytes == bytes_of(500, 2)
    cache.crop(-499)
    addresses.add(cache.layers[0].keys.stored.data_ptr())
    assert len(addresses) == 1


def test_a_window_keeps_little():
    layer = AttentionLayer(sliding_window=33)
    layer.update(*rows(3000))
    sizes = set()
    for _ in range(500):
        layer.update(*rows(1))
        sizes.add(layer.nbytes)
    assert max(sizes) <= bytes_of(2 * (32 + MIN_SPARE), 4)
    assert layer.get_seq_length() == 3500


def test_sequences_in_their_own_order_are_not_copied():
    layer = AttentionLayer()
    address = layer.update(*rows(3))[0].data_ptr()
    layer.reorder_cache(torch.arange(BATCH))
    assert layer.keys.data_ptr() == address


def test_the_same_cache_can_be_initialised_early():
    cache = AttentionCache(dtype=torch.int8)
    cache.layers.append(AttentionLayer())
    cache.early_initialization(BATCH, KV_HEADS, WIDTH, torch.float32, torch.device("cpu"))
    assert cache.is_initialized
    assert cache.layers[0].keys.shape == (BATCH, KV_HEADS, 0, WIDTH)


# ---- what stands for numbers ----


def test_nothing_is_written_to_rows_that_only_stand_for_numbers():
    key, value = AttentionLayer(torch.int8).update(*rows(3))
    writers = (
        lambda: key.mul_(2),
        lambda: key.copy_(torch.zeros(key.shape)),
        lambda: torch.add(key, 1, out=key),
        lambda: key.__setitem__(0, 1),
        lambda: key.resize_(1),
    )
    for write in writers:
        with pytest.raises(libattention.Error, match=r"^cache: keys or values that it stores in"):
            write()
    target = torch.empty(key.shape)
    assert torch.equal(target.copy_(key), key + 0)
    assert torch.equal(torch.mul(key, 1, out=target), key + 0)
    assert repr(value) == "StoredRows(shape=(2, 2, 3, 6), torch.int8 for torch.float32)"


def test_rows_that_stand_for_numbers_are_tensors_to_everybody():
    key, value = AttentionLayer(torch.int8).update(*rows(5))
    query = torch.randn(BATCH, KV_HEADS, 3, WIDTH)
    numbers = key.numbers(), value.numbers()
    attend = torch.nn.functional.scaled_dot_product_attention
    assert torch.equal(attend(query, key, value), attend(query, *numbers))
    ours = libattention.scaled_dot_product_attention
    assert torch.equal(ours(query, key, value), ours(query, *numbers))
    for made in (key[:, :1], key.transpose(1, 2), key.repeat_interleave(2, 1), key.detach()):
        assert type(made) is torch.Tensor
    np.testing.assert_array_equal(np.from_dlpack(key), numbers[0])
    with pytest.raises(RuntimeError, match="numpy"):
        key.numpy()


def test_a_layer_can_be_copied_and_saved(tmp_path):
    cache = AttentionCache(dtype=torch.int8)
    cache.update(*rows(3), 0)
    twin = copy.deepcopy(cache)
    torch.save(cache, tmp_path / "cache")
    read = torch.load(tmp_path / "cache", weights_only=False)
    expected = cache.layers[0].values + 0
    cache.update(*rows(2), 0)
    for one in (twin, read):
        assert one.get_seq_length() == 3
        assert torch.equal(one.layers[0].values + 0, expected)
