"""Default networks of the methods; any `nnx.Module` from samples to codes, or back, can take their place.

Layers compute in their ``dtype``; parameters and the outputs of networks are float32. `ConvNet`, `ResNet` and
`Projector` use batch statistics in training (``module.train()``), and running statistics, their `nnx.BatchStat`, in
evaluation (``module.eval()``).
"""

from jaxcluster.deep.nets.conv import (
    ConvDecoder,
    ConvEncoder,
    ConvNet,
    ResNet,
    as_image_shape,
    as_images,
    downsampled_size,
)
from jaxcluster.deep.nets.dense import MLP, GaussianHead, Projector, Prototypes, VariationalEncoder, mirror

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "ConvNet",
    "GaussianHead",
    "Projector",
    "Prototypes",
    "ResNet",
    "VariationalEncoder",
    "as_image_shape",
    "as_images",
    "downsampled_size",
    "mirror",
]


def __dir__() -> list[str]:
    return __all__
