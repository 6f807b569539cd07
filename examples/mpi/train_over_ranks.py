#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Trains a layer of attention on sequences that lie on many ranks: each says which token came two
places before, which may be on another rank.

Every rank has its own rows of a sequence and a copy of the layer. Attention sees all rows, and its
gradients come back to the ranks whose rows they are of; what is each rank's copy of the layer is
added up by MPI. The result is that of one machine with all rows.

Needs libattention with PyTorch, mpi4py and the libattention-mpi of its MPI:

    mpiexec -n 2 python -m mpi4py examples/mpi/train_over_ranks.py [steps]
"""

import math
import sys

import torch
from mpi4py import MPI
from torch import nn
from torch.nn import functional

from libattention.distributed import attention

COMM = MPI.COMM_WORLD
TOKENS, LENGTH, FEATURES, HEADS, BATCH, BACK = 12, 48, 64, 4, 8, 2


class Layer(nn.Module):
    """Embedding, attention over all ranks, and a guess for every row."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, FEATURES)
        self.inputs = nn.Linear(FEATURES, 3 * FEATURES, bias=False)
        self.guess = nn.Linear(FEATURES, TOKENS)

    def forward(self, tokens, positions):
        """Logits (batch, rows, TOKENS) of the rank's own rows."""
        hidden = self.embedding(tokens) + waves(positions)
        heads = self.inputs(hidden).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        context = attention(*heads, COMM, is_causal=True, placement="zigzag")
        return self.guess(context.transpose(1, 2).flatten(2))


def waves(positions):
    """A row's position, as sines and cosines of it."""
    rates = torch.exp(torch.arange(FEATURES // 2) * (-math.log(100.0) * 2 / FEATURES))
    angles = positions[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def own_positions(length):
    """The rank's two stretches of the sequence: under causality all ranks have the same work."""
    stretches = torch.arange(length).reshape(2 * COMM.size, -1)
    return torch.cat([stretches[COMM.rank], stretches[2 * COMM.size - 1 - COMM.rank]])


def add_up(tensor):
    """The sum over all ranks, in place."""
    COMM.Allreduce(MPI.IN_PLACE, tensor.numpy(), op=MPI.SUM)
    return tensor


def step(layer, length, optimizer, generator):
    """One step on new sequences; returns the loss of all rows."""
    tokens = torch.randint(TOKENS, (BATCH, length), generator=generator)
    positions = own_positions(length)
    wanted = tokens.roll(BACK, 1)[:, positions]
    logits = layer(tokens[:, positions], positions)
    # The first rows have no token before them.
    wanted = wanted.masked_fill(positions < BACK, -100)
    loss = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
    loss = loss / (BATCH * (length - BACK))
    optimizer.zero_grad()
    loss.backward()
    for parameter in layer.parameters():
        add_up(parameter.grad)
    optimizer.step()
    return add_up(loss.detach().reshape(1)).item()


def main():
    """Prints the loss as it goes down; fails unless it is far below that of guessing."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    length = LENGTH // (2 * COMM.size) * 2 * COMM.size
    torch.manual_seed(0)  # the same layer and the same sequences on every rank
    layer, generator = Layer(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(layer.parameters(), 3e-3)
    guessing = math.log(TOKENS)
    for number in range(1, steps + 1):
        loss = step(layer, length, optimizer, generator)
        if COMM.rank == 0 and (number % 50 == 0 or number == 1):
            print(
                f"step {number}: loss {loss:.3f} on {COMM.size} ranks, {guessing:.3f} by guessing",
                flush=True,
            )
    return 0 if loss < guessing / 2 else 1


if __name__ == "__main__":
    sys.exit(main())
