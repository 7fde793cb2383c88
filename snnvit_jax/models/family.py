"""`Family`: everything that the package needs to know of an architecture, in one record."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn

from snnvit_jax.common import values
from snnvit_jax.neurons import LIFNeuron, as_neuron

# Settings that a user gives apart from a family's own.
_GIVEN = ("num_classes", "image_size", "time_steps")
_EXPECTED = (*_GIVEN, "neuron", "dtype")  # of every configuration
_FILLED = ("num_classes", "time_steps", "neuron")  # where a model is created, whatever its size


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A published training recipe.

    Attributes:
      change: sets the recipe in a ConfigDict whose model is chosen, in place; of "cifar", also
        given the number of classes.
      model: name of the one model that it is for; None for whichever is chosen.
    """

    change: Callable
    model: str | None = None


@dataclasses.dataclass(frozen=True)
class Family:
    """An architecture.

    Attributes:
      name: of the family.
      module: Linen module class, created with one configuration; images -> logits.
      config: frozen dataclass of its settings: `num_classes`, `image_size` (height, width),
        `time_steps`, `neuron`, `dtype` and whatever is its own; raises ValueError for what does not
        fit.
      sizes: {model name: settings published under it}; "image_size" among them.
      recipes: {data set: `Recipe`}; files in configs/ find "cifar", "imagenet", "cifar10_dvs" and
        "dvs_gesture" (the last two also with "_16" and the like for another T), and "finetune" is
        the stage that follows training from scratch.
      small: model name -> {setting: value} of a trial that runs in a minute.
      torch_name: path of a variable, without its collection -> the authors' name of it.
      unused: model -> names of the authors' weights that they construct and never use.
      refused: {first part of the authors' name of a weight that no model here takes: why, and
        what to do}.
      check_weights: (model, {authors' name: shape}) -> raises ValueError for weights of a form that
        has the same names and shapes as this one's and computes something else.
      bound: names of settings that belong to a form of the family and not to a size: weights of one
        value are never loaded into a model of another.
      note: model -> what is to be known of weights of its authors where they are loaded, or "".
      tensor_rules: ((pattern of variable names, name or None for each axis), ...) for tensor
        parallelism: (None, "model") divides the outputs of a kernel over the axis "model" of the
        devices, ("model", None) its inputs, ("model",) a bias. What no pattern is found in stays
        whole; without rules the family cannot be divided so.
      divided: names of the settings that must be divisible by the devices along that axis.
      head: name of the `layers.Head` in `module`, which starts anew for other classes.
    """

    name: str
    module: type
    config: type
    sizes: Mapping[str, Mapping]
    recipes: Mapping[str, Recipe] = dataclasses.field(default_factory=dict)
    small: Callable = lambda name: {}
    torch_name: Callable | None = None
    unused: Callable = lambda model: frozenset()
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    check_weights: Callable = lambda model, shapes: None
    bound: tuple[str, ...] = ()
    note: Callable = lambda model: ""
    tensor_rules: tuple = ()
    divided: tuple[str, ...] = ()
    head: str = "head"

    @property
    def settings(self):
        """Names of the settings that a user may override."""
        fields = [field.name for field in dataclasses.fields(self.config)]
        hidden = getattr(self.config, "hidden", ())
        return tuple(name for name in fields if name not in (*_GIVEN, *hidden))

    def published_neuron(self, name):
        """Returns the `Neuron` that a model has unless another is given.

        Args:
          name: a key of `sizes`.
        """
        return self.sizes[name].get("neuron", LIFNeuron())

    def create(self, name, num_classes, image_size, time_steps, overrides):
        """Returns a model of this family.

        Args:
          name: a key of `sizes`.
          num_classes: outputs.
          image_size: side in pixels or (height, width); None for the published one.
          time_steps: T.
          overrides: {setting: value}; None keeps the published value.

        Raises:
          ValueError: for an unknown setting, or a value that does not fit, each by name.
        """
        chosen = {k: values.plain(v) for k, v in overrides.items() if v is not None}
        unknown = sorted(set(chosen) - set(self.settings))
        if unknown:
            raise ValueError(
                f"unknown model settings {unknown}; use some of {', '.join(self.settings)}"
            )
        settings = {**self.sizes[name], **chosen}
        size = settings.pop("image_size")
        settings["image_size"] = _as_pair(values.plain(size if image_size is None else image_size))
        published = self.published_neuron(name)
        settings["neuron"] = as_neuron(settings.get("neuron", published), published)
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        classes, steps = values.plain(num_classes), values.plain(time_steps)
        return self.module(self.config(num_classes=classes, time_steps=steps, **settings))


def check_family(family):
    """Raises ValueError for a record that no model can be created from, naming what is wrong.

    Args:
      family: a `Family`.
    """
    name, config, module = family.name, family.config, family.module
    if not (isinstance(name, str) and name):
        raise ValueError(f"name={name!r} of a family must be a text that is not empty")
    if not (isinstance(family.head, str) and family.head):
        raise ValueError(f"{name!r}: head={family.head!r} must be the name of its layers.Head")
    if not (isinstance(module, type) and issubclass(module, nn.Module)):
        raise ValueError(f"{name!r}: module={module!r} must be a Linen module class")
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise ValueError(f"{name!r}: config={config!r} must be a dataclass, the class itself")
    fields = {field.name: field for field in dataclasses.fields(config) if field.init}
    if missing := [field for field in _EXPECTED if field not in fields]:
        raise ValueError(f"{name!r}: {config.__name__} lacks the fields {', '.join(missing)}")
    if not isinstance(family.sizes, Mapping):
        raise ValueError(f"{name!r}: sizes={family.sizes!r} must be {{model name: settings}}")
    needed = {"image_size"} | {key for key, field in fields.items() if _has_no_default(field)}
    for model, settings in family.sizes.items():
        if not (isinstance(model, str) and model and isinstance(settings, Mapping)):
            raise ValueError(f"{name!r}: sizes: {model!r}: {settings!r} must be a name: settings")
        if unknown := [key for key in settings if key not in fields]:
            raise ValueError(f"{name!r}: {model!r} sets {unknown}, no fields of {config.__name__}")
        if given := [key for key in settings if key in ("num_classes", "time_steps")]:
            raise ValueError(f"{name!r}: {model!r} sets {given}, which create_model is given")
        if missing := sorted(needed - set(settings) - set(_FILLED)):
            raise ValueError(f"{name!r}: {model!r} needs {missing}, which have no default")


def _has_no_default(field):
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _as_pair(image_size):
    return tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
