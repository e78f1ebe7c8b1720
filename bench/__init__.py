"""jaxcluster timed beside its peers: ``python -m bench``."""

import os

os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # a first call compiles, whatever was run before
