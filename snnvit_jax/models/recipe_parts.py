"""What published training recipes share, as changes to a configuration whose model is chosen.

Lengths are shares of the training, so that all of them follow `config.epochs`. Each family's own
recipes stand in its folder, with the repository that they are from.
"""

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR = {10: (CIFAR10_MEAN, CIFAR10_STD), 100: (CIFAR100_MEAN, CIFAR100_STD)}  # as timm does


def cifar(config, classes):
    """Sets what is published for Spikformer on CIFAR: 300 epochs and 10 to cool down.

    Others' recipes are made from it. Source: github.com/ZK-Zhou/spikformer, cifar10/cifar10.yml.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      classes: 10 or 100, which says what images are normalised by.
    """
    config.epochs = 310
    config.batch_size = 128
    config.seed = 42
    epoch_cosine(config, warmup_learning_rate=1e-5, weight_decay=0.06)
    config.mixing.mixup_alpha = 0.5
    config.mixing.off = 200 / 310
    config.data.image_size = 32
    config.data.flip = True
    config.data.randaugment.num_ops = 1
    config.data.randaugment.magnitude_std = 0.4
    config.data.randaugment.operations = "cifar"
    config.data.erasing_probability = 0.25
    config.data.mean, config.data.std = CIFAR[classes]


def longer_cifar(config, classes):
    """Sets what Spikingformer and QKFormer change of it: 400 epochs, batches of 64, all operations.

    Source: github.com/zhouchenlin2096/Spikingformer and zhouchenlin2096/QKFormer, cifar10/ and
    cifar100/.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      classes: 10 or 100.
    """
    cifar(config, classes)
    config.epochs = 410
    config.batch_size = 64
    epoch_cosine(config, warmup_learning_rate=1e-5, weight_decay=0.06)
    config.mixing.off = 200 / 410
    config.data.randaugment.operations = "all"


def imagenet(config):
    """Sets what is published for Spikformer on ImageNet: 300 epochs and 10 to cool down.

    Others' recipes are made from it. Source: github.com/ZK-Zhou/spikformer, imagenet/imagenet.yml.

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
    """
    config.epochs = 310
    config.batch_size = 192  # 24 on each of 8 GPUs
    config.seed = 42
    epoch_cosine(config, warmup_learning_rate=1e-6, weight_decay=0.05)
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


def epoch_cosine(config, warmup_learning_rate, weight_decay):
    """Sets a cosine by epochs with 20 epochs of warm-up and 10 to cool down, of `config.epochs`.

    Args:
      config: a ConfigDict; changed in place.
      warmup_learning_rate: where the warm-up begins.
      weight_decay: of kernels.
    """
    optimizer, epochs = config.optimizer, config.epochs
    optimizer.learning_rate = 5e-4
    optimizer.min_learning_rate = 1e-5
    optimizer.warmup_learning_rate = warmup_learning_rate
    optimizer.warmup = 20 / epochs
    optimizer.schedule = "epoch_cosine"
    optimizer.cooldown = 10 / epochs
    optimizer.weight_decay = weight_decay
    optimizer.label_smoothing = 0.1


def imagenet_by_steps(config, epochs, warmup_epochs):
    """Sets what the recipes made from masked autoencoders' share: the rate follows the step.

    Source: zhouchenlin2096/QKFormer (imagenet/train.py) and BICLab/Spike-Driven-Transformer-V2
    (classification/).

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      epochs: of the training.
      warmup_epochs: of them.
    """
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


def events(config, epochs=96, learning_rate=1e-3, min_learning_rate=1e-5):
    """Sets what Spikformer, Spikingformer and QKFormer share for event cameras: T = 16.

    Their one script comes from that of SEW-ResNet; 10 epochs more are to cool down. Source:
    github.com/ZK-Zhou/spikformer (cifar10dvs/), zhouchenlin2096/Spikingformer and
    zhouchenlin2096/QKFormer (cifar10-dvs/, dvs128-gesture/).

    Args:
      config: a ConfigDict with the keys of `config.default_config`; changed in place.
      epochs: before the last 10.
      learning_rate: the highest.
      min_learning_rate: the last.
    """
    config.model.time_steps = 16
    config.epochs = epochs + 10
    config.batch_size = 16
    config.seed = 2021
    event_rates(config, learning_rate, 1e-5, min_learning_rate, weight_decay=0.06)
    config.mixing.mixup_alpha = 0.5
    config.mixing.probability = 0.5
    config.mixing.off = 75 / config.epochs
    config.data.image_size = 128
    config.data.flip = True
    config.data.events.operations = "published"


def event_rates(config, peak, warmup, last, weight_decay):
    """Sets a cosine by epochs, 10 of warm-up and 10 to cool down, of `config.epochs`.

    Args:
      config: a ConfigDict; changed in place.
      peak: the highest learning rate.
      warmup: that where the warm-up begins.
      last: that of the last epochs.
      weight_decay: of kernels.
    """
    optimizer = config.optimizer
    optimizer.learning_rate = peak
    optimizer.warmup_learning_rate = warmup
    optimizer.min_learning_rate = last
    optimizer.warmup = optimizer.cooldown = 10 / config.epochs
    optimizer.schedule = "epoch_cosine"
    optimizer.weight_decay = weight_decay
    optimizer.label_smoothing = 0.1
