"""Checkpoints of a training, which is resumed from the newest one, and of long fits (`resumable`).

>>> import tempfile
>>> import numpy as np
>>> from jaxcluster.checkpoint import Checkpoints
>>> with tempfile.TemporaryDirectory() as folder:
...     checkpoints = Checkpoints(folder, every=2)
...     path = checkpoints.save(4, {"weights": np.zeros(3)}, {"epoch": 4})
...     checkpoints.restore({"weights": np.ones(3)}).progress
{'epoch': 4}
"""

from jaxcluster.core.checkpoint import Checkpoint, Checkpoints
from jaxcluster.core.loop_checkpoints import resumable

__all__ = ["Checkpoint", "Checkpoints", "resumable"]


def __dir__() -> list[str]:
    return __all__
