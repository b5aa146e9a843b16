"""The roomiest point of a polyhedron inside a box, with a bound that proves it: a dense simplex.

For rows a and limits c it maximises the room t of a point x in a box,

    a_i x + t |a_i|_1 <= c_i   for every row i,

so that t > 0 is the distance in Linf by which x can move in any direction and still satisfy every
row. t < 0 means that no point of the box satisfies them all. An optimum comes with multipliers
whose bound on t is computed from the rows alone: neither answer relies on the simplex.
"""

from dataclasses import dataclass

import numpy as np

LARGEST = 1.0  # of the room; rows that allow more do not matter
_ROUNDING = 1e-10


@dataclass(frozen=True)
class Room:
    """A point of the box and its room; multipliers [rows] >= 0 prove ``bound`` for every point."""

    x: np.ndarray
    room: float
    bound: float
    multipliers: np.ndarray


def room_at(x, rows, limits):
    """Return the room of points [..., D]."""
    return ((limits - x @ rows.T) / np.abs(rows).sum(1)).min(-1, initial=LARGEST)


def proven_bound(multipliers, rows, limits, low, high):
    """Return the bound on the room that non-negative multipliers prove: weak duality."""
    weight = float(multipliers @ np.abs(rows).sum(1))
    if weight <= 0:
        return LARGEST
    combined = multipliers @ rows
    least = np.where(combined > 0, combined * low, combined * high).sum()
    return min(LARGEST, float(multipliers @ limits - least) / weight)


def roomiest(rows, limits, low, high):
    """Return the roomiest point of the box [low, high] for rows [R, D] and limits [R]."""
    width, norms = high - low, np.abs(rows).sum(1)
    at_low = limits - rows @ low
    shift = max(0.0, float((-at_low / norms).max(initial=0.0)))  # room at ``low`` is -shift
    count, size = rows.shape
    # Columns: x - low, room + shift. Rows: the limits, the widths of the box, the largest room.
    body = np.zeros((count + size + 1, size + 1))
    body[:count, :size], body[:count, size] = rows, norms
    body[count:] = np.eye(size + 1)
    right = np.concatenate([at_low + shift * norms, width, [LARGEST + shift]])
    values, duals = simplex(body, np.maximum(right, 0.0), size)
    x = np.clip(low + values[:size], low, high)
    multipliers = np.maximum(duals[:count], 0.0)
    room = float(room_at(x, rows, limits))
    bound = proven_bound(multipliers, rows, limits, low, high)
    assert abs(bound - room) < 1e-8, f"the simplex did not end at an optimum: {room} to {bound}"
    return Room(x, room, bound, multipliers)


def simplex(body, right, target):
    """Maximise variable ``target`` >= 0 under body z <= right, z >= 0, right >= 0.

    Returns the optimal z and the dual variable of each row.
    """
    rows, columns = body.shape
    table = np.zeros((rows + 1, columns + 1))  # the last row holds the reduced costs
    table[:rows, :columns], table[:rows, columns] = body, right
    table[rows, target] = -1.0
    basic = columns + np.arange(rows)  # slack variables
    free = np.arange(columns)
    for turn in range(2000):
        costs = table[rows, :columns]
        candidates = np.flatnonzero(costs < -_ROUNDING)
        if not len(candidates):
            break
        # The steepest column; after many turns the first one, which cannot cycle (Bland).
        if turn < 200:
            column = candidates[costs[candidates].argmin()]
        else:
            column = candidates[free[candidates].argmin()]
        climbs = np.flatnonzero(table[:rows, column] > _ROUNDING)
        ratios = table[climbs, columns] / table[climbs, column]
        tied = climbs[ratios <= ratios.min() + _ROUNDING]
        row = tied[table[tied, column].argmax()] if turn < 200 else tied[basic[tied].argmin()]
        _pivot(table, row, column)
        basic[row], free[column] = free[column], basic[row]
    values = np.zeros(rows + columns)
    values[basic] = table[:rows, columns]
    duals = np.zeros(rows + columns)
    duals[free] = table[rows, :columns]
    return values[:columns], duals[columns:]


def _pivot(table, row, column):
    """Exchange a basic and a free variable in place, in the condensed tableau."""
    pivot = table[row, column]
    others = table[:, column].copy()
    table[row] /= pivot
    kept = table[row].copy()
    table -= np.outer(others, kept)
    table[row] = kept
    table[:, column] = -others / pivot
    table[row, column] = 1 / pivot
