"""Supports of matrix products: Eq. 16 and Theorem 3 of gradient-trail, a part of theory.py."""

from __future__ import annotations

import torch
from torch import Tensor


def density_degree(matrices: Tensor, *, of: str) -> Tensor:
    """Return the largest number of non-zero entries of a row or a column, of [..., rows, columns].

    Source: gradient-trail Eq. 10.
    """
    return matrices.count_nonzero({"rows": -1, "columns": -2}[of]).amax(-1)


def eq_16(w2: Tensor, w1: Tensor) -> tuple[int, int]:
    """Return both sides of Eq. 16, with the gradient as Eq. 12 has it."""
    bound = density_degree(w2, of="rows") * density_degree(w1, of="columns")
    return int((w2 @ w1).count_nonzero()), int(bound)


def theorem_3(w2: Tensor, w1: Tensor, S: Tensor) -> tuple[int, float]:
    """Return both sides of Theorem 3, with the gradients as Eq. 12 has them."""
    d, T = S.shape
    degrees = density_degree(S, of="columns") / density_degree(w1, of="columns")
    return int((w2 @ S).count_nonzero()), T / d * float(degrees) * int((w2 @ w1).count_nonzero())


def counterexamples(d: int = 8) -> list[list[str]]:
    """Matrices of zeros and ones on which Eq. 16 and Theorem 3 do not hold; T = d."""
    eye, ones = torch.eye(d), torch.ones(d, d)
    column, row, opposite = torch.zeros(3, d, d)
    column[:, 0], row[0], opposite[:, 0], opposite[:, 1] = 1, 1, 1, -1
    says = "{:g} ≤ {:g}".format
    return [
        ["Eq. 16", "identity", "identity", "–", says(*eq_16(eye, eye))],
        ["Eq. 16", "one full column", "one full row", "–", says(*eq_16(column, row))],
        ["Theorem 3", "identity", "one full column", "ones", says(*theorem_3(eye, column, ones))],
        [
            "Theorem 3",
            "each row (1, −1, 0, …)",
            "ones",
            "one full row",
            says(*theorem_3(opposite, ones, row)),
        ],
    ]


def all_supports(d: int = 3) -> tuple[int, int, int]:
    """Try Eq. 16 on all pairs of d x d matrices of zeros and ones.

    Returns:
        The number of pairs, of those that break Eq. 16, and of those that break the corrected
        bound: the column degree of w2 times the number of non-zero entries of w1.
    """
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * (d * d)).view(-1, d, d)
    broken = corrected = 0
    for w2 in every:
        entries = (w2 @ every).count_nonzero((1, 2))
        printed = density_degree(w2, of="rows") * density_degree(every, of="columns")
        broken += int((entries > printed).sum())
        bound = density_degree(w2, of="columns") * every.count_nonzero((1, 2))
        corrected += int((entries > bound).sum())
    return len(every) ** 2, broken, corrected
