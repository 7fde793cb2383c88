"""Published training recipes, as changes to the default configuration.

Lengths are shares of the training, so that all of them follow `config.epochs`.

Sources: the authors' public repositories, github.com/ZK-Zhou/spikformer (cifar10/cifar10.yml,
imagenet/imagenet.yml), zhouchenlin2096/Spikingformer (the same two, and cifar100/cifar100.yml) and
BICLab/Spike-Driven-Transformer (conf/), run by timm training scripts. The time-step phases are this
project's: the published models keep all of their steps.
"""

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


def sdt_imagenet(config, large=False):
    """Sets the published recipe of the Spike-driven Transformer on ImageNet: 300 epochs and 10.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      large: whether it is that of 8-768.
    """
    spikformer_imagenet(config)
    config.batch_size = 288 if large else 384  # 36 or 48 on each of 8 GPUs
    _epoch_cosine(config, warmup_learning_rate=1e-5, weight_decay=0.01)
    config.optimizer.name = "lamb"
    config.optimizer.learning_rate = 1e-3 if large else 1.5e-3
    config.optimizer.min_learning_rate = 2e-5 if large else 1.5e-5
    config.mixing.mixup_alpha = 0.2
    config.mixing.probability = 1.0 if large else 0.6
    config.data.crop_scale = (0.08, 1.0) if large else (0.2, 1.0)
    config.data.crop_fraction = 0.95
    config.data.randaugment.magnitude = 7.0 if large else 5.0
    config.data.erasing_probability = 0.0
    config.data.repeats = 3


def published_cifar(config, name):
    """Sets the published recipe of a model on CIFAR.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      name: of the model.
    """
    families = {"spikingformer": spikingformer_cifar, "sdt": sdt_cifar}
    families.get(name.split("_")[0], spikformer_cifar)(config)


def published_imagenet(config, name):
    """Sets the published recipe of a model on ImageNet.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      name: of the model.
    """
    if name.startswith("sdt"):
        sdt_imagenet(config, large="768" in name)
    elif name.startswith("spikingformer"):
        spikingformer_imagenet(config)
    else:
        spikformer_imagenet(config)


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
    from are to be given as `init_from`.

    Args:
      config: a ConfigDict with a recipe; changed in place.
      target: average number of time steps to end at, in [1, T].
    """
    config.init_from = "WEIGHTS"  # no such file: the error says which key to set
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
    learn_time_steps(config, target=3.0)
    config.time_step_penalty = 20.0
    config.optimizer.score_multiplier = 100.0  # there are a few dozen steps only
    config.model.embed_dim = 64
    config.model.num_heads = 2
    config.model.depth = 1
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
