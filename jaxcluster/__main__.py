"""The program ``jaxcluster``, also as ``python -m jaxcluster``."""

from jaxcluster.core.signals import SignalWatcher


def main() -> None:
    """Run the command line, and end the process."""
    watch = SignalWatcher()
    watch.start()  # before the imports, which take longer than a hasty Ctrl-C
    try:
        from jaxcluster.cli import app

        app(prog_name="jaxcluster")
    finally:
        watch.end()


if __name__ == "__main__":
    main()
