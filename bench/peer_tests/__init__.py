"""scikit-learn's own tests, run on our classes and scores: ``python -m bench.peer_tests``."""
