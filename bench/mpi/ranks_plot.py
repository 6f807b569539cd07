# SPDX-License-Identifier: BSD-3-Clause
"""The picture of what many ranks should take: for each pass seconds by ranks, and how much of them
a rank computes by the tokens that it has."""

import matplotlib
from matplotlib import pyplot
from matplotlib.ticker import PercentFormatter
from ranks_model import MODEL, NETWORKS, TOKENS, network_rates, ring_seconds

# Of Okabe and Ito's palette, as in the picture of one machine.
COLOURS = {10: "#E69F00", 100: "#0072B2", 400: "#009E73"}
MARKS = {10: "o", 100: "s", 400: "^"}
INK = "#333333"
RANKS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
OWN_TOKENS = tuple(2**power for power in range(2, 13))


def _draw_seconds(panel, rate, threads, is_backward):
    """The slowest network and the next; the third one's line would cover the second's."""
    for network in NETWORKS[:2]:
        rates = network_rates(network, rate, threads)
        for power in TOKENS:
            seconds = [
                ring_seconds(MODEL, 2**power, ranks, rates, 2, is_backward)[0] for ranks in RANKS
            ]
            style = {"color": COLOURS[network], "marker": MARKS[network], "markersize": 3}
            panel.loglog(RANKS, seconds, linewidth=1, **style)
            if network == NETWORKS[0]:
                place = {"xytext": (5, 2), "textcoords": "offset points", "color": INK}
                panel.annotate(f"$2^{{{power}}}$ tokens", (RANKS[1], seconds[1]), **place)
    panel.set_ylabel("seconds of a layer", color=INK)


def _draw_shares(panel, rate, threads, is_backward):
    """In a step both the work and the message follow from a rank's own tokens alone."""
    for network in NETWORKS:
        rates = network_rates(network, rate, threads)
        shares = []
        for own in OWN_TOKENS:
            seconds, busy = ring_seconds(MODEL, own * 100, 100, rates, 2, is_backward)
            shares.append(busy / seconds)
        style = {"color": COLOURS[network], "marker": MARKS[network], "markersize": 3}
        panel.semilogx(OWN_TOKENS, shares, linewidth=1, label=f"{network} Gbit/s", **style)
    panel.set_ylim(0, 1.05)
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.set_ylabel("of its time a rank computes", color=INK)


def draw(rates_of_passes, threads, path):
    """`rates_of_passes`: multiply-adds a second of a thread, forward and backward. Nothing of a
    date or a random name enters the SVG, whose text stays text."""
    matplotlib.rcParams.update(
        {
            "svg.hashsalt": "attention",
            "svg.fonttype": "none",
            "font.size": 8,
            "font.family": "sans-serif",
        }
    )
    matplotlib.use("Agg")
    count = len(rates_of_passes)
    figure, panels = pyplot.subplots(
        count,
        2,
        figsize=(9, 0.9 + 2.6 * count),
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    for row, (which, rate) in zip(panels, rates_of_passes.items(), strict=True):
        _draw_seconds(row[0], rate, threads, which == "backward")
        _draw_shares(row[1], rate, threads, which == "backward")
        for panel in row:
            panel.set_title(
                f"{which}, {rate / 1e9:.0f} G multiply-adds a second and thread",
                fontsize=8,
                color=INK,
                loc="left",
            )
            panel.grid(True, color="#DDDDDD", linewidth=0.5)
    panels[-1][0].set_xlabel(f"ranks of {threads} threads", color=INK)
    panels[-1][1].set_xlabel(f"tokens of a rank of {threads} threads, of 100 ranks", color=INK)
    panels[0][1].legend(frameon=False, loc="lower right")
    figure.supxlabel(
        f"predicted by the cost model, not run: ring, causal, zigzag, {MODEL['heads']} heads,"
        f" {MODEL['key_heads']} key heads of {MODEL['features']} features, bfloat16 keys",
        fontsize=8,
        color=INK,
    )
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=130)
    pyplot.close(figure)
