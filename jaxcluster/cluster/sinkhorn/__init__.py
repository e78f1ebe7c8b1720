"""Entropic optimal transport by Sinkhorn iterations: plans, divergences, barycenters and balanced assignments."""

from jaxcluster.cluster.sinkhorn.barycenter import BarycenterState, barycenter, divergence
from jaxcluster.cluster.sinkhorn.plan import Transport, apply, apply_cost, plan, plan_cost
from jaxcluster.cluster.sinkhorn.solve import solve, solve_cost
from jaxcluster.cluster.sinkhorn.swav import swav_assignments
from jaxcluster.core.memory import FEWER_ROWS, guard_functions

__all__ = [
    "BarycenterState",
    "Transport",
    "apply",
    "apply_cost",
    "barycenter",
    "divergence",
    "plan",
    "plan_cost",
    "solve",
    "solve_cost",
    "swav_assignments",
]


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__, FEWER_ROWS)
