"""What a new user meets, from nothing: python experiments/fresh/run.py [WHEEL, FOLDER or git+URL].

Makes a virtual environment, installs there what is given (default: a wheel built from this clone),
and works in an empty folder: trains on the digits by the name of the configuration, predicts image
files of which one is damaged, by the run and by its exported file, writes ONNX and computes it with
onnxruntime, and compares two runs. Prints what it saw; ends with an error at the first thing that
is not as it should be.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import venv

ROOT = pathlib.Path(__file__).parents[2]
SHORT = ("--config=digits", "--config.epochs=2", "--config.eval_every_epochs=2.0")

# Run inside the new environment: writes the test digits as files, one of them cut short.
WRITE_DIGITS = """
import pathlib
from PIL import Image
from snnvit_jax.data import sources

folder = pathlib.Path("digits")
for number, example in enumerate(sources.load("digits", "test").examples):
    place = folder / str(example["label"])
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(example["image"][..., 0]).save(place / f"{number}.png")
whole = (folder / "0").glob("*.png").__next__()
(folder / "damaged.png").write_bytes(whole.read_bytes()[:40])
"""

# Run inside the new environment: every digit by onnxruntime and by the exported program.
COMPARE_ONNX = """
import json, pathlib, time
import numpy as np, onnxruntime
from snnvit_jax.data import inputs
import snnvit_jax as snn

deployed = snn.load_deployed("a/deployed.snn")
read = inputs.from_description(deployed.about["reading"])
files = [path for path in inputs.find_files(["digits"], [".png"]) if "damaged" not in path]
images = np.stack([read(path) for path in files])
session = onnxruntime.InferenceSession("a/deployed.onnx", providers=["CPUExecutionProvider"])
calls = {
    "onnxruntime": lambda x: session.run(None, {"images": x})[0],
    "XLA": lambda x: np.asarray(deployed(x)),
}
logits = {name: call(images) for name, call in calls.items()}
seconds = {name: [] for name in calls}
for _ in range(7):
    for name, call in calls.items():
        start = time.perf_counter()
        call(images)
        seconds[name].append(time.perf_counter() - start)
a, b = logits.values()
labels = [int(pathlib.Path(path).parent.name) for path in files]
print(json.dumps({
    "images": len(images),
    "same_predictions": int((a.argmax(1) == b.argmax(1)).sum()),
    "largest_difference": float(np.abs(a - b).max()),
    "accuracy": float((a.argmax(1) == labels).mean()),
    "milliseconds": {name: 1e3 * float(np.median(x)) for name, x in seconds.items()},
    "bytes": {kind: pathlib.Path(f"a/deployed.{kind}").stat().st_size for kind in ("onnx", "snn")},
}))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", nargs="?", help="what pip installs; default: a wheel built here")
    package = parser.parse_args().package
    with tempfile.TemporaryDirectory() as folder:
        fresh = Fresh(pathlib.Path(folder))
        fresh.install(package or fresh.built())
        fresh.work()
    print("all as it should be")


class Fresh:
    """A new environment and an empty folder to work in.

    Attributes:
      environment: folder of the virtual environment.
      home: folder to work in.
    """

    def __init__(self, folder):
        self.environment, self.home = folder / "environment", folder / "home"
        self.home.mkdir()
        venv.create(self.environment, with_pip=True)

    def run(self, *command, status=0):
        """Runs a command of the environment in the empty folder; returns (stdout, stderr)."""
        start = time.perf_counter()
        program = self.environment / "bin" / command[0]
        done = subprocess.run(
            [program, *command[1:]], cwd=self.home, capture_output=True, text=True, check=False
        )
        shown = " ".join(command) if len(command) < 8 and "\n" not in command[-1] else command[0]
        print(f"$ {shown}   [{time.perf_counter() - start:.0f} s, status {done.returncode}]")
        if done.returncode != status:
            sys.exit(f"{done.stdout}\n{done.stderr}\nexpected status {status}")
        return done.stdout, done.stderr

    def built(self):
        """Returns the wheel of this clone, built by way of its sdist."""
        self.run("pip", "install", "--quiet", "build")
        self.run("python", "-m", "build", "--outdir", str(self.home / "dist"), str(ROOT))
        (wheel,) = (self.home / "dist").glob("*.whl")
        print(f"  built {', '.join(sorted(p.name for p in (self.home / 'dist').iterdir()))}")
        return str(wheel)

    def install(self, package):
        """Installs a package with the extras that this needs."""
        path = pathlib.Path(package)
        package = str(path.resolve()) if path.exists() else f"snnvit_jax @ {package}"
        extras = "[train,onnx]"
        name, sign, url = package.partition(" @ ")
        given = f"{name}{extras}{sign}{url}"
        constraints = str(ROOT / "constraints.txt")
        self.run("pip", "install", "--quiet", "-c", constraints, given, "onnxruntime")

    def work(self):
        """Does what users do."""
        for name, more in (("a", ()), ("b", ("--config.model.depth=1",))):
            out, _ = self.run("snnvit", *SHORT, f"--workdir={name}", *more)
            print("  " + out.splitlines()[1])
        self.run("python", "-c", WRITE_DIGITS)
        self.predict()
        self.export()
        out, _ = self.run("snnvit", "--mode=compare", "a", "b")
        print(_indented(out))
        page = (self.home / "comparison.html").read_text()
        _check("Settings that differ" in page and "model.<wbr>depth" in page, "the page")
        _, error = self.run("snnvit", "--config=digit", status=2)
        _check("did you mean 'digits'" in error, error)

    def predict(self):
        """Predicts files by a run and by its exported file."""
        out, error = self.run("snnvit", "--model=a", "--mode=predict", "digits", status=1)
        print(_indented("\n".join(out.splitlines()[:3])) + f"\n  {error.strip()}")
        _check("damaged.png is damaged" in error, error)
        self.run("snnvit", "--workdir=a", "--mode=export")
        command = ("--mode=predict", "--format=json", "digits")
        by = [
            self.run("snnvit", f"--model={m}", *command, status=1)[0]
            for m in ("a", "a/deployed.snn")
        ]
        lines = [[json.loads(line) for line in text.splitlines()] for text in by]
        found = [[x["classes"][0]["name"] for x in side if "classes" in x] for side in lines]
        _check(found[0] == found[1] and len(found[0]) == 360, "predictions of run and file")
        truth = [pathlib.Path(x["path"]).parent.name for x in lines[0] if "classes" in x]
        right = sum(a == b for a, b in zip(truth, found[0], strict=True))
        summary = json.loads((self.home / "a" / "summary.json").read_text())
        print(
            f"  {right} of 360 digits right; the run's evaluation found {summary['accuracy']:.4f}"
        )
        _check(abs(right / 360 - summary["accuracy"]) < 0.006, "accuracy of files and evaluation")

    def export(self):
        """Writes ONNX and computes it."""
        self.run("snnvit", "--workdir=a", "--mode=export", "--format=onnx")
        seen = json.loads(self.run("python", "-c", COMPARE_ONNX)[0])
        print(_indented(json.dumps(seen)))
        _check(seen["same_predictions"] == seen["images"] == 360, "predictions of ONNX and XLA")
        _check(seen["largest_difference"] < 1e-3, "logits of ONNX and XLA")


def _indented(text):
    return "\n".join(f"  {line}" for line in text.strip().splitlines())


def _check(fits, what):
    if not fits:
        sys.exit(f"not as it should be: {what}")


if __name__ == "__main__":
    main()
