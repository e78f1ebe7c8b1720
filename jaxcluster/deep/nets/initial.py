"""How weights are drawn."""

from flax import nnx

glorot = nnx.initializers.glorot_uniform()
"""For layers whose outputs go on as they are (X. Glorot and Y. Bengio, AISTATS 2010)."""

he = nnx.initializers.he_normal()
"""For layers before a ReLU (K. He et al., Delving deep into rectifiers, ICCV 2015)."""
