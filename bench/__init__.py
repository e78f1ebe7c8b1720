"""jaxcluster timed beside its peers: ``python -m bench``."""
