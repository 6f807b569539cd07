# SPDX-License-Identifier: BSD-3-Clause
"""Nodes of ONNX's operators of attention, computed by libattention. It needs the package onnx.

`run_node` computes one node. `Backend` is what onnx.backend.test and other programs know, and runs
graphs of such nodes. The operators are Attention (opset 23 and later), RotaryEmbedding (23),
RMSNormalization (23) and TensorScatter (24): their inputs, attributes and defaults in each opset
are those of the onnx package that is installed. Of the domain com.microsoft, which that package
does not know, they are ONNX Runtime's MultiHeadAttention, GroupQueryAttention and Attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.backend.base
import onnx.defs
import onnx.helper
import onnx.numpy_helper

from libattention._context import Context
from libattention._library import unsupported
from libattention._onnx_attention import attention
from libattention._onnx_nodes import Array, Node, Signature, refuse
from libattention._onnx_rows import rms_normalization, rotary_embedding, tensor_scatter
from libattention._onnx_runtime import (
    GROUPED,
    MULTI_HEAD,
    PACKED,
    group_query_attention,
    multi_head_attention,
    packed_attention,
)

__all__ = ["Backend", "run_node"]

ONNX_RUNTIME = "com.microsoft"
OPERATORS: dict[tuple[str, str], Callable[[Node], list[Array | None]]] = {
    ("", "Attention"): attention,
    ("", "RotaryEmbedding"): rotary_embedding,
    ("", "RMSNormalization"): rms_normalization,
    ("", "TensorScatter"): tensor_scatter,
    (ONNX_RUNTIME, "MultiHeadAttention"): multi_head_attention,
    (ONNX_RUNTIME, "GroupQueryAttention"): group_query_attention,
    (ONNX_RUNTIME, "Attention"): packed_attention,
}
_SIGNATURES = {
    "MultiHeadAttention": MULTI_HEAD,
    "GroupQueryAttention": GROUPED,
    "Attention": PACKED,
}


def run_node(
    node: onnx.NodeProto,
    inputs: Mapping[str, Any] | Iterable[Any],
    *,
    opset: int | None = None,
    context: Context | None = None,
) -> tuple[Array | None, ...]:
    """Computes a node of one of the operators.

    Args:
        node: an onnx.NodeProto
        inputs: NumPy arrays: by the names that the node gives its inputs, or in its order, without
            those that it leaves out ("")
        opset: which version of the standard's operator the node is of; None: the newest one that
            the onnx package has
        context: threads, engine and kernels; None: the default

    Returns:
        An array for each output that the node names, in its order, None for one that it leaves out.

    16 bits are computed in float32, and rounded once; so is what an operator projects, adds or
    rotates before attention. That is no less than softmax_precision and stash_type ask for, but for
    float64, which attention then computes in. What ONNX Runtime's operators hide weighs 0, whatever
    mask_filter_value is, and rows of padding are any numbers.

    Raises:
        Error: the operator, or an attribute of it, is none of those that the module has; or the
            first input or attribute that does not fit, by name. The attention's own are called as
            in scaled_dot_product_attention: query is Q.
    """
    domain, _ = key = _key(node)
    function = OPERATORS.get(key)
    if function is None:
        known = ", ".join(name for _, name in OPERATORS)
        raise unsupported(f"{node.op_type}: expected an operator of attention: {known}")
    if domain == ONNX_RUNTIME:
        signature = _SIGNATURES[node.op_type]
    else:
        signature = _signature(node.op_type, opset)
    if len(node.output) > signature.num_outputs:
        refuse(f"{node.op_type}: expected at most {signature.num_outputs} outputs")
    found = function(
        Node(
            _inputs(node, inputs, signature.inputs),
            _attributes(node, signature.attributes),
            tuple(bool(name) for name in node.output),
            signature.opset,
            context,
        )
    )
    return tuple(array if name else None for name, array in zip(node.output, found))


def _key(node: onnx.NodeProto) -> tuple[str, str]:
    """Domain and operator; the standard's domain has two names."""
    return "" if node.domain == "ai.onnx" else node.domain, node.op_type


def _signature(operator: str, opset: int | None) -> Signature:
    """As the onnx package tells it."""
    opset = onnx.defs.onnx_opset_version() if opset is None else opset
    try:
        schema = onnx.defs.get_schema(operator, opset)
    except onnx.defs.SchemaError as error:
        raise unsupported(f"{operator}: opset {opset} does not have it") from error
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    return Signature(
        {one.name: one.option == single for one in schema.inputs},
        {name: _value_of(one.default_value) for name, one in schema.attributes.items()},
        len(schema.outputs),
        schema.since_version,
    )


def _inputs(
    node: onnx.NodeProto, given: Mapping[str, Any] | Iterable[Any], names: Mapping[str, bool]
) -> dict[str, Array]:
    """By the operator's names, and whether it needs them."""
    if len(node.input) > len(names):
        refuse(f"{node.op_type}: expected at most {len(names)} inputs, got {len(node.input)}")
    used = {name: own for name, own in zip(names, node.input) if own}
    for name, is_needed in names.items():
        if is_needed and name not in used:
            refuse(f"{name}: expected a tensor, got none")
    if not isinstance(given, Mapping):
        arrays = list(given)
        if len(arrays) != len(used):
            refuse(f"inputs: expected {len(used)} arrays, got {len(arrays)}")
        return {name: np.asarray(one) for name, one in zip(used, arrays)}
    for own in used.values():
        if own not in given:
            refuse(f"inputs: expected an array for {own!r}, got none")
    return {name: np.asarray(given[own]) for name, own in used.items()}


def _attributes(node: onnx.NodeProto, known: Mapping[str, Any]) -> dict[str, Any]:
    """With the operator's defaults."""
    found = dict(known)
    for one in node.attribute:
        if one.name not in found:
            raise unsupported(f"{node.op_type}: attribute {one.name} is unknown in this opset")
        found[one.name] = _value_of(one)
    return found


def _value_of(attribute: onnx.AttributeProto) -> Any:
    if attribute.type == onnx.AttributeProto.UNDEFINED:  # a default that there is not
        return None
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


class _Prepared(onnx.backend.base.BackendRep):
    """A model that is ready to run."""

    def __init__(self, model: onnx.ModelProto, context: Context | None) -> None:
        self._graph = model.graph
        self._opset = _opset_of(model)
        self._context = context
        self._constants = {
            one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer
        }

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """The graph's outputs, of inputs by name or in the order of those that are no constants."""
        values = dict(self._constants)
        if isinstance(inputs, Mapping):
            values.update(inputs)
        else:
            names = [one.name for one in self._graph.input if one.name not in self._constants]
            arrays = list(inputs)
            if len(arrays) != len(names):
                refuse(f"inputs: expected {len(names)} arrays, got {len(arrays)}")
            values.update(zip(names, arrays))
        for node in self._graph.node:
            found = run_node(node, values, opset=self._opset, context=self._context)
            values.update((name, one) for name, one in zip(node.output, found) if name)
        return tuple(values[one.name] for one in self._graph.output)


def _opset_of(model: onnx.ModelProto) -> int:
    """Of the standard's operators."""
    versions = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    return max(versions, default=onnx.defs.onnx_opset_version())


class Backend(onnx.backend.base.Backend):
    """Graphs of the operators of attention, as onnx.backend.base tells it."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **_: Any) -> bool:
        """Whether every node is of an operator of this module."""
        are_known = all(_key(one) in OPERATORS for one in model.graph.node)
        return are_known and cls.supports_device(device)

    @classmethod
    def prepare(
        cls,
        model: onnx.ModelProto,
        device: str = "CPU",
        *,
        context: Context | None = None,
        **_: Any,
    ) -> onnx.backend.base.BackendRep:
        """Makes a model ready to run.

        Args:
            model: a graph of operators of this module
            device: "CPU"
            context: threads, engine and kernels; None: the default

        Returns:
            What has run(inputs).

        Raises:
            Error: another device, or a node of another operator.
        """
        if not cls.supports_device(device):
            raise unsupported(f"device: expected 'CPU', got {device!r}")
        for node in model.graph.node:
            if _key(node) not in OPERATORS:
                raise unsupported(f"model: operator {node.op_type} is not of attention")
        onnx.checker.check_model(model)
        return _Prepared(model, context)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Any = None,
        **options: Any,
    ) -> tuple[Any, ...]:
        """See libattention.onnx.run_node; options are opset_version and context, and outputs_info
        is not needed.
        """
        if not cls.supports_device(device):
            raise unsupported(f"device: expected 'CPU', got {device!r}")
        opset, context = options.get("opset_version"), options.get("context")
        return run_node(node, inputs, opset=opset, context=context)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is the CPU."""
        return device == "CPU"
