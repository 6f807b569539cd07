# SPDX-License-Identifier: BSD-3-Clause
"""A small model of characters, trained twice: by libattention's attention and by PyTorch's.

    python examples/11_characters.py [text files] [--steps 100]

The model is PyTorch's from end to end: two blocks of causal attention and a multilayer perceptron
(GPT-2's shape), AdamW, cross entropy. The first run has `install()` around it, so that
`F.scaled_dot_product_attention` and its gradients are computed by libattention; the second has
not. Both start from the same weights and see the same text, so their losses are the same but for
float32's last digits, which the last lines tell. Then the model writes a line.

Without text files it learns this project's guides.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from libattention.integrations.torch import install, report

SEQUENCES, LENGTH, HEADS, EMBED_DIM, BLOCKS = 8, 256, 4, 64, 2
AGREEMENT = 2e-3
"""How far two losses in float32 may be apart: rounding, carried through the steps."""


class Attention(nn.Module):
    """Causal self-attention, as GPT-2 has it."""

    def __init__(self):
        super().__init__()
        self.input = nn.Linear(EMBED_DIM, 3 * EMBED_DIM)
        self.output = nn.Linear(EMBED_DIM, EMBED_DIM)

    def forward(self, x):
        """`x` and the result are (sequences, length, embed_dim)."""
        heads = (x.shape[0], x.shape[1], HEADS, EMBED_DIM // HEADS)
        query, key, value = (
            one.view(heads).transpose(1, 2) for one in self.input(x).split(EMBED_DIM, dim=2)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(attended.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """Attention and a perceptron, each added to what came in."""

    def __init__(self):
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(EMBED_DIM), Attention())
        self.perceptron = nn.Sequential(
            nn.LayerNorm(EMBED_DIM),
            nn.Linear(EMBED_DIM, 4 * EMBED_DIM),
            nn.GELU(),
            nn.Linear(4 * EMBED_DIM, EMBED_DIM),
        )

    def forward(self, x):
        """`x` and the result are (sequences, length, embed_dim)."""
        x = x + self.attention(x)
        return x + self.perceptron(x)


class Model(nn.Module):
    """Scores of the next character, for every character of a text of at most `LENGTH`."""

    def __init__(self, characters):
        super().__init__()
        self.characters = nn.Embedding(characters, EMBED_DIM)
        self.positions = nn.Embedding(LENGTH, EMBED_DIM)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.scores = nn.Sequential(nn.LayerNorm(EMBED_DIM), nn.Linear(EMBED_DIM, characters))

    def forward(self, text):
        """`text`, (sequences, length) of numbers of characters."""
        x = self.characters(text) + self.positions.weight[: text.shape[1]]
        return self.scores(self.blocks(x))


def train(text, characters, steps, name):
    """The model after so many steps, and the loss of each."""
    torch.manual_seed(0)
    model = Model(characters)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(steps):
        begins = torch.randint(len(text) - LENGTH, (SEQUENCES,))
        batch = torch.stack([text[begin : begin + LENGTH + 1] for begin in begins])
        scores = model(batch[:, :-1])
        loss = functional.cross_entropy(scores.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % max(1, steps // 5) == 0 or step == steps - 1:
            print(f"{name:12} step {step:4}  loss {losses[-1]:.4f}", flush=True)
    return model, losses


@torch.no_grad()
def written(model, text, count):
    """What comes next, as the model would have it: `count` characters."""
    for _ in range(count):
        scores = model(text[-LENGTH:].unsqueeze(0))[0, -1]
        text = torch.cat([text, scores.softmax(0).multinomial(1)])
    return text[-count:]


def read(files):
    """The texts of the files, one behind the other; its characters; and a number for each."""
    files = files or sorted((Path(__file__).parents[1] / "docs" / "guides").glob("*.md"))
    text = "\n".join(Path(file).read_text(encoding="utf-8") for file in files)
    if len(text) <= LENGTH:
        raise SystemExit(f"the text: expected more than {LENGTH} characters, found {len(text)}")
    characters = sorted(set(text))
    number = {character: index for index, character in enumerate(characters)}
    return torch.tensor([number[character] for character in text]), characters


def arguments():
    """Those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="texts to learn; this project's guides, if none")
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    if given.steps < 1:
        parser.error(f"--steps: expected at least 1, found {given.steps}")
    return given


def main():
    """Train twice, compare, write."""
    given = arguments()
    text, characters = read(given.files)
    print(f"{len(text)} characters, {len(characters)} different ones")
    with install():
        model, losses = train(text, len(characters), given.steps, "libattention")
        print(report())
    _, expected = train(text, len(characters), given.steps, "PyTorch")
    apart = max(abs(one - other) for one, other in zip(losses, expected, strict=True))
    print(f"losses differ by {apart:.1e} at most")
    if apart > AGREEMENT:
        raise SystemExit(f"losses: expected a difference of at most {AGREEMENT}")
    line = "".join(characters[index] for index in written(model, text[:LENGTH], 64))
    print(f"written: {line!r}")


if __name__ == "__main__":
    main()
