"""A small builder of ONNX graphs: operators by name, weights as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.compose
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["OPSET", "Graph"]

#: Versions of the operator sets and of the file format; runtimes that are years old read them.
OPSET = {"": 17, "ai.onnx.ml": 3, "com.microsoft": 1}
_FILE_FORMAT = 8
_TYPES = {"int64": TensorProto.INT64, "int32": TensorProto.INT32, "float": TensorProto.FLOAT, "str": TensorProto.STRING}


class Graph:
    """An ONNX graph that grows by one operator a call.

    Values are named by strings. :meth:`add` returns the name of its result, which is the argument of the next call.

    Args:
        prefix: begin of all names, which must differ between a graph and the bodies of its loops.
        separated: whether LSTMs read sentences one behind the other, see :mod:`structkd.export.encoders`.
    """

    def __init__(self, prefix: str = "", separated: bool = True) -> None:
        self.prefix, self.separated = prefix, separated
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: str, axes: Sequence[str | int]) -> str:
        """Declare an input of type "int64", "int32", "float" or "str", with names of its axes, if it is not yet."""
        if all(name != each.name for each in self.inputs):
            self.inputs.append(helper.make_tensor_value_info(name, _TYPES[kind], list(axes)))
        return name

    def output(self, value: str, name: str, kind: str, axes: Sequence[str | int]) -> str:
        """Declare a value as an output of that name, and return the name, which it has from now on.

        The result of an operator is renamed, so that it is not copied. Bodies of loops keep the old name.
        """
        if any(value in node.output for node in self.nodes) and all(value != each.name for each in self.outputs):
            for node in self.nodes:
                for names in (node.input, node.output):
                    names[:] = [name if each == value else each for each in names]
        else:
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, _TYPES[kind], list(axes)))
        return name

    def constant(self, value: Any, name: str = "constant") -> str:
        """Return the name of a constant array; weights keep float32, other numbers are int64."""
        array: NDArray[Any] = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        name = f"{self.prefix}{name}_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Append an operator.

        Args:
            operator: its name in the operator set.
            inputs: names of values; "" leaves an optional one out.
            outputs: number of results.
            domain: of the operator set.
            attributes: of the operator.

        Returns:
            The name of the result, or a list of names if there are several.
        """
        names = [f"{self.prefix}{operator}_{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, name=names[0], domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def graft(self, model: onnx.ModelProto, prefix: str, inputs: Mapping[str, str]) -> str:
        """Append another graph with one output, whose names get a prefix.

        Args:
            model: the graph.
            prefix: before its names.
            inputs: the value here for each of its inputs.

        Returns:
            The name of its output.
        """
        prefix = f"{prefix}grafted."
        grafted = onnx.compose.add_prefix(model, prefix).graph
        self.nodes += [helper.make_node("Identity", [value], [prefix + name]) for name, value in inputs.items()]
        self.nodes += grafted.node
        self.weights += grafted.initializer
        return str(grafted.output[0].name)

    def body(self, name: str) -> onnx.GraphProto:
        """Return the graph as the body of a loop; it may use values of the graph around it."""
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.weights)

    def model(self, name: str, facts: Mapping[str, str]) -> onnx.ModelProto:
        """Return the checked model, with plain facts about it in its metadata."""
        sets = [helper.make_opsetid(domain, version) for domain, version in OPSET.items()]
        model = helper.make_model(
            self.body(name), opset_imports=sets, ir_version=_FILE_FORMAT, producer_name="structkd"
        )
        helper.set_model_props(model, dict(facts))
        onnx.checker.check_model(model)
        return model
