"""The words for every way in which a fit can end: in a report, and on the command line."""

from __future__ import annotations

from jaxcluster.types import Status

ENDINGS = {
    Status.CONVERGED: "converged",
    Status.MAX_STEPS: "step limit",
    Status.NOT_FINITE: "not finite",
    Status.EMPTY_CLUSTERS: "empty clusters",
    Status.COLLAPSED: "collapsed",
    Status.PRECISION: "precision limit",
}
"""In a word or two."""

WARNINGS = {
    Status.MAX_STEPS: "The run reached its limit of steps before it had converged. Allow more steps, or a larger tol.",
    Status.NOT_FINITE: "The run met numbers that are not finite and stopped; what follows is not to be trusted. Scale "
    "the columns.",
    Status.EMPTY_CLUSTERS: "Some clusters have no rows. Ask for fewer clusters, or look whether there are as many "
    "different rows.",
    Status.COLLAPSED: "A component lost its rows, or shrank onto too few of them to have a spread, and was kept from "
    "vanishing. Ask for fewer components, pass a larger reg_covar, or try another covariance type.",
    Status.PRECISION: "Some rows differ by less than the computation can tell apart, so their clusters may not be "
    "those of exact arithmetic. Compute in float64 (jax_enable_x64), or scale the columns.",
}
"""What happened and what to do, in words of the library."""

SHELL = {
    Status.MAX_STEPS: "the fit stopped at its limit of steps. Raise --max-iter, or --tol.",
    Status.NOT_FINITE: "the fit met numbers that are not finite, and its result is not to be trusted. Pass --scale "
    "standard.",
    Status.EMPTY_CLUSTERS: "some clusters have no rows. Lower --k, or look whether there are as many different rows.",
    Status.COLLAPSED: "a component lost its rows or its spread. Lower --k, raise --reg-covar, or try another "
    "--covariance.",
    Status.PRECISION: "some rows differ by less than the computation can tell apart, so their clusters may not be "
    "those of exact arithmetic. Set JAX_ENABLE_X64=1 before the command, or pass --scale standard.",
}
"""The same in a line for the command line, in words of its options."""

COLLAPSED_TRAINING = (
    "The training collapsed: the network tells rows apart no more, or puts almost all of them into one cluster. Lower "
    "the learning rate, pass gentler views, or look whether the rows vary."
)

ALL_NOISE = "Every row is noise: there is no cluster. Ask for a lower density: a larger radius, or fewer rows in it."
