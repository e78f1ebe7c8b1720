"""Exact neighbor search: k nearest rows, rows within a radius, and lightest edges between components.

Concrete rows lie in k-d blocks (`kd_blocks`), and dense work is done on pairs of blocks (`block_kernels`): counts and
least labels within a radius (`radius`, on the pairs of `radius_pairs`), and the steps of Borůvka (`boruvka`). The k
nearest rows come from the host in float64 or from a tiled program for traced rows (`exact_knn`), or
from devices in a ring (`ring`).
"""
