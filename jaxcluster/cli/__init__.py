"""The command line: ``jaxcluster fit``, ``predict``, ``report``, ``score``, ``sweep``, ``transport``, ``info``."""

from jaxcluster.cli.app import app

__all__ = ["app"]
