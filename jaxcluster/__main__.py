"""``python -m jaxcluster``: the command line where its script is not on the path."""

from jaxcluster.cli import main

main()
