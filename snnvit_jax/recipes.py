"""Published training recipes, as changes to the default configuration.

Lengths are shares of the training, so that all of them follow `config.epochs`.

Sources: the authors' public repositories, github.com/ZK-Zhou/spikformer (cifar10/cifar10.yml,
imagenet/imagenet.yml), zhouchenlin2096/Spikingformer (the same two, and cifar100/cifar100.yml),
BICLab/Spike-Driven-Transformer (conf/), zhouchenlin2096/QKFormer (cifar10/cifar10.yml,
cifar100/cifar100.yml) and xyshi2000/SpikingResformer (configs/), run by timm training scripts or
those made from them; QKFormer's imagenet/train.py and BICLab/Spike-Driven-Transformer-V2
(classification/), run by scripts made from that of masked autoencoders. The time-step phases are
this project's: the published models keep all of their steps.
"""

from snnvit_jax.config import use_model

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# By family and number of classes; what has no entry of its own is normalised as timm does.
_CIFAR_STATISTICS = {
    (None, 10): (CIFAR10_MEAN, CIFAR10_STD),
    (None, 100): (CIFAR100_MEAN, CIFAR100_STD),
    ("spikingresformer", 10): (CIFAR10_MEAN, (0.2023, 0.1994, 0.2010)),
    ("spikingresformer", 100): (
        (129.3 / 255, 124.1 / 255, 112.4 / 255),
        (68.2 / 255, 65.4 / 255, 70.4 / 255),
    ),
}

_WEIGHTS = "WEIGHTS"  # no such file: the error says which key to set
# Of the models that `smoke` trains. A QKFormer has blocks in each of three stages.
_SMALL = {
    None: {"embed_dim": 64, "num_heads": 2, "depth": 1},
    "qkformer": {"embed_dim": 64, "num_heads": 2, "depth": 4},
    "spikingresformer": {
        **{"embed_dim": (16, 32, 32), "num_heads": (1, 2, 2), "depth": (1, 1, 1)},
        "group_size": 16,
    },
    "metaspikeformer": {"embed_dim": (8, 16, 32, 32), "num_heads": 2, "depth": (1, 1)},
}


def spikformer_cifar(config):
    """Sets the published recipe of Spikformer on CIFAR: 300 epochs and 10 to cool down.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    config.epochs = 310
    config.batch_size = 128
    config.seed = 42
    _epoch_cosine(config, warmup_learning_rate=1e-5, weight_decay=0.06)
    config.mixing.mixup_alpha = 0.5
    config.mixing.off = 200 / 310
    config.data.image_size = 32
    config.data.flip = True
    config.data.randaugment.num_ops = 1
    config.data.randaugment.magnitude_std = 0.4
    config.data.randaugment.operations = "cifar"
    config.data.erasing_probability = 0.25


def spikformer_imagenet(config):
    """Sets the published recipe of Spikformer on ImageNet: 300 epochs and 10 to cool down.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    config.epochs = 310
    config.batch_size = 192  # 24 on each of 8 GPUs
    config.seed = 42
    _epoch_cosine(config, warmup_learning_rate=1e-6, weight_decay=0.05)
    config.mixing.mixup_alpha = 0.8
    config.mixing.cutmix_alpha = 1.0
    config.data.image_size = 224
    config.data.random_resized_crop = True
    config.data.crop_scale = (1.0, 1.0)
    config.data.crop_ratio = (3 / 4, 4 / 3)
    config.data.crop_fraction = 1.0
    config.data.flip = True
    config.data.randaugment.num_ops = 2
    config.data.randaugment.magnitude_std = 0.5
    config.data.erasing_probability = 0.25
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD


def spikingformer_cifar(config):
    """Sets the published recipe of Spikingformer on CIFAR: 400 epochs and 10 to cool down.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    spikformer_cifar(config)
    config.epochs = 410
    config.batch_size = 64
    _epoch_cosine(config, warmup_learning_rate=1e-5, weight_decay=0.06)
    config.mixing.off = 200 / 410
    config.data.randaugment.operations = "all"


def spikingformer_imagenet(config):
    """Sets the published recipe of Spikingformer on ImageNet: 300 epochs and 10 to cool down.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    spikformer_imagenet(config)
    config.batch_size = 288  # 36 on each of 8 GPUs


def sdt_cifar(config):
    """Sets the published recipe of the Spike-driven Transformer on CIFAR: 300 epochs and 10.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    spikformer_cifar(config)
    config.batch_size = 64
    _epoch_cosine(config, warmup_learning_rate=1e-6, weight_decay=0.06)
    config.optimizer.learning_rate = 3e-4
    config.data.randaugment.operations = "all"
    config.data.erasing_probability = 0.0


def sdt_imagenet(config):
    """Sets the published recipe of the Spike-driven Transformer on ImageNet: 300 epochs and 10.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place. That of 8-768
        differs from that of the other models.
    """
    large = config.model.name.startswith("sdt_8_768")
    spikformer_imagenet(config)
    config.batch_size = 288 if large else 384  # 36 or 48 on each of 8 GPUs
    _epoch_cosine(config, warmup_learning_rate=1e-5, weight_decay=0.01)
    config.optimizer.name = "lamb"
    config.optimizer.clip_norm = 1.0  # as timm's LAMB does by itself
    config.optimizer.learning_rate = 1e-3 if large else 1.5e-3
    config.optimizer.min_learning_rate = 2e-5 if large else 1.5e-5
    config.mixing.mixup_alpha = 0.2
    config.mixing.probability = 1.0 if large else 0.6
    config.data.crop_scale = (0.08, 1.0) if large else (0.2, 1.0)
    config.data.crop_fraction = 0.95
    config.data.randaugment.magnitude = 7.0 if large else 5.0
    config.data.erasing_probability = 0.0
    config.data.repeats = 3


def qkformer_cifar(config):
    """Sets the published recipe of QKFormer on CIFAR: 400 epochs and 10 to cool down.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    spikingformer_cifar(config)
    config.optimizer.learning_rate = 1e-3


def qkformer_imagenet(config):
    """Sets the published recipe of QKFormer on ImageNet: 200 epochs.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    _imagenet_by_steps(config, epochs=200, warmup_epochs=5)
    config.batch_size = 512  # 32 on each of 8 GPUs, twice
    config.optimizer.learning_rate = 6e-4 * 512 / 256


def metaspikeformer_imagenet(config):
    """Sets the published recipe of Meta-SpikeFormer on ImageNet from scratch: 200 epochs of T = 1.

    There are no time steps to learn: those come with `metaspikeformer_finetune`.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    _imagenet_by_steps(config, epochs=200, warmup_epochs=10)
    config.model.time_steps = 1
    config.batch_size = 1024  # 128 on each of 8 GPUs
    config.optimizer.learning_rate = 6e-4 * 1024 / 256
    config.optimizer.name = "lamb"
    config.optimizer.clip_norm = 1.0  # as timm's LAMB does by itself
    config.optimizer.trust_clip = True


def metaspikeformer_finetune(config, target):
    """Sets the second stage of the published recipe: 50 epochs of T = 4 from weights of T = 1.

    It is here where time steps are learned. The authors follow, besides the labels, the hard labels
    of a CAFormer-B36; `distillation.teacher` takes the folder of a run of this project, whose soft
    labels are followed.

    Args:
      config: a ConfigDict with the recipe of the first stage; changed in place.
      target: average number of time steps to end at, in [1, 4].
    """
    config.init_from = _WEIGHTS
    config.epochs = 50
    config.batch_size = 192  # 24 on each of 8 GPUs
    config.model.time_steps = 4
    config.optimizer.learning_rate = 1.5e-5  # 2e-5 for 256 images
    config.optimizer.warmup = 5 / 50
    learn_time_steps(config, target)
    config.time_step_start = 5 / 50


def spikingresformer_cifar(config):
    """Sets the published recipe of SpikingResformer on CIFAR: 600 epochs, mixup until the end.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    _spikingresformer(config, epochs=600)
    config.batch_size = 128
    config.optimizer.learning_rate = 5e-4
    config.mixing.mixup_alpha = 0.5
    config.data.image_size = 32
    config.data.randaugment.num_ops = 1


# Size -> (images on each of 8 GPUs, learning rate, RandAugment's number and magnitude).
_SPIKINGRESFORMER = {
    "ti": (32, 1e-3, 2, 7.0),
    "s": (32, 1e-3, 2, 7.0),
    "m": (28, 8e-4, 2, 9.0),
    "l": (16, 5e-4, 3, 9.0),
}


def spikingresformer_imagenet(config):
    """Sets the published recipe of SpikingResformer on ImageNet: 320 epochs.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place. It differs
        from size to size.
    """
    _spikingresformer(config, epochs=320)
    images, rate, number, magnitude = _SPIKINGRESFORMER[config.model.name.split("_")[1]]
    config.batch_size = 8 * images
    config.optimizer.learning_rate = rate
    config.mixing.mixup_alpha = 0.2
    config.mixing.cutmix_alpha = 1.0
    config.data.image_size = 224
    config.data.random_resized_crop = True
    config.data.crop_fraction = 0.95
    config.data.randaugment.num_ops = number
    config.data.randaugment.magnitude = magnitude
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD


def _spikingresformer(config, epochs):
    """What its recipes share: three epochs of warm-up, no erasing, no cooling down."""
    config.epochs = epochs
    config.seed = 12450
    _epoch_cosine(config, warmup_learning_rate=1e-5, weight_decay=0.01)
    config.optimizer.warmup = 3 / epochs
    config.optimizer.cooldown = 0.0
    config.data.flip = True
    config.data.randaugment.magnitude = 7.0


def normalise_cifar(config, classes):
    """Sets the mean and the standard deviation that a model's authors normalise CIFAR by.

    Args:
      config: a ConfigDict whose model is chosen; changed in place.
      classes: 10 or 100.
    """
    family = config.model.name.partition("_")[0]
    mean, std = _CIFAR_STATISTICS.get((family, classes), _CIFAR_STATISTICS[None, classes])
    config.data.mean, config.data.std = mean, std


# By family and data set. The authors of Meta-SpikeFormer publish none for CIFAR.
CIFAR = {
    "spikformer": spikformer_cifar,
    "spikingformer": spikingformer_cifar,
    "sdt": sdt_cifar,
    "qkformer": qkformer_cifar,
    "spikingresformer": spikingresformer_cifar,
}
IMAGENET = {
    "spikformer": spikformer_imagenet,
    "spikingformer": spikingformer_imagenet,
    "sdt": sdt_imagenet,
    "qkformer": qkformer_imagenet,
    "metaspikeformer": metaspikeformer_imagenet,
    "spikingresformer": spikingresformer_imagenet,
}


def published_cifar(config, name):
    """Chooses a model and sets its published recipe on CIFAR.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      name: of the model.

    Raises:
      ValueError: for a model that has none.
    """
    _published(config, name, CIFAR, "CIFAR")


def published_imagenet(config, name):
    """Chooses a model and sets its published recipe on ImageNet.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      name: of the model.

    Raises:
      ValueError: for a model that has none.
    """
    _published(config, name, IMAGENET, "ImageNet")


def _published(config, name, recipes, data):
    family = name.partition("_")[0]
    if family not in recipes:
        raise ValueError(f"{name=} has no recipe for {data}; {', '.join(recipes)} have")
    use_model(config, name)
    recipes[family](config)


def learn_time_steps(config, target):
    """Sets the time-step phases as shares of the training: all steps, giving up, settling, fixed.

    Args:
      config: a ConfigDict; changed in place.
      target: average number of time steps to end at, in [1, T].
    """
    config.time_step_penalty = 1.0
    config.target_time_steps = float(target)
    config.time_step_start = 0.2
    config.time_step_anneal = 0.4
    config.time_step_freeze = 0.8


def finetune_time_steps(config, target):
    """Turns a recipe into one that teaches a trained model to give up time steps.

    A tenth of the epochs at a fifth of the learning rate; all weights adapt. The weights to start
    from are to be given as `init_from`. For a model that is published in two stages, it is the
    second of them.

    Args:
      config: a ConfigDict with a recipe; changed in place.
      target: average number of time steps to end at, in [1, T].
    """
    if config.model.name.startswith("metaspikeformer"):
        metaspikeformer_finetune(config, target)
        return
    config.init_from = _WEIGHTS
    config.epochs = 31
    config.optimizer.learning_rate /= 5
    config.optimizer.warmup = 1 / 31
    config.optimizer.cooldown = 1 / 31
    config.mixing.off = 20 / 31
    learn_time_steps(config, target)
    config.time_step_start = 1 / 31


def smoke(config, image_size, batch_size):
    """Shrinks a recipe so that it runs to its end in a minute or two on two cores.

    Everything that the recipe does stays on; model, images and numbers of examples become small.

    Args:
      config: a ConfigDict with a recipe; changed in place.
      image_size: pixels, a multiple of 16.
      batch_size: examples in a batch.
    """
    config.epochs = 2
    config.batch_size = batch_size
    config.log_every_steps = 2
    config.optimizer.warmup = 0.25
    config.optimizer.cooldown = 0.25
    if config.mixing.off is not None:
        config.mixing.off = 0.75
    if config.model.time_steps > 1:
        learn_time_steps(config, target=3.0)
        config.time_step_penalty = 20.0
        config.optimizer.score_multiplier = 100.0  # there are a few dozen steps only
    config.model.update(_SMALL.get(config.model.name.partition("_")[0], _SMALL[None]))
    config.data.image_size = image_size


def _epoch_cosine(config, warmup_learning_rate, weight_decay):
    """20 epochs of warm-up and 10 to cool down, of `config.epochs`."""
    optimizer, epochs = config.optimizer, config.epochs
    optimizer.learning_rate = 5e-4
    optimizer.min_learning_rate = 1e-5
    optimizer.warmup_learning_rate = warmup_learning_rate
    optimizer.warmup = 20 / epochs
    optimizer.schedule = "epoch_cosine"
    optimizer.cooldown = 10 / epochs
    optimizer.weight_decay = weight_decay
    optimizer.label_smoothing = 0.1


def _imagenet_by_steps(config, epochs, warmup_epochs):
    """What the recipes that come from masked autoencoders share: the rate follows the step."""
    config.epochs = epochs
    optimizer = config.optimizer
    optimizer.min_learning_rate = 1e-6
    optimizer.warmup_learning_rate = 0.0
    optimizer.warmup = warmup_epochs / epochs
    optimizer.schedule = "cosine"
    optimizer.weight_decay = 0.05
    optimizer.label_smoothing = 0.1
    config.data.image_size = 224
    config.data.random_resized_crop = True
    config.data.crop_fraction = 224 / 256
    config.data.flip = True
    config.data.randaugment.num_ops = 2
    config.data.randaugment.magnitude_std = 0.5
    config.data.erasing_probability = 0.25
    config.data.erasing_fill = "noise"
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
