"""The command line: ``jaxcluster fit``, ``predict``, ``score``, ``sweep`` and ``info``."""

from jaxcluster.cli.app import app, main

__all__ = ["app", "main"]
