"""Networks that the methods use unless they are given others: any `nnx.Module` from rows to codes, or back, will do.

Layers compute in their ``dtype``, parameters are float32; what a network returns is float32 in any case. `ConvNet`,
`ResNet` and `Projector` normalize by the batch while they are trained (``module.train()``), and by running statistics,
their `nnx.BatchStat`, in evaluation (``module.eval()``).
"""

from jaxcluster.deep.nets.conv import ConvDecoder, ConvEncoder, ConvNet, as_image_shape, as_images, halved
from jaxcluster.deep.nets.dense import MLP, GaussianHead, Projector, VariationalEncoder, mirror
from jaxcluster.deep.nets.resnet import ResNet

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "ConvNet",
    "GaussianHead",
    "Projector",
    "ResNet",
    "VariationalEncoder",
    "as_image_shape",
    "as_images",
    "halved",
    "mirror",
]
