"""The published recipes from their configuration files to the end of a short run."""

import io
import pathlib

import by_path
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import snnvit_jax as snn
from snnvit_jax import recipes
from snnvit_jax.checkpoints.checkpoints import load_variables
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import experiment, loop
from snnvit_jax.time_steps import masks

FAMILIES = dict(snn.models.FAMILIES)  # without what tests register
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def load(name, variant=None):
    return module_of(name).get_config(*([variant] if variant else []))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """CIFAR-10 with 50 training images, as TensorFlow Datasets prepares it; one is damaged."""
    folder = tmp_path_factory.mktemp("tfds")
    rng = np.random.default_rng(0)

    def encoded(i):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, "PNG")
        return io.BytesIO(buffer.getvalue()[: 60 if i == 3 else None])

    builder = tfds.builder("cifar10", data_dir=folder, file_format="array_record")
    builder._split_generators = lambda _: {
        "train": ((i, {"id": str(i), "image": encoded(i), "label": i % 10}) for i in range(50))
    }
    builder.download_and_prepare()
    return folder


def tiny(folder, variant="smoke", **changes):
    """A recipe for CIFAR-10 with a network that compiles and trains in seconds."""
    config = load("cifar10", variant)
    config.epochs = 1
    config.batch_size = 8
    config.model.time_steps = 2
    config.model.embed_dim = 16
    config.model.depth = 1
    config.model.num_heads = 2
    config.model.pool = (True, True, True, True)
    config.target_time_steps = 1.5
    config.time_step_start = config.time_step_anneal = 0.0
    config.time_step_freeze = None
    config.mixing.off = 1.0
    config.optimizer.warmup = config.optimizer.cooldown = 0.0
    config.data.dir = str(folder)
    config.data.train_split = "train[:90%]"
    config.data.eval_split = "train[90%:]"
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """A finished run with everything on: mixup, RandAugment, erasing, a damaged image."""
    config = tiny(prepared)
    config.data.on_damaged = "skip"
    config.model.drop_path = 0.2
    folder = tmp_path_factory.mktemp("run") / "work"
    return folder, loop.Run(config, folder).train()


def test_a_recipe_trains_from_a_prepared_directory(trained):
    _, summary = trained
    assert (summary["examples"], summary["split"]) == (5, "train[90%:]")
    assert summary["steps"] == round(45 / 8)
    assert summary["damaged_images"] == 1
    assert 0 <= summary["data_wait_fraction"] <= 1
    assert summary["images_per_second"] > 0


def test_a_damaged_image_ends_a_run_unless_it_is_skipped(prepared, tmp_path):
    config = tiny(prepared)
    with pytest.raises(
        ValueError, match=r"record \d+ of split 'train\[:90%\]' of data set 'cifar10'"
    ):
        loop.Run(config, tmp_path / "run").train()


def test_only_the_time_steps_of_a_trained_model_can_be_learned(trained, prepared, tmp_path):
    config = tiny(prepared, "finetune_time_steps", init_from=str(trained[0]), trainable="scores")
    config.data.on_damaged = "skip"
    config.optimizer.score_multiplier = 1e4
    run = loop.Run(config, tmp_path / "run")
    start = run.state.params
    first = load_variables(trained[0] / "checkpoints")["params"]
    np.testing.assert_array_equal(start["head"]["kernel"], first["head"]["kernel"])
    run.train()
    np.testing.assert_array_equal(run.state.params["head"]["kernel"], first["head"]["kernel"])
    before, after = (masks.scores(p) for p in (first, run.state.params))
    assert any(not np.array_equal(before[name], after[name]) for name in before)


def test_fine_tuning_without_weights_says_which_key_is_missing(prepared):
    with pytest.raises(FileNotFoundError, match="init_from='WEIGHTS' does not exist; give a run's"):
        experiment.build(tiny(prepared, "finetune_time_steps"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet"])
@pytest.mark.parametrize("variant", ["smoke", "finetune_time_steps", None])
def test_every_variant_is_a_valid_configuration(name, variant):
    config = load(name, variant)
    experiment.config_lib.validate(config)
    assert config.mixing.mixup_alpha > 0
    assert config.data.erasing_probability == 0.25
    assert config.optimizer.schedule == "epoch_cosine"


def test_the_published_settings():
    cifar, imagenet = load("cifar10", "spikformer_4_384"), load("imagenet", "spikformer_8_512")
    assert (cifar.epochs, cifar.batch_size, cifar.optimizer.weight_decay) == (310, 128, 0.06)
    assert (imagenet.epochs, imagenet.batch_size, imagenet.optimizer.weight_decay) == (
        310,
        192,
        0.05,
    )
    assert cifar.mixing.to_dict() == {
        **{"mixup_alpha": 0.5, "cutmix_alpha": 0.0, "cutmix_share": 0.5, "probability": 1.0},
        **{"off": 200 / 310, "off_epoch": None},
    }
    assert (imagenet.mixing.mixup_alpha, imagenet.mixing.cutmix_alpha) == (0.8, 1.0)
    assert imagenet.mixing.off is None
    assert (cifar.data.randaugment.num_ops, cifar.data.randaugment.operations) == (1, "cifar")
    assert (imagenet.data.randaugment.num_ops, imagenet.data.randaugment.operations) == (2, "all")


# name -> (epochs, of warm-up and cool-down, batch, optimiser, rates from warm-up to the last, what
# is clipped, weight decay, RandAugment's operations, number, magnitude, noise, erasing, mixup with
# its share, cutmix, epoch after them, crop, repeats, share that evaluation sees, T)
TIMM, CLIPPED = (20, 10), (1.0, False)
OTHERS = {
    ("cifar10", "spikingformer_4_384"): (
        *(410, TIMM, 64, "adamw", (1e-5, 5e-4, 1e-5), (None, False), 0.06),
        *(("all", 1, 9.0, 0.4), (0.25, "zero"), (0.5, 1.0, 0.0, 200), False, 1, None, 4),
    ),
    ("cifar100", "sdt_2_512"): (
        *(310, TIMM, 64, "adamw", (1e-6, 3e-4, 1e-5), (None, False), 0.06),
        *(("all", 1, 9.0, 0.4), (0.0, "zero"), (0.5, 1.0, 0.0, 200), False, 1, None, 4),
    ),
    ("cifar10", "qkformer_4_384"): (
        *(410, TIMM, 64, "adamw", (1e-5, 1e-3, 1e-5), (None, False), 0.06),
        *(("all", 1, 9.0, 0.4), (0.25, "zero"), (0.5, 1.0, 0.0, 200), False, 1, None, 4),
    ),
    ("imagenet", "spikingformer_8_768"): (
        *(310, TIMM, 288, "adamw", (1e-6, 5e-4, 1e-5), (None, False), 0.05),
        *(("all", 2, 9.0, 0.5), (0.25, "zero"), (0.8, 1.0, 1.0, None), (1.0, 1.0), 1, 1.0, 4),
    ),
    ("imagenet", "sdt_8_512"): (
        *(310, TIMM, 384, "lamb", (1e-5, 1.5e-3, 1.5e-5), CLIPPED, 0.01),
        *(("all", 2, 5.0, 0.5), (0.0, "zero"), (0.2, 0.6, 1.0, None), (0.2, 1.0), 3, 0.95, 4),
    ),
    ("imagenet", "sdt_8_768"): (
        *(310, TIMM, 288, "lamb", (1e-5, 1e-3, 2e-5), CLIPPED, 0.01),
        *(("all", 2, 7.0, 0.5), (0.0, "zero"), (0.2, 1.0, 1.0, None), (0.08, 1.0), 3, 0.95, 4),
    ),
    ("imagenet", "qkformer_10_384"): (
        *(200, (5, 0), 512, "adamw", (0.0, 1.2e-3, 1e-6), (None, False), 0.05),
        *(("all", 2, 9.0, 0.5), (0.25, "noise"), (0.0, 1.0, 0.0, None), (0.08, 1.0), 1, 0.875, 4),
    ),
    ("cifar10", "spikingresformer_cifar"): (
        *(600, (3, 0), 128, "adamw", (1e-5, 5e-4, 1e-5), (None, False), 0.01),
        *(("all", 1, 7.0, 0.5), (0.0, "zero"), (0.5, 1.0, 0.0, None), False, 1, None, 4),
    ),
    ("imagenet", "spikingresformer_s"): (
        *(320, (3, 0), 256, "adamw", (1e-5, 1e-3, 1e-5), (None, False), 0.01),
        *(("all", 2, 7.0, 0.5), (0.0, "zero"), (0.2, 1.0, 1.0, None), (0.08, 1.0), 1, 0.95, 4),
    ),
    ("imagenet", "spikingresformer_m"): (
        *(320, (3, 0), 224, "adamw", (1e-5, 8e-4, 1e-5), (None, False), 0.01),
        *(("all", 2, 9.0, 0.5), (0.0, "zero"), (0.2, 1.0, 1.0, None), (0.08, 1.0), 1, 0.95, 4),
    ),
    ("imagenet", "spikingresformer_l"): (
        *(320, (3, 0), 128, "adamw", (1e-5, 5e-4, 1e-5), (None, False), 0.01),
        *(("all", 3, 9.0, 0.5), (0.0, "zero"), (0.2, 1.0, 1.0, None), (0.08, 1.0), 1, 0.95, 4),
    ),
    ("imagenet", "metaspikeformer_8_512"): (
        *(200, (10, 0), 1024, "lamb", (0.0, 2.4e-3, 1e-6), (1.0, True), 0.05),
        *(("all", 2, 9.0, 0.5), (0.25, "noise"), (0.0, 1.0, 0.0, None), (0.08, 1.0), 1, 0.875, 1),
    ),
    ("imagenet", "metaspikeformer_8_512:finetune_time_steps"): (
        *(50, (5, 0), 192, "lamb", (0.0, 1.5e-5, 1e-6), (1.0, True), 0.05),
        *(("all", 2, 9.0, 0.5), (0.25, "noise"), (0.0, 1.0, 0.0, None), (0.08, 1.0), 1, 0.875, 4),
    ),
}


@pytest.mark.parametrize(("file", "name"), OTHERS)
def test_the_published_settings_of_other_families(file, name):
    c = load(file, name)
    o, a, m = c.optimizer, c.data.randaugment, c.mixing
    rates = (o.warmup_learning_rate, o.learning_rate, o.min_learning_rate)
    crop = c.data.random_resized_crop and tuple(c.data.crop_scale)
    off = None if m.off is None else round(m.off * c.epochs)
    around = round(o.warmup * c.epochs), round(o.cooldown * c.epochs)
    assert OTHERS[file, name] == (
        *(c.epochs, around, c.batch_size, o.name, rates, (o.clip_norm, o.trust_clip)),
        *(o.weight_decay, (a.operations, a.num_ops, a.magnitude, a.magnitude_std)),
        *((c.data.erasing_probability, c.data.erasing_fill),),
        *((m.mixup_alpha, m.probability, m.cutmix_alpha, off), crop, c.data.repeats),
        *(c.data.crop_fraction, c.model.time_steps),
    )
    by_epochs = around[1] or name.startswith("spikingresformer")
    assert o.schedule == ("epoch_cosine" if by_epochs else "cosine")
    assert (o.label_smoothing, c.data.flip, a.probability) == (0.1, True, 0.5)
    learned = c.model.time_steps > 1
    assert (c.target_time_steps == 2.0) == (c.time_step_penalty == 1.0) == learned


def test_a_spikingresformer_is_trained_as_its_authors_do():
    ten, hundred = (load(f"cifar{n}", "spikingresformer_cifar") for n in (10, 100))
    assert ten.data.std == (0.2023, 0.1994, 0.2010)
    assert hundred.data.mean == pytest.approx((0.5071, 0.4867, 0.4408), abs=1e-4)
    assert load("cifar10", "sdt_2_256").data.std == (0.2470, 0.2435, 0.2616)
    neuron = config_lib.complete(ten).model.neuron
    assert (neuron.surrogate, neuron.kind, ten.seed) == ("arctan", "lif", 12450)
    assert config_lib.complete(load("cifar10")).model.neuron.surrogate == "sigmoid"


def test_every_published_size_has_a_recipe():
    """Of every data set that its authors have one for."""
    of_file = {file: set(module_of(file).PUBLISHED) for file in ("cifar10", "cifar100", "imagenet")}
    for family in FAMILIES.values():
        sizes = {name for name in family.sizes if "_dvs" not in name}
        imagenet = {name for name in sizes if name.endswith("_imagenet")}
        assert {name.removesuffix("_imagenet") for name in imagenet} <= of_file["imagenet"]
        assert sizes - imagenet <= of_file["cifar10"] & of_file["cifar100"]
    name = "metaspikeformer_8_384_imagenet"
    with pytest.raises(ValueError, match=f"name='{name}' has no recipe for 'cifar'; mod"):
        recipes.published_cifar(experiment.config_lib.default_config(), name)
    with pytest.raises(ValueError, match="unknown model name='vit_16'"):
        recipes.published_imagenet(experiment.config_lib.default_config(), "vit_16")


def module_of(name):
    return by_path.module(CONFIGS / f"{name}.py")


@pytest.mark.parametrize("file", ["cifar10", "cifar100", "imagenet"])
def test_every_size_has_its_recipe_and_its_short_form(file):
    module = module_of(file)
    for name in module.PUBLISHED:
        for variant in (name, f"{name}:smoke", f"{name}:finetune_time_steps"):
            config = load(file, variant)
            experiment.config_lib.validate(config)
            assert config.model.name == name + ("_imagenet" if file == "imagenet" else "")
            assert (config.model.embed_dim is not None) == variant.endswith("smoke")
            model = experiment.model_of(config.model, 10, config.data.image_size)
            assert model.config.time_steps == config.model.time_steps
    for unknown in ("sdt", f"{module.PUBLISHED[0]}:small", "sdt_2_512:", ""):
        with pytest.raises(ValueError, match="unknown variant="):
            module.get_config(unknown)


@pytest.mark.parametrize("family", FAMILIES)
def test_digits_are_learned_by_every_family(family):
    config = load("digits", family)
    experiment.config_lib.validate(config)
    assert config.model.name in FAMILIES[family].sizes
    assert isinstance(experiment.build(config).model, FAMILIES[family].module)
    with pytest.raises(ValueError, match=r"unknown family='vit'.*spikformer, .*qkformer"):
        load("digits", "vit")
