"""Random numbers that depend on what they are for, never on when they are drawn.

Two kinds, both derived from the fleet's seed:

- `stream(seed, *names)`: a numpy Generator for the world's records, one stream
  per purpose or entity, so that adding a draw in one place moves no other.
- `mix(...)`: a counter-based 64-bit hash for telemetry. Every number of a
  message is a function of (seed, channel, device, slot). A wave can therefore
  be made in any batch size, alone, in any process, and late messages of
  earlier days need no memory. A Generator per device and day would have to
  replay whole days for that.
"""

import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_GOLDEN = 0x9E3779B97F4A7C15
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def derive(seed: int, *names: object) -> int:
    """A 64-bit key from the seed and a path of names (strings or integers)."""
    text = "/".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def stream(seed: int, *names: object) -> np.random.Generator:
    """An independent numpy Generator for one purpose or entity."""
    return np.random.Generator(np.random.PCG64(derive(seed, *names)))


def mix(counter: npt.NDArray[Any], key: int) -> U64:
    """Hash counters to uniform 64-bit words under `key`.

    The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection, so that
    different counters give different words; event ids rely on that.
    """
    word = counter.astype(np.uint64)
    word += np.uint64((key * _GOLDEN + key) & _MASK)
    word ^= word >> np.uint64(30)
    word *= _M1
    word ^= word >> np.uint64(27)
    word *= _M2
    word ^= word >> np.uint64(31)
    return word


def part(word: U64, which: int) -> npt.NDArray[np.int64]:
    """The `which`-th 16-bit part (0 to 3) of each word, as integers below 65536."""
    return ((word >> np.uint64(16 * which)) & np.uint64(0xFFFF)).astype(np.int64)


def _normal_quantiles() -> F64:
    """Standard normal quantiles at the midpoints of 4096 equal shares, rounded to 6 digits.

    Bisection on math.erf; the rounding keeps the bytes equal across C libraries.
    """
    from statistics import NormalDist

    standard = NormalDist()
    values = [round(standard.inv_cdf((index + 0.5) / 4096), 6) for index in range(4096)]
    if not math.isclose(sum(values), 0.0, abs_tol=1e-3):
        raise ArithmeticError("the table of normal quantiles is not symmetric")
    return np.array(values)


NORMAL = _normal_quantiles()


def normal(word: U64, which: int) -> F64:
    """Standard normal draws (4096 levels, at most 3.5 away from 0) from a 16-bit part of each word."""
    return NORMAL[part(word, which) >> 4]


def uniform(word: U64) -> F64:
    """Uniform draws in [0, 1) from the upper 53 bits of each word."""
    return (word >> np.uint64(11)).astype(np.float64) * (1.0 / (1 << 53))
