# SPDX-License-Identifier: BSD-3-Clause
"""ONNX Runtime: the fastest of the models it can compute the cell with, inputs and outputs bound
once."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnxruntime

from peers.cells import BFLOAT16, RAGGED, Cell
from peers.contestants.contestant import Contestant, NotOffered, Prepared
from peers.contestants.ort_models import Candidate, candidates
from peers.inputs import Array, Inputs

_NO_OPERATOR = (
    "in 16 bits it has grouped-query attention alone, which is causal and has no masks, and its "
    "integers have one scale"
)

# Trials of a model before one is chosen; a long call is not repeated for that.
TRIALS = 5
LONG_CALL_SECONDS = 0.05


@dataclass
class _Bound:
    """A session with its inputs, and memory for its outputs."""

    candidate: Candidate
    session: onnxruntime.InferenceSession
    binding: onnxruntime.IOBinding
    outputs: list[Array]

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def results(self) -> list[Array]:
        return [self.candidate.restore(array) for array in self.outputs]


class OnnxRuntime(Contestant):
    def describe(self) -> dict[str, str]:
        return {
            "version": onnxruntime.__version__,
            "configuration": "CPU provider, intra_op_num_threads, all optimisations, IO binding; "
            "spinning as by default; the fastest of the operators Attention (23, 24) and contrib "
            "MultiHeadAttention, GroupQueryAttention and Attention",
        }

    def prepare(self, cell: Cell, inputs: Inputs) -> Prepared:
        if cell.is_backward:
            raise NotOffered("its CPU packages do not train")
        if cell.option == RAGGED:
            raise NotOffered("its CPU operators take sequences padded to one length")
        if cell.dtype == BFLOAT16:
            raise NotOffered("its CPU operators have no bfloat16")
        refusals: list[str] = []
        best: _Bound | None = None
        best_seconds = float("inf")
        for candidate in candidates(cell, inputs):
            try:
                bound = self._bind(candidate)
                seconds = _fastest(bound)
            except Exception as error:  # The runtime's errors have no common class.
                refusals.append(f"{candidate.how}: {_first_line(error)}")
                continue
            if seconds < best_seconds:
                best, best_seconds = bound, seconds
        if best is None:
            raise NotOffered("; ".join(refusals) or _NO_OPERATOR)
        return Prepared(best.run, best.results, best.candidate.how)

    def _bind(self, candidate: Candidate) -> _Bound:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        with _environment(candidate.environment):
            session = onnxruntime.InferenceSession(
                candidate.model(), options, providers=["CPUExecutionProvider"]
            )
        binding = session.io_binding()
        fed = {name: _value(array) for name, array in candidate.feeds.items()}
        for name, value in fed.items():
            binding.bind_ortvalue_input(name, value)
        outputs = [np.empty(shape, candidate.dtype) for shape in candidate.outputs.values()]
        for name, array in zip(candidate.outputs, outputs, strict=True):
            binding.bind_ortvalue_output(name, _value(array))
        for name, feed in candidate.in_place.items():
            binding.bind_ortvalue_output(name, fed[feed])
        return _Bound(candidate, session, binding, outputs)


_value = onnxruntime.OrtValue.ortvalue_from_numpy


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    kept = os.environ.copy()
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _fastest(bound: _Bound) -> float:
    """Of a few calls; the first one's page faults matter to short calls only."""
    best = _seconds(bound)
    if best < LONG_CALL_SECONDS:
        best = min(_seconds(bound) for _ in range(TRIALS))
    return best


def _seconds(bound: _Bound) -> float:
    start = time.perf_counter()
    bound.run()
    return time.perf_counter() - start


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
