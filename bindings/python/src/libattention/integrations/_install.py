# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch's own scaled dot-product attention on CPUs, answered by libattention.

F.scaled_dot_product_attention arrives, eager and compiled, at one operator of PyTorch, whose kernel
for CPUs is replaced. Above it everything is PyTorch's: the choice of a path, autograd, autocast,
vmap, tracing. Its backward, another operator, is replaced likewise: it goes on from the output and
the logarithms of the rows' sums that the first one returned, whoever answered it.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from libattention._context import Context, handle_of
from libattention._library import lib, string
from libattention._torch_options import score_dtype
from libattention._torch_threads import context_now
from libattention.integrations._install_dropout import FUNCTION, DropoutRegistration
from libattention.integrations._lean_backward import kind_of_backward
from libattention.integrations._lean_sdpa import DTYPES, kind_of_call

OPERATOR = "_scaled_dot_product_flash_attention_for_cpu"
BACKWARD = OPERATOR + "_backward"

# Attention that never comes to the operator, by the operators that PyTorch runs for it.
ELSEWHERE = {
    "aten::_native_multi_head_attention": "the fast path of nn.MultiheadAttention",
    "aten::_transformer_encoder_layer_fwd": "the fast path of nn.TransformerEncoderLayer",
    "aten::_safe_softmax": "the math path of F.scaled_dot_product_attention",
    "aten::_softmax": "a softmax on its own, which may be attention written out",
}


@dataclass(frozen=True)
class Report:
    """What became of PyTorch's attention on CPUs.

    Attributes:
        answered: calls that libattention computed
        handed_back: calls that PyTorch's kernel computed, by reason
        elsewhere: of what ran under watch(), calls of operators that go other ways
        gradients_answered: calls of the backward that libattention computed
        gradients_handed_back: calls of it that PyTorch's kernel computed, by reason
        dropped: of the calls answered, those with dropout, whose gradients are the library's, too
    """

    answered: int
    handed_back: dict[str, int]
    elsewhere: dict[str, int]
    gradients_answered: int = 0
    gradients_handed_back: dict[str, int] = field(default_factory=dict)
    dropped: int = 0

    def __str__(self) -> str:
        lines = [f"answered by libattention: {self.answered}"]
        if self.dropped:
            lines.append(f"of these with dropout: {self.dropped}")
        lines += [f"handed back to PyTorch: {n} ({why})" for why, n in self.handed_back.items()]
        if self.gradients_answered:
            lines.append(f"gradients by libattention: {self.gradients_answered}")
        lines += [f"gradients by PyTorch: {n} ({w})" for w, n in self.gradients_handed_back.items()]
        lines += [f"elsewhere: {n} ({where})" for where, n in self.elsewhere.items()]
        return "\n".join(lines)


class Installation:
    """What install returns; leaving it as a context manager uninstalls it."""

    def __init__(self, context: Context | None, dropout: bool = False) -> None:
        self.context = context
        self.dropout = dropout

    def __enter__(self) -> Installation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.uninstall()

    def uninstall(self) -> None:
        """Undoes this call of install and no other; without effect the second time."""
        with _changes:
            _apply([one for one in _installations if one is not self])


def install(context: Context | None = None, *, dropout: bool = False) -> Installation:
    """Makes libattention answer PyTorch's F.scaled_dot_product_attention on CPUs, in this process.

    Models stay as they are: in inference and training, eager and compiled. What is answered is
    float32, float64, bfloat16 and float16 without dropout, with every mask, is_causal, scale and
    enable_gqa. What is not, PyTorch computes as before; so it does calls too small to gain, and
    bfloat16 of more than 4 rows where it multiplies that in hardware (AMX). So are gradients, by
    rules of their own: PyTorch's backward is slow in 16 bits.
    What PyTorch itself sends other ways never arrives: nested tensors, dropout (but see there),
    masks that require grad, unbatched inputs, Ev != E, the fast paths of torch.nn in evaluation
    mode (see watch; accelerate is for these), and code that was compiled to C++ (AOTInductor,
    cpp_wrapper).

    A score that is NaN makes its row NaN, where PyTorch's kernel may give 0.

    Installations nest: the last one's context counts, and PyTorch's kernel returns when all are
    undone. Once installed, any number of threads may compute; the first install and the last
    uninstall are for a moment when none does, as PyTorch replaces kernels without a lock.

    Args:
        context: threads, engine and kernels; None: as many threads as torch.get_num_threads()
            says at each call
        dropout: whether calls with dropout are answered, too, as they are in training: by weights
            that are other ones than PyTorch drops, and by gradients of this library's, whatever the
            sizes. PyTorch's default generator draws a seed for each call, so that
            torch.manual_seed says what is dropped. Everything that PyTorch would rather compute
            (torch.compile, torch.func, torch.inference_mode) is left to it

    Returns:
        A context manager that undoes it.

    Raises:
        RuntimeError: PyTorch has no torch.library.get_kernel.
    """
    installation = Installation(context, bool(dropout))
    with _changes:
        _apply([*_installations, installation])
    return installation


def uninstall() -> None:
    """Undoes every install: PyTorch's kernel, and with it the old bits, are back."""
    with _changes:
        _apply([])


def report() -> Report:
    """What became of the calls since libattention was installed, by then or still."""
    return _tally.report()


class watch(TorchDispatchMode):  # noqa: N801
    """Counts, in this thread, the attention that goes other ways, for report().

    Every operator of PyTorch becomes slower meanwhile, and torch.compile compiles nothing anew.
    Code that was compiled to C++ does not show.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """PyTorch's protocol."""
        where = ELSEWHERE.get(func._schema.name)
        if where is not None:
            _tally.count(_tally.elsewhere, where)
        return func(*args, **(kwargs or {}))


class _Tally:
    """Counts of all threads. A signal's handler may compute attention, too, so that the lock lets
    its own thread in.
    """

    def __init__(self) -> None:
        self.renew_lock()
        self.answered: Counter[str] = Counter()
        self.handed_back: Counter[str] = Counter()
        self.gradients_handed_back: Counter[str] = Counter()
        self.elsewhere: Counter[str] = Counter()

    def renew_lock(self) -> None:
        self._lock = threading.RLock()

    def count(self, counter: Counter[str], what: str) -> None:
        with self._lock:
            counter[what] += 1

    def report(self) -> Report:
        with self._lock:
            dropped = self.answered[FUNCTION]
            return Report(
                self.answered[OPERATOR] + dropped,
                dict(self.handed_back),
                dict(self.elsewhere),
                self.answered[BACKWARD],
                dict(self.gradients_handed_back),
                dropped,
            )


class _Registration:
    """PyTorch's kernels replaced, until destroyed."""

    def __init__(self) -> None:
        if not hasattr(torch.library, "get_kernel"):
            raise RuntimeError(
                f"install: PyTorch {torch.__version__} cannot hand calls back, "
                "it has no torch.library.get_kernel"
            )
        self.context: Context | None = None
        self._dropout: DropoutRegistration | None = None
        # What is here now, PyTorch's or a third party's.
        self._originals = {
            name: torch.library.get_kernel(f"aten::{name}", "CPU").call_boxed
            for name in (OPERATOR, BACKWARD)
        }
        library: Any = torch.library  # without type hints
        self._library = library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            # PyTorch tells once in a process that a kernel was replaced, which is what was asked.
            warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
            self._library.impl(OPERATOR, self._compute, "CPU", with_keyset=True)
            self._library.impl(BACKWARD, self._differentiate, "CPU", with_keyset=True)

    def set_dropout(self, is_wanted: bool) -> None:
        """Whether calls with dropout are answered."""
        if is_wanted and self._dropout is None:
            self._dropout = DropoutRegistration(self.context_now, _count_dropped)
        elif not is_wanted and self._dropout is not None:
            self._dropout.destroy()
            self._dropout = None

    def destroy(self) -> None:
        self.set_dropout(False)
        self._library._destroy()
        kind_of_call.cache_clear()
        kind_of_backward.cache_clear()

    def _compute(
        self,
        keyset: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        attn_mask: torch.Tensor | None = None,
        scale: float | None = None,
    ) -> Any:
        """The operator."""
        found = self._answer(query, key, value, dropout_p, is_causal, attn_mask, scale)
        if not isinstance(found, str):
            _tally.count(_tally.answered, OPERATOR)
            return found
        _tally.count(_tally.handed_back, found)
        options = {"attn_mask": attn_mask, "scale": scale}
        original = self._originals[OPERATOR]
        return original(keyset, query, key, value, dropout_p, is_causal, **options)

    def _answer(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        dropout_p: float,
        is_causal: bool,
        mask: torch.Tensor | None,
        scale: float | None,
    ) -> tuple[torch.Tensor, torch.Tensor] | str:
        """The operator's results, or why PyTorch is to compute them."""
        reason = _reason_of_numbers(query, (key, value), dropout_p)
        if reason:
            return reason
        kind = kind_of_call(
            query.dtype,
            query.shape,
            query.stride(),
            key.shape,
            key.stride(),
            value.shape,
            value.stride(),
            is_causal,
            scale,
            None if mask is None else (mask.dtype, mask.shape, mask.stride()),
        )
        if isinstance(kind, str):
            return kind
        found = kind.run(handle_of(self.context_now()), query, key, value, mask)
        return _refused(found) if isinstance(found, int) else found

    def _differentiate(
        self,
        keyset: Any,
        gradient: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        output: torch.Tensor,
        lse: torch.Tensor,
        dropout_p: float,
        is_causal: bool,
        *,
        attn_mask: torch.Tensor | None = None,
        scale: float | None = None,
    ) -> Any:
        """The operator's backward."""
        given = (query, key, value, output, lse, gradient)
        found = self._answer_backward(given, dropout_p, is_causal, attn_mask, scale)
        if not isinstance(found, str):
            _tally.count(_tally.answered, BACKWARD)
            return found
        _tally.count(_tally.gradients_handed_back, found)
        options = {"attn_mask": attn_mask, "scale": scale}
        return self._originals[BACKWARD](
            keyset, gradient, *given[:5], dropout_p, is_causal, **options
        )

    def _answer_backward(
        self,
        given: tuple[torch.Tensor, ...],
        dropout_p: float,
        is_causal: bool,
        mask: torch.Tensor | None,
        scale: float | None,
    ) -> tuple[torch.Tensor, ...] | str:
        """The backward's results, or why PyTorch is to compute them. Its logarithm of a row that
        sees nothing is 0, by which the weights of that row, of scores of -inf, are 0, too."""
        query, key, value, output, lse, gradient = given
        reason = _reason_of_numbers(query, (key, value, output, gradient), dropout_p)
        if reason:
            return reason
        if lse.dtype is not score_dtype(query.dtype):
            return "dtypes differ"
        kind = kind_of_backward(
            query.dtype,
            tuple((one.shape, one.stride()) for one in given),
            is_causal,
            scale,
            None if mask is None else (mask.dtype, mask.shape, mask.stride()),
        )
        if isinstance(kind, str):
            return kind
        found = kind.run(handle_of(self.context_now()), given, mask)
        return _refused(found) if isinstance(found, int) else found

    def context_now(self) -> Context:
        """The installation's, or one of as many threads as PyTorch has now."""
        return self.context or context_now()


def _reason_of_numbers(
    query: torch.Tensor, others: tuple[torch.Tensor, ...], dropout_p: float
) -> str:
    """Why PyTorch is to compute, whatever the shapes; "" if it need not."""
    if dropout_p != 0:
        return "dropout"
    if query.dtype not in DTYPES:
        return str(query.dtype)
    if any(one.dtype is not query.dtype for one in others):
        return "dtypes differ"
    return ""


def _refused(status: int) -> str:
    return f"the library's {string(lib.attn_status_name(status))}"


def _count_dropped(reason: str | None) -> None:
    """A call with dropout: why PyTorch computed it, or None."""
    if reason is None:
        _tally.count(_tally.answered, FUNCTION)
    else:
        _tally.count(_tally.handed_back, reason)


def _apply(installations: list[Installation]) -> None:
    """Makes these the ones in force. The caller holds _changes."""
    global _installations, _registration, _tally
    if installations and _registration is None:
        _registration = _Registration()
        _tally = _Tally()
    elif not installations and _registration is not None:
        _registration.destroy()
        _registration = None
    if _registration is not None:
        _registration.context = installations[-1].context
        _registration.set_dropout(installations[-1].dropout)
    _installations = installations


def _renew_locks() -> None:
    """In a forked child, where the thread that held them does not exist."""
    global _changes
    _changes = threading.Lock()
    _tally.renew_lock()


_changes = threading.Lock()
_installations: list[Installation] = []
_registration: _Registration | None = None
_tally = _Tally()
os.register_at_fork(after_in_child=_renew_locks)
