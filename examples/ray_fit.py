"""k-means by Ray: the rows are a data set of Ray, each node has a worker, and the labels are those of all rows.

    python examples/ray_fit.py --rows 200000 --workers 2
    RAY_ADDRESS=auto python examples/ray_fit.py --gpu --storage s3://bucket/runs --restarts 3

The first line runs on this machine, the second one on the cluster that it belongs to. Needs the extra ``ray``.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import jaxcluster as jc


def made_up(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows around ten centers, by the numbers of the rows; a real data set is read by ``ray.data.read_parquet``."""
    rng = np.random.default_rng(int(batch["id"][0]))
    return {"x": 9 * (batch["id"] % 10)[:, None] + rng.normal(size=(len(batch["id"]), 8))}


def main(arguments: list[str] | None = None) -> Any:
    """Fit, and print the number of rows in each cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="number of rows")
    parser.add_argument("--workers", type=int, help="number of workers; one on each node by default")
    parser.add_argument("--gpu", action="store_true", help="give each worker all GPUs of its node")
    parser.add_argument("--storage", help="folder or URI for checkpoints, which all nodes share")
    parser.add_argument("--restarts", type=int, default=0, help="most restarts where a worker is lost")
    options = parser.parse_args(arguments)
    import ray

    rows = ray.data.range(options.rows).map_batches(made_up)
    model = jc.ray.fit(
        jc.KMeans(10, random_state=0),
        rows,
        workers=options.workers,
        use_gpu=options.gpu,
        storage=options.storage,
        max_failures=options.restarts,
    )
    print(model)
    for cluster, count in enumerate(np.bincount(model.labels_)):
        print(f"cluster {cluster}: {count:,} rows")
    # New rows are labeled where they are.
    labels = rows.limit(5).map_batches(lambda batch: {"label": model.predict(batch["x"])})
    print("the first rows:", [row["label"] for row in labels.take_all()])
    return model


if __name__ == "__main__":
    main()
