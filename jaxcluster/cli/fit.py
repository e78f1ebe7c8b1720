"""``jaxcluster fit``: from a data set to labels, a model, scores and a report."""

from __future__ import annotations

from typing import Annotated

import typer

from jaxcluster.cli import deep_options as deep
from jaxcluster.cli import graph_options as graph
from jaxcluster.cli import options as opt
from jaxcluster.cli import partition_options as partition
from jaxcluster.cli.errors import mistakes
from jaxcluster.cli.inputs import Source, read

OWN = {
    *("algo", "data", "k", "out", "scale", "columns", "truth", "weights", "key", "init", "max_iter"),
    *("header", "delimiter", "decimal", "encoding"),
    *("must_link", "cannot_link", "labels", "tensorboard", "param", "overwrite", "no_report", "quiet"),
}
"""Arguments of `fit` that are no parameters of an estimator, or of another name with each."""

RENAMED = {"seed": "random_state", "covariance": "covariance_type"}
"""Parameters whose options have a shorter name."""


def fit(
    algo: Annotated[
        str,
        typer.Argument(metavar="ALGO", show_default=False, help="How to cluster: kmeans, or another that info lists."),
    ],
    data: opt.Data,
    *,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            "-k",
            metavar="K",
            min=1,
            show_default=False,
            help="How many clusters to find; methods by density find out.",
        ),
    ] = None,
    out: opt.Out,
    seed: opt.Seed = 0,
    scale: opt.Scaling = opt.Scale.none,
    columns: opt.Columns = None,
    truth: opt.Truth = None,
    weights: opt.Weights = None,
    key: opt.Key = None,
    header: opt.Header = None,
    delimiter: opt.Delimiter = None,
    decimal: opt.Decimal = None,
    encoding: opt.Encoding = None,
    init: opt.Init = None,
    n_init: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            rich_help_panel=opt.METHOD,
            show_default=False,
            help="How many starts to try; the best result is kept.",
        ),
    ] = None,
    max_iter: opt.MaxIter = None,
    tol: opt.Tol = None,
    metric: graph.DistanceChoice = None,
    covariance: opt.CovarianceChoice = None,
    reg_covar: opt.RegCovar = None,
    missing: opt.Missing = None,
    precision: opt.PrecisionChoice = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=opt.METHOD,
            show_default=False,
            help="Rows in a step of minibatch-kmeans, or of the training of a network.",
        ),
    ] = None,
    method: partition.MethodChoice = None,
    size_min: partition.SizeMin = None,
    size_max: partition.SizeMax = None,
    must_link: partition.MustLink = None,
    cannot_link: partition.CannotLink = None,
    eps: graph.Eps = None,
    min_samples: graph.MinSamples = None,
    min_cluster_size: graph.MinClusterSize = None,
    max_eps: graph.MaxEps = None,
    xi: graph.Xi = None,
    cluster_method: graph.ClusterMethod = None,
    cluster_selection_method: graph.ClusterSelectionMethod = None,
    affinity: graph.AffinityChoice = None,
    n_neighbors: graph.Neighbors = None,
    gamma: graph.Gamma = None,
    assign_labels: graph.AssignLabels = None,
    hidden: deep.Hidden = None,
    latent: deep.Latent = None,
    pretrain_epochs: deep.PretrainEpochs = None,
    epochs: deep.Epochs = None,
    update_interval: deep.UpdateInterval = None,
    learning_rate: deep.LearningRate = None,
    likelihood: deep.LikelihoodChoice = None,
    pretrain: deep.PretrainChoice = None,
    image_shape: deep.ImageShape = None,
    augment: deep.Augment = None,
    labels: deep.Labels = None,
    checkpoint_every: deep.CheckpointEvery = None,
    resume: deep.Resume = None,
    tensorboard: deep.TensorBoard = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            rich_help_panel=opt.METHOD,
            show_default=False,
            help="Any other parameter; may be repeated. A wrong name is answered with all the right ones.",
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    no_report: opt.NoReport = False,
    quiet: opt.Quiet = False,
) -> None:
    """Cluster the rows of a data set; write labels, model, scores and a report to a folder.

    For example:

      jaxcluster fit kmeans digits --k 10 --out runs/digits

      jaxcluster fit kmeans flowers.csv --k 3 --truth species --out runs/flowers

      jaxcluster fit gmm flowers.csv --k 3 --truth species --covariance tied --out runs/flowers

      jaxcluster fit minibatch-kmeans big.npy --k 100 --out runs/big

      jaxcluster fit kmedoids flowers.csv --k 3 --truth species --metric manhattan --out runs/flowers

      jaxcluster fit balanced-kmeans digits --k 10 --out runs/even

      jaxcluster fit dbscan moons:n=1000 --eps 0.15 --out runs/moons

      jaxcluster fit dec digits --k 10 --out runs/deep

      jaxcluster fit joint-clustering digits --k 10 --labels 0.1 --out runs/joint
    """
    given = dict(locals())
    from jaxcluster.cli import console
    from jaxcluster.cli.fitting import Task, carry_out, check, links_of, ways_of
    from jaxcluster.cli.folder import check_folder, claimed_folder
    from jaxcluster.cli.parameters import make_estimator
    from jaxcluster.cli.runtime import start
    from jaxcluster.cli.summary import show

    check_folder(out, overwrite=overwrite)
    start()
    chosen = {RENAMED.get(name, name): value for name, value in given.items() if name not in OWN}
    task = Task(
        algo,
        make_estimator(algo, chosen, clusters=k, steps=max_iter, init=init, params=param or []),
        Source(data, key, columns, truth, weights, header, delimiter, decimal, encoding),
        out,
        overwrite=overwrite,
        resume=bool(resume),
        report=not no_report,
        tensorboard=tensorboard,
        labels=labels,
    )
    links = links_of(task, {"must_link": must_link, "cannot_link": cannot_link})
    with claimed_folder(out, overwrite=overwrite) as claim, console.stages(quiet) as stage:
        check(task)
        with stage("read", f"Reading {data}"), mistakes():
            rows = read(task.source, scale.value, **ways_of(task.estimator))
        console.note(rows.dataset.notes, quiet=quiet)
        result = carry_out(stage, task, rows, links, claim)
    show(console.stdout(quiet), result, out)
