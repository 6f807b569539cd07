# SPDX-License-Identifier: BSD-3-Clause
"""Tables of what was measured and of what is predicted."""

import math

from ranks_measure import rates_of
from ranks_model import (
    MODEL,
    NETWORKS,
    TOKENS,
    heads_seconds,
    network_rates,
    predict,
    ring_seconds,
)

RANKS = (2, 8, 32, 100, 320, 1000)

# Of the table of calls: a column's heading, its width, how a value is written; text to the left.
COLUMNS = (
    ("mpi", -8, "s"),
    ("pass", -9, "s"),
    ("scheme", -7, "s"),
    ("placement", -11, "s"),
    ("causal", -6, "s"),
    ("ranks", 6, "d"),
    ("rows", 7, ".0f"),
    ("apart", 9, ".4f"),
    ("seconds", 9, ".4f"),
    ("ratio", 7, ".2f"),
    ("Gpairs/s", 9, ".3f"),
    ("apart", 7, ".3f"),
    ("predicted", 11, ".4f"),
    ("error", 7, ".1%"),
    ("1 rate", 8, ".1%"),
    ("work", 8, "+.1%"),
    ("looks", 7, ".1%"),
    ("waits", 8, ".1%"),
    ("hidden", 8, ".0%"),
    ("home", 7, ".1%"),
)


def _where_time_went(call):
    """Of a ring: its own work beside that of the processes, looks, waits, hidden messages,
    gradients that come home."""
    if call.scheme != "ring" or call.ranks == 1:
        return (None,) * 5
    return (
        call.processor / call.local_processor - 1,
        call.looked / call.seconds,
        call.waited / call.seconds,
        max(0, 1 - call.shown / call.messages),
        call.shown_home / call.seconds if call.is_backward else None,
    )


def _prediction(call, numbers, rates):
    """Of the model, and its errors by the rate of the processes beside the call and by one rate for
    each pass. One rank has no network, and more ranks than processors are no machine's."""
    if call.ranks != 2:
        return None, None, None
    of_one = None
    if call.which in rates:
        of_one = predict(call, numbers, rates[call.which]) / call.seconds - 1
    return call.predicted, call.predicted / call.seconds - 1, of_one


def _line(values):
    cells = []
    for (_, width, form), value in zip(COLUMNS, values, strict=True):
        text = "" if value is None else format(value, form)
        cells.append(text.ljust(-width) if width < 0 else text.rjust(width))
    return "".join(cells).rstrip()


def _print_errors(name, errors):
    sizes = [abs(error) for error in errors if error is not None]
    if sizes:
        mean = sum(sizes) / len(sizes)
        print(f"with {name} the model is off by {mean:.1%} in the mean, {max(sizes):.1%} at most")


def print_measured(measured):
    """`measured`: of each MPI and number of ranks what bench_ranks said."""
    for (mpi, ranks), (numbers, _) in measured.items():
        if ranks > 1:
            print(
                f"{mpi}, {ranks} ranks: {numbers['latency_seconds'] * 1e6:.2f} us,"
                f" {numbers['bytes_per_second'] / 1e9:.2f} GB/s between two,"
                f" {numbers['heads']:.0f} heads, {numbers['key_heads']:.0f} key heads"
                f" of {numbers['features']:.0f} features"
            )
    headings = (
        text.ljust(-width) if width < 0 else text.rjust(width) for text, width, _ in COLUMNS
    )
    print("".join(headings))
    errors, errors_of_one = [], []
    for numbers, calls in measured.values():
        rates = rates_of(calls)
        for call in calls:
            predicted = _prediction(call, numbers, rates)
            errors.append(predicted[1])
            errors_of_one.append(predicted[2])
            what = (call.mpi, call.which, call.scheme, call.placement)
            times = (call.local, call.seconds, call.ratio)
            pairs = (call.pairs / call.seconds / 1e9, call.pairs / call.local / 1e9)
            size = ("yes" if call.causal else "no", call.ranks, call.rows)
            print(_line((*what, *size, *times, *pairs, *predicted, *_where_time_went(call))))
    _print_errors("the rate of each size", errors)
    _print_errors("one rate for each pass", errors_of_one)


def _network_cell(power, ranks, network, rate, threads, is_backward):
    rates = network_rates(network, rate, threads)
    seconds, busy = ring_seconds(MODEL, 2**power, ranks, rates, 2, is_backward)
    heads = heads_seconds(MODEL, 2**power, ranks, rates, 2, is_backward)
    by_heads = f" heads {heads:8.3g}" if heads < math.inf else ""
    return f"{network} Gbit/s {seconds:10.3g} s ({busy / seconds:4.0%})" + by_heads


def print_predicted(which, rate, threads):
    """Of a pass, for ranks of so many threads with this rate each."""
    print(
        f"\npredicted, {which}, causal, zigzag, {MODEL['heads']} heads,"
        f" {MODEL['key_heads']} key heads of {MODEL['features']} features, bfloat16 keys,"
        f"\n{threads} threads of {rate / 1e9:.1f} G multiply-adds a second and rank;"
        " ring seconds (and how much of them a rank computes),\nand heads where it can serve:"
    )
    for power in TOKENS:
        for ranks in RANKS:
            cells = (
                _network_cell(power, ranks, network, rate, threads, which == "backward")
                for network in NETWORKS
            )
            print(f"2^{power} tokens, {ranks:5} ranks: " + "   ".join(cells))
