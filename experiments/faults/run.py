"""A campaign of faults against the trainer: python run.py OUT [--only=NAME] [--kills=50].

Trains one small network undisturbed, then again and again under faults, each time by the command
line that a user types, and compares every bit of the final training state. Results are kept in
OUT/faults.json, one entry for each fault, and printed as a table; what is there already is not done
again. Full disks and read-only folders need the right to mount file systems.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time

import damage
import pair
import trial
from trial import Trial

from snnvit_jax.common import markdown as tables
from snnvit_jax.common.arguments import output_folder, whole

AIMS = ("step", "save", "random", "evaluation", "step", "start")


class Campaign:
    """What all faults share.

    Attributes:
      scratch: folder for the runs.
      reference: `trial.final` of the undisturbed run.
      random: generator of the moments.
      kills: how many SIGKILLs.
    """

    def __init__(self, scratch, kills, seed=0):
        self.scratch, self.kills, self.random = scratch, kills, random.Random(seed)
        undisturbed = Trial(scratch / "undisturbed")
        if not (undisturbed.folder / "report.html").exists() and undisturbed.finish():
            raise RuntimeError(f"the undisturbed run failed: {undisturbed.error()}")
        self.reference = trial.final(undisturbed.folder)

    def compare(self, folder):
        """Returns whether a finished run agrees with the undisturbed one in every bit."""
        return trial.identical(trial.final(folder), self.reference)

    def emptied(self, name):
        """Returns a folder that does not exist."""
        folder = self.scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def fresh(self, name, *flags):
        """Returns a `Trial` in a folder that does not exist."""
        return Trial(self.emptied(name), *flags)

    def stopped(self, name, number=signal.SIGTERM, step=60):
        """Returns (trial, exit status) of a run stopped politely after some steps."""
        one = self.fresh(name)
        process = one.start()
        one.wait(process, lambda: one.done >= step)
        process.send_signal(number)
        return one, one.end(process)

    def resumed(self, one, lost, reference=None, **more):
        """Ends a disturbed run by the same command; returns its entry."""
        status = one.finish()
        reference = reference or self.reference
        same = status == 0 and trial.identical(trial.final(one.folder), reference)
        return {"survived": status == 0, "steps_lost": lost, "identical": same, **more}


def sigkill(campaign):
    """Kills runs at random and at aimed moments, again and again, until they end."""
    diary = campaign.scratch / "kills.json"  # a campaign that was interrupted goes on
    kills, runs = json.loads(diary.read_text()) if diary.exists() else ([], [])
    while True:
        one = Trial(campaign.scratch / f"kills-{len(runs)}")
        killed = True
        while killed and len(kills) < campaign.kills:
            killed = _killed(one, AIMS[len(kills) % len(AIMS)], campaign.random)
            if killed:
                kills.append({"phase": one.phase(), "steps_lost": max(0, one.done - one.newest)})
                diary.write_text(json.dumps((kills, runs)))
                print(f"kill {len(kills)}: {kills[-1]}, step {one.done}", flush=True)
        if killed and one.finish():
            raise RuntimeError(f"{one.folder} could not be finished: {one.error()}")
        runs.append(campaign.compare(one.folder))
        diary.write_text(json.dumps((kills, runs)))
        print(f"run {len(runs)} ended, identical: {runs[-1]}", flush=True)
        if len(kills) >= campaign.kills:
            break
    phases = collections.defaultdict(list)
    for kill in kills:
        phases[kill["phase"]].append(kill["steps_lost"])
    return {
        "what": f"{len(kills)} kills in {len(runs)} runs, each ended by restarting",
        "phases": {name: {"kills": len(x), "steps_lost": max(x)} for name, x in phases.items()},
        "survived": True,
        "steps_lost": max(kill["steps_lost"] for kill in kills),
        "identical": all(runs),
    }


def _killed(one, aim, generator):
    """Starts a run and kills it; returns False if it ended before, as it should."""
    process = one.start()
    condition, most = {
        "step": (one.stepped, 0.3),
        "random": (one.stepped, 6.0),
        "save": (lambda: one.stepped() and one.saving(), 0.05),
        "evaluation": (lambda: one.stepped() and one.evaluating(), 0.2),
        "start": (lambda: True, 8.0),
    }[aim]
    alive = one.wait(process, condition)
    if alive:
        try:
            process.wait(generator.uniform(0.2 if aim == "random" else 0, most))
        except subprocess.TimeoutExpired:
            process.kill()
    status = one.end(process)
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"exit status {status} in {one.folder}: {one.error()}")
    return status != 0


def polite(number):
    """Returns the fault of a signal that asks to stop."""

    def fault(campaign):
        one, status = campaign.stopped(f"signal-{number}", number)
        lost = max(0, one.done - one.newest)
        return campaign.resumed(one, lost, what=f"saved and ended with {status}, then restarted")

    return fault


def stopped_process(campaign):
    """Stops a process for ten seconds and lets it go on."""
    one = campaign.fresh("sigstop")
    process = one.start()
    one.wait(process, lambda: one.done >= 60)
    process.send_signal(signal.SIGSTOP)
    time.sleep(10)
    process.send_signal(signal.SIGCONT)
    status = one.end(process)
    same = status == 0 and campaign.compare(one.folder)
    return {
        **{"what": "10 s without CPU, then went on", "survived": status == 0},
        **{"steps_lost": 0, "identical": same},
    }


def second_process(campaign):
    """Starts the same command twice."""
    one = campaign.fresh("twice")
    process = one.start()
    one.wait(process, one.stepped)
    second = Trial(one.folder, log=campaign.scratch / "second.log")
    refused = second.finish()
    status = one.end(process)
    return {
        "what": f"the second ends with {refused}: {second.error()}",
        "survived": status == 0 and refused == 2,
        "steps_lost": 0,
        "identical": campaign.compare(one.folder),
    }


def killed_worker(campaign):
    """Kills a process that prepares batches."""
    one = campaign.fresh("worker", "--config.data.workers=1")
    process = one.start()
    one.wait(process, lambda: one.done >= 20)
    for worker in damage.workers(process.pid):
        os.kill(worker, signal.SIGKILL)
    status, lost = one.end(process, seconds=120), max(0, one.done - one.newest)
    said = "hangs" if status is None else f"ends with {status}: {one.error()}"
    return campaign.resumed(one, lost, what=f"the run {said}")


def damaged_checkpoints(campaign):
    """Damages every kind of file of the newest checkpoint in turn, and reads what is left."""
    one, _ = campaign.stopped("damaged")
    found = damage.try_every_file(one.folder / "checkpoints", campaign.random)
    newest, before = one.steps[-1], one.steps[-2]
    damage.flip(damage.largest(one.folder / "checkpoints" / str(newest)), campaign.random)
    silent = found["wrong numbers"]
    what = (
        f"{found['found']} of {found['tried']} damages found, {found['harmless']} harmless, "
        f"{silent} gave wrong numbers; the run goes on from the checkpoint before"
    )
    entry = campaign.resumed(one, newest - before, what=what, found=found)
    return entry | {"survived": entry["survived"] and not silent}


def no_checkpoint_left(campaign):
    """Damages all checkpoints: nothing may be trained over them."""
    one, _ = campaign.stopped("all-damaged")
    for step in one.steps:
        damage.flip(damage.largest(one.folder / "checkpoints" / str(step)), campaign.random)
    steps, status = one.steps, one.finish()
    what = f"refuses with {status}: {one.error()}"
    kept = status == 2 and one.steps == steps
    return {"what": what, "survived": kept, "steps_lost": None, "identical": None}


def damaged_logs(campaign):
    """Cuts the last line of metrics.jsonl short and adds bytes that are no text."""
    one, _ = campaign.stopped("metrics")
    with (one.folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 61, "lo\xff\xfe')
    return campaign.resumed(one, 0, what="the damaged line is left out")


def damaged_config(campaign):
    """Truncates config.json."""
    one, _ = campaign.stopped("config")
    os.truncate(one.folder / "config.json", 100)
    status = one.finish()
    what = f"refuses with {status}: {one.error()}; removed, the run goes on"
    (one.folder / "config.json").unlink()
    entry = campaign.resumed(one, 0, what=what)
    return entry | {"survived": entry["survived"] and status == 2}


def full_disk(campaign):
    """Fills the file system of the workdir while it trains, and frees it again."""
    with damage.mounted(campaign.scratch / "disk") as disk:
        one = Trial(disk / "run", log=campaign.scratch / "full-disk.log")
        process = one.start()
        one.wait(process, lambda: one.done >= 30)
        damage.fill(disk / "filler")
        status = one.end(process)
        said, lost = one.error(), max(0, one.done - one.newest)
        (disk / "filler").unlink()
        entry = campaign.resumed(one, lost, what=f"ends with {status}: {said}")
    return entry | {"survived": entry["survived"] and status == 1}


def read_only(campaign):
    """Makes the file system of the workdir read-only between two starts."""
    with damage.mounted(campaign.scratch / "disk") as disk:
        one = Trial(disk / "run", log=campaign.scratch / "read-only.log")
        process = one.start()
        one.wait(process, lambda: one.done >= 30)
        process.terminate()
        one.end(process)
        damage.remount(disk, "ro")
        status = one.finish()
        what = f"refuses with {status}: {one.error()}"
        damage.remount(disk, "rw")
        entry = campaign.resumed(one, 0, what=what)
    return entry | {"survived": entry["survived"] and status == 2}


def damaged_records(campaign):
    """Trains from image files of which one is cut short and one has a flipped byte."""
    folder = damage.write_damaged_images(campaign.scratch / "images", campaign.random)
    flags = ("--config.data.name=image_folder", f"--config.data.dir={folder}")
    one = campaign.fresh("records", *flags)
    status = one.finish()
    what = f"ends with {status}: {one.error()}".replace(str(campaign.scratch), "SCRATCH")
    skipping = campaign.fresh("records-skip", *flags, "--config.data.on_damaged=skip")
    ended = skipping.finish()
    counted = json.loads((skipping.folder / "summary.json").read_text())["damaged_images"]
    what += f'; with on_damaged="skip" it ends with {ended}, {counted} gaps in 15 epochs'
    survived = status == 1 and ended == 0
    return {"what": what, "survived": survived, "steps_lost": None, "identical": None}


FAULTS = {
    "SIGKILL": sigkill,
    "SIGTERM": polite(signal.SIGTERM),
    "SIGINT": polite(signal.SIGINT),
    "SIGSTOP": stopped_process,
    "second process": second_process,
    "peer killed": pair.killed,
    "peer stopped": pair.stopped,
    "data worker killed": killed_worker,
    "checkpoint damaged": damaged_checkpoints,
    "all checkpoints damaged": no_checkpoint_left,
    "metrics damaged": damaged_logs,
    "config damaged": damaged_config,
    "disk full": full_disk,
    "read-only folder": read_only,
    "records damaged": damaged_records,
}


def markdown(found):
    """Returns the results as a Markdown table."""
    columns = ("fault", "what happened", "survived", "steps lost", "bit-identical end")
    rows = []
    for name, entry in found.items():
        shown = [entry["survived"], entry["steps_lost"], entry["identical"]]
        shown = [{True: "yes", False: "**no**", None: ""}.get(x, x) for x in shown[::2]]
        lost = "" if entry["steps_lost"] is None else str(entry["steps_lost"])
        rows.append([name, entry["what"], shown[0], lost, shown[1]])
        for phase, part in entry.get("phases", {}).items():
            rows.append([f"... {phase}", f"{part['kills']} kills", "", str(part["steps_lost"]), ""])
    return tables.table(columns, rows, left=len(columns))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=output_folder)
    parser.add_argument("--only", choices=FAULTS, action="append")
    parser.add_argument("--kills", type=whole(0), default=50)
    parser.add_argument("--scratch", type=output_folder, help="where the runs go; kept if given")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "faults.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = (options.scratch or pathlib.Path(temporary)).absolute()
        trial.use_cache(scratch / "cache")
        campaign = Campaign(scratch, options.kills)
        for name in options.only or [name for name in FAULTS if name not in found]:
            start = time.perf_counter()
            found[name] = FAULTS[name](campaign)
            found[name]["seconds"] = round(time.perf_counter() - start)
            print(name, json.dumps(found[name]), flush=True)
            ordered = {key: found[key] for key in FAULTS if key in found}
            path.write_text(json.dumps(ordered, indent=1) + "\n")
    print(markdown({key: found[key] for key in FAULTS if key in found}))


if __name__ == "__main__":
    main()
