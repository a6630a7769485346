"""A session for each shape of a batch, as on a GPU: the same answers, no more than so many, and memory given back."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from pictures import picture

from alserve import Predictor
from alserve.arrays import UInt8
from alserve.runtime.libraries import Model
from alserve.runtime.libraries.onnx_runtime import CPU, OnnxRuntime


def opened(data: bytes, shapes: int) -> OnnxRuntime:
    return OnnxRuntime(Model(data, Path("model.onnx"), number=0, threads=1, callers=1), CPU, shapes)


def batch(height: int) -> UInt8:
    return picture(height, 64, height)[None]


def test_each_shape_has_a_session_and_the_answers_are_the_same(predictor: Predictor) -> None:
    data = predictor.engine.path.read_bytes()
    one, several = opened(data, 1), opened(data, 2)
    batches = [batch(height) for height in (32, 64, 96, 32, 64, 64)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(several.run, batches))
    for images, outputs in zip(batches, found, strict=True):
        for expected, output in zip(one.run(images), outputs, strict=True):
            np.testing.assert_allclose(output, expected, atol=1e-5)
    assert one._sessions.cache_info().currsize == 1
    assert several._sessions.cache_info().currsize == 2


def hungry() -> bytes:
    """A network that needs no memory for images lower than 64 pixels, and 40 TB for higher ones."""
    constants = {"step": 64, "times": 10**13}
    graph = helper.make_graph(
        [
            *(
                helper.make_node("Constant", [], [name], value=helper.make_tensor("", TensorProto.INT64, [1], [value]))
                for name, value in constants.items()
            ),
            helper.make_node("Shape", ["images"], ["height"], start=1, end=2),
            helper.make_node("Div", ["height", "step"], ["steps"]),
            helper.make_node("Mul", ["steps", "times"], ["length"]),
            helper.make_node("ConstantOfShape", ["length"], ["zeros"]),
        ],
        "hungry",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, "height", "width", 3])],
        [helper.make_tensor_value_info("zeros", TensorProto.FLOAT, ["length"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def test_where_memory_is_lacking_the_sessions_of_other_shapes_are_given_up() -> None:
    runtime = opened(hungry(), 4)
    for height in (16, 32):
        runtime.run(batch(height))
    assert runtime._sessions.cache_info().currsize == 2
    with pytest.raises(Exception, match="Failed to allocate memory"):
        runtime.run(batch(64))
    assert runtime._sessions.cache_info().currsize == 1  # it was tried once more, alone
    assert runtime.run(batch(16))[0].shape == (0,)
