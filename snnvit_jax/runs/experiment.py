"""From a configuration to everything a run is made of, checked before any long work starts."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import traverse_util

from snnvit_jax import energy, training
from snnvit_jax.checkpoints.checkpoints import finished_checkpoints
from snnvit_jax.common.pixels import normalised
from snnvit_jax.data import loader, sources
from snnvit_jax.data.augment import pipeline, recording_pipeline
from snnvit_jax.distributed.mesh import check_batch, create_mesh
from snnvit_jax.distributed.sharding import Placement, check_model, replicate
from snnvit_jax.models import create_model, family_of, variable_shapes
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import initial, start, teachers, validation
from snnvit_jax.runs.plan import plan
from snnvit_jax.training import distillation
from snnvit_jax.training import optimizer as optimizer_lib
from snnvit_jax.training.mixing import Mixing
from snnvit_jax.training.objective import Objective, StepLosses


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a configuration stands for; nothing here changes during a run.

    Attributes:
      config: the configuration, validated.
      procedure: how a training step is taken; holds the model and the devices.
      train_source: training examples.
      eval_source: held-out examples.
      preprocess: what is done to an image or recording in evaluation, until it is on the device.
      augment: what is done to it in training, likewise.
      loader_options: what training and evaluation batches have in common.
      steps_per_epoch: training steps in an epoch, a fraction.
      learning_rate: function of the step.
      teacher: folder that the teacher is read from; None for no teacher.
    """

    config: ml_collections.ConfigDict
    procedure: training.Procedure
    train_source: sources.Source
    eval_source: sources.Source
    preprocess: (
        pipeline.Preprocess | recording_pipeline.PreprocessRecording | recording_pipeline.AsCounts
    )
    augment: pipeline.Augment | recording_pipeline.AugmentRecording | recording_pipeline.AsCounts
    loader_options: loader.LoaderOptions
    steps_per_epoch: float
    learning_rate: optax.Schedule
    teacher: pathlib.Path | None = None

    @property
    def model(self):
        """The Linen module."""
        return self.procedure.model

    @property
    def mesh(self):
        """The devices."""
        return self.procedure.placement.mesh

    @property
    def normalization(self):
        """From whole numbers, as batches hold images, to what the model sees; None for nothing."""
        return self.procedure.normalization

    @property
    def image_shape(self):
        """(H, W, C) of an image as the model sees it, (T, H, W, C) of a recording."""
        return self.loader_options.image_shape

    @property
    def plan(self):
        """When things happen in the training."""
        return plan(self.config)

    @property
    def total_steps(self):
        """Steps of the whole training."""
        return max(1, round(self.config.epochs * self.steps_per_epoch))

    @property
    def steps_per_evaluation(self):
        """Steps from one evaluation to the next."""
        return max(1, round(self.config.eval_every_epochs * self.steps_per_epoch))

    def ends_epoch(self, step):
        """Returns whether an epoch ends with this step.

        Args:
          step: training steps done, >= 1.
        """
        return int(step / self.steps_per_epoch) > int((step - 1) / self.steps_per_epoch)

    def examples_of(self, step):
        """Returns the indices of the training examples in a step's batch, [B] whole numbers.

        Args:
          step: number of the step, from 1.
        """
        data, size = self.config.data, self.config.batch_size
        order = loader.training_order(
            self.train_source,
            self.augment,
            data.on_damaged,
            seed=self.config.seed,
            repeats=data.repeats,
        )
        return [order.index(p) for p in range((step - 1) * size, step * size)]

    def with_lengths(self, config):
        """Returns the experiment with the schedule and the phases of another configuration.

        Args:
          config: a ConfigDict, of which nothing else differs.

        Raises:
          ValueError: naming a length that does not fit.
        """
        config_lib.validate(config)
        rate = learning_rate(config, self.steps_per_epoch)
        procedure = dataclasses.replace(
            self.procedure,
            optimizer=_create_optimizer(config, rate),
            objective=dataclasses.replace(
                self.procedure.objective, **_phases(config, self.steps_per_epoch)
            ),
            mixing=_create_mixing(config, self.steps_per_epoch),
        )
        return dataclasses.replace(self, config=config, procedure=procedure, learning_rate=rate)

    @property
    def state_shapes(self):
        """The training state's arrays as `jax.ShapeDtypeStruct`s, with where they are kept."""
        shapes = jax.eval_shape(self._create, jax.random.key(self.config.seed))
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self.procedure.placement.shardings(shapes),
        )

    def some_recordings(self):
        """Returns (frames [N, T, H, W, C], class names) of some held-out recordings, to be shown.

        One of each of the first classes; None if the examples are no recordings.
        """
        if self.config.data.name not in sources.EVENT_SETS:
            return None
        chosen = sources.first_of_each_class(self.eval_source, RECORDINGS_SHOWN)
        frames = [normalised(self.preprocess(x)["image"], self.normalization) for x in chosen]
        names = [self.eval_source.class_names[example["label"]] for example in chosen]
        return (frames, names) if frames else None

    def recording_times(self):
        """Returns when each time step of each held-out recording is over, [T, N] milliseconds.

        None if that is not known: see `sources.milliseconds`.
        """
        data = self.config.data
        frames = sources.frame_settings(self.config.model.time_steps, data.events)
        return sources.milliseconds(
            data.name, data.eval_split, data.dir, frames, on_damaged=data.on_damaged
        )

    def create_state(self):
        """Returns the training state before the first step, on the mesh.

        Raises:
          ValueError: if the weights to start from do not fit the model.
          FileNotFoundError: if there are none.
        """
        return self.begin()[0]

    def begin(self):
        """Returns (training state before the first step, on the mesh; where its weights come from).

        The second is as `start.load` gives it, or None if they are random.

        Raises:
          ValueError: if the weights to start from do not fit the model.
          FileNotFoundError: if there are none.
        """
        key, path = jax.random.key(self.config.seed), self.config.init_from
        if path is None:
            return self._place(self._create, key), None
        own = jax.device_get(jax.jit(self._create)(key).variables)
        found, origin = start.load(path, self.model, own, self.train_source.class_names)
        state = self._place(
            lambda given: training.state_from_variables(self.procedure, given),
            jax.device_get(found),
        )
        return state, origin

    def load_teacher(self):
        """Returns the teacher's variables on every device, or None if there is no teacher.

        Raises:
          ValueError: if they cannot be read or are for other classes.
        """
        if self.procedure.distillation is None:
            return None
        path = self.teacher
        model = self.procedure.distillation.model
        teacher = teachers.load(path, self.model.config.num_classes, family_of(model).head)
        wanted = variable_shapes(model, self.image_shape)
        teachers.check_shapes(path, teacher, wanted, self.image_shape)
        return replicate(jax.device_get(teacher), self.mesh)

    def _create(self, key):
        return training.create_state(self.procedure, key, self.image_shape)

    def _place(self, create, argument):
        """Creates a state, every device only the part that it keeps."""
        shapes = jax.eval_shape(create, argument)
        shardings = self.procedure.placement.shardings(shapes)
        return jax.jit(create, out_shardings=shardings)(argument)


def build(config, to_train=True, workdir=None):
    """Builds an experiment, without compiling or training anything.

    Args:
      config: a ConfigDict with the keys of `config.default_config`.
      to_train: whether it will be trained; what only that needs may be missing otherwise.
      workdir: the `Workdir` of its run; what that keeps (checkpoints, a copy of its teacher) need
        not be anywhere else any more. None for none.

    Returns:
      An `Experiment`.

    Raises:
      ValueError: naming a key or value that does not fit.
      FileNotFoundError: if the data set is not prepared, or there is no teacher, or there are no
        weights to start from.
    """
    config_lib.validate(config)
    config = config_lib.complete(config)
    family = family_of(config.model.name)
    placement = _placement(config, family)
    train_source, eval_source = _sources(config)
    if to_train and not (workdir and finished_checkpoints(workdir.checkpoints)):
        initial.check_source(config.init_from)
    preprocess, augment, image_shape = _transforms(config, train_source)
    steps_per_epoch = len(train_source) / config.batch_size
    _check_length(config.epochs, steps_per_epoch)
    rate = learning_rate(config, steps_per_epoch)
    teacher = config.distillation.teacher if to_train else None
    teacher = teacher and teachers.find(teacher, workdir)
    model = model_of(config.model, train_source.num_classes, config.data.image_size)
    check_model(model.config, placement, family.divided)
    _check_multipliers(config.optimizer.multipliers, model, image_shape)
    procedure = _procedure(
        config,
        rate,
        steps_per_epoch,
        spike_prices=_spike_prices(config, model, image_shape) if to_train else (),
        model=model,
        normalization=preprocess.normalization,
        distillation=_create_distillation(config, teacher, train_source.class_names),
        placement=placement,
    )
    return Experiment(
        config=config,
        procedure=procedure,
        train_source=train_source,
        eval_source=eval_source,
        preprocess=preprocess,
        augment=augment,
        loader_options=_loader_options(config, image_shape, preprocess.dtype),
        steps_per_epoch=steps_per_epoch,
        learning_rate=rate,
        teacher=teacher,
    )


def _placement(config, family):
    placement = Placement(create_mesh(config.mesh), config.sharding, family.tensor_rules)
    check_batch(config.batch_size, placement.mesh, config.accumulate)
    return placement


def _sources(config):
    """Returns (training examples, held-out examples), of the same classes, channels and sensor."""
    data = config.data
    frames = sources.frame_settings(config.model.time_steps, data.events)
    both = [_source(data, key, frames) for key in ("train_split", "eval_split")]
    loader.check_fills_batch(both[0], config.batch_size)
    sources.check_same_classes(*both)
    sources.check_same_channels(*both)
    sources.check_same_sensor(*both)
    for source in both:
        if data.on_damaged == "fatal":
            sources.check_complete(source)
        sources.check_some_labels(source, on_damaged=data.on_damaged)
    return both


def _transforms(config, source):
    """What evaluation and training do to an example, and the shape of what a model then sees."""
    data, channels = config.data, source.channels
    if data.name not in sources.EVENT_SETS:
        preprocess = pipeline.create_preprocess(data, channels)
        return preprocess, pipeline.create_augment(data, channels), (*preprocess.size, channels)
    preprocess = recording_pipeline.create_preprocess(data)
    augment = recording_pipeline.create_augment(data)
    size, as_counts = preprocess.size, recording_pipeline.as_counts
    shape = (config.model.time_steps, *size, preprocess.channels)
    return (*(as_counts(x, size, source.sensor) for x in (preprocess, augment)), shape)


def _loader_options(config, image_shape, dtype):
    data = config.data
    return loader.LoaderOptions(
        batch_size=config.batch_size,
        image_shape=image_shape,
        workers=data.workers,
        on_damaged=data.on_damaged,
        shard=(jax.process_index(), jax.process_count()),
        dtype=dtype,
        erasing=data.erasing_probability > 0,
    )


RECORDINGS_SHOWN = 6  # in the report
MOST_STEPS = 2**31 - 1  # of a training: they are counted in 32 bits


def _steps(epochs, steps_per_epoch):
    return None if epochs is None else min(round(epochs * steps_per_epoch), MOST_STEPS)


def _check_length(epochs, steps_per_epoch):
    if epochs * steps_per_epoch > MOST_STEPS:
        raise ValueError(
            f"{epochs=} are {epochs * steps_per_epoch:.3g} steps; at most {MOST_STEPS} are possible"
        )


def learning_rate(config, steps_per_epoch):
    """Returns the learning rate of a configuration as a function of the training step.

    Args:
      config: a ConfigDict, validated.
      steps_per_epoch: may be a fraction.

    Raises:
      ValueError: naming lengths that leave nothing of the schedule.
    """
    times = plan(config)
    return optimizer_lib.learning_rate_schedule(
        config.optimizer,
        times.schedule_epochs,
        steps_per_epoch,
        _steps(times.schedule_start, steps_per_epoch),
    )


def _procedure(config, rate, steps_per_epoch, spike_prices, **given):
    """How a training step is taken; `given` is what the configuration alone does not say."""
    return training.Procedure(
        optimizer=_create_optimizer(config, rate),
        objective=_create_objective(config, steps_per_epoch, spike_prices),
        erasing_fill=config.data.erasing_fill,
        mixing=_create_mixing(config, steps_per_epoch),
        accumulate=config.accumulate,
        trainable=config.trainable,
        average_decay=config.average_decay,
        seed=config.seed,
        **given,
    )


def _create_optimizer(config, learning_rate):
    return optimizer_lib.create_optimizer(config.optimizer, learning_rate, config.trainable)


def _create_mixing(config, steps_per_epoch):
    settings = {k: v for k, v in config.mixing.items() if k not in ("off", "off_epoch")}
    return Mixing(**settings, off_step=_steps(plan(config).mixing_end, steps_per_epoch))


def _create_distillation(config, teacher, class_names):
    settings, data = config.distillation, config.data
    if teacher is None:
        return None
    model = teachers.read_config(teacher, data, class_names).model
    model = model_of(model, len(class_names), data.image_size)
    return distillation.Distillation(model, settings.weight, settings.temperature)


def _source(data, key, frames):
    """Opens one split; an error that speaks of the split names its key too."""
    split = data[key]
    try:
        return sources.load(data.name, split, data.dir, frames)
    except (ValueError, FileNotFoundError) as error:
        if type(error) not in (ValueError, FileNotFoundError) or repr(split) not in str(error):
            raise
        raise type(error)(f"data.{key}={split!r}: {error}") from error


def model_of(settings, num_classes, image_size):
    """Returns the model of a configuration.

    Args:
      settings: `config.model`, validated.
      num_classes: outputs.
      image_size: side in pixels.

    Raises:
      ValueError: naming a setting that does not fit.
    """
    settings = config_lib.family_settings(settings)
    settings["dtype"] = jnp.dtype(settings["dtype"])
    return create_model(
        settings.pop("name"), num_classes, image_size, settings.pop("time_steps"), **settings
    )


def _check_multipliers(multipliers, model, image_shape):
    if not multipliers:
        return
    params = variable_shapes(model, image_shape)["params"]
    validation.check_patterns(multipliers, list(traverse_util.flatten_dict(params, sep="/")))


def _spike_prices(config, model, image_shape):
    if not config.spike_penalty:
        return ()
    prices = energy.spike_prices(model, image_shape)
    return tuple((name, config.spike_penalty * price) for name, price in prices.items())


def _create_objective(config, steps_per_epoch, spike_prices):
    return Objective(
        label_smoothing=config.optimizer.label_smoothing,
        step_losses=_step_losses(config.step_losses),
        time_step_penalty=config.time_step_penalty,
        target_time_steps=config.target_time_steps,
        min_time_steps=config.min_time_steps,
        groups=config.time_step_groups,
        estimator=config.model.neuron.estimator,
        spike_prices=spike_prices,
        **_phases(config, steps_per_epoch),
    )


def _step_losses(settings):
    return StepLosses(settings.weight, settings.level) if settings.on else None


def _phases(config, steps_per_epoch):
    times = plan(config)
    return {
        "start_step": _steps(times.scores_start, steps_per_epoch),
        "anneal_steps": _steps(times.anneal, steps_per_epoch),
        "patience_steps": steps_per_epoch,
        "freeze_step": _steps(times.scores_end, steps_per_epoch),
    }
