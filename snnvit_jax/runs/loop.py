"""A run from start, or from where it stopped, to its end: what happens between training steps."""

import contextlib
import time

import jax
import numpy as np

from snnvit_jax import evaluation, report, training
from snnvit_jax.checkpoints.checkpoints import Checkpoints, restore
from snnvit_jax.data import loader
from snnvit_jax.deployment import deploy
from snnvit_jax.distributed import CommonStop, is_writer, same_for_all
from snnvit_jax.distributed.sharding import shard_batch, to_host
from snnvit_jax.models import layer_names, variable_shapes
from snnvit_jax.runs.clock import StepClock
from snnvit_jax.runs.experiment import build
from snnvit_jax.runs.interrupts import StopRequest
from snnvit_jax.runs.logs import create_log
from snnvit_jax.runs.workdir import Workdir, check_same_run
from snnvit_jax.training import nonfinite

# Parameters and two moments of the optimiser, with room for a checkpoint being written.
_CHECKPOINT_BYTES_PER_PARAMETER = 12


_LAST_GOOD = "the last good checkpoint is kept: lower optimizer.learning_rate and run again"


class Run:
    """One training run in its folder.

    Creating it checks everything and restores the newest checkpoint; bad input ends here, before
    the training step is compiled and with the folder's contents as they were.

    Attributes:
      experiment: what the configuration stands for.
      workdir: the folder.
      state: the training state.
    """

    def __init__(self, config, workdir, training=True):
        """Prepares a run.

        Args:
          config: a ConfigDict with the keys of `config.default_config`.
          workdir: path of its folder; one that holds a run already is continued.
          training: whether it is to be trained; otherwise the folder must hold a checkpoint, and is
            not written to, so that a training may go on in it at the same time.

        Raises:
          ValueError: naming a key or value that does not fit, the model, or the checkpoints.
          FileNotFoundError: if the data set is not prepared, or a teacher is missing.
          OSError: if the folder cannot be used.
        """
        self.experiment = build(config, to_train=training)
        self.workdir = Workdir(workdir)
        self._changed = check_same_run(self.workdir, config)
        if training:
            self.workdir.prepare(self._bytes_to_write())
        self._teacher = self.experiment.load_teacher()
        self.state = self.experiment.create_state()
        restored, self._damaged = restore(self.workdir.checkpoints, self.state)
        if restored is not None:
            self.state = restored[1]
        elif not training:
            raise ValueError(f"the workdir {self.workdir.path} holds no checkpoint to evaluate")

    def train(self):
        """Trains to the end, evaluates and writes the report.

        Returns:
          The summary as a dictionary, or None if a signal asked to stop first; everything is saved
          then, and `stop_signal` holds its number.

        Raises:
          FloatingPointError: if the loss or a parameter is not finite any more.
          ValueError: for a damaged image or a label outside the classes.
          OSError: if the folder cannot be written any more, or another run writes to it.
        """
        keep = self.experiment.config.keep_checkpoints
        with (
            self.workdir.lock() if is_writer() else contextlib.nullcontext(),
            Checkpoints(self.workdir.checkpoints, keep, self._damaged) as self._checkpoints,
        ):
            return self._train()

    def _train(self):
        self.stop_signal = None
        self._saved_at = time.perf_counter()
        config, start = self.experiment.config, int(self.state.step)
        history = []
        if is_writer():
            self.workdir.write_config(config, start)
            history = self.workdir.cut_metrics(start)
        self._clock = StepClock(history[-1]["seconds"] if history else 0.0)
        last = None
        with (
            StopRequest() as request,
            create_log(self.workdir, self.experiment.total_steps, start, is_writer()) as log,
            loader.train_batches(
                self.experiment.train_source,
                self.experiment.augment,
                self.experiment.loader_options,
                seed=config.seed,
                repeats=config.data.repeats,
                start_step=start,
            ) as batches,
        ):
            if start:
                log.say(f"continuing {self.workdir.path} from step {start}")
                log.say("\n".join(f"changed: {line}" for line in self._changed))
            stop = CommonStop(request, self.experiment.mesh)
            for step in range(start + 1, self.experiment.total_steps + 1):
                stop.exchange()
                last = self._train_one(step, batches, log, stop)
                if stop:
                    self._save(step)
                    self._checkpoints.wait()
                    log.say(f"stopped after step {step}; saved in {self.workdir.path}")
                    self.stop_signal = stop.signal
                    return None
            self._checkpoints.wait()
        return self._finish(last or self.evaluate())

    def evaluate(self):
        """Evaluates the current state on the held-out split.

        Returns:
          An `evaluation.Evaluation`.
        """
        experiment = self.experiment
        return evaluation.evaluate(
            experiment.model,
            jax.jit(experiment.procedure.placement.gather)(self.state.eval_variables),
            experiment.eval_source,
            experiment.preprocess,
            experiment.loader_options,
            mesh=experiment.mesh,
            progress=is_writer(),
        )

    def write_results(self, result):
        """Writes schedule.json and summary.json, if this process is the one that writes.

        Args:
          result: an `evaluation.Evaluation` of the current state.

        Returns:
          The summary as a dictionary.
        """
        history = self.workdir.read_metrics()
        training_lines = [line for line in history if "images_per_second" in line]
        step = int(self.state.step)
        summary = {
            "accuracy": result.accuracy,
            "loss": result.loss,
            "split": result.split,
            "examples": result.examples,
            "average_time_steps": result.schedule.average,
            "time_steps": result.schedule.time_steps,
            "epochs": step / self.experiment.steps_per_epoch,
            "steps": step,
            "seconds": history[-1]["seconds"] if history else 0.0,
            "images_per_second": _median(training_lines, "images_per_second"),
            "data_wait_fraction": _median(training_lines, "data_wait_fraction"),
            "damaged_images": int(max([x.get("damaged_images", 0) for x in history], default=0)),
            "energy_uj": result.energy.microjoule,
            "firing_rate": result.firing_rate,
            "dead_layers": result.dead_layers,
            "saturated_layers": result.saturated_layers,
            "devices": self.experiment.mesh.size,
        }
        if is_writer():
            result.schedule.save(self.workdir.schedule)
            self.workdir.write_summary(summary)
        return summary

    def write_report(self, result):
        """Draws the figures and writes report.html, if this process is the one that writes.

        Args:
          result: an `evaluation.Evaluation` of the current state.
        """
        if not is_writer():
            return
        report.write(
            self.workdir,
            result,
            class_names=self.experiment.eval_source.class_names,
            config=self.experiment.config,
            recordings=self.experiment.some_recordings(),
        )

    def export(self):
        """Deploys the current state and writes it as deployed.snn and deployed.safetensors.

        Returns:
          (deployed, path): a `deploy.Deployed` and the file that `load_deployed` reads.
        """
        deployed = deploy(
            self.experiment.model, to_host(self.state.eval_variables, self.experiment.mesh)
        )
        path = self.workdir.path / "deployed.snn"
        if is_writer():
            deployed.save(path)
            deployed.save_weights(path.with_suffix(".safetensors"))
        return deployed, path

    def _train_one(self, step, batches, log, stop):
        """Takes a training step and does what is due after it; returns an evaluation if one was."""
        experiment, config = self.experiment, self.experiment.config
        self._checkpoints.check()
        batch = self._clock.wait_for(batches)
        self.state, seen = training.train_step(
            self.state,
            shard_batch(batch, experiment.mesh),
            self._teacher,
            procedure=experiment.procedure,
        )
        self._clock.count(seen, experiment.config.batch_size)
        log.bar.update()
        evaluate = step % experiment.steps_per_evaluation == 0 or step == experiment.total_steps
        save = evaluate or (experiment.ends_epoch(step) and self._is_save_due())
        if save or step % config.log_every_steps == 0:
            self._log(step, log)
        if not save:
            return None
        result = self._evaluate_and_log(step, log) if evaluate and not stop else None
        self._save(step, result and result.accuracy)
        self._clock.restart()
        return result

    def _is_save_due(self):
        """Whether the last save is long enough ago, by the clock of the process that writes."""
        due = time.perf_counter() - self._saved_at >= self.experiment.config.save_every_seconds
        return bool(same_for_all([due])[0])

    def _save(self, step, accuracy=None):
        if not training.is_finite(self.state):
            raise FloatingPointError(
                f"a parameter is not finite any more after step {step}; {_LAST_GOOD}"
            )
        self._checkpoints.save(step, self.state, accuracy)
        self._saved_at = time.perf_counter()

    def _log(self, step, log):
        values, failed = self._clock.read()
        for steps_ago, flags in failed:
            self._tell_failed(step - steps_ago, flags, log)
        if not values:
            raise FloatingPointError(
                f"no step since the last line of the log was finite, up to {step}; {_LAST_GOOD}"
            )
        values["skipped_steps"] = int(self.state.skipped)
        values["epoch"] = step / self.experiment.steps_per_epoch
        values["learning_rate"] = self.experiment.learning_rate(step - 1)
        log.write(step, values)
        log.show(
            {
                "loss": f"{values['loss']:.3f}",
                "accuracy": f"{values['accuracy']:.3f}",
                "time steps": f"{values['average_time_steps']:.2f}",
                "images/s": f"{values['images_per_second']:.0f}",
            }
        )

    def _tell_failed(self, step, flags, log):
        """Names a step whose numbers were not finite; stops unless such steps are skipped."""
        experiment = self.experiment
        names = layer_names(experiment.model, experiment.image_shape[-1])
        where = nonfinite.describe(flags, self.state, names)
        examples = ", ".join(map(str, experiment.examples_of(step)))
        text = f"in step {step}, not finite: {where}; training examples of its batch: {examples}"
        if experiment.config.on_nonfinite == "stop":
            raise FloatingPointError(f"{text}; {_LAST_GOOD}, or set on_nonfinite='skip'")
        log.say(f"skipped: {text}")

    def _evaluate_and_log(self, step, log):
        result = self.evaluate()
        epoch = step / self.experiment.steps_per_epoch
        values = {
            "epoch": epoch,
            "eval_loss": result.loss,
            "eval_accuracy": result.accuracy,
            "eval_average_time_steps": result.schedule.average,
            "eval_firing_rate": result.firing_rate,
            "eval_dead_layers": len(result.dead_layers),
            "eval_saturated_layers": len(result.saturated_layers),
            "eval_energy_uj": result.energy.microjoule,
            "seconds": self._clock.seconds,
        }
        log.write(step, values)
        log.say(
            f"epoch {epoch:.4g}: {result.split} accuracy {result.accuracy:.4f}, "
            f"average time steps {result.schedule.average:.2f} of {result.schedule.time_steps}"
        )
        for state, names in (
            ("does not fire any more", result.dead_layers),
            ("fires always", result.saturated_layers),
        ):
            for name in names:
                log.say(f"warning: {name} {state}")
        return result

    def _finish(self, result):
        summary = self.write_results(result)
        self.write_report(result)
        return summary

    def _bytes_to_write(self):
        shapes = variable_shapes(self.experiment.model, self.experiment.image_shape)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        copies = self.experiment.config.keep_checkpoints + 2
        return parameters * _CHECKPOINT_BYTES_PER_PARAMETER * copies


def _median(lines, key):
    return float(np.median([line[key] for line in lines if key in line] or [0.0]))
