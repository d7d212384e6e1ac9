"""Permutations of axes, and how they commute with reshapes."""

from __future__ import annotations

from collections.abc import Iterator

Perm = tuple[int, ...]
Shape = tuple[int, ...]


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes ``perm``."""
    return tuple(perm.index(axis) for axis in range(len(perm)))


def channels_first(rank: int) -> Perm:
    """Channels-last to channels-first: NHWC to NCHW for any rank."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 1 else tuple(range(rank))


def moves_only_ones(shape: Shape, perm: Perm) -> bool:
    """Whether transposing ``shape`` by ``perm`` keeps the order of elements, as a reshape does."""
    kept = [axis for axis in perm if shape[axis] != 1]
    return kept == sorted(kept)


def commute(given: Shape, perm: Perm, other: Shape) -> tuple[Shape, Perm] | None:
    """Move a transpose across a reshape between ``given`` and ``other`` (in either direction).

    ``given`` is some tensor g transposed by ``perm``. Returns (shape of o, perm_o) such that o is a reshape of g
    and ``other`` is o transposed by perm_o; None where the reshape joins axes that are apart in g.
    """
    before = tuple(given[axis] for axis in inverse(perm))  # the shape of g
    placed = []
    position = -1
    for number, (axes, others) in enumerate(_groups(given, other)):
        moved = [perm[a] for a in axes if given[a] != 1] or [perm[a] for a in axes]
        between = (
            [a for a in range(moved[0], moved[-1]) if before[a] != 1 and a not in moved] if moved else []
        )
        if moved != sorted(moved) or between:
            return None
        position = moved[0] if moved else position  # new axes of length 1 stay behind their neighbour
        placed.append((position, number, others))
    axes_of_o = [axis for _, _, others in sorted(placed, key=lambda p: p[:2]) for axis in others]
    return tuple(other[axis] for axis in axes_of_o), tuple(
        axes_of_o.index(axis) for axis in range(len(other))
    )


def _groups(a: Shape, b: Shape) -> Iterator[tuple[range, range]]:
    """The smallest runs of axes of two shapes that hold the same elements; axes of length 1 stand alone."""
    i = j = 0
    while i < len(a) or j < len(b):
        start = i, j
        one_a, one_b = i < len(a) and a[i] == 1, j < len(b) and b[j] == 1
        if one_a or one_b:
            i, j = i + one_a, j + one_b
        else:
            size_a, size_b = a[i], b[j]
            i, j = i + 1, j + 1
            while size_a != size_b:
                if size_a < size_b:
                    size_a, i = size_a * a[i], i + 1
                else:
                    size_b, j = size_b * b[j], j + 1
        yield range(start[0], i), range(start[1], j)
