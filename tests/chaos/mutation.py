"""Bad input out of good: random, truncated, bit-flipped, spliced and replayed pieces."""

from __future__ import annotations

import random
from collections.abc import Sequence

K_MAX_BYTES = 1472


def mutate(chance: random.Random, good: Sequence[bytes]) -> bytes:
    """One bad piece, made of `good` ones or of nothing."""
    kind = chance.randrange(8)
    if kind == 0:
        return chance.randbytes(chance.randrange(K_MAX_BYTES))
    piece = chance.choice(good)
    if kind == 1:
        return piece
    if kind == 2:
        return piece[: chance.randrange(len(piece) + 1)]
    if kind == 3:
        other = chance.choice(good)
        return piece[: chance.randrange(len(piece) + 1)] + other[chance.randrange(len(other) + 1) :]
    if kind == 4:
        return piece + chance.randbytes(chance.randrange(64))
    changed = bytearray(piece or b"\0")
    for _ in range(1 if kind == 5 else chance.randrange(1, 9)):
        at = chance.randrange(len(changed))
        changed[at] = (
            changed[at] ^ 1 << chance.randrange(8) if kind < 7 else chance.choice((0, 1, 127, 128, 255))
        )
    return bytes(changed)
