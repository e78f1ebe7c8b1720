"""The algorithms, one a file: state, start, step, fit, predict."""
