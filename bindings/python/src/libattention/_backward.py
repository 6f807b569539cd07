# SPDX-License-Identifier: BSD-3-Clause
"""The gradients of scaled dot-product attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from libattention._abi import ffi
from libattention._attention import add_sequences
from libattention._context import Context, context_for, handle_of
from libattention._dtypes import BOOL, DATA, STORED, Role
from libattention._kv import KV, MOST_VIEWS, check_kv
from libattention._library import Error, lib, raise_last_error
from libattention._options import OPTION_NAMES, FurtherOptions, Options
from libattention._tensors import (
    Empty,
    Views,
    contiguous_layout,
    described,
    floats,
    kind_of,
    note_written,
    refuse_stand_ins,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Gradients(NamedTuple):
    """Of a call, each with its input's shape and dtype; None where it was not wanted."""

    query: Any = None
    key: Any = None
    value: Any = None
    attn_mask: Any = None
    bias: Any = None
    position_bias: Any = None
    alibi_slopes: Any = None
    sinks: Any = None


class Results(NamedTuple):
    """Of the forward call, or their gradients: lse and weights may be None."""

    output: Any
    lse: Any = None
    weights: Any = None


class Call(NamedTuple):
    """What the forward call was given."""

    query: Any
    key: Any
    value: Any
    options: Options
    kv: KV | None = None
    query_starts: Any = None

    def arrays(self) -> Iterator[Any]:
        """All that may be arrays."""
        yield from (self.query, self.key, self.value, *self.options, self.query_starts)
        yield from self.kv or ()


# What C calls otherwise.
_FIELDS = {"attn_mask": "mask"}
BACKWARD_NAMES = {
    **OPTION_NAMES,
    "gradients.output": "grad_output",
    "gradients.lse": "grad_lse",
    "gradients.weights": "grad_weights",
    "gradients.mask": "gradients.attn_mask",
}
# Those of what goes in and comes out beside the forward call's own.
MOST_BACKWARD_VIEWS = MOST_VIEWS + 4 + len(Gradients._fields)
# Arrays of any float dtype, and masks, whose gradient the library refuses in its words.
_ANY = Role((*DATA.dtypes, BOOL), DATA.expected, DATA.advice)
USUAL = ("query", "key", "value")


def scaled_dot_product_attention_backward(
    grad_output: Any,
    query: Any,
    key: Any = None,
    value: Any = None,
    output: Any = None,
    lse: Any = None,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    kv: KV | None = None,
    query_starts: Any = None,
    grad_lse: Any = None,
    grad_weights: Any = None,
    wanted: Sequence[str] = USUAL,
    out: Mapping[str, Any] | None = None,
    accumulate: bool = False,
    context: Context | None = None,
    **options: Unpack[FurtherOptions],
) -> Gradients:
    """Computes the gradients of a call of scaled_dot_product_attention.

    Nothing of size L x S is kept between the two calls or made in this one: weights are computed
    again, block by block, from lse.

    Args:
        grad_output: the gradient of the output, (..., Hq, L, Ev); query's dtype, or float32 beside
            16 bits
        query: as in the call
        key: as there
        value: as there
        output: what the call returned; of 16 bits its rounding enters, which out= of float32 in
            that call avoids
        lse: what it returned beside with return_lse, which softmax needs
        attn_mask: as there
        is_causal: as there
        scale: as there
        enable_gqa: as there
        kv: as there. Gradients of keys and values have the shape of kv.key and kv.value. Of pages
            and of quantised ones there are none
        query_starts: as there
        grad_lse: the gradient of lse; None: 0
        grad_weights: the gradient of the weights, (..., Hq, L, S), or (..., L, S) of their mean
            over the heads; None: 0
        wanted: which gradients, by the arguments' names: "query", "key", "value", "attn_mask"
            (not a bool one), "bias", "position_bias", "alibi_slopes", "sinks"
        out: where to put them, by name; what is wanted and not in it is a new array. Of the input's
            shape and dtype, or float32 beside 16 bits; must not overlap each other or an input
        accumulate: they are added to what the arrays of out hold: parts of a batch, or of a
            sequence whose keys come in turns
        context: threads and kernels; None: as in scaled_dot_product_attention
        options: as there, from bias to dropout

    Returns:
        Gradients, by name, of query's kind and each of its input's dtype and shape: where the input
        repeats (broadcast batches, heads that share a key, one row of a mask for all) it is the
        sum. None where it is not wanted.

    A row or key that is hidden from each other by position enters no gradient of the other's; a
    row that sees nothing, and a key that no row sees, has gradients of 0, and so has a row of no
    sequence, which is left as it is in out. Gradients do not depend on the number of threads.
    Computing is float32's beside 16 bits, and rounded once. The GIL is released while computing.
    Since 0.1.

    PyTorch differentiates scaled_dot_product_attention itself by this function; second derivatives
    are its own.

    Raises:
        Error: the first argument that does not fit, by name.
    """
    if kv is not None:
        check_kv(kv)
    given = Options(attn_mask, is_causal, scale, enable_gqa, **options)
    call = Call(query, key, value, given, kv, query_starts)
    results = Results(output, lse)
    gradients = Results(grad_output, grad_lse, grad_weights)
    places = dict(out or {})
    refuse_stand_ins(
        *call.arrays(), *results, *gradients, *places.values(),
        instead="let PyTorch differentiate scaled_dot_product_attention",
    )  # fmt: skip
    return differentiate(
        call, results, gradients, wanted_names(wanted, places), places, accumulate, context
    )


def wanted_names(wanted: Any, places: Mapping[str, Any] | None = None) -> list[str]:
    """In the order of Gradients, none twice: those that are wanted, and those of places."""
    places = places or {}
    if isinstance(wanted, str):
        wanted = (wanted,)
    for name in (*wanted, *places):
        if name not in Gradients._fields:
            expected = ", ".join(Gradients._fields)
            text = f"wanted: expected some of {expected}, got {name!r:.100}"
            raise Error(lib.ATTN_ERROR_VALUE, text)
    return [name for name in Gradients._fields if name in wanted or name in places]


class Prepared(NamedTuple):
    """The arguments of attn_sdpa_backward, and where gradients come to lie, by name. `kept` lives
    as long as what the pointers point to has to."""

    inputs: tuple[Any, ...]
    params: Any
    output: Any
    gradients: Any
    found: dict[str, Any]
    kept: Any


def differentiate(
    call: Call,
    results: Results,
    gradients: Results,
    wanted: Sequence[str],
    places: Mapping[str, Any] | None = None,
    accumulate: bool = False,
    context: Context | None = None,
) -> Gradients:
    """scaled_dot_product_attention_backward of arrays that hold their numbers.

    Args:
        call: the forward call
        results: its output and lse
        gradients: of output, lse and weights
        wanted: names of Gradients
        places: where to put them, by name
        accumulate: as there
        context: as there

    Returns:
        As there.
    """
    places = places or {}
    prepared = prepare(call, results, gradients, wanted, places, accumulate)
    handle = handle_of(context_for(context, call.query))
    status = lib.attn_sdpa_backward(handle, *prepared.inputs, *prepared[1:4], ffi.NULL, 0)
    if status:
        raise_last_error(status, BACKWARD_NAMES)
    note_written(*places.values())
    return finished(call, prepared.found, places)


def prepare(
    call: Call,
    results: Results,
    gradients: Results,
    wanted: Sequence[str],
    places: Mapping[str, Any],
    accumulate: bool,
) -> Prepared:
    """Views of everything; what is wanted and has no place is a new array."""
    views = Views(MOST_BACKWARD_VIEWS)
    kind = kind_of(call.query, "query")
    inputs, params, place_of_kv = add_sequences(views, *call)
    if results.lse is not None:
        params.lse = views.add_array(results.lse, "lse")
    output = ffi.NULL if results.output is None else views.add_array(results.output, "output")
    size = ffi.sizeof("attn_sdpa_gradients")
    struct = ffi.new("attn_sdpa_gradients *", {"struct_size": size, "accumulate": bool(accumulate)})
    for field, array in gradients._asdict().items():
        if array is not None:
            setattr(struct, field, views.add_array(array, f"grad_{field}"))
    found, made = {}, []
    for name in wanted:
        place = places.get(name)
        if place is None:
            found[name], view = views.add_new(_empty_of(call, name), kind, f"gradients.{name}")
            made.append(found[name])
        else:
            found[name], view = place, views.add_array(place, f"out[{name!r}]", writable=True)
        setattr(struct, _FIELDS.get(name, name), view)
    is_ragged = call.kv is not None or call.query_starts is not None
    for array in made if is_ragged or accumulate else ():
        array[...] = 0
    views.finish()
    return Prepared(inputs, params, output, struct, found, (views, place_of_kv))


def finished(call: Call, found: Mapping[str, Any], places: Mapping[str, Any]) -> Gradients:
    """What was prepared, once it is computed."""
    kind = kind_of(call.query, "query")
    return Gradients(
        **{
            name: array if name in places else kind.finished(array, call.query)
            for name, array in found.items()
        }
    )


def add_wanted(views: Views, call: Call, wanted: Sequence[str], struct: Any) -> None:
    """What is wanted, of these names, as fields of an attn_sdpa_gradients, without memory."""
    for name in wanted:
        view = views.add_layout(contiguous_layout(_empty_of(call, name)))
        setattr(struct, _FIELDS.get(name, name), view)


def _empty_of(call: Call, name: str) -> Empty:
    """Dtype and shape of a gradient: its input's."""
    if call.kv is not None and name in ("key", "value"):
        view = described(getattr(call.kv, name), f"kv.{name}", STORED)
    else:
        array = getattr(call, name, None) if name in USUAL else getattr(call.options, name)
        if array is None:
            text = f"gradients.{name}: expected it not to be wanted without {name}"
            raise Error(lib.ATTN_ERROR_VALUE, text)
        view = described(floats(array, name), name, _ANY)
    return Empty(view.dtype, view.shape)
