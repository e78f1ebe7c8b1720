"""The cases that are timed, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch

from bench.peers import CLUSTPY, CONSTRAINED, FAST_HDBSCAN, GMMX, KMEDOIDS, KMODES, OTT, POT, POT_LOG, SKLEARN, WANG

Target = float | Mapping[str, float]
"""A ratio that is aimed at: to the fastest peer, or to each by its name."""


@dataclass(frozen=True)
class Case:
    """One problem that jaxcluster and its peers solve from the same start.

    Attributes:
        name: what ``--only`` matches.
        work: a name of `bench.works.WORKS`: what is computed.
        n, d, k: rows, columns and clusters.
        steps: iterations of Lloyd or of EM, or epochs of each phase of a training, the same number on every side.
        seeds: runs of each k from 2 to ``k`` in a sweep.
        problems: how many problems of this size are solved.
        eps: the radius of a density, or the entropy of a transport; None where there is neither.
        hidden: widths of an encoder's hidden layers; the decoder mirrors them.
        batch: rows a step of a training.
        covariance: the form of a mixture's covariances, "full" or "diag"; None where there are none.
        repeats: timed calls of every side, unless ``--repeats`` says otherwise.
        target: the ratio that is aimed at, by platform ("cpu", "gpu").
        platform: the only platform on which the case is run; None for all.
        without: peers that would take many minutes, or all the memory there is.
        data: the file of real data, without its ending, that ``--data`` may put in the place of generated rows; its
            principal components where ``d`` is less than its columns.
    """

    name: str
    work: str
    n: int
    d: int = 1
    k: int = 10
    steps: int = 10
    seeds: int = 1
    problems: int = 1
    eps: float | None = None
    hidden: Sequence[int] = ()
    batch: int = 256
    covariance: str | None = None
    repeats: int = 7
    target: Mapping[str, Target] = field(default_factory=dict)
    platform: str | None = None
    without: Sequence[str] = ()
    data: str | None = None


FEW_COLUMNS = {"cpu": {SKLEARN: 10, WANG: 0.5}}
ALL_ROWS = {"cpu": {FAST_HDBSCAN: 1.5}}
MEDOIDS = {"cpu": {KMEDOIDS: 1.5}}
TRANSPORT = {"cpu": {POT_LOG: 20, POT: 1, OTT: 2}}
PUBLISHED = (500, 500, 2000)
"""The hidden layers of DEC and VaDE, as their papers have them."""
TRAINING = {"cpu": {CLUSTPY: 1.5}, "gpu": {CLUSTPY: 3}}
LOOPS = {"cpu": 1.2, "gpu": 2}
NARROW = (256, 256)
"""The hidden layers of dense networks that are trained without labels."""
EM_FULL = {"cpu": {SKLEARN: 10, GMMX: 3}, "gpu": {GMMX: 10}}

CASES = (
    Case("lloyd-k32", "lloyd", n=1_048_576, d=16, k=32, target={"cpu": 1.0}),
    Case("lloyd-k100", "lloyd", n=98_304, d=64, k=100, target={"cpu": 1.5}),
    Case("lloyd-k256", "lloyd", n=196_608, d=128, k=256, target={"cpu": 1.5}),
    Case("lloyd-mnist", "lloyd", n=70_000, d=784, k=10, target={"cpu": 1.0}, data="mnist"),
    Case("lloyd-k1024", "lloyd", n=196_608, d=128, k=1024, repeats=3, target={"cpu": 1.5}),
    Case("lloyd-1m-k256", "lloyd", n=1_048_576, d=128, k=256, platform="gpu"),
    Case("lloyd-1m-k1024", "lloyd", n=1_048_576, d=128, k=1024, platform="gpu"),
    Case("lloyd-sparse", "sparse_lloyd", n=100_000, d=50_000, k=20, repeats=3, target={"cpu": {SKLEARN: 3}}),
    Case("em-full-16", "em", n=131_072, d=16, k=16, covariance="full", repeats=5, target=EM_FULL),
    Case("em-full-50", "em", n=70_000, d=50, k=10, covariance="full", repeats=5, target=EM_FULL, data="mnist"),
    Case("em-diag-64", "em", n=65_536, d=64, k=32, covariance="diag", repeats=5, target={"cpu": {SKLEARN: 4}}),
    Case("em-1m", "em", n=1_048_576, d=32, k=32, covariance="full", repeats=3, target=EM_FULL, platform="gpu"),
    Case("dbscan-2", "dbscan", n=100_000, d=2, k=20, eps=0.5, target=FEW_COLUMNS),
    Case("dbscan-3", "dbscan", n=100_000, d=3, k=20, eps=0.8, target=FEW_COLUMNS),
    Case("dbscan-8", "dbscan", n=50_000, d=8, k=20, eps=3.0, repeats=5, target={"cpu": {SKLEARN: 10, WANG: 3}}),
    Case("dbscan-32", "dbscan", n=20_000, d=32, k=20, eps=12.0, target={"cpu": {SKLEARN: 10}}),
    Case("dbscan-all", "dbscan", n=100_000, d=2, k=20, eps=5.0, repeats=3, without=(SKLEARN,)),
    Case("hdbscan-2", "hdbscan", n=100_000, d=2, k=20, repeats=2, target={"cpu": {SKLEARN: 10, FAST_HDBSCAN: 1.5}}),
    Case("hdbscan-3", "hdbscan", n=100_000, d=3, k=20, repeats=5, target=ALL_ROWS, without=(SKLEARN,)),
    Case("hdbscan-8", "hdbscan", n=50_000, d=8, k=20, repeats=3, target=ALL_ROWS, without=(SKLEARN,)),
    Case("hdbscan-20k", "hdbscan", n=20_000, d=2, k=20, repeats=3, target={"cpu": {SKLEARN: 10, FAST_HDBSCAN: 1.5}}),
    Case("hdbscan-32", "hdbscan", n=20_000, d=32, k=20, repeats=3, target={"cpu": {SKLEARN: 10}}),
    Case("optics", "optics", n=10_000, d=2, k=20, repeats=3, target={"cpu": {SKLEARN: 20}}),
    Case("optics-100k", "optics", n=100_000, d=2, k=20, repeats=1, without=(SKLEARN,)),
    Case("spectral-5k", "spectral", n=5_000, d=16, k=10, repeats=3, target={"cpu": {SKLEARN: 2}}),
    Case("spectral-20k", "spectral", n=20_000, d=16, k=10, repeats=1, target={"cpu": {SKLEARN: 50}}),
    Case("spectral-100k", "spectral", n=100_000, d=8, k=10, repeats=1, without=(SKLEARN,)),
    Case("nystrom-100k", "nystrom", n=100_000, d=8, k=10, repeats=1),
    Case("kmedoids-k10", "kmedoids", n=5_000, d=16, k=10, repeats=5, target=MEDOIDS),
    Case("kmedoids-k100", "kmedoids", n=5_000, d=16, k=100, repeats=5, target=MEDOIDS),
    Case("kmedoids-20k", "kmedoids", n=20_000, d=16, k=20, repeats=3, target=MEDOIDS),
    Case("kprototypes", "kprototypes", n=20_000, d=12, k=10, repeats=3, target={"cpu": {KMODES: 20}}),
    Case("gower-medoids", "gower_medoids", n=5_000, d=12, k=10, repeats=3),
    Case("sinkhorn", "sinkhorn", n=2_048, d=32, eps=5.0, steps=100, repeats=3, target=TRANSPORT),
    Case("sinkhorn-50k", "sinkhorn", n=50_000, d=32, eps=5.0, steps=3, repeats=1, without=(POT, POT_LOG, OTT)),
    Case("balanced", "balanced", n=10_000, d=16, k=100, steps=10, repeats=1, target={"cpu": {CONSTRAINED: 20}}),
    Case("dec", "dec", n=25_600, d=784, steps=1, hidden=PUBLISHED, repeats=2, target=TRAINING),
    Case("vade", "vade", n=25_600, d=784, steps=1, hidden=PUBLISHED, batch=100, repeats=2, target=TRAINING),
    Case("clustergan", "clustergan", n=25_600, d=784, steps=4, hidden=NARROW, batch=64, repeats=3, target=LOOPS),
    Case("clustergan-images", "clustergan_images", n=9_600, d=784, steps=1, batch=64, repeats=2, target=LOOPS),
    Case("swav", "swav", n=25_600, d=784, steps=3, hidden=NARROW, repeats=3, target=LOOPS),
    Case("deepcluster", "deepcluster", n=25_600, d=784, steps=5, hidden=NARROW, repeats=3, target=LOOPS),
    Case("sweep", "sweep", n=20_000, d=16, k=16, seeds=4, target={"cpu": 3, "gpu": 30}),
    Case("small", "small", n=500, d=8, k=5, problems=1_000, target={"cpu": 20}),
    Case("silhouette-20k", "silhouette", n=20_000, d=32, k=10, repeats=3, target={"cpu": 8}),
    Case("silhouette-50k", "silhouette", n=50_000, d=64, k=10, repeats=3, target={"cpu": 8}),
    Case("davies-bouldin", "davies_bouldin", n=50_000, d=64, k=10),
    Case("ari", "ari", n=1_000_000, k=100),
    Case("nmi", "nmi", n=1_000_000, k=100),
)


def select(patterns: Sequence[str], platform: str) -> list[Case]:
    """The cases of a platform that match any of the patterns (all without a pattern).

    Raises:
        ValueError: a pattern matches no case; the known names are listed.
    """
    here = [case for case in CASES if case.platform in (None, platform)]
    for pattern in patterns:
        if not any(fnmatch(case.name, pattern) for case in here):
            raise ValueError(f"no case matches {pattern!r}; known on {platform}: {', '.join(c.name for c in here)}.")
    return [case for case in here if not patterns or any(fnmatch(case.name, pattern) for pattern in patterns)]


def shrink(case: Case) -> Case:
    """The same case in a size that shows only that it runs."""
    return replace(
        case,
        n=min(case.n, 1_000),
        d=min(case.d, 16),
        k=min(case.k, 8),
        steps=min(case.steps, 4),
        hidden=tuple(min(width, 32) for width in case.hidden),
        batch=min(case.batch, 20),
        seeds=min(case.seeds, 2),
        problems=min(case.problems, 8),
        repeats=1,
        target={},
        data=None,
    )
