"""Clustering algorithms as pure functions, each a file or a small package: state, init, step, fit, predict."""
