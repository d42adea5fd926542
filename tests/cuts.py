"""Split bytes into the pieces that reads return."""

from __future__ import annotations

import itertools
import random


def at_random(body: bytes, seed: int = 0, most: int = 200) -> list[bytes]:
    """Split into random pieces of 1 to `most` bytes."""
    dice = random.Random(seed)
    pieces, start = [], 0
    while start < len(body):
        end = start + dice.randint(1, most)
        pieces.append(body[start:end])
        start = end
    return pieces


def at(body: bytes, positions: list[int]) -> list[bytes]:
    """Split at the given positions, which may be unsorted and repeated."""
    borders = [0, *sorted(position for position in positions if 0 <= position <= len(body)), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(borders)]


def every(body: bytes, size: int) -> list[bytes]:
    """Split into pieces of `size` bytes; 0 does not split."""
    return [body[start : start + size] for start in range(0, len(body), size)] if size else [body]
