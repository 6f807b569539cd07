# SPDX-License-Identifier: BSD-3-Clause
"""What calls over many ranks should take, by work, latency and bandwidth: the formulas of
mpi/mpi_cost.c."""

import math

NETWORKS = (10, 100, 400)  # Gbit/s, each with the latency that such networks have
LATENCY_SECONDS = {10: 20e-6, 100: 2e-6, 400: 2e-6}
TOKENS = (17, 20, 24)  # powers of 2
# A layer of a model with 8 billion parameters, in bfloat16.
MODEL = {"heads": 32, "key_heads": 8, "features": 128}


def pair_products(shape, is_backward):
    """Multiply-adds of a pair of a row and a key, of all heads."""
    return shape["heads"] * shape["features"] * (5 if is_backward else 2)


def ring_seconds(
    shape, tokens, ranks, rates, bytes_of_element, is_backward=False, causal=True, balanced=True
):
    """(all of it, what a rank computes). Sums of gradients are float32."""
    own = tokens / ranks
    pairs = tokens * own
    if causal:
        pairs = (
            tokens * (tokens + 1) / 2 / ranks
            if balanced
            else own * (tokens - own) + own * (own + 1) / 2
        )
    step = pairs * pair_products(shape, is_backward) / rates["products_per_second"] / ranks
    numbers = own * shape["key_heads"] * 2 * shape["features"]
    latency, rate = rates["latency_seconds"], rates["bytes_per_second"]
    message, home = latency + numbers * bytes_of_element / rate, 0
    if is_backward:
        home = latency + numbers * 4 / rate
        message += home
    return (ranks - 1) * max(step, message) + step + home, ranks * step


def heads_seconds(shape, tokens, ranks, rates, bytes_of_element, is_backward=False):
    """Of the all-to-all of heads under causality, where each rank gets some."""
    if ranks > shape["key_heads"]:
        return math.inf
    share = math.ceil(shape["key_heads"] / ranks) / shape["key_heads"]
    products = share * tokens * (tokens + 1) / 2 * pair_products(shape, is_backward)
    work = products / rates["products_per_second"]
    heads, key_heads = shape["heads"], shape["key_heads"]
    row = ((3 if is_backward else 2) * heads + 2 * key_heads) * bytes_of_element
    row += (heads + 2 * key_heads) * 4 if is_backward else 0
    sent = share * (ranks - 1) / ranks * tokens * row * shape["features"]
    return work + 2 * (ranks - 1) * rates["latency_seconds"] + sent / rates["bytes_per_second"]


def network_rates(network, rate, threads):
    """Of ranks of so many threads, each of that rate, on one of the NETWORKS."""
    return {
        "products_per_second": rate * threads,
        "latency_seconds": LATENCY_SECONDS[network],
        "bytes_per_second": network * 1e9 / 8,
    }


def predict(call, numbers, rate):
    """Of a call that was measured."""
    shape = {name: numbers[name] for name in MODEL}
    rates = {**numbers, "products_per_second": rate}
    ranks = int(numbers["ranks"])
    if call.scheme == "heads":
        return heads_seconds(shape, call.rows, ranks, rates, 4, call.is_backward)
    return ring_seconds(
        shape, call.rows, ranks, rates, 4, call.is_backward, call.causal, call.placement == "zigzag"
    )[0]
