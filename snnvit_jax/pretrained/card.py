"""The card of a trained network: what it is, how it came about and what it reaches, for people."""

from snnvit_jax.pretrained import description

_TEXT = """\
# {name}

{model}, {parameters:,} parameters, trained on {data}: accuracy **{accuracy:.2f} %** on
{examples:,} examples of `{split}` ({correct:,} right), measured with the weights as they are loaded
from this folder, at **{average:.2f}** of {time_steps} time steps.

```python
import snnvit_jax as snn

network = snn.load_pretrained("{name}")  # or the path of this folder
logits = network({what})  # {shape}
```

| energy of an image (45 nm) | µJ |
|---|---|
| small integers add (this package's convention) | {microjoule:.4g} |
| small integers multiply | {multiply:.4g} |
| plain vision transformer of these shapes | {plain:.4g} |

| | |
|---|---|
{rows}

## Active time steps

| module | mean over its layers |
|---|---|
{modules}

`config.json` holds the whole training configuration and the schedule of every layer.
"""


def render(about):
    """Returns the card as Markdown.

    Args:
      about: what config.json holds, see `folder.write`; "trained" and "measured" as
        `runs.publishing` writes them. A folder of others that lacks some of it gets a line instead.
    """
    missing = description.missing_for_card(about)
    if missing:
        lacks = ", ".join(entry.replace("/", ".") for entry in missing)
        return f"# {about.get('name', 'A network')}\n\nconfig.json does not say: {lacks}.\n"
    measured, trained = about["measured"], about["trained"]
    energy = measured["energy_uj"] or dict.fromkeys(("add", "multiply", "plain"), float("nan"))
    return _TEXT.format(
        name=about["name"],
        model=about["description"],
        parameters=measured["parameters"],
        data=trained["config"]["data"]["name"],
        accuracy=100 * measured["accuracy"],
        examples=measured["examples"],
        correct=measured["correct"],
        split=measured["split"],
        average=measured["average_time_steps"],
        time_steps=about["model"]["time_steps"],
        **_call(about),
        microjoule=energy["add"],
        multiply=energy["multiply"],
        plain=energy["plain"],
        rows="\n".join(f"| {name} | {value} |" for name, value in _rows(about).items()),
        modules="\n".join(f"| {n} | {steps:.2f} |" for n, steps in measured["modules"].items()),
    )


def _call(about):
    """What the network is called with, and its shape, in words."""
    shape = ", ".join(map(str, description.image_shape(about)))
    if about["reading"]["kind"] == description.RECORDINGS:
        return {"what": "frames", "shape": f"[B, {shape}], counts of events"}
    return {"what": "images", "shape": f"[B, {shape}], uint8 or floating-point from 0 to 1"}


def _rows(about):
    trained, size = about["trained"], about["reading"]["preprocess"]["size"]
    config = trained["config"]
    normalisation = f"mean {config['data']['mean']}, std {config['data']['std']}"
    rows = {
        "trained on": f"`{config['data']['train_split']}`, {trained['epochs']:.4g} epochs",
        "evaluated meanwhile on": f"`{config['data']['eval_split']}`",
        "checkpoint": trained["checkpoint"],
        "images": f"{' x '.join(map(str, size))} pixels, {normalisation}",
        "mean of": trained.get("mean_of", ""),
        "seed": config["seed"],
        "hardware": trained["hardware"],
        "hours of training": f"{trained['hours']:.3g}",
        "commit": trained["commit"],
        "command": f"`{trained['command']}`",
        "versions": ", ".join(f"{n} {v}" for n, v in trained["versions"].items()),
        "weights": "matrices float16, vectors float32",
        "note": trained["note"],
    }
    return {name: value for name, value in rows.items() if value not in ("", "``")}
