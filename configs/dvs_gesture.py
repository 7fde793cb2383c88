"""DVS128 Gesture: spiking vision transformers for event cameras that learn their time steps.

    python -m snnvit_jax.main --config=configs/dvs_gesture.py:VARIANT --config.data.dir=DIR

DIR holds the set as published (trials_to_train.txt, *.aedat, *_labels.csv) or what SpikingJelly
prepared of it (docs/events.md). Set `--config.data.events.cache=FOLDER` to bin each recording once.
Recordings are mirrored in training as published, although that swaps left and right hands.

| VARIANT | what | accuracy |
|---|---|---|
| spikingformer (default) | published recipe, 202 epochs, T = 16, with time steps learned to 8 | \
published, all 16 steps: 98.3 % (best test epoch) |
| qkformer | the same, mlp_ratio 4 | not stated by its authors |
| sdt, sdt_16 | published recipes, 210 epochs, T = 10 and 16, learned to 5 and 8 | not stated by \
its authors |
| spikingresformer | published recipe but for its augmentation, 300 epochs, T = 16, 64x64, learned \
to 8 | not reproduced here yet |

None of them has been reproduced here yet. FAMILY:smoke runs all that a recipe does on 32 recordings
with a small model; `smoke` alone is that of Spikingformer.
"""

from snnvit_jax import recipes

FAMILIES = tuple(recipes.event_variants("dvs_gesture"))


def get_config(variant="spikingformer"):
    """Returns the configuration.

    Args:
      variant: one of `FAMILIES`, perhaps with ":smoke", or "smoke".

    Raises:
      ValueError: for another variant.
    """
    return recipes.published_events("dvs_gesture", variant, default="spikingformer")
