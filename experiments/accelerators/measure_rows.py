"""What measure.py measures: its rows, the most important first."""

import dataclasses
import functools

from snnvit_jax.models import family_of

GROUPS = ("agreement", "cifar", "imagenet", "families", "calibration", "spikingjelly")
OTHER_FAMILIES = (
    *("spikingformer_4_384", "sdt_2_512", "qkformer_4_384", "spikingresformer_cifar"),
    "metaspikeformer_8_384_imagenet",  # published for ImageNet alone; it reads small images here
)
DTYPES = ("float32", "bfloat16")  # that are compared with and without kernels


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing to be measured.

    Attributes:
      group: one of `GROUPS`.
      kind: what is done: a key of `measure_kinds.KINDS`, or "peers".
      model: a name of the registry, or "".
      image_size: pixels.
      batch_size: images.
      kernels: see `training.Procedure`.
      dtype: of the computation.
      time_steps: T.
      overrides: of the model's settings, as pairs.
      size: side of the matrices, or megabytes that are copied.
      quick: whether it is only to be seen that everything works.
    """

    group: str
    kind: str
    model: str = ""
    image_size: int = 32
    batch_size: int = 256
    kernels: str | None = None
    dtype: str = "bfloat16"
    time_steps: int = 4
    overrides: tuple = ()
    size: int = 0
    quick: bool = False

    @property
    def name(self):
        """For the reader, and in files of estimates."""
        if self.kind == "peers":
            return "beside SpikingJelly"
        if not self.model:
            return f"{self.kind}, {self.size} {'MB' if self.kind == 'copy' else 'squared'}"
        return model_name(self.model, self.image_size, self.batch_size, self.kind, self.kernels) + (
            "" if self.dtype == "bfloat16" else f", {self.dtype}"
        )


def model_name(model, image_size, batch_size, kind, kernels):
    """Returns the name of a row that measures a model; arguments as in `Row`."""
    name = f"{model}, {image_size}x{image_size}, batch {batch_size}, {kind}"
    return f'{name}, kernels="{kernels}"' if kernels else name


def all_rows(groups=GROUPS):
    """Returns the rows of some groups in the order in which they are measured."""
    cifar = functools.partial(Row, model="spikformer_4_384")
    imagenet = functools.partial(
        Row, model="spikformer_8_512_imagenet", image_size=224, batch_size=64
    )
    small = {"batch_size": 8, "kernels": "gpu", "overrides": (("depth", 1),)}
    found = {
        "agreement": [cifar("agreement", "agreement", dtype=dtype, **small) for dtype in DTYPES],
        "cifar": _of_model(functools.partial(cifar, "cifar")),
        "imagenet": _of_model(functools.partial(imagenet, "imagenet")),
        "families": [Row("families", "training", name) for name in OTHER_FAMILIES],
        "calibration": [
            Row("calibration", "product", size=8192),
            Row("calibration", "copy", size=1024),
        ],
        "spikingjelly": [Row("spikingjelly", "peers")],
    }
    return [row for group in groups for row in found[group]]


def _of_model(row):
    by_kernels = [
        row(kind, kernels=k) for kind in ("training", "evaluation") for k in (None, "gpu")
    ]
    return [*by_kernels, row("deployed")]


def dry(row):
    """Returns a row as a CPU can measure it within seconds: tiny, kernels interpreted."""
    changes = {"quick": True, "batch_size": 2, "time_steps": 2, "size": 64 if row.size else 0}
    changes["kernels"] = "interpret" if row.kernels else None
    if row.model:
        changes |= {
            "image_size": 32,
            "overrides": tuple(family_of(row.model).small(row.model).items()),
        }
    return dataclasses.replace(row, **changes)
