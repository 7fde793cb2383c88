"""A run from start, or from where it stopped, to its end: what happens between training steps."""

import contextlib
import dataclasses
import json
import time

import jax

from snnvit_jax import evaluation, report, training
from snnvit_jax.checkpoints import LAST, Measured, is_best
from snnvit_jax.checkpoints.checkpoints import Checkpoints, add_measured, restore, restore_best
from snnvit_jax.common import files
from snnvit_jax.common.hints import AGAINST_SILENCE
from snnvit_jax.data import loader
from snnvit_jax.deployment import planning
from snnvit_jax.distributed import CommonStop, is_writer, same_for_all
from snnvit_jax.distributed.sharding import shard_batch, to_host
from snnvit_jax.models import describe, variable_shapes
from snnvit_jax.runs import classes, continuing, memory, networks, results, start, teachers
from snnvit_jax.runs.clock import StepClock
from snnvit_jax.runs.experiment import build, learning_rate
from snnvit_jax.runs.interrupts import StopRequest
from snnvit_jax.runs.logs import create_log
from snnvit_jax.runs.profiling import Profile
from snnvit_jax.runs.remarks import Remarks
from snnvit_jax.runs.restart import PassingError
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.training import nonfinite

# Parameters and two moments of the optimiser, with room for a checkpoint being written.
_CHECKPOINT_BYTES_PER_PARAMETER = 12


_ROUNDING = 1e-6  # of an average of time steps
_LAST_GOOD = "the last good checkpoint is kept: lower optimizer.learning_rate and run again"


class Run:
    """One training run in its folder.

    Creating it checks everything and restores the newest checkpoint; bad input ends here, before
    the training step is compiled and with the folder's contents as they were. One that is to be
    trained has the folder for itself from then on, until `train` ends or `close` is called.

    Attributes:
      experiment: what the configuration stands for.
      workdir: the folder.
      results: the folder that results are written to: of the best checkpoint, one of their own.
      state: the training state.
      measured: of the best checkpoint, the `Measured` that it was chosen by; None for the last.
    """

    def __init__(self, config, workdir, training=True, checkpoint=LAST):
        """Prepares a run.

        Args:
          config: a ConfigDict with the keys of `config.default_config`.
          workdir: path of its folder; one that holds a run already is continued.
          training: whether it is to be trained; otherwise the folder must hold a checkpoint, and is
            not written to, so that a training may go on in it at the same time.
          checkpoint: which one to look at, "last" or "best" (see `checkpoints.best`); a training
            goes on from the last.

        Raises:
          ValueError: naming a key or value that does not fit, the model, or the checkpoints.
          FileNotFoundError: if the data set is not prepared, or a teacher is missing.
          OSError: if the folder cannot be used, or another process trains in it.
        """
        takes_best = is_best(checkpoint) and not training
        self._stop, self.measured = None, None
        self.workdir = self.results = Workdir(workdir)
        continuing.check_same_run(self.workdir, config)  # before data and model are looked at
        self.experiment = build(config, to_train=training, workdir=self.workdir)
        self._check_folder()
        with contextlib.ExitStack() as held:
            if training:
                self.workdir.prepare(self._bytes_to_write())
                held.enter_context(self.workdir.lock() if is_writer() else contextlib.nullcontext())
                self._check_folder()  # again: until now another process may have written there
            self._teacher = self.experiment.load_teacher()
            if takes_best:
                self._restore_best()
            else:
                self._restore(training)
            self._held = held.pop_all()

    @property
    def step(self):
        """Training steps done."""
        return int(self.state.step)

    def close(self):
        """Lets go of the folder, so that another process may train there."""
        self._held.close()

    def _check_folder(self):
        self._before = continuing.check_same_run(self.workdir, self.experiment.config)
        classes.check(self.workdir, self.experiment.train_source.class_names)

    def _restore_best(self):
        """Takes the state of the checkpoint that was the best when it was evaluated."""
        checkpoints, shapes = self.workdir.checkpoints, self.experiment.state_shapes
        try:
            _, self.state, measured = restore_best(checkpoints, shapes)
        except OSError as error:
            raise PassingError(error) from error
        own = self._before and self._before.data.eval_split
        self.measured = dataclasses.replace(measured, split=measured.split or own)
        self.results = self.workdir.best

    def _restore(self, training):
        """Takes the newest checkpoint's state; a new run takes its first one."""
        self._start, self._changed = None, []
        try:
            restored, self._damaged = restore(
                self.workdir.checkpoints, self.experiment.state_shapes
            )
        except OSError as error:
            raise PassingError(error) from error
        if restored is not None:
            self.state = restored[1]
            if training and self._before is not None:
                self._resume(self._before, restored[0])
        elif not training:
            raise ValueError(f"the workdir {self.workdir.path} holds no checkpoint to evaluate")
        else:
            self.workdir.check_beginning()
            self.state, self._start = self.experiment.begin()

    def train(self, profile=0, watch=None):
        """Trains to the end, evaluates and writes the report.

        Args:
          profile: training steps of which a trace is written to the folder `profile` of the run.
          watch: function that is called with every line of metrics.jsonl as it is written, a
            dictionary, by the process that writes; for a live figure, or another logger.

        Returns:
          The summary as a dictionary, or None if a signal asked to stop first; everything is saved
          then, and `stop_signal` holds its number.

        Raises:
          FloatingPointError: if the loss or a parameter is not finite any more.
          ValueError: for a damaged image or a label outside the classes.
          OSError: if the folder cannot be written any more.
        """
        memory.check(self.experiment)
        with self._held, StopRequest() as request:
            self._stop = stop = CommonStop(request, self.experiment.mesh)
            self._profile = Profile(self.workdir.path / "profile", profile if is_writer() else 0)
            last = self._train(watch)
            summary = None if stop else self._finish(last)
            self._stop, self.stop_signal = None, stop.signal if summary is None else None
            return summary

    def _train(self, watch):
        """Trains to the end, or until it is asked to stop; returns an evaluation made there."""
        total = self.experiment.total_steps
        history = self._write_beginning() if is_writer() else []
        self._clock = StepClock(results.seconds(history), results.damaged_images(history))
        with create_log(self.workdir, total, self.step, is_writer(), watch) as log:
            self._tell_beginning(log)
            last = self._make_up_evaluation(history, log)
            if not self._stop:
                last = self._train_on(log) or last
            if self._stop:
                log.say(f"stopped after step {self.step}; saved in {self.workdir.path}")
        return last

    def _write_beginning(self):
        """Writes what a run needs from its start on; returns the lines of its log so far."""
        step, config = self.step, self.experiment.config
        if not self.workdir.classes.exists():
            classes.save(self.workdir, self.experiment.train_source.class_names)
        if self._start is not None:
            text = json.dumps(self._start, indent=1) + "\n"
            files.write_text(self.workdir.origin, text)
        if self._teacher is not None:
            teacher = jax.device_get(self._teacher)
            teachers.keep(config.distillation.teacher, self.workdir, teacher)
        if step < self.experiment.total_steps:
            self.workdir.put_results_aside(step)
        self.workdir.write_config(config, step)
        return self.workdir.cut_metrics(step)

    def _tell_beginning(self, log):
        if self._start is not None:
            log.say(start.describe(self._start))
        if self.step:
            epoch = self.step / self.experiment.steps_per_epoch
            log.say(
                f"continuing {self.workdir.path} from step {self.step} of "
                f"{self.experiment.total_steps}, epoch {epoch:.4g}"
            )
            for line in self._changed:
                log.say(f"changed: {line}")
        log.say(f"plan: {self.experiment.plan.described()}")

    def _make_up_evaluation(self, history, log):
        """Makes the evaluation that a signal cut short when this state was saved; returns it."""
        step = self.step
        is_done = any(line["step"] == step and "eval_accuracy" in line for line in history)
        if not step or not self._is_evaluation_due(step) or same_for_all([is_done])[0]:
            return None
        result = self._evaluate_and_log(step, log)
        if result is not None and is_writer():
            add_measured(self.workdir.checkpoints, step, self._measured(result))
        return result

    def _train_on(self, log):
        """Takes all steps that are left, unless it is stopped; returns the last evaluation."""
        experiment, config = self.experiment, self.experiment.config
        done, last = self.step, None
        self._saved_at = time.perf_counter()
        self._remarks = Remarks(config, experiment.total_steps)
        self._clock.restart()
        with (
            Checkpoints(
                self.workdir.checkpoints, config.keep_checkpoints, self._damaged
            ) as self._checkpoints,
            loader.train_batches(
                experiment.train_source,
                experiment.augment,
                experiment.loader_options,
                seed=config.seed,
                repeats=config.data.repeats,
                start_step=done,
            ) as batches,
        ):
            if self._start is not None:  # from now on the weights it starts from are its own
                self._save(done, log)
            for step in range(done + 1, experiment.total_steps + 1):
                self._stop.exchange()
                last, is_stopped = self._train_one(step, batches, log)
                if is_stopped:
                    break
            self._checkpoints.wait()
        self._profile.end()
        return last

    def evaluate(self):
        """Evaluates the current state on the held-out split.

        Returns:
          An `evaluation.Evaluation`, or None if a signal to a training cut it short.
        """
        experiment = self.experiment
        return evaluation.evaluate(
            experiment.model,
            jax.jit(experiment.procedure.placement.gather)(self.state.eval_variables),
            experiment.eval_source,
            experiment.preprocess,
            experiment.loader_options,
            mesh=experiment.mesh,
            normalization=experiment.normalization,
            progress=is_writer(),
            is_stopped=self._is_stopped,
        )

    def _is_stopped(self):
        """Whether a training is asked to stop; all processes must call it together."""
        if self._stop is None:
            return False
        self._stop.exchange()
        return bool(self._stop)

    def summarise(self, result):
        """Returns what summary.json holds, as a dictionary.

        Args:
          result: an `evaluation.Evaluation` of the current state.
        """
        history = self.workdir.read_metrics()
        return results.summarise(self.experiment, self.step, result, history, self.measured)

    def describe_choice(self, split):
        """Returns in words which checkpoint the state is from, and what chose it.

        Args:
          split: that results are measured on.
        """
        return results.describe_choice(self.step, self.measured, split)

    def write_results(self, result):
        """Writes schedule.json and summary.json of a training that has ended.

        Only the process that writes does so, and only while no training goes on in the folder.

        Args:
          result: an `evaluation.Evaluation` of the current state.

        Returns:
          What to tell if they were not written, else None.
        """
        if not is_writer():
            return None
        own = dataclasses.replace(self.experiment, config=self.workdir.read_config())
        summary = self.summarise(result)
        return results.write_if_finished(self.workdir, result, summary, own.total_steps)

    def write_report(self, result):
        """Draws the figures and writes report.html, if this process is the one that writes.

        Args:
          result: an `evaluation.Evaluation` of the current state.
        """
        if not is_writer():
            return
        files.make_folder(self.results.path)
        report.write(
            self.results,
            result,
            class_names=self.experiment.eval_source.class_names,
            config=self.experiment.config,
            network=describe(self.experiment.model),
            checkpoint=self.describe_choice(result.split),
            recordings=self.experiment.some_recordings(),
        )

    def export(self, form="snn"):
        """Deploys the current state and writes it.

        Args:
          form: "snn" for deployed.snn, which `load_deployed` reads, and deployed.safetensors;
            "onnx" for deployed.onnx.

        Returns:
          (deployed, path): a `deployment.Deployed` and the first of these files.
        """
        deployed = networks.deploy_run(
            self.experiment.config,
            self.experiment.model,
            to_host(self.state.eval_variables, self.experiment.mesh),
            self.experiment.train_source.class_names,
        )
        path = self.results.path / f"deployed.{form}"
        if is_writer():
            files.make_folder(path.parent)
            deployed.save(path)
        if is_writer() and form == "snn":
            deployed.save_weights(path.with_suffix(".safetensors"))
        return deployed, path

    def _resume(self, before, step):
        """Goes on with the run's own schedule, or with another if the epochs are others."""
        experiment, per_epoch = self.experiment, self.experiment.steps_per_epoch
        config, why = continuing.resume(before, experiment.config, step, per_epoch)
        self.experiment = experiment.with_lengths(config)
        rates = (learning_rate(before, per_epoch)(step), self.experiment.learning_rate(step))
        self._changed = continuing.told(before, config, why, rates)

    def _train_one(self, step, batches, log):
        """Takes a training step and does what is due after it.

        Returns:
          (an evaluation if one was made, whether to stop: the step is saved then).
        """
        experiment, config = self.experiment, self.experiment.config
        self._checkpoints.check()
        batch = self._clock.wait_for(batches)
        self._profile.before_step()
        self.state, seen = training.train_step(
            self.state,
            shard_batch(batch, experiment.mesh),
            self._teacher,
            procedure=experiment.procedure,
        )
        self._clock.count(seen, experiment.config.batch_size)
        if self._profile.after_step(seen):
            log.say(f"trace of the steps up to {step} written to {self._profile.folder}")
        log.bar.update()
        # Asked once: a signal that comes later is for the next step.
        is_stopped, evaluate = bool(self._stop), self._is_evaluation_due(step)
        save = evaluate or is_stopped or (experiment.ends_epoch(step) and self._is_save_due())
        if save or step % config.log_every_steps == 0:
            self._log(step, log)
        if not save:
            return None, False
        result = None
        if evaluate and not is_stopped:
            result = self._evaluate_and_log(step, log)
            is_stopped = bool(self._stop)
        self._save(step, log, result and self._measured(result))
        self._clock.restart()
        return result, is_stopped

    def _is_evaluation_due(self, step):
        return step % self.experiment.steps_per_evaluation == 0 or (
            step == self.experiment.total_steps
        )

    def _is_save_due(self):
        """Whether the last save is long enough ago, by the clock of the process that writes."""
        due = time.perf_counter() - self._saved_at >= self.experiment.config.save_every_seconds
        return bool(same_for_all([due])[0])

    def _measured(self, result):
        """What the best checkpoint is chosen by: the accuracy, within the budget of time steps."""
        target = self.experiment.config.target_time_steps
        on_budget = target is None or result.schedule.average <= target + _ROUNDING
        return Measured(result.accuracy, result.split, on_budget)

    def _save(self, step, log, measured=None):
        if not training.is_finite(self.state):
            raise FloatingPointError(
                f"a parameter is not finite any more after step {step}; {_LAST_GOOD}"
            )
        log.flush()  # what goes on from a checkpoint goes on from the lines before it
        self._checkpoints.save(step, self.state, measured)
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
        for remark in self._remarks.on(step, values):
            log.say(remark)
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
        layers = planning.forward_order(experiment.model, experiment.image_shape)
        where = nonfinite.describe(flags, self.state, layers)
        examples = ", ".join(map(str, experiment.examples_of(step)))
        text = f"in step {step}, not finite: {where}; training examples of its batch: {examples}"
        if experiment.config.on_nonfinite == "stop":
            raise FloatingPointError(f"{text}; {_LAST_GOOD}, or set on_nonfinite='skip'")
        log.say(f"skipped: {text}")

    def _evaluate_and_log(self, step, log):
        """Evaluates and writes what was found; returns None if it was cut short."""
        result = self.evaluate()
        if result is None:
            return None
        epoch = step / self.experiment.steps_per_epoch
        values = {
            "epoch": epoch,
            "eval_loss": result.loss,
            "eval_accuracy": result.accuracy,
            "eval_average_time_steps": result.schedule.average,
            "eval_firing_rate": result.firing_rate,
            "eval_dead_layers": len(result.dead_layers),
            "eval_saturated_layers": len(result.saturated_layers),
            "seconds": self._clock.seconds,
        }
        values |= results.of_modules(result)
        if result.energy is not None:
            values["eval_energy_uj"] = result.energy.microjoule
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
        if result.dead_layers:
            log.say(f"hint: {AGAINST_SILENCE}")
        return result

    def _finish(self, result):
        """Evaluates, unless that was done, and writes all that is to be known of the run."""
        result = result or self.evaluate()
        if result is None:
            return None
        summary = self.summarise(result)
        if is_writer():
            results.write(self.workdir, result, summary)
        self.write_report(result)
        return summary

    def _bytes_to_write(self):
        shapes = variable_shapes(self.experiment.model, self.experiment.image_shape)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        copies = self.experiment.config.keep_checkpoints + 2
        return parameters * _CHECKPOINT_BYTES_PER_PARAMETER * copies
