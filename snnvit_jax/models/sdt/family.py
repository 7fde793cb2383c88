"""The Spike-driven Transformer's published sizes, its authors' names, and what they never use."""

from snnvit_jax.models.family import Family
from snnvit_jax.models.sdt.model import SpikeDrivenConfig, SpikeDrivenTransformer
from snnvit_jax.models.sdt.recipes import RECIPES
from snnvit_jax.models.single_stage import CIFAR_POOL, settings, small, tensor_rules, torch_name

SIZES = {
    "sdt_2_256": settings(32, depth=2, embed_dim=256, num_heads=8),
    "sdt_2_512": settings(32, depth=2, embed_dim=512, num_heads=8),
    "sdt_8_384_imagenet": settings(224, depth=8, embed_dim=384, num_heads=8),
    "sdt_8_512_imagenet": settings(224, depth=8, embed_dim=512, num_heads=8),
    "sdt_8_768_imagenet": settings(224, depth=8, embed_dim=768, num_heads=8),
    # That of CIFAR10-DVS; of DVS128 Gesture: dvs_mode=False, image_size=128, pool=(False, True,
    # True, True).
    "sdt_2_256_dvs": settings(64, depth=2, embed_dim=256, num_heads=8)
    | {"pool": CIFAR_POOL, "dvs_mode": True},
}


def unused(model):
    """Returns the names of convolutions between heads that the authors construct and never call.

    Args:
      model: a `SpikeDrivenTransformer`.
    """
    return {f"block.{i}.attn.talking_heads.weight" for i in range(model.config.depth)}


FAMILY = Family(
    name="sdt",
    module=SpikeDrivenTransformer,
    config=SpikeDrivenConfig,
    sizes=SIZES,
    recipes=RECIPES,
    small=small,
    torch_name=torch_name,
    unused=unused,
    bound=("dvs_mode",),
    tensor_rules=tensor_rules("fc"),
    divided=("embed_dim", "hidden_dim"),
)
