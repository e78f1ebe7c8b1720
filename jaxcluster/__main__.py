"""The program ``jaxcluster``, also as ``python -m jaxcluster``."""

import os
import sys

from jaxcluster.core.signals import SignalWatcher


def main() -> None:
    """Run the command line, and end the process."""
    watch = SignalWatcher()
    watch.start()  # before the imports, which take longer than a hasty Ctrl-C
    try:
        from jaxcluster.cli import app

        app(prog_name="jaxcluster")
    except OSError as error:
        if not _stdout_fails():
            raise
        print(f"Error: standard output: {error.strerror}.", file=sys.stderr)
        raise SystemExit(2) from error
    finally:
        watch.end()


def _stdout_fails() -> bool:
    """True if standard output cannot be written to, as on a full disk; what is left for it is then discarded."""
    try:
        print(flush=True)  # a line anew: what could not be written before may be gone from the buffer
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest when it ends
        return True
    return False


if __name__ == "__main__":
    main()
