"""``jaxcluster fit``: from a data set to labels, a model, scores and a report, by a command for each method."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from jaxcluster.cli import options as opt
from jaxcluster.cli.errors import UsageError, UserError, user_errors
from jaxcluster.cli.inputs import Source
from jaxcluster.cli.options import Command, plain_flags
from jaxcluster.estimators import CLASSES

FAMILIES = {
    "partition": "Partitions",
    "mixture": "Mixtures of Gaussians",
    "graph": "Graphs",
    "density": "Density",
    "deep": "Deep clustering",
}
"""Headings of the list of methods, by the families of `CLASSES`."""

LINKS = ("must_link", "cannot_link")
"""Options that name files of pairs of rows."""

EXAMPLES = {
    "kmeans": "flowers.csv --k 3 --truth species --out runs/flowers",
    "minibatch-kmeans": "big.npy --k 100 --out runs/big",
    "balanced-kmeans": "digits --k 10 --out runs/even",
    "constrained-kmeans": "flowers.csv --k 3 --must-link same.csv --cannot-link apart.csv --out runs/flowers",
    "kmedoids": "flowers.csv --k 3 --truth species --metric manhattan --out runs/flowers",
    "kmodes": "survey.csv --k 4 --out runs/survey",
    "kprototypes": "customers.csv --k 5 --out runs/customers",
    "gmm": "flowers.csv --k 3 --truth species --covariance tied --out runs/flowers",
    "hdbscan": "moons:n=1000 --min-cluster-size 20 --out runs/moons",
    "optics": "moons:n=1000 --cluster-method dbscan --eps 0.15 --out runs/moons",
    "dbscan": "moons:n=1000 --eps 0.15 --out runs/moons",
    "joint-clustering": "digits --k 10 --labels 0.1 --out runs/joint",
}
"""Words after the name of a method, to begin with."""


@opt.gather("source", Source, [name for name in opt.SOURCE if name != "weights"])
def fit(
    method: str,
    /,
    *,
    out: opt.Out,
    seed: opt.Seed = 0,
    scale: opt.Scaling = opt.Scale.none,
    source: Source,
    param: opt.Param = None,
    overwrite: opt.Overwrite = False,
    no_report: opt.NoReport = False,
    quiet: opt.Quiet = False,
    **given: Any,
) -> None:
    """Run a fit as the command of a method has read it.

    Args:
        method: its name in `jaxcluster.estimators.ESTIMATORS`.
        source: of the rows; all options but ``given`` are the same for every method.
        given: the options of `jaxcluster.cli.method_options.method_parameters`; None for one that was not given.
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.fit_pipeline import FitTask, run_fit
    from jaxcluster.cli.large_fit import check_plain, exceeds, run_large_fit
    from jaxcluster.cli.method_options import make_estimator
    from jaxcluster.cli.output_dir import check_folder, claimed_folder, files_of
    from jaxcluster.cli.runtime import join, joined_by_launch, seconds, start
    from jaxcluster.cli.summary import show

    places = (source.data, source.truth, *(given.get(name) for name in ("weights", "labels", *LINKS)))
    check_folder(out, overwrite=overwrite, inputs=files_of(*places))
    job, stream, most = (given.pop(name, None) for name in ("distributed", "stream", "max_memory"))
    job = bool(job) or joined_by_launch(method)
    if job:
        join()
    start()
    imported = seconds()
    source = source._replace(weights=given.pop("weights", None))
    run: dict[str, Any] = {"overwrite": overwrite, "report": not no_report, "resume": bool(given.pop("resume", None))}
    run |= {name: given.pop(name, None) for name in ("tensorboard", "labels")} | {"links": _links(given)}
    estimator = make_estimator(method, given | {"random_state": seed}, param or [])
    task = FitTask(method, estimator, source, scale.value, out, **run)
    if job or stream or exceeds(source.data, source.columns, most):
        check_plain(task, "a job of several processes" if job else "--stream")
        run_large_fit(task, job=job, quiet=quiet)
        return
    with claimed_folder(out, overwrite=overwrite) as claim, console.stages(quiet) as stage:
        stage.seconds["import"] = round(imported, 3)
        result = run_fit(stage, task, claim)
    show(console.stdout(quiet), result, out)


def _links(given: dict[str, Any]) -> dict[str, Any]:
    """Pairs of rows from the files of the options that hold them, which are taken out of ``given``."""
    from jaxcluster.cli.inputs import read_pairs

    files = {name: given.pop(name, None) for name in LINKS}
    return {name: read_pairs(path, f"--{name.replace('_', '-')}") for name, path in files.items() if path}


class MethodCommand(Command):
    """The command of one method: an option of another method is answered in the words of this one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the name of the method."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            from jaxcluster.cli.method_options import unknown_option

            option = getattr(error, "option_name", "") if hasattr(error, "possibilities") else ""
            message = unknown_option(self.name, option) if option else None
            if message is None:
                raise
            raise UserError(message) from error


class Methods(TyperGroup):
    """All methods, each a command of `jaxcluster fit` with options of its own.

    A method is imported when its command is called; the list of all imports none.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Find the method; options may stand before its name."""
        if not args:
            ctx.fail("Missing argument 'ALGO'.")
        if args[0].startswith("-") and args[0] not in ctx.help_option_names:
            at = next((i for i, word in enumerate(args) if word in CLASSES), 0)
            args = [args[at], *args[:at], *args[at + 1 :]]
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """The options before the method."""
        return plain_flags(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the methods that find clusters."""
        return [name for name, entry in CLASSES.items() if entry.labels]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand:
        """A command for the list of all, which has no options."""
        entry = CLASSES[cmd_name]
        return TyperCommand(cmd_name, short_help=entry.title, rich_help_panel=FAMILIES[entry.family])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str, TyperCommand, list[str]]:
        """The command of the method that the first word names.

        Returns:
            The name, the command with its options, and the words after the name.

        Raises:
            UserError: no method of this name, or one that finds no clusters.
        """
        from jaxcluster.core.validation import check_choice

        name, *words = args
        if name in CLASSES and not CLASSES[name].labels:
            class_name = CLASSES[name].location.split(":")[1]
            raise UserError(f"{name} gives coordinates of rows and no clusters. Use {class_name} in Python.")
        with user_errors():
            check_choice("ALGO", name, [method for method, entry in CLASSES.items() if entry.labels])
        return name, method_command(name), words


def method_command(method: str) -> Any:
    """The command of a method, with the options of `fit` and those that are derived from its estimator."""
    from jaxcluster.cli.method_options import method_parameters
    from jaxcluster.estimators import ESTIMATORS

    def run(**values: Any) -> None:
        fit(method, **values)

    info = ESTIMATORS.info(method)
    shared = inspect.signature(fit, eval_str=True).parameters
    common = [each for name, each in shared.items() if name not in ("method", "given")]
    if "random_state" not in inspect.signature(ESTIMATORS[method]).parameters:
        # The method gives the same result with any seed: the option is accepted, and not shown.
        hidden = Annotated[int, typer.Option(min=0, hidden=True)]
        common = [each.replace(annotation=hidden) if each.name == "seed" else each for each in common]
    own = method_parameters(method)
    # Typer reads the signature: the number of clusters comes first in the help, the options of the method follow.
    first = [each for each in own if each.name == info.clusters]
    last = [each for each in common if each.name == "param"]  # below the options of the method in the same panel
    between = [each for each in [*common, *own] if each not in (*first, *last)]
    run.__signature__ = inspect.Signature([*first, *between, *last])
    words = EXAMPLES.get(method, f"digits{' --k 10' if info.clusters else ''} --out runs/{method}")
    about = f"Cluster the rows of a data set: {info.title}.\n\nFor example:\n\n  jaxcluster fit {method} {words}"
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.command(method, cls=MethodCommand, help=about)(run)
    return typer.main.get_command(app)
