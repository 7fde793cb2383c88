"""A deployed model: a function of images, its weights, and its file."""

import json
import pathlib

import jax
import jax.custom_batching
import jax.export
import jax.numpy as jnp
import numpy as np

from snnvit_jax.common import files, tensors, values
from snnvit_jax.deployment import container
from snnvit_jax.extras import needed
from snnvit_jax.signals import check_images
from snnvit_jax.time_steps.schedule import TimeStepSchedule
from snnvit_jax.xla import backends
from snnvit_jax.xla.flops import compiled_flops

PLATFORMS = ("cpu", "cuda", "tpu")


def checked_dtype(dtype):
    """Returns a dtype that spikes and kernels can have, as NumPy has it.

    Args:
      dtype: it, or its name.

    Raises:
      ValueError: for any other.
    """
    try:
        dtype = jnp.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"{dtype=!r} is no dtype; use float32 or bfloat16") from error
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 2:
        raise ValueError(f"cannot deploy with dtype={dtype.name!r}; use float32 or bfloat16")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(f"dtype={dtype.name!r} needs jax.config.update('jax_enable_x64', True)")
    return dtype


class Deployed:
    """A model with its time steps compiled in: images [B, H, W, C], normalised -> logits [B, K].

    Attributes:
      schedule: the `TimeStepSchedule` it was made from.
      steps: {layer name: steps that are computed}, those of the schedule that have an effect.
      weights: {name: array}, what is left of the model's, normalisations folded in.
      about: what else is known of it, as plain values: "model" and "family" (names), "config",
        "image_shape" ([H, W, C], [T, H, W, C] of recordings), "dtype", "steps" (as above), "merged"
        (names of the linear maps that became part of another one), "jax" and "snnvit_jax" (versions
        that made it), and, if they were given, "classes" (names in the order of the logits) and
        "reading" (how files become images).
    """

    def __init__(self, function, weights, schedule, about, program=None):
        """Keeps what makes up a deployed model; use `deploy` or `load_deployed`.

        Args:
          function: pure function of (weights, images).
          weights: its first argument.
          schedule: a `TimeStepSchedule`.
          about: dictionary that JSON can hold, with the keys above.
          program: what `function` calls as `jax.export` wrote it, bytes, if it came from a file.
            It is saved again as it is: a newer JAX would write it for newer ones alone.
        """
        self.schedule, self.weights, self.about = schedule, weights, about
        self._function, self._program = function, program
        self._compiled = backends.jit(function)

    @property
    def steps(self):
        """{layer name: steps that are computed}, in forward order."""
        return {name: tuple(steps) for name, steps in self.about["steps"].items()}

    def __call__(self, images):
        """Returns the logits [B, K].

        Args:
          images: [B, H, W, C], or recordings [B, T, H, W, C] if it was deployed for these; floating
            point, normalised as for training.

        Raises:
          ValueError: for images of another shape or kind.
        """
        self._check(images)
        return self._compiled(self.weights, jnp.asarray(images, self._image_dtype))

    def _check(self, images):
        *frames, height, width, channels = self.about["image_shape"]
        if frames and np.ndim(images) != 5:
            sizes = ", ".join(map(str, self.about["image_shape"]))
            raise ValueError(f"recordings must be [B, {sizes}], got {np.shape(images)}")
        check_images(images, (height, width), channels, *frames)

    def flops(self, batch_size):
        """Returns the floating-point operations of one call, as compiled for this machine.

        Args:
          batch_size: number of images, >= 1.

        Raises:
          ValueError: for what is no such number.
        """
        values.whole(1).check("batch_size", batch_size)
        images = jax.ShapeDtypeStruct((batch_size, *self.about["image_shape"]), self._image_dtype)
        return compiled_flops(self._function, self.weights, images)

    def save(self, path):
        """Writes everything into one file, for any batch size.

        Args:
          path: file to write; its folder must exist. One whose name ends with ".onnx" is an ONNX
            model (it needs the extra "onnx"), for runtimes that read such; one with ".snn", or
            without an ending, is for CPU, GPU (CUDA) and TPU, and `load_deployed` reads it.

        Raises:
          ValueError: for the name of any other kind of file; as ONNX, for another dtype than
            float32, or a model that was itself loaded from a file.
          MissingExtraError: for an ONNX model without the package onnx.
          NotImplementedError: naming a primitive of an own model or neuron that has no counterpart
            in ONNX.
        """
        _check_ending(path, ".snn", ".onnx")
        if str(path).endswith(".onnx"):
            files.write_bytes(path, self._as_onnx())
        else:
            container.write(path, self._parts())

    def __reduce__(self):
        """Pickled is what `save` writes; what comes out is as `load_deployed` reads it."""
        return _from_parts, (self._parts(), "what was pickled")

    def __copy__(self):
        """Itself: nothing of it changes."""
        return self

    def __deepcopy__(self, memo):
        """Itself, as `copy.copy`."""
        return self

    def _parts(self):
        """{name: bytes} of its file."""
        return {
            "about.json": container.pack_json(self.about),
            "schedule.json": container.pack_json({"masks": self.schedule.as_lists()}),
            "weights.safetensors": tensors.pack(self.weights),
            "program.jax": self._program or self._export(),
        }

    def _as_onnx(self):
        if self._program is not None:
            raise ValueError(
                "a model that was loaded from a file cannot be written as ONNX: deploy it again "
                "from its variables, or export its run with --format=onnx"
            )
        with needed("onnx"):
            from snnvit_jax.deployment import onnx  # late: deployment itself does not need it
        masks = self.schedule.as_lists()
        return onnx.model_bytes(self._function, self.weights, self.about, masks)

    def save_weights(self, path):
        """Writes the weights as safetensors: "module/kernel" and "module/bias", as in `weights`.

        Args:
          path: file to write, "*.safetensors" or without an ending; its folder must exist.

        Raises:
          ValueError: for the name of any other kind of file.
        """
        _check_ending(path, ".safetensors")
        files.write_bytes(path, tensors.pack(self.weights))

    @property
    def _image_dtype(self):
        return jnp.promote_types(self.about["dtype"], jnp.float32)

    def _export(self):
        shape = ", ".join(["batch", *map(str, self.about["image_shape"])])
        images = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), self._image_dtype)
        program = jax.jit(self._function)  # for every platform: no options of this one
        with backends.without_folders():
            exported = jax.export.export(program, platforms=PLATFORMS)(self.weights, images)
        return bytes(exported.serialize())


def _check_ending(path, *endings):
    """Raises ValueError for a file whose name says that something else is in it."""
    ending = pathlib.Path(path).suffix
    if ending and ending not in endings:
        raise ValueError(
            f"{str(path)!r} must end with {' or '.join(endings)}: that is what it holds"
        )


def _over_batches(program):
    """A program of (weights, images) for any batch size, under `jax.vmap` too: one larger batch."""

    @jax.custom_batching.custom_vmap
    def run(weights, images):
        return program(weights, images)

    @run.def_vmap
    def run_batched(size, batched, weights, images):
        if any(jax.tree.leaves(batched[0])):
            raise NotImplementedError("a deployed program takes one set of weights")
        logits = run(weights, images.reshape(-1, *images.shape[2:]))
        return logits.reshape(size, -1, *logits.shape[1:]), True

    return run


def load_deployed(path):
    """Reads a deployed model; nothing of the model's code is needed.

    Args:
      path: file written by `Deployed.save`.

    Returns:
      A `Deployed`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the file, if it is no deployed model, of another format, damaged, or
        written by a version of JAX that this one cannot read.
    """
    return _from_parts(container.read(path), repr(str(path)))


def _from_parts(parts, source):
    about = json.loads(parts["about.json"])
    try:
        exported = jax.export.deserialize(bytearray(parts["program.jax"]))
    except Exception as error:  # whatever JAX's reader stumbles over
        raise ValueError(
            f"{source} was written with jax {about['jax']}; jax {jax.__version__} cannot read "
            f"it ({error}): export the model again"
        ) from error
    checked_dtype(about["dtype"])
    schedule = TimeStepSchedule(json.loads(parts["schedule.json"])["masks"])
    stored = tensors.unpack(parts["weights.safetensors"], f"the weights of {source}")
    weights = {name: jnp.asarray(tensor) for name, tensor in stored.items()}
    return Deployed(_over_batches(exported.call), weights, schedule, about, parts["program.jax"])
