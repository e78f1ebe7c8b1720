"""Signals: work that is told to stop saves what it has and ends, whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from jaxcluster.core import signals

IN_A_PROGRAM = """
import os, signal, sys
import jax
from jaxcluster.core import signals
from jaxcluster.core.signals import SignalWatcher

number = getattr(signal, sys.argv[1])
signal.signal(number, signal.SIG_DFL)  # tests that nohup runs ignore SIGHUP, and their children do

def save():
    print("saved", flush=True)
    if "twice" in sys.argv:
        os.kill(os.getpid(), number)
        signal.pause()  # a save that never ends

if "closed" in sys.argv:
    os.close(2)
    sys.stderr = None
SignalWatcher().start()
signals.set_stop_message("one epoch is kept.")
endless = jax.jit(lambda: jax.lax.while_loop(lambda i: i >= 0, lambda i: i * 0, 1)).lower().compile()
with signals.on_stop(save):
    os.kill(os.getpid(), number)
    endless()
"""


def start(*words: str) -> subprocess.CompletedProcess:
    """``IN_A_PROGRAM``: a process that never leaves a compiled program, and gets a signal there."""
    program = [sys.executable, "-c", IN_A_PROGRAM, *words]
    environment = os.environ | {"XLA_FLAGS": ""}
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=120, env=environment)


@pytest.mark.parametrize(("name", "code", "word"), [("SIGTERM", 75, "Terminated"), ("SIGINT", 130, "Interrupted")])
def test_signal_ends_a_process_in_a_compiled_program(name, code, word):
    done = start(name)
    assert (done.returncode, done.stdout) == (code, "saved\n")
    assert done.stderr.endswith(f"{word}: one epoch is kept.\n")


def test_a_closed_terminal_ends_a_process_too():
    done = start("SIGHUP", "closed")
    assert (done.returncode, done.stdout) == (75, "saved\n")


def test_a_second_signal_does_not_wait_for_the_save():
    done = start("SIGTERM", "twice")
    assert (done.returncode, done.stdout) == (75, "saved\n")
    assert "Terminated" not in done.stderr


IN_A_SAVE = """
import os, signal, threading, time
from jaxcluster.core import signals

saving = threading.Lock()

def save():
    with saving:
        print("saved", flush=True)

signals.SignalWatcher().start()
with signals.on_stop(save):
    with saving:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2 * signals.GRACE_SECONDS)
        with signals.COMMIT_LOCK:
            print("renamed", flush=True)
    time.sleep(60)
"""


def test_a_save_that_has_begun_is_waited_for():
    done = subprocess.run([sys.executable, "-c", IN_A_SAVE], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout) == (75, "renamed\nsaved\n")


def test_check_stopped_raises_the_requested_signal():
    signals.check_stopped()
    signals.request_stop(signal.SIGTERM)
    try:
        with pytest.raises(signals.Stopped) as caught:
            signals.check_stopped()
    finally:
        signals.clear_request()
    assert caught.value.signal == signal.SIGTERM
    signals.check_stopped()


def test_hooks_run_from_the_innermost():
    called = []

    def fail():
        called.append("fail")
        raise OSError("no space left")

    with signals.on_stop(lambda: called.append("outer")), signals.on_stop(fail):
        signals.run_hooks()
    assert called == ["fail", "outer"]
    signals.run_hooks()
    assert called == ["fail", "outer"]
