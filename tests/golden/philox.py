"""Philox4x32-10 with tweedie's counter layout, in numpy.

This is the reference of the project's noise contract; the C and CUDA versions are tested against it.

    key    = (seed & 0xffffffff, seed >> 32)
    ctr[0] = element // 4
    ctr[1] = step
    ctr[2] = sample & 0xffffffff
    ctr[3] = (purpose << 16) | (sample >> 32)        16 bits each

Word `element % 4` of the output block belongs to the element.
"""
import numpy as np

INITIAL, SAMPLER, TRAIN_T, TRAIN_NOISE, COND_DROP, SHUFFLE, INIT, FLIP, SPLIT, GOLDEN = range(10)

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox4x32(ctr, key, rounds=10):
    """ctr: four uint32 arrays (or integers) of one shape, key: two integers; returns four uint32 arrays."""
    c0, c1, c2, c3 = (np.atleast_1d(np.asarray(c, dtype=np.uint64)) for c in ctr)
    k0, k1 = int(key[0]), int(key[1])
    for _ in range(rounds):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _32) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return tuple(c.astype(np.uint32) for c in (c0, c1, c2, c3))


def words(seed, sample, purpose, step, count, first=0):
    """The uint32 words of elements first .. first + count - 1."""
    if not 0 <= purpose < 1 << 16 or not 0 <= sample < 1 << 48:
        raise ValueError("purpose has 16 bits and sample 48")
    if not 0 <= step < 1 << 32 or not 0 <= seed < 1 << 64:
        raise ValueError("step has 32 bits and seed 64")
    block = np.arange(first // 4, (first + count + 3) // 4, dtype=np.uint64)
    same = np.zeros_like(block)
    ctr = (block, same + np.uint64(step), same + np.uint64(sample & 0xFFFFFFFF),
           same + np.uint64((purpose << 16) | (sample >> 32)))
    out = np.stack(philox4x32(ctr, (seed & 0xFFFFFFFF, seed >> 32)), axis=1).reshape(-1)
    return out[first % 4:first % 4 + count]


def words_to_normals(r):
    """Box-Muller on pairs of words (r holds whole pairs); float64 result."""
    r = r.astype(np.float32).astype(np.float64).reshape(-1, 2)  # uint32 -> float32 rounds to nearest
    # The sum is exact in float64, so this is a float32 fma: one rounding.
    u1 = (r[:, 0] * 2.0**-32 + 2.0**-33).astype(np.float32).astype(np.float64)
    rad = np.sqrt(-2.0 * np.log(u1))
    ang = 2.0 * np.pi * (r[:, 1] * 2.0**-32)
    return np.stack([rad * np.cos(ang), rad * np.sin(ang)], axis=1).reshape(-1)


def normals64(seed, sample, purpose, step, count, first=0):
    """Standard normals of elements first .. first + count - 1, in float64."""
    start, stop = first & ~1, (first + count + 1) & ~1
    z = words_to_normals(words(seed, sample, purpose, step, stop - start, start))
    return z[first - start:first - start + count]


def normals(seed, sample, purpose, step, count, first=0):
    """The same, rounded to float32."""
    return normals64(seed, sample, purpose, step, count, first).astype(np.float32)


def uniforms(seed, sample, purpose, step, count, first=0):
    """Uniform numbers in [0, 1) with 24 bits, float32 (exact)."""
    r = words(seed, sample, purpose, step, count, first)
    return (r >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def fnv1a32(text):
    """FNV-1a, 32 bits, of the utf-8 bytes."""
    h = 0x811C9DC5
    for byte in text.encode("utf-8"):
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    return h


# Random123's known answers for philox4x32-10: counter, key, result.
KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
)


def check():
    for ctr, key, want in KNOWN:
        got = tuple(int(w[0]) for w in philox4x32(ctr, key))
        if got != want:
            raise AssertionError(f"philox4x32-10 is wrong: {[hex(w) for w in got]}")
    a = normals64(5, 3, GOLDEN, 1, 40)
    for first in range(9):
        if not np.array_equal(a[first:first + 7], normals64(5, 3, GOLDEN, 1, 7, first)):
            raise AssertionError("an element's number depends on where the range starts")
    z = normals64(1, 0, GOLDEN, 0, 1 << 20)
    if abs(z.mean()) > 5e-3 or abs(z.std() - 1) > 5e-3:
        raise AssertionError("the normals are not standard")


if __name__ == "__main__":
    check()
    print("philox: ok")
