"""Writes a network that ``torch.export`` has traced as plain Python source."""

from __future__ import annotations

import builtins
import keyword
import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import GraphModule, Node

from nasproxy.export.refusal import refusal

GUARDS = ("_assert", "sym_constrain_range")
RESERVED = {*keyword.kwlist, *dir(builtins), "aten", "math", "operator", "torch", "weights", "x"}


class NetworkSource:
    """Writes a traced network as Python functions over ``torch.ops.aten``."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._functions: list[str] = []
        self._parts = 0

    def text(self, one_by_one: bool) -> str:
        """The functions, among them ``forward(weights, x)``.

        Raises:
            ExportError: an operation needs more than torch to run, or the result is not one tensor.
        """
        name = "_forward_one" if one_by_one else "forward"
        signature = "(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:"
        purpose = '    """The logits of normalised images."""'
        module, values = self._program.graph_module, self._inputs()
        values |= _names(module, set(values))
        self._add(f"def {name}{signature}\n{purpose}", module, values, f"return {values[self._result()]}")
        if one_by_one:
            body = f"    return torch.cat([{name}(weights, image) for image in x.split(1)])"
            self._functions.append(f"def forward{signature}\n{purpose}\n{body}")
        return "\n\n\n".join(self._functions)

    def _inputs(self) -> dict[Node, str]:
        """The expression that each input of the network stands for."""
        nodes = {node.name: node for node in self._program.graph.nodes}
        inputs = {}
        for spec in self._program.graph_signature.input_specs:
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                inputs[nodes[spec.arg.name]] = f"weights[{spec.target!a}]"
            elif spec.kind is InputKind.USER_INPUT:
                inputs[nodes[spec.arg.name]] = "x"
            else:
                raise refusal(f"it holds an object that is not a tensor, {spec.target!a}")
        return inputs

    def _result(self) -> Node:
        outputs: Any = self._program.graph.output_node().args[0]
        specs = self._program.graph_signature.output_specs
        results = [node for node, spec in zip(outputs, specs, strict=True) if spec.kind is OutputKind.USER_OUTPUT]
        if len(results) != 1 or not isinstance(results[0], Node):
            raise refusal(f"it gives {len(results)} results, expected one tensor of logits")
        return results[0]

    def _add(self, header: str, module: GraphModule, values: dict[Node, str], end: str) -> None:
        for node in module.graph.nodes:
            # Guards of the trace: what they check holds wherever the logits are right.
            if node.op == "call_function" and getattr(node.target, "__name__", "").startswith(GUARDS):
                module.graph.erase_node(node)
        module.graph.eliminate_dead_code()
        lines = []
        for node in module.graph.nodes:
            if node.op == "get_attr":
                part: Any = module.get_submodule(str(node.target))
                values[node] = self._add_part(part)
            elif node.op == "call_function":
                lines += _statement(node, values)
        self._functions.append("\n    ".join([header, *lines, end]))

    def _add_part(self, module: GraphModule) -> str:
        """Writes a nested graph as a function of its own; returns the function's name."""
        values = _names(module, set())
        inputs = ", ".join(values[node] for node in module.graph.nodes if node.op == "placeholder")
        outputs = module.graph.output_node().args[0]
        self._parts += 1
        name = f"_part_{self._parts}"
        self._add(f"def {name}({inputs}):", module, values, f"return {_literal(outputs, values)}")
        return name


def _names(module: GraphModule, known: set[Node]) -> dict[Node, str]:
    """A name for each node of a graph, distinct from each other and from all that the file uses."""
    taken = {node.name for node in module.graph.nodes}
    names = {}
    for node in module.graph.nodes:
        if node in known:
            continue
        name = node.name
        while name in RESERVED or (name != node.name and name in taken):
            name += "_"
        taken.add(name)
        names[node] = name
    return names


def _statement(node: Node, values: Mapping[Node, str]) -> list[str]:
    """The lines that compute a node."""
    arguments = [_literal(argument, values) for argument in node.args]
    assign = f"{values[node]} = " if node.users else ""
    higher_order = getattr(node.target, "__name__", "")
    if higher_order == "wrap_with_set_grad_enabled":  # gradients are off throughout
        return [f"{assign}{arguments[1]}({', '.join(arguments[2:])})"]
    if higher_order == "wrap_with_autocast":
        device, dtype, enabled, _, function, *rest = arguments
        context = f"with torch.autocast({device}, dtype={dtype}, enabled={enabled}):"
        return [context, f"    {assign}{function}({', '.join(rest)})"]
    arguments += [f"{key}={_literal(argument, values)}" for key, argument in node.kwargs.items()]
    return [f"{assign}{_function(node.target)}({', '.join(arguments)})"]


def _function(target: Any) -> str:
    """The expression for an operation."""
    if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten":
        # The layout of the model's weights, which the file does not keep, may be what allowed the view.
        return "aten.reshape.default" if str(target) == "aten.view.default" else str(target)
    name = getattr(target, "__name__", "")
    for prefix, module in (("operator", operator), ("math", math), ("torch", torch)):
        if name and getattr(module, name, None) is target:
            return f"{prefix}.{name}"
    raise refusal(f"it uses {target}, which torch alone does not provide")


def _literal(value: Any, values: Mapping[Node, str]) -> str:
    """The expression for an argument."""
    match value:
        case Node():
            return values[value]
        case list():
            return f"[{', '.join(_literal(item, values) for item in value)}]"
        case tuple():
            return f"({''.join(_literal(item, values) + ', ' for item in value)})"
        case float():
            # float.__repr__: that of a NumPy float, which is a float, names NumPy.
            return float.__repr__(value) if math.isfinite(value) else f"float({float.__repr__(value)!r})"
        case None | bool() | int() | str():
            return ascii(value)
        case torch.dtype() | torch.layout() | torch.memory_format():
            return str(value)
        case torch.device(type="cpu"):
            return 'torch.device("cpu")'
    raise refusal(f"it uses the value {value!a}, which only this process knows")
