"""philox.json: words, uniforms and normals at a few places of the counter layout."""
import golden_common as g
import philox

CASES = [  # seed, sample, purpose, step, first element
    (0, 0, philox.INITIAL, 0, 0),
    (7, 0, philox.INITIAL, 0, 0),
    (7, 1, philox.SAMPLER, 9, 3),
    (g.SEED, 5, philox.TRAIN_NOISE, 123456, 1021),
    (0xFFFFFFFFFFFFFFFF, (1 << 48) - 1, philox.GOLDEN, 0xFFFFFFFF, 4 * 0xFFFFFFFF - 8),
    (0x0123456789ABCDEF, 0xABCDEF012345, philox.FLIP, 77, 17),
]


def generate():
    philox.check()
    cases = []
    for seed, sample, purpose, step, first in CASES:
        w = philox.words(seed, sample, purpose, step, 12, first)
        cases.append({
            "seed": str(seed), "sample": str(sample), "purpose": purpose, "step": step, "first": str(first),
            "words": [int(v) for v in w],
            "uniforms": [float(v) for v in philox.uniforms(seed, sample, purpose, step, 12, first)],
            "normals": [float(v) for v in philox.normals64(seed, sample, purpose, step, 12, first)]})
    known = [{"counter": list(c), "key": list(k), "result": list(r)} for c, k, r in philox.KNOWN]
    edges = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFF7F, 0xFFFFFF80, 0xFFFFFFFF, 0x00FFFFFF]
    import numpy as np
    pairs = [[a, b] for a in edges for b in (0, 0x40000000, 0xFFFFFFFF)]
    z = philox.words_to_normals(np.array(pairs, dtype=np.uint32).reshape(-1)).reshape(-1, 2)
    names = [{"name": n, "fnv1a32": philox.fnv1a32(n)} for n in ("", "a", "conv_in.weight", "mid_block.attentions.0.to_out.0.bias")]
    g.write_json("philox.json", {
        "known": known, "cases": cases, "names": names,
        "box_muller": [{"words": p, "normals": [float(v) for v in row]} for p, row in zip(pairs, z)]}, depth=3)
