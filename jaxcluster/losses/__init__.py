"""Losses: scalars to differentiate, each a pure function."""

from jaxcluster.losses.dec import dec_loss, student_t_assignments, student_t_log_assignments, target_distribution
from jaxcluster.losses.graph_cut import soft_ncut
from jaxcluster.losses.vade import VadeTerms, vade_loss, vade_responsibilities

__all__ = [
    "VadeTerms",
    "dec_loss",
    "soft_ncut",
    "student_t_assignments",
    "student_t_log_assignments",
    "target_distribution",
    "vade_loss",
    "vade_responsibilities",
]
