"""Draws some recordings of event cameras as a model sees them.

    python experiments/data/recordings.py OUT.png [--config=configs/FILE.py] [--config.key=value]

Without --config it draws digits_dvs, which is simulated. One recording of each of the first classes
of the held-out split, each a row of frames; augmented as in training with --augmented.
"""

import pathlib

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from snnvit_jax.data import sources
from snnvit_jax.data.augment import recording_pipeline
from snnvit_jax.report import figures
from snnvit_jax.report.recordings import draw_recordings
from snnvit_jax.runs.config import default_config

ROWS = 6


def _default():
    config = default_config()
    config.model.time_steps = 10
    config.data.name, config.data.image_size = "digits_dvs", 16
    return config


_CONFIG = config_flags.DEFINE_config_file("config", None, "what to draw")
_AUGMENTED = flags.DEFINE_bool("augmented", False, "as in training")


def main(argv):
    config = _CONFIG.value or _default()
    data = config.data
    frames = sources.frame_settings(config.model.time_steps, data.events)
    source = sources.load(data.name, data.eval_split, data.dir, frames)
    preprocess = recording_pipeline.create_preprocess(data)
    augment = recording_pipeline.create_augment(data)
    chosen = sources.first_of_each_class(source, ROWS)
    rng = np.random.default_rng(config.seed)
    images = [(augment(e, rng) if _AUGMENTED.value else preprocess(e))["image"] for e in chosen]
    with figures.style():
        figure = draw_recordings(images, [source.class_names[e["label"]] for e in chosen])
        pathlib.Path(argv[1]).write_bytes(figures.as_png(figure))


if __name__ == "__main__":
    app.run(main)
