"""Reports of fitted estimators: what an estimator tells of its fit, as the arguments of a report."""

from __future__ import annotations

from typing import Any

from jaxcluster.report.context import Components
from jaxcluster.report.scores import silhouette_metric
from jaxcluster.report.scoring import objective_of
from jaxcluster.report.structure import Structure
from jaxcluster.report.training import Training


def fitted_parts(estimator: Any, X: Any, sample_weight: Any, image_shape: tuple[int, ...] | None) -> dict[str, Any]:
    """Arguments of `jaxcluster.report.write_report` on the fit of an estimator, and ``image_shape`` of its rows.

    Args:
        estimator: fitted.
        X: (n_samples, n_features) the rows of the fit as they were clustered.
        sample_weight: (n_samples,) their weights in the fit, or None.
        image_shape: of the data set, or None.
    """
    info = estimator.info
    parts = estimator.report_parts(X, sample_weight)
    for name, kind in (("components", Components), ("structure", Structure), ("training", Training)):
        if name in parts:
            parts[name] = kind(**parts[name])
    if info.objective:
        # Methods without an objective do not iterate: their status says nothing about convergence.
        parts["status"] = estimator.status_
    if info.family == "deep":
        image_shape = picture_shape(image_shape, getattr(estimator, "image_shape", None))
    elif info.objective:
        objective = objective_of(estimator, info.objective)
        parts |= {"history": estimator.history_, "objective": objective, "best": info.best}
    metric, p = silhouette_metric(estimator)
    return parts | {"metric": metric, "p": p, "image_shape": image_shape}


def picture_shape(of_data: tuple[int, ...] | None, of_estimator: Any) -> tuple[int, ...] | None:
    """Shape of rows that are images, (height, width) or (height, width, channels); None for other rows.

    Args:
        of_data: shape in the data set, or None.
        of_estimator: shape in the parameters of the estimator, or None.

    Returns:
        The shape; None also for 2 or more than 4 channels, which cannot be drawn.
    """
    if of_data is not None or of_estimator is None:
        return of_data
    shape = tuple(of_estimator[:2] if tuple(of_estimator[2:]) == (1,) else of_estimator)
    return shape if shape[2:] in ((), (3,), (4,)) else None
