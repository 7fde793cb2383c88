"""A deployed model's program as the bytes of an ONNX file."""

import json

import jax
import numpy as np
import onnx
from onnx import helper

from snnvit_jax.deployment.onnx.graph import OPSET, Graph
from snnvit_jax.deployment.onnx.translate import translate
from snnvit_jax.deployment.onnx.values import Constant, Tensor

IMAGES, LOGITS, BATCH = "images", "logits", "batch"
_IR_VERSION = 9  # what runtimes of 2023 read already
_FLOAT = onnx.TensorProto.FLOAT


def model_bytes(function, weights, about, masks):
    """Returns an ONNX model: "images" [batch, ...], normalised -> "logits" [batch, classes].

    Weights are initialisers under their own names; a kernel of a convolution has ONNX's order of
    axes. What is known of the model is among its properties: "about" and "masks", JSON.

    Args:
      function: pure, (weights, images) -> logits; it is traced, not run.
      weights: {name: float32 array}.
      about: see `Deployed.about`.
      masks: {spiking layer: list of 0 and 1}, its schedule.

    Raises:
      NotImplementedError: naming a primitive of the program that has no counterpart here.
      ValueError: for another dtype than float32, or what ONNX's checker refuses.
    """
    if about["dtype"] != "float32":
        raise ValueError(
            f"dtype={about['dtype']!r}: models for ONNX are float32; deploy with dtype='float32'"
        )
    (batch,) = jax.export.symbolic_shape(BATCH)
    images = Tensor(IMAGES, (batch, *about["image_shape"]), np.dtype(np.float32))
    program = jax.make_jaxpr(function)(weights, jax.ShapeDtypeStruct(images.shape, "float32"))
    graph = Graph(images, batch)
    leaves = {name: Constant(np.asarray(array), name) for name, array in weights.items()}
    ordered = jax.tree.leaves(leaves, is_leaf=lambda x: isinstance(x, Constant))
    (logits,) = translate(graph, program, [*ordered, images])
    whole = graph.whole(logits, program.out_avals[0].shape)
    graph.nodes.append(helper.make_node("Identity", [graph.name_of(whole)], [LOGITS], LOGITS))
    model = _model(graph, images, whole, {"about": about, "masks": masks})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _model(graph, images, logits, properties):
    def described(name, shape):
        sizes = [BATCH, *(int(n) for n in shape[1:])]
        return helper.make_tensor_value_info(name, _FLOAT, sizes)

    made = helper.make_graph(
        graph.nodes,
        "snnvit_jax",
        [described(IMAGES, images.shape)],
        [described(LOGITS, logits.shape)],
        graph.tensors(),
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="snnvit_jax",
        producer_version=properties["about"]["snnvit_jax"],
        ir_version=_IR_VERSION,
    )
    helper.set_model_props(model, {key: json.dumps(value) for key, value in properties.items()})
    return model
