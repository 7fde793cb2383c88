"""A schedule that is measured: time steps are given up, the least useful first.

    python experiments/cifar10/search.py pretrained:cifar10_t4 OUT --target=2.0 --data_dir=DIR

A unit is a layer of the patch embedding, an attention or an MLP. Round after round one step of one
unit is given up: that without which the answers on training images, evenly spaced over the split,
change least, for each layer of the unit. Every layer keeps a step. A change is the Kullback-Leibler
divergence from what the network says with all of its steps; its labels are not asked
(--criterion=loss asks them). With --energy=MICROJOULE in place of --target, it is the change for
each microjoule that an image costs less, until it costs no more than that. In a round only the
--width steps that looked best when they were measured last are measured again. OUT becomes a
trained network with the weights that were there and the schedule that was found, for
--config.init_from. OUT/search.json says what every round measured, as soon as it is over, also of a
search that is stopped or does not reach its goal.
"""

import argparse
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

import snnvit_jax as snn
from snnvit_jax import pretrained
from snnvit_jax.common import files
from snnvit_jax.common.arguments import number, output_folder, whole
from snnvit_jax.runs import analysis, initial, opening
from snnvit_jax.time_steps.masks import module_of
from snnvit_jax.time_steps.schedule import TimeStepSchedule, with_schedule

STEM = "patch_embed"
COUNTED = 64  # images whose operations are counted


def units(names):
    """Returns {unit: its layers}.

    Args:
      names: of all layers.
    """
    found = {}
    for name in names:
        module = module_of(name)
        found.setdefault(name if module == STEM else module, []).append(name)
    return found


def without(schedule, layers, step):
    """Returns a schedule in which some layers are silent at one step more.

    Args:
      schedule: a `TimeStepSchedule`.
      layers: names.
      step: from 0 to T - 1.
    """
    masks = {name: mask.copy() for name, mask in schedule.masks.items()}
    for name in layers:
        masks[name][step] = False
    return TimeStepSchedule(masks)


def search(loss_of, cost_of, schedule, target, width):
    """Yields what each round measured, until the cost is at the target or nothing saves any.

    Args:
      loss_of: function of a schedule.
      cost_of: function of a schedule, less when a step is given up: its average number of steps, or
        the energy of an image.
      schedule: to start from.
      target: cost to reach.
      width: steps that are measured in a round.

    Yields:
      {"unit", "step", "loss", "average", "cost", "schedule"} after it was given up.
    """
    members, T = units(schedule.masks), schedule.time_steps
    harm = dict.fromkeys(((unit, step) for unit in members for step in range(T)), -jnp.inf)
    loss, cost = loss_of(schedule), cost_of(schedule)
    while cost > target:
        left = {
            (unit, step): value
            for (unit, step), value in harm.items()
            if _may_go([schedule.masks[name] for name in members[unit]], step)
        }
        if not left:
            return
        best = sorted(left, key=left.get)
        fresh = [one for one in best if left[one] == -jnp.inf] or best[:width]
        tried = {}
        for unit, step in fresh:
            other = without(schedule, members[unit], step)
            tried[unit, step] = (loss_of(other), cost_of(other), other)
            harm[unit, step] = _harm(tried[unit, step][0] - loss, cost - tried[unit, step][1])
        unit, step = min(fresh, key=harm.get)
        if all(harm[one] == jnp.inf for one in left):
            return
        if harm[unit, step] == jnp.inf:  # none of these saves any, one of the others may
            continue
        loss, cost, schedule = tried[unit, step]
        found = {"unit": unit, "step": step, "loss": loss, "average": schedule.average}
        yield found | {"cost": cost, "schedule": schedule}


def _may_go(masks, step):
    """Whether some layer of a unit has a step, and none would be left without any."""
    return any(mask[step] for mask in masks) and all(
        mask.sum() - mask[step] >= 1 for mask in masks if mask.any()
    )


def _harm(lost, saved):
    """How much more is lost for each unit of cost that is saved; the least is given up first.

    What is gained besides, where the loss falls, counts for more the more is saved.
    """
    if saved <= 0:
        return jnp.inf
    return lost / saved if lost > 0 else lost * saved


@functools.partial(jax.jit, static_argnames="model")
def _logits(variables, images, model):
    return model.apply(variables, images)


@jax.jit
def _loss(logits, targets, mask):
    return jnp.sum(optax.losses.kl_divergence(jax.nn.log_softmax(logits), targets) * mask)


def loss_function(experiment, variables, criterion):
    """Returns the mean loss as a function of the schedule; the images stay in memory.

    Args:
      experiment: from `analysis.open_run`.
      variables: of its model.
      criterion: "change" from what these variables say, or "loss" by the labels.
    """
    batches = [batch for batch, _ in analysis.batches(experiment, "reading")]
    if criterion == "change":
        logits = [_logits(variables, batch["image"], experiment.model) for batch in batches]
        targets = list(map(jax.nn.softmax, logits))
    else:
        classes = experiment.model.config.num_classes
        targets = [jax.nn.one_hot(batch["label"], classes) for batch in batches]
    count = sum(float(jnp.sum(batch["mask"])) for batch in batches)

    def loss_of(schedule):
        changed, total = with_schedule(variables, schedule), 0.0
        for batch, wanted in zip(batches, targets, strict=True):
            logits = _logits(changed, batch["image"], experiment.model)
            total += float(_loss(logits, wanted, batch["mask"]))
        return total / count

    return loss_of


def energy_function(experiment, variables):
    """Returns the energy of an image in microjoules as a function of the schedule.

    Args:
      experiment: from `analysis.open_run`; `COUNTED` images from all over it are counted.
      variables: of its model.
    """
    few = analysis.batches(analysis.with_examples(experiment, COUNTED), "counting")
    images = jnp.concatenate([batch["image"][np.asarray(batch["mask"])] for batch, _ in few])

    def cost_of(schedule):
        changed = with_schedule(variables, schedule)
        return snn.energy_report(experiment.model, changed, images).microjoule

    return cost_of


def located(network):
    """Returns the folder of a trained network, absolute.

    Args:
      network: "pretrained:NAME" or the folder.

    Raises:
      ValueError: if it is neither.
    """
    folder = initial.network_at(network)
    if folder is None:
        raise ValueError(
            f"{network} is no trained network: give pretrained:NAME, or a folder as "
            "experiments/pretrained/export.py writes it"
        )
    return folder.absolute()


def parse():
    """Returns the options, what `analysis.open_run` gives, the network, and the split."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", help="pretrained:NAME, or the folder of a trained network")
    parser.add_argument("out", type=output_folder, help="folder to write")
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument("--target", type=number(1), default=2.0, help="average number of time steps")
    goal.add_argument("--energy", type=number(above=0), help="of an image in µJ, in place of it")
    parser.add_argument("--examples", type=whole(1), default=512, help="training images to look at")
    parser.add_argument("--criterion", choices=("change", "loss"), default="change")
    parser.add_argument("--width", type=whole(1), default=8, help="steps measured in a round")
    parser.add_argument("--data_dir", help="folder of the data set")
    options = parser.parse_args()
    try:
        pretrained.check_free(options.out)
        place = located(options.network)
        network = snn.load_pretrained(place)
        split = opening.settings_of(place)[0].data.train_split
        run = analysis.open_run(place, options.examples, options.data_dir, split)
        options.examples = len(run[0].eval_source)  # where there are fewer
        return options, run, network, split
    except (ValueError, OSError) as error:
        parser.error(str(error))


def single(schedule, step):
    """Returns a schedule in which every layer keeps one step: this one, or else its last one."""
    masks = {}
    for name, mask in schedule.masks.items():
        kept = [step] if mask[step] else np.flatnonzero(mask)[-1:]
        masks[name] = np.isin(np.arange(mask.size), kept)
    return TimeStepSchedule(masks)


def check_goal(cost_of, schedule, goal, unit):
    """Raises SystemExit if a schedule has reached a goal already, or has no hope of reaching it.

    Args:
      cost_of: see `search`.
      schedule: to start from.
      goal: cost to reach; what costs more with one step of every layer, whichever that is, is taken
        to be out of reach. That is exact for numbers of steps.
      unit: of the cost, for the message.
    """
    cost, least = cost_of(schedule), np.inf
    if cost <= goal:
        sys.exit(f"error: nothing to give up, it has {cost:.3g} {unit} and {goal:g} are asked for")
    for step in range(schedule.time_steps):
        least = min(least, cost_of(single(schedule, step)))
        if least <= goal:
            return
    sys.exit(
        f"error: {goal:g} {unit} cannot be reached, with one step of every layer it has {least:.3g}"
    )


def measure(options, run, schedule, keep):
    """Returns the schedule that was found; what the rounds measure is kept, a progress bar shown.

    Args:
      options: of the command line.
      run: from `analysis.open_run`.
      schedule: to start from.
      keep: function of what all rounds measured, the schedule, and whether the goal is reached;
        called after every round.

    Raises:
      SystemExit: if the goal is not reached, or nothing is to be given up for it.
    """
    goal, cost_of, unit = options.target, lambda schedule: schedule.average, "time steps"
    if options.energy is not None:
        goal, cost_of, unit = options.energy, energy_function(*run), "µJ"
    check_goal(cost_of, schedule, goal, unit)
    rounds, file = [], options.out / "search.json"
    try:
        with tqdm(unit="round") as bar:
            loss_of = loss_function(*run, options.criterion)
            for one in search(loss_of, cost_of, schedule, goal, options.width):
                schedule = one.pop("schedule")
                rounds.append(one)
                keep(rounds, schedule, bool(one["cost"] <= goal))
                bar.set_postfix(one)
                bar.update()
    except KeyboardInterrupt:
        kept = f": what was measured before is in {file}" if rounds else ""
        sys.exit(f"stopped in round {len(rounds) + 1}{kept}")
    cost = rounds[-1]["cost"] if rounds else cost_of(schedule)
    if cost > goal:
        kept = f"; what was measured is in {file}" if rounds else ""
        sys.exit(f"error: {goal:g} {unit} cannot be reached, the least is {cost:.3g}{kept}")
    return schedule


def write_rounds(options, split, rounds, schedule, reached):
    """Writes OUT/search.json.

    Args:
      options: of the command line.
      split: that was looked at.
      rounds: what they measured.
      schedule: after them.
      reached: whether it is the one that was searched for.
    """
    found = {"split": split, "examples": options.examples, "criterion": options.criterion}
    found |= {"target": options.target} if options.energy is None else {"energy": options.energy}
    found |= {"reached": reached, "rounds": rounds, "masks": schedule.as_lists()}
    files.make_folder(options.out)
    files.write_text(options.out / "search.json", json.dumps(found, indent=1) + "\n")


def described(about, name, note):
    """Returns what config.json says of a network that has got another schedule.

    What was measured is left out: it is that of the network before.

    Args:
      about: what it said before; stays as it is.
      name: of the network now.
      note: a sentence that follows what was noted before.
    """
    about = {key: value for key, value in about.items() if key != "measured"}
    before = about["trained"].get("note")
    if isinstance(before, str) and before.strip():
        note = f"{before.rstrip(' .')}. {note}"
    return about | {"name": name, "trained": about["trained"] | {"note": note}}


def noted(options, name, split):
    """Returns in words what was searched, for the network's config.json."""
    goal = f"{options.target:g} time steps"
    if options.energy is not None:
        goal = f"{options.energy:g} µJ"
    what = f"--criterion={options.criterion}, {options.examples} examples of {split}"
    return f"Steps of {name} were given up by search.py, down to {goal} ({what})."


def main():
    options, run, network, split = parse()
    keep = functools.partial(write_rounds, options, split)
    schedule = measure(options, run, network.schedule, keep)
    note = noted(options, network.about.get("name", options.network), split)
    about = described(network.about, options.out.absolute().name, note)
    pretrained.write(options.out, about, with_schedule(network.variables, schedule))


if __name__ == "__main__":
    main()
