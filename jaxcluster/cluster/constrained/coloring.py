"""Whether groups that have to be apart fit into k clusters at all, and one way to do it.

Source: D. Brélaz, New methods to color the vertices of a graph, Communications of the ACM 22 (1979): the group that has
the fewest clusters left is placed first, and taken back where nothing is left.
"""

from __future__ import annotations

import numpy as np

TRIES = 100_000
"""Placings of groups of one part after which no way is looked for any further."""


def color(near: list[list[int]], k: int, names: np.ndarray) -> np.ndarray:
    """A cluster for each group of one connected part, such that neighbors differ.

    Args:
        near: for each group those it is apart from.
        k: how many clusters there are.
        names: (m,) rows that name the groups in messages.

    Returns:
        (m,) numbers from 0 to k − 1; clusters are alike here, so a new one is always the next.

    Raises:
        ValueError: more groups that are all apart from each other than clusters; no way, or none found in `TRIES`.
    """
    clique = _clique(near)
    if len(clique) > k:
        raise ValueError(
            f"cannot_link keeps {len(clique)} rows all apart from each other (rows {_listed(names[clique])}), which "
            f"takes {len(clique)} clusters, more than the {k} asked for. Pass more clusters, or drop pairs."
        )
    colors, placed = np.full(len(near), -1), []
    seen = np.zeros((len(near), k), int)  # how many neighbors of each group have each color
    degree = np.array([len(around) for around in near])
    for _ in range(TRIES):
        group = int(np.argmax(np.where(colors < 0, (seen > 0).sum(axis=1) * len(near) + degree, -1)))
        # Of colors not used yet one is as good as all.
        options = np.flatnonzero(seen[group, : colors.max() + 2] == 0)[::-1].tolist()
        while not options:
            if not placed:
                raise ValueError(
                    f"cannot_link cannot be kept with {k} clusters: every way was tried to keep apart rows "
                    f"{_listed(names)}. Pass more clusters, or drop pairs."
                )
            group, options = placed.pop()
            seen[near[group], colors[group]] -= 1
            colors[group] = -1
        colors[group] = options.pop()
        seen[near[group], colors[group]] += 1
        placed.append((group, options))
        if len(placed) == len(near):
            return colors
    raise ValueError(
        f"No way to keep cannot_link with {k} clusters was found in {TRIES:,} tries, for rows {_listed(names)}; there "
        "may be one. Pass more clusters, or drop pairs."
    )


def _clique(near):
    """Groups all apart from each other, as many as a greedy search from every group finds."""
    best: list[int] = []
    for start in range(len(near)):
        if len(near[start]) < len(best):
            continue
        clique, left = [start], set(near[start])
        while left:
            widest = max(left, key=lambda v: (len(near[v]), -v))
            clique.append(widest)
            left.intersection_update(near[widest])
        best = max(best, clique, key=len)
    return sorted(best)


def _listed(rows):
    rows = np.sort(rows)
    return ", ".join(map(str, rows[:10])) + (" …" if len(rows) > 10 else "")
