"""Times on the H100 that others measured and published, as their sources give them."""

from typing import NamedTuple


class Published(NamedTuple):
    """What others measured.

    Attributes:
      fastest: seconds of the whole program.
      slowest: seconds, where several machines are listed.
      what: the figure and how it was taken.
      source: its address.
    """

    fastest: float
    slowest: float
    what: str
    source: str


# Kernel 0 of its table, size 8192.
PRODUCT = Published(
    *(1.378e-3, 1.378e-3, "cuBLAS, bfloat16, H100 SXM: 0.001378 s"),
    "https://github.com/pranjalssh/fast.cu",
)

RESNET50_BATCH = 256  # compared by the images; no batch size is listed for the SXM5
_LAMBDA = "https://github.com/lambdal/deeplearning-benchmark/blob/master/pytorch/"
RESNET50 = Published(
    *(RESNET50_BATCH / 2791, RESNET50_BATCH / 2616),
    "PyTorch, fp16, one H100 SXM5, four machines: 2,616 to 2,791 images/s",
    _LAMBDA + "pytorch-train-throughput-fp16.csv",
)

VIT_BATCH = 512
VIT = Published(
    *(8 * VIT_BATCH / 11669.52, 8 * VIT_BATCH / 11669.52),
    "JAX, bfloat16, eight H100 with 512 images each: 11,669.52 samples/s",
    "https://github.com/NVIDIA/JAX-Toolbox/blob/main/rosetta/rosetta/projects/vit/README.md",
)


def copy(size):
    """Returns the time to read and write so many bytes in all, at the rate of a large copy.

    Smaller copies fit into the cache and have higher rates (2,903 GB/s for 13 MB).
    """
    return Published(
        *(size / 2442e9, size / 2352e9),
        "bandwidthTest, copies of 64 and 68 MB on an H100 SXM5: 2,442 and 2,352 GB/s",
        "https://github.com/ZiyanIshani/vpbenchmarking",
    )
