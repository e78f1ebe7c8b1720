"""The page of the inputs that each estimator takes: ``python -m bench.inputs`` writes it from the registry."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.provenance import ROOT
from jaxcluster.estimators import ESTIMATORS, EstimatorInfo

PAGE = ROOT / "docs" / "inputs.md"

KINDS = ("dense", "sparse", "missing", "categories", "sources", "weights", "mesh")
"""Columns of the table."""

NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")
"""Dtypes that every estimator takes."""

FRAMES = ("pandas", "polars", "Arrow", "Modin", "cuDF")
"""Libraries of tables that every estimator takes; the tests have the first three."""

ONE_PROCESS = " and ".join(
    f"`{info.class_name}`" for info in map(ESTIMATORS.info, ESTIMATORS) if info.takes_mesh and not info.takes_processes
)
"""Estimators whose rows may be spread over devices of one process alone."""

TOP = f"""# What may be passed as X

`python -m bench.inputs` writes this page from `ESTIMATORS.info(name)`, and each cell is a test. *yes*: with no further
parameter; `a=b`: with that one; *no*: an error that says what to do.

Every estimator takes rows as NumPy and JAX arrays, lists of lists, and tables of {", ".join(FRAMES)} and whatever
else [narwhals](https://narwhals-dev.github.io/narwhals) or Arrow's C interface reads, whose column names it keeps and
compares; lazy tables are computed. Numbers may be {", ".join(NUMBERS)}.
Half precision and integers are computed in float32, or in float64 where JAX's x64 mode is on.

Arrays of PyTorch, CuPy and TensorFlow are shared by DLPack, without a copy: those on the host as NumPy arrays, those on
a device that JAX has as JAX arrays there. A JAX array of floats is computed on its device (its frame, an origin and a
unit, is found on the host), and `transform` returns what came in: a JAX array for a JAX array.
`set_output(transform="jax")` returns JAX arrays for all rows. An AnnData object is its `X`; other spaces of the same
cells are `adata.obsm[key]`.

- *sparse*: matrices and arrays of SciPy in any format, BCOO and BCSR of JAX, and `jc.sparse_rows(x)`; they are never
  made dense, but for a few rows at a time.
- *missing*: cells that are NaN. The mixtures integrate them out, `missing="ignore"` leaves them out of distances, and
  so does Gower's distance; HDBSCAN gives rows with NaN the label -3.
- *categories*: columns of text, of `category` or of Arrow's dictionaries. For other methods the shell has `--encode`
  ([tables.md](tables.md)).
- *sources*: rows that do not fit in memory, by `jaxcluster.datasets.scan` ([streaming.md](streaming.md)).
- *weights*: `sample_weight` of `fit`.
- *mesh*: rows spread over devices; also over those of several processes, but for {ONE_PROCESS}
  ([devices.md](devices.md)).

```python
import numpy as np
import pandas as pd
import scipy.sparse

import jaxcluster as jc

X = np.array([[0.0, 1.0], [0.0, 2.0], [9.0, 0.0], [8.0, 0.0]])
jc.KMeans(2, random_state=0).fit(scipy.sparse.csr_array(X))
jc.KMeans(2, random_state=0).fit(pd.DataFrame(X, columns=["width", "height"])).feature_names_in_
jc.estimators.ESTIMATORS.info("kmeans").takes("sparse")   # the same facts, for programs
```

"""


def cell(info: EstimatorInfo, kind: str) -> str:
    """One cell of the table."""
    if kind == "dense":
        return "yes"
    taken = info.takes(kind) if kind in ("sparse", "missing", "categories", "sources") else _flag(info, kind)
    if not taken:
        return "no"
    needs = info.needs.get(kind, {})
    return " ".join(f"`{name}={' or '.join(map(_word, values))}`" for name, values in needs.items()) or "yes"


def page() -> str:
    """The whole page."""
    rows = [("class", *KINDS), ("---",) * (len(KINDS) + 1)]
    for info in map(ESTIMATORS.info, ESTIMATORS):
        rows.append((f"`{info.class_name}`", *(cell(info, kind) for kind in KINDS)))
    return TOP + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page, or with ``--check`` says that it is not that of the registry."""
    parser = argparse.ArgumentParser(prog="python -m bench.inputs", description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is not up to date")
    options = parser.parse_args(arguments)
    if not options.check:
        options.page.write_text(page())
    elif options.page.read_text() != page():
        print(f"{options.page} is not that of the registry: run python -m bench.inputs.", file=sys.stderr)
        return 1
    return 0


def _flag(info, kind) -> bool:
    return getattr(info, f"takes_{kind}")


def _word(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    raise SystemExit(main())
