"""Learning without labels on images: curves, clusters, and how much features tell, one method and seed a call.

``python -m bench.images swav fashion_mnist.npz --seed 0`` trains a method on all rows, as long as a GPU should;
``--rows 10000 --steps 1500`` is what two cores do in some minutes. Every record says what the same network untrained
and the pixels themselves come to: k-means on the features of all rows, and a linear classifier that learns on the rows
of the file's training part and is asked about those of its test part.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from bench.provenance import provenance
from bench.records import RESULTS, append
from jaxcluster import deep, kmeans, metrics
from jaxcluster.checkpoint import Checkpoints
from jaxcluster.deep import nets
from jaxcluster.deep.clustergan import DenseGenerator, ImageEncoder, ImageGenerator, dense_encoder
from jaxcluster.deep.inference import eval_copy
from jaxcluster.deep.views import image_views

SHAPE, CLASSES, LATENT = (28, 28), 10, 128
"""Height and width of an image, number of classes, and dimension of the embedding."""

LOOKS = 20
"""Looks at all rows in a training, at which its curve has a point."""


class Method(NamedTuple):
    """The constructor of a method, and its training: batch size, optimizer, and steps of a full run."""

    make: Any
    batch: int
    optimizer: Any
    steps: int


def clustergan(seed: int) -> deep.ClusterGAN:
    """The published networks."""
    rngs, latent, sizes = nnx.Rngs(seed), 30, {"channels": (64, 128), "dense": 1024}
    width = latent + CLASSES
    generator = ImageGenerator(width, SHAPE, bounded=True, rngs=rngs, **sizes)
    critic = ImageEncoder(SHAPE, 1, rngs=rngs, **sizes)
    encoder = ImageEncoder(SHAPE, width, rngs=rngs, **sizes)
    return deep.ClusterGAN(generator, critic, encoder, CLASSES, latent=latent)


def clustergan_dense(seed: int) -> deep.ClusterGAN:
    """Dense networks, a hundred times as fast on a CPU, with the estimator's weight of the clusters."""
    rngs, latent, hidden, d = nnx.Rngs(seed), 30, (256, 256), SHAPE[0] * SHAPE[1]
    width = latent + CLASSES
    generator = DenseGenerator((width, *hidden, d), rngs=rngs)
    critic = dense_encoder((d, *hidden, 1), rngs=rngs)
    encoder = dense_encoder((d, *hidden, width), rngs=rngs)
    return deep.ClusterGAN(generator, critic, encoder, CLASSES, latent=latent, cluster_weight=1.0)


def deepcluster(seed: int) -> deep.DeepCluster:
    """The first form, with thirty clusters to learn."""
    rngs = nnx.Rngs(seed)
    options = {"n_clusters": CLASSES, "view": image_views(SHAPE, crops=(1, 0)), "rngs": rngs}
    return deep.DeepCluster(nets.ConvNet(SHAPE, LATENT, rngs=rngs), LATENT, 30, **options)


def deepcluster_v2(seed: int) -> deep.DeepClusterV2:
    """The second form, with thirty clusters to learn."""
    options = {"n_clusters": CLASSES, "view": image_views(SHAPE, crops=(1, 0))}
    return deep.DeepClusterV2(nets.ConvNet(SHAPE, LATENT, rngs=nnx.Rngs(seed)), LATENT, 30, **options)


def swav(seed: int) -> deep.SwAV:
    """Two large views, and fifty prototypes."""
    rngs = nnx.Rngs(seed)
    head = nets.Projector((LATENT, LATENT, 64), rngs=rngs)
    encoder, views = nets.ConvNet(SHAPE, LATENT, rngs=rngs), image_views(SHAPE)
    return deep.SwAV(encoder, views, CLASSES, 50, LATENT, head=head, width=64, freeze_steps=100, rngs=rngs)


METHODS = {
    "clustergan": Method(clustergan, 64, deep.adam(1e-4, b1=0.5, b2=0.9), 100_000),
    "clustergan-dense": Method(clustergan_dense, 64, deep.adam(5e-4, b1=0.5, b2=0.9), 100_000),
    "deepcluster": Method(deepcluster, 256, deep.adam(1e-3), 55_000),
    "deepcluster-v2": Method(deepcluster_v2, 256, deep.adam(1e-3), 55_000),
    "swav": Method(swav, 256, deep.adam(1e-3), 55_000),
}


class Images(NamedTuple):
    """Rows in [0, 1], their classes, and which are of the file's training part."""

    x: np.ndarray
    y: np.ndarray
    training: np.ndarray


def images(path: Path, rows: int | None = None, seed: int = 0) -> Images:
    """All rows of the file, or so many of them drawn at random."""
    data = np.load(path)
    x = np.concatenate([data["x_train"], data["x_test"]])
    y = np.concatenate([data["y_train"], data["y_test"]])
    training = np.arange(len(y)) < len(data["y_train"])
    chosen = slice(None) if rows is None else np.sort(np.random.default_rng(seed).permutation(len(y))[:rows])
    return Images(x.reshape(len(x), -1)[chosen].astype(np.float32) / 255, y[chosen], training[chosen])


def feature_quality(features: np.ndarray, rows: Images) -> dict[str, float]:
    """Agreement of features with the classes: of k-means without labels, and of a linear classifier with labels."""
    features = np.asarray(features, np.float32)
    labels = np.asarray(kmeans.fit(jax.random.key(0), features, CLASSES, n_init=10).labels)
    scaled = StandardScaler().fit(features[rows.training]).transform(features)
    linear = LogisticRegression(max_iter=300).fit(scaled[rows.training], rows.y[rows.training])
    return {
        "kmeans_accuracy": float(metrics.clustering_accuracy(rows.y, labels)),
        "kmeans_nmi": float(metrics.normalized_mutual_info_score(rows.y, labels)),
        "probe": float(linear.score(scaled[~rows.training], rows.y[~rows.training])),
    }


def measure(name: str, path: Path, *, rows: int | None, steps: int | None, seed: int, work: Path) -> dict[str, Any]:
    """The record of a run."""
    begin = time.perf_counter()
    data, method = images(path, rows), METHODS[name]
    module = method.make(seed)
    steps = method.steps if steps is None else steps
    curve: list[dict[str, float]] = []

    def follow(report: deep.EpochReport) -> None:
        nmi = metrics.normalized_mutual_info_score(data.y, report.labels)
        curve.append(dict(report.record) | {"nmi_with_classes": float(nmi)})
        print(curve[-1], flush=True)

    result = deep.train(
        jax.random.key(seed),
        module,
        data.x,
        epochs=LOOKS,
        steps_per_epoch=max(1, steps // LOOKS),
        batch_size=method.batch,
        optimizer=method.optimizer,
        callbacks=[follow],
        checkpoints=Checkpoints(work / f"{name}-{path.stem}-{len(data.x)}-{steps}-{seed}", every=5),
        resume=True,
    )
    seconds = time.perf_counter() - begin
    trained, labels = result.module, result.labels
    features = deep.map_module(trained, "features", data.x)
    return {
        "case": f"{name}-{path.stem}-{len(data.x)}-{seed}",
        "method": name,
        "data": path.stem,
        "n": len(data.x),
        "steps": result.steps,
        "full_steps": method.steps,
        "seed": seed,
        "accuracy": float(metrics.clustering_accuracy(data.y, labels)),
        "nmi": float(metrics.normalized_mutual_info_score(data.y, labels)),
        "ari": float(metrics.adjusted_rand_score(data.y, labels)),
        "features": {
            "trained": feature_quality(features, data),
            "untrained": feature_quality(deep.map_module(eval_copy(module), "features", data.x), data),
            "pixels": feature_quality(data.x, data),
        },
        "status": result.status.name,
        "curve": curve,
        "seconds": round(seconds),
        "provenance": provenance({}, quick=False),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one method with one seed."""
    parser = argparse.ArgumentParser(prog="python -m bench.images", description=__doc__)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("data", type=Path, help="an .npz of x_train, y_train, x_test, y_test, pixels from 0 to 255")
    parser.add_argument("--rows", type=int, help="so many rows, drawn at random (all without it)")
    parser.add_argument("--steps", type=int, help="steps of the training (those of a full one without it)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/images"), help="for checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS / "images")
    options = parser.parse_args(arguments)
    given = {name: getattr(options, name) for name in ("rows", "steps", "seed", "work")}
    record = measure(options.method, options.data, **given)
    origin = record["provenance"]
    append(options.results / f"{origin['platform']}-{origin['date'][:10]}.jsonl", record)


if __name__ == "__main__":
    main()
