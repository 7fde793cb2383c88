"""The configuration: every key with its default, and the checks made before any work starts."""

import json
import numbers

from ml_collections import config_dict

from snnvit_jax.common.nearest import did_you_mean
from snnvit_jax.common.values import shown
from snnvit_jax.models import DEFAULT_MODEL
from snnvit_jax.runs import model_settings, validation
from snnvit_jax.runs.model_settings import setting
from snnvit_jax.time_steps import masks
from snnvit_jax.training.lengths import described, in_epochs

# Lengths that are given as a share or in epochs: (part of the configuration, name of the share).
LENGTHS = (
    *(("", "time_step_start"), ("", "time_step_anneal"), ("", "time_step_freeze")),
    *(("optimizer", "warmup"), ("optimizer", "cooldown"), ("mixing", "off")),
)
_ROUNDING = 1e-6  # epochs


def default_config():
    """Returns the configuration that every file in configs/ starts from, with all keys it may set.

    Every key can be overridden on the command line as `--config.key=value`; those whose default is
    None are optional.
    """
    optional = config_dict.placeholder
    config = config_dict.ConfigDict()
    config.seed = 0
    config.epochs = 10.0  # may be a fraction
    config.batch_size = 64  # over all devices
    config.accumulate = 1  # parts of a batch computed one after the other, to save memory
    # evaluate an exponential moving average of weights and statistics, 0.99 for example
    config.average_decay = optional(float)
    # a step whose numbers are not finite is taken back and named: stop then, or skip it (counted)
    config.on_nonfinite = "stop"
    config.mesh = {"data": -1, "model": 1}  # devices along each axis; -1 takes all there are
    # of the training state: replicate, fsdp (in parts between steps, whole weights in a step),
    # tensor (heads and MLP), fsdp_tensor (both)
    config.sharding = "replicate"

    # Start from the weights of a run's folder, of a network of the package (pretrained:NAME), a
    # safetensors file, or a PyTorch checkpoint in the authors' names; a head for other classes is
    # replaced.
    config.init_from = optional(str)
    config.trainable = "all"  # all, scores (of time steps, nothing else: running statistics stay)

    # Lengths and points in time below (time_step_start, optimizer.warmup, ...) are shares of the
    # schedule, so that they follow `epochs`. Each has a key of the same name in epochs, which
    # counts instead where it is set. The schedule itself, learning rate and phases, begins and ends
    # with the training unless a run is extended. What a run continued with more epochs does:
    # final_rate (the schedule stays; the epochs after it have its last learning rate),
    # restart_schedule (it begins again where the run is), stretch_schedule (it is spread over all).
    config.extend = "final_rate"
    config.schedule_start_epoch = 0.0
    config.schedule_epochs = optional(float)  # None: to the end of the training

    # Time steps: what the objective charges, and when their scores learn.
    # Weight of (average time steps / T) in the objective. With a target, only what exceeds the
    # budget is charged, and the weight starts at 0 and grows by this much in an epoch for each
    # time step of excess.
    config.time_step_penalty = 0.0
    config.target_time_steps = optional(float)  # average to end at
    # Weight of the accumulates that spikes drive, as a share of those at full activity.
    config.spike_penalty = 0.0
    config.min_time_steps = 1  # every layer keeps this many of its best-scored steps
    # Which layers have one schedule: layer (each its own), module (all of an attention, an MLP or
    # the patch embedding the same, so that none waits for spikes when another is silent).
    config.time_step_groups = "layer"
    config.time_step_start = 0.0  # until then all steps stay on
    config.time_step_start_epoch = optional(float)
    config.time_step_anneal = 0.0  # over so long the budget comes down from T to the target
    config.time_step_anneal_epochs = optional(float)
    config.time_step_freeze = optional(float)  # from then on the masks stay as they are
    config.time_step_freeze_epoch = optional(float)

    config.model = {
        "name": DEFAULT_MODEL,
        "time_steps": 4,
        "dtype": "float32",  # of the computation: float32 or bfloat16
        # Settings of the model's family (docs/own_model.md), a number or a tuple with one for each
        # stage; `use_model` adds those that no other family has. None: as published.
        "embed_dim": setting(),
        "num_heads": setting(),
        "depth": setting(),
        "mlp_ratio": optional(float),
        "pool": optional(tuple),  # stages of the patch embedding that halve the image
        "remat": "none",  # recompute to save memory: none, block (no effect on a CPU)
        "drop_path": 0.0,  # stochastic depth: probability of leaving out the last block's branches
        # None: as published with the model; where nothing is, what stands in brackets.
        "neuron": {
            # [lif], if, plif (learned time constant), psn (parallel); without spikes, an ANN: relu,
            # quantized (the firing rates of if with a soft reset)
            "kind": optional(str),
            "tau": optional(float),  # time constant in time steps [2.0]; without leak: kind=if
            "reset": optional(str),  # [hard], soft
            "surrogate": optional(str),  # [sigmoid], arctan, triangle, rectangle
            "alpha": optional(float),  # sharpness of the surrogate [its own]
            "detach_reset": optional(bool),  # [True]
            "levels": optional(int),  # of quantized: rates above 0 [4]
            # of the time-step mask: [identity], clipped, triangle, sigmoid
            "estimator": optional(str),
        },
    }
    config.data = {
        # digits, image_folder, archive, or an image-classification set of TensorFlow Datasets;
        # recordings of event cameras: events, digits_dvs
        "name": "digits",
        # root of the folder of images or recordings, the .npz archive, or where data sets were
        # prepared (None: $TFDS_DATA_DIR, else ~/tensorflow_datasets)
        "dir": optional(str),
        "train_split": "train",
        "eval_split": "test",
        "image_size": 32,
        "crop_padding": 0,  # random crop after padding by this many pixels
        "random_resized_crop": False,  # instead: a random part of the image, resized
        "crop_scale": (0.08, 1.0),  # its share of the area
        "crop_ratio": (3 / 4, 4 / 3),  # its width / height
        "flip": False,  # random horizontal flip
        "randaugment": {
            "num_ops": 0,  # operations drawn for each image; 0 for none
            "magnitude": 9.0,  # in [0, 10]
            "magnitude_std": 0.5,  # of its noise
            "probability": 0.5,  # that an operation drawn is applied
            "operations": "all",  # all, cifar (the published subset for small images)
        },
        "erasing_probability": 0.0,  # random erasing
        "erasing_fill": "zero",  # zero (the mean colour), noise
        "repeats": 1,  # repeated augmentation: times an example comes, close together
        "crop_fraction": optional(float),  # evaluation: resize to size / fraction, crop the centre
        "mean": (0.0,),  # of pixel values in [0, 1], one for all channels or one each
        "std": (1.0,),
        "events": {  # recordings become model.time_steps frames
            "split_by": "number",  # each of as many events; time: each of as many microseconds
            "height": optional(int),  # of the sensor in pixels; None: as the files say
            "width": optional(int),
            "sort": False,  # sort a recording whose time goes back, instead of refusing it
            # a set without splits keeps the last tenth of each class for test, in the order of the
            # numbers in the file names, or of the names (as the published accuracies have it)
            "split_order": "number",  # number, name
            "cache": optional(str),  # folder in which frames are kept
            "sum_channel": False,  # a third channel, the sum of both polarities
            "roll": 0,  # training: move by up to so many pixels each way, around the border
            # training: one operation for each recording: none, published, published_no_cutout
            "operations": "none",
        },
        # what a damaged image or recording does: fatal; skip (counted and named; in training
        # another example comes in its place)
        "on_damaged": "fatal",
        "workers": 0,  # processes that prepare batches; 0 uses threads
    }
    config.mixing = {
        "mixup_alpha": 0.0,  # of Beta(alpha, alpha); 0 for none
        "cutmix_alpha": 0.0,
        "cutmix_share": 0.5,  # how often it is cutmix if both are on
        "probability": 1.0,  # that a batch is mixed
        "off": optional(float),  # from then on nothing is mixed
        "off_epoch": optional(float),
    }
    config.distillation = {
        # the folder of a trained run, or pretrained:NAME, whose outputs are imitated, for example
        # the same network with model.neuron.kind=relu; it must see images of the same size and
        # normalisation
        "teacher": optional(str),
        "weight": 0.5,  # of the teacher in the loss; the labels have the rest
        "temperature": 2.0,  # by which logits are divided
    }
    config.optimizer = {
        "name": "adamw",  # adamw, lamb
        "learning_rate": 1e-3,  # reached after the warm-up
        "min_learning_rate": 1e-5,  # reached at the end, by a cosine
        "warmup_learning_rate": 1e-5,  # where the warm-up starts
        "warmup": 0.1,
        "warmup_epochs": optional(float),
        # cosine: after the warm-up, per step; epoch_cosine: over the whole training, per epoch
        "schedule": "cosine",
        "cooldown": 0.0,  # at min_learning_rate, at the end
        "cooldown_epochs": optional(float),
        "weight_decay": 0.05,  # not on biases, normalisations and scores
        "score_multiplier": 2.0,  # learning rate of the scores, in units of the model's
        # ((pattern of parameter names, learning rate in units of the model's), ...)
        "multipliers": (),
        "clip_norm": optional(float),  # of the gradient, over all parameters
        "trust_clip": False,  # lamb: no weight moves further than it would with Adam
        "label_smoothing": 0.1,
    }
    # Temporal efficient training: the loss is that of each time step's own logits, not of their
    # mean, and a share of it draws them to a level.
    config.step_losses = {"on": False, "weight": 0.001, "level": 1.0}
    config.log_every_steps = 20
    config.eval_every_epochs = 1.0  # may be a fraction; a checkpoint is saved with each evaluation
    config.save_every_seconds = 60.0  # besides, at the first end of an epoch after so long
    config.keep_checkpoints = 2  # newest ones; the best is kept besides
    return config


def validate(config):
    """Checks everything about a configuration that needs neither data nor devices.

    Args:
      config: a ConfigDict.

    Raises:
      ValueError: naming the key and the value.
    """
    _check_keys(config, _default_for(config))
    validation.check(config)
    family_settings(config.model)
    masks.check_time_steps(
        config.model.time_steps, minimum=config.min_time_steps, target=config.target_time_steps
    )
    _check_learning_rates(config.optimizer)
    if config.batch_size % config.accumulate:
        raise ValueError(
            f"batch_size={config.batch_size} must be divisible by accumulate={config.accumulate}"
        )
    _check_lengths(config)
    _check_phases(config)


def family_settings(settings):
    """Returns the settings of a model that its family has, with name and time steps.

    A key of this file that the family has no use for is left out while it has its default.

    Args:
      settings: `config.model`.

    Raises:
      ValueError: naming a setting that the family does not know, or an unknown model.
    """
    return model_settings.of_family(settings, default_config().model.to_dict())


def complete(config):
    """Returns a copy in which the settings of the neurons say what they are, as published or not.

    A run's folder keeps it like this, so that it says what was trained.

    Args:
      config: a ConfigDict, validated.
    """
    config = config.copy_and_resolve_references()
    config.model.neuron.update(model_settings.neuron_of(config.model))
    return config


def schedule_epochs(config):
    """Returns the epochs of the schedule that learning rate and phases follow.

    Args:
      config: a ConfigDict.
    """
    if config.schedule_epochs is not None:
        return config.schedule_epochs
    return config.epochs - config.schedule_start_epoch


def to_json(config):
    """Returns the configuration as JSON text.

    Args:
      config: a ConfigDict.
    """
    return json.dumps(config.to_dict(), indent=1, default=_plain) + "\n"


def from_json(text):
    """Returns the configuration that `to_json` wrote.

    Args:
      text: JSON.

    Raises:
      ValueError: for a key that is not known, or whatever else is no configuration.
    """
    config = default_config()
    try:
        values = json.loads(text)
        model_settings.add_known(config, values.get("model", {}))
        _update(config, values, prefix="")
        if config.model.neuron.kind == "lif" and config.model.neuron.tau is None:
            config.model.neuron.kind = "if"  # what it meant before None was "as published"
    except (ArithmeticError, AttributeError, RecursionError, TypeError) as error:
        raise ValueError(str(error)) from error
    return config


def _plain(number):
    """NumPy's numbers as Python's: a configuration file may have computed them."""
    return int(number) if isinstance(number, numbers.Integral) else float(number)


def _default_for(config):
    """The default configuration, with those settings of families that the other one has."""
    default = default_config()
    if isinstance(config.get("model"), config_dict.ConfigDict):
        model_settings.add_known(default, config.model)
    return default


def differences(old, new, prefix=""):
    """Returns ["key: old -> new"] for every leaf in which two configurations differ.

    Args:
      old: a ConfigDict.
      new: a ConfigDict with the same keys.
      prefix: of the keys' names.
    """
    found = []
    for key in dict.fromkeys((*old, *new)):  # those of a model's own family may be in one only
        if key not in old or key not in new:
            found.append(f"{prefix}{key}: {old.get(key)} -> {new.get(key)}")
        elif isinstance(old[key], config_dict.ConfigDict):
            found += differences(old[key], new[key], f"{prefix}{key}.")
        elif _as_tuples(old[key]) != _as_tuples(new[key]):
            found.append(f"{prefix}{key}: {old[key]} -> {new[key]}")
    return found


def _update(config, values, prefix):
    for key, value in values.items():
        if key not in config:
            raise ValueError(f"unknown config key {prefix + key!r}")
        if isinstance(value, dict):
            _update(config[key], value, f"{prefix}{key}.")
        else:
            config[key] = _as_tuples(value)


def _as_tuples(value):
    """JSON knows lists only; a configuration holds tuples, also within tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, (list, tuple)) else value


def _check_keys(config, default, prefix=""):
    unknown = sorted(set(config) - set(default))
    missing = sorted(set(default) - set(config))
    if unknown or missing:
        known = ", ".join(sorted(default))
        hint = did_you_mean(unknown[0], default) if unknown else ""
        raise ValueError(
            f"config keys under {prefix or 'the top'!r}: {unknown=}, {missing=}{hint}; "
            f"known: {known}"
        )
    for key, value in default.items():
        given, is_section = config[key], isinstance(config[key], config_dict.ConfigDict)
        if isinstance(value, config_dict.ConfigDict):
            if not is_section:
                raise ValueError(
                    f"{prefix}{key}={shown(given)} must hold the keys {', '.join(sorted(value))}"
                )
            _check_keys(given, value, f"{prefix}{key}.")
        elif is_section:
            raise ValueError(f"{prefix}{key}={given.to_dict()} must be a value, and hold no keys")


def _check_lengths(config):
    if config.schedule_epochs is None and config.schedule_start_epoch >= config.epochs:
        raise ValueError(
            f"schedule_start_epoch={config.schedule_start_epoch} must be below "
            f"epochs={config.epochs}"
        )


def _check_learning_rates(settings):
    for key in ("min_learning_rate", "warmup_learning_rate"):
        if settings[key] > settings.learning_rate:
            raise ValueError(
                f"optimizer.{key}={settings[key]} must not be above "
                f"optimizer.learning_rate={settings.learning_rate}"
            )


def _check_phases(config):
    if config.target_time_steps is not None and not config.time_step_penalty:
        raise ValueError(
            f"target_time_steps={config.target_time_steps} is reached by a time_step_penalty "
            "above 0; set that too"
        )
    length = schedule_epochs(config)
    names = ("time_step_start", "time_step_anneal", "time_step_freeze")
    start, anneal, freeze = (in_epochs(config, name, length) for name in names)
    if config.target_time_steps is None:
        anneal = 0.0
    end = length if freeze is None else freeze
    if not start + anneal <= end + _ROUNDING <= length + 2 * _ROUNDING:
        start, anneal, freeze = (described(config, name, length) for name in names)
        raise ValueError(
            f"the time steps learn from {start}, anneal for {anneal}, and must have done so by "
            f"{freeze} and epochs={length:g}; shorten these phases with the training, or give "
            f"{', '.join(names)} as shares of it"
        )
