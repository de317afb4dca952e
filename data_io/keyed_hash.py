"""Keyed integer hashes: the only source of randomness in the data order.

A library's generator may change its stream between versions, and a run may resume after such an upgrade. splitmix64
(Steele, Lea, Flood, OOPSLA 2014) is a published integer function, so the order of an epoch is the same on every machine
and with every version.
"""

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def mix(*parts: int) -> int:
    """One 64-bit key from several integers. Their order matters; each part is taken modulo 2**64."""
    state = 0
    for part in parts:
        state = _splitmix64((state ^ (part & _MASK)) & _MASK)
    return state


def hashes(key: int, count: int) -> npt.NDArray[np.uint64]:
    """`count` 64-bit hashes, uint64 [count]: the splitmix64 stream that starts at `key`."""
    return stream_at(np.uint64(key), np.arange(count))


def stream_at(key: np.uint64 | npt.NDArray[np.uint64], place: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """The hash at each `place` of a stream, counted from 0, uint64 of the shape of `place`. `key` is one key for all
    places, or one per place.
    """
    with np.errstate(over="ignore"):
        z = place.astype(np.uint64)
        z += np.uint64(1)
        z *= np.uint64(_GAMMA)
        z += key
        z ^= z >> np.uint64(30)
        z *= np.uint64(_MIX_1)
        z ^= z >> np.uint64(27)
        z *= np.uint64(_MIX_2)
        z ^= z >> np.uint64(31)
    return z


def permutation(key: int, count: int) -> npt.NDArray[np.int64]:
    """A uniformly random permutation of range(count), int64 [count], that depends on `key` alone."""
    # Stable, so that one equal pair in 2**64 does not depend on the sorting algorithm of the installed NumPy.
    return np.argsort(hashes(key, count), kind="stable")


def _splitmix64(state: int) -> int:
    z = (state + _GAMMA) & _MASK
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)
