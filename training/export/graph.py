"""A network as an ONNX graph.

Tracing takes longer than all else of an export, and the same layers give the same graph whatever they have learned: a
process traces them once, and puts the weights of every further round into that graph.
"""

import copy
import logging
import pickle
import warnings

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxscript.optimizer import remove_unused_nodes
from torch import nn
from torch.export import Dim

from alserve.errors import ModelError
from alserve.geometry import STRIDE
from alserve.modelfile import INPUT, OUTPUTS

_traced: dict[tuple[bytes | None, int], torch.onnx.ONNXProgram] = {}
"""Graphs without weights, by what they depend on."""

MOST_TRACED = 8
"""Number of them that are kept."""


def onnx_model(served: nn.Module, short_side: int) -> onnx.ModelProto:
    """Return a network as an ONNX model, of any batch and of any sides that are multiples of `STRIDE`.

    Args:
        served: The network in evaluation mode, on the CPU, of inputs and outputs as in `alserve.modelfile`.
        short_side: Short side of the image that it is traced with, in pixels.

    Raises:
        ModelError: torch does not export it.
    """
    layers = _layers(served)
    if layers is None or (layers, short_side) not in _traced:
        if len(_traced) == MOST_TRACED:
            del _traced[next(iter(_traced))]
        _traced[layers, short_side] = _trace(served, short_side)
    program = torch.onnx.ONNXProgram(_traced[layers, short_side].model.clone(), None)
    names = program.model.graph.initializers.keys()
    program.apply_weights({name: values for name, values in _weights(served).items() if name in names})
    program.optimize()
    return _without_notes(_double_by_scale(program.model_proto))


def _layers(served: nn.Module) -> bytes | None:
    """Return the layers as bytes, without the values of their weights; None of layers that cannot be pickled."""
    try:
        return pickle.dumps(copy.deepcopy(served).to("meta"))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


def _weights(served: nn.Module) -> dict[str, torch.Tensor]:
    return dict([*served.named_parameters(remove_duplicate=False), *served.named_buffers(remove_duplicate=False)])


def _trace(served: nn.Module, short_side: int) -> torch.onnx.ONNXProgram:
    """Trace a network; its weights are left out."""
    example = torch.zeros(2, short_side, short_side + STRIDE, 3, dtype=torch.uint8)
    sizes = {0: Dim("batch"), 1: STRIDE * Dim("rows"), 2: STRIDE * Dim("columns")}
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                served,
                (example,),
                dynamo=True,
                external_data=False,
                verbose=False,
                optimize=False,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=(sizes,),
            )
    finally:
        quiet.setLevel(level)
    if program is None:
        raise ModelError("torch did not export the network")
    initializers = program.model.graph.initializers
    for name in _weights(served).keys() & initializers.keys():
        initializers[name].const_value = None
    return torch.onnx.ONNXProgram(program.model, None)


def _double_by_scale(model: onnx.ModelProto) -> onnx.ModelProto:
    """Set a scale for the decoder's doublings, not a computed size: ONNX Runtime keeps its layout through them."""
    doublings = [node for node in model.graph.node if node.op_type == "Resize" and _mode(node) == b"nearest"]
    for node in doublings:
        del node.input[1:]
        node.input.extend(["", "doubled"])
    if doublings:
        model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "doubled"))
    remove_unused_nodes(model)
    return model


def _mode(node: onnx.NodeProto) -> bytes:
    return next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest")


def _without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes: stack traces with this machine's paths, and lists that differ from run to run."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return model
