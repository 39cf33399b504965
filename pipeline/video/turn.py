"""Which way up a picture is shown: stated by a display matrix where the result can hold one, else done to the pixels; pure."""

from __future__ import annotations

from fractions import Fraction

from torch import Tensor

from pipeline.errors import ConfigError

ONE = 1 << 16
Matrix = tuple[int, ...]  # FFmpeg's nine numbers a b u, c d v, x y w: 16.16, but u, v and w, which are 2.30
Turn = tuple[int, int, int, int]  # the signs of a, b, c and d: a pixel at (x, y) goes to (a x + c y, b x + d y)


def orientation(matrix: Matrix | None, container_format: str, growth: Fraction) -> tuple[Matrix | None, Turn | None]:
    """The matrix that the container is given, and what is done to the pixels; ``growth`` of the picture moves it as far.

    mp4 and mov hold any matrix, Matroska and WebM those that turn by quarters or mirror, others none. Raises ConfigError where
    what the matrix does can neither be stated nor done to pixels.
    """
    if matrix is None:
        return None, None
    if container_format in ("mp4", "mov"):
        return (*matrix[:6], round(matrix[6] * growth), round(matrix[7] * growth), matrix[8]), None
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    small, large = sorted(((abs(a), abs(d)), (abs(b), abs(c))))
    if max(small) > ONE // 1000 or abs(large[0] - large[1]) > ONE // 1000:
        raise ConfigError(
            f"{container_format} cannot hold the source's display matrix, which does more than turn by quarters and mirror "
            f"({a / ONE:g} {b / ONE:g} {c / ONE:g} {d / ONE:g}); choose an .mp4 or .mov destination"
        )
    turn = turn_of(matrix)
    if turn is None or container_format not in ("matroska", "webm"):
        return None, turn
    a, b, c, d = (sign * ONE for sign in turn)
    return (a, b, 0, c, d, 0, 0, 0, 1 << 30), None


def turn_of(matrix: Matrix | None) -> Turn | None:
    """The quarter turn or mirroring nearest to a display matrix of nine 16.16 numbers; None where it changes nothing."""
    if matrix is None:
        return None
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    stands = abs(a) + abs(d) >= abs(b) + abs(c)
    turn = (_sign(a), 0, 0, _sign(d)) if stands else (0, _sign(b), _sign(c), 0)
    return None if turn == (1, 0, 0, 1) else turn


def on_its_side(turn: Turn | None) -> bool:
    """Whether width and height change places."""
    return turn is not None and turn[0] == 0


def turned(picture: Tensor, turn: Turn | None) -> Tensor:
    """(..., H, W) -> (..., H, W) or, on its side, (..., W, H)."""
    if turn is None:
        return picture
    a, b, c, d = turn
    across, down = (a, d) if a else (c, b)
    upright = picture if a else picture.transpose(-1, -2)
    return upright.flip([dim for dim, sign in ((-1, across), (-2, down)) if sign < 0])


def _sign(value: int) -> int:
    return -1 if value < 0 else 1
