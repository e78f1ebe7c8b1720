"""Losses: scalars to differentiate, each a pure function."""

from jaxcluster.losses.graph_cut import soft_ncut

__all__ = ["soft_ncut"]
