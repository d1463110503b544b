"""The open hand's rig: pivots where the field has them, skinning weights that follow, fingers laid flat, wrist closed.

Part of build_open_hand.py. Arrays (N, 16, 3) hold the pivots of N hands in MANO's order of joints.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from densehand.hand.anatomy import FLEXION_GUIDES
from densehand.hand.keypoints import JOINT_NAMES, JOINT_PARENTS

# Where pivots must go, as a share of Anny's wrist-to-middle-knuckle length: the palm's joints by a vector in the
# hand frame, the others by (along the finger, positive to the tip; out of its back; along its flexion axis). Chosen so
# that the bone ratios agree with those of MANO fits of real hands (proximal bone over wrist-to-middle-knuckle length:
# index .35, middle .335, ring .31, little .225), and the knuckles' arch and depth in the flesh with theirs; see
# docs/hand.md.
PALM_SHIFTS: dict[str, tuple[float, float, float]] = {
    "wrist": (0.0, -0.099, 0.005),
    "thumb_cmc": (0.008, 0.047, -0.092),
    "thumb_mcp": (-0.008, -0.032, -0.017),
    "index_mcp": (-0.026, 0.061, 0.004),
    "middle_mcp": (0.018, -0.027, -0.006),
    "ring_mcp": (-0.008, 0.023, -0.029),
    "little_mcp": (0.010, 0.038, -0.027),
}
FINGER_SHIFTS: dict[str, tuple[float, float, float]] = {
    "index_pip": (0.013, -0.026, 0.0),
    "index_dip": (0.008, -0.016, 0.0),
    "middle_pip": (0.0, -0.026, 0.0),
    "middle_dip": (-0.025, -0.018, 0.0),
    "ring_pip": (-0.012, -0.030, 0.0),
    "ring_dip": (-0.007, -0.018, 0.0),
    "little_pip": (-0.033, -0.025, 0.0),
    "little_dip": (0.014, -0.013, 0.0),
    "thumb_ip": (-0.075, -0.019, -0.016),
}


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def move_pivots(joints: np.ndarray, tips: np.ndarray) -> np.ndarray:
    """(N,16,3) Anny's bone heads → the field's pivots. `tips` (N,5,3): index, middle, little, ring, thumb."""
    length = np.linalg.norm(joints[:, 4] - joints[:, 0], axis=-1, keepdims=True)
    moved = joints.copy()
    for name, vector in PALM_SHIFTS.items():
        moved[:, JOINT_NAMES.index(name)] += length * vector
    for name, (along, back, aside) in FINGER_SHIFTS.items():
        j = JOINT_NAMES.index(name)
        after = joints[:, j + 1] if j % 3 else tips[:, j // 3 - 1]
        axis = unit(after - joints[:, j]) if along > 0 else unit(joints[:, j] - joints[:, j - 1])
        dorsal = unit(np.cross(axis, FLEXION_GUIDES[name.split("_")[0]]))
        moved[:, j] += length * (along * axis + back * dorsal + aside * np.cross(dorsal, axis))
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


def hold_wrist(vertices: np.ndarray, weights: np.ndarray, loop: np.ndarray) -> np.ndarray:
    """No finger moves the rim of the wrist, to which a forearm may be joined: fade the others' weights out there."""
    size = np.ptp(vertices, axis=0).max()
    far = np.clip(cKDTree(vertices[loop]).query(vertices)[0] / (0.08 * size) - 0.1, 0, 1)[:, None]
    faded = weights * far
    faded[:, 0] = 1 - faded[:, 1:].sum(1)
    return faded


def shortest_turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotation (3,3) of least angle that takes direction a to direction b."""
    a, b = unit(a), unit(b)
    v, c = np.cross(a, b), a @ b
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + c)


def flat_pose(joints: np.ndarray, tips: np.ndarray) -> np.ndarray:
    """Local rotations (15,3,3) that lay the fingers straight in the palm's plane and straighten the thumb's tip."""
    turns = np.tile(np.eye(3), (15, 1, 1))
    for first in (1, 4, 7, 10):
        bones = [joints[first + 1] - joints[first], joints[first + 2] - joints[first + 1]]
        bones.append(tips[first // 3] - joints[first + 2])
        flat = bones[0] * [1, 1, 0]
        turns[first - 1] = shortest_turn(bones[0], flat)
        turns[first] = shortest_turn(bones[1], bones[0])
        turns[first + 1] = shortest_turn(bones[2], bones[1])
    turns[14] = shortest_turn(tips[4] - joints[15], joints[15] - joints[14])
    return turns


def skin(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, turns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
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
    """Per finger (index, middle, little, ring, thumb) the vertex farthest out near the line of the last bone."""
    tips = []
    for last in (3, 6, 9, 12, 15):
        own = np.flatnonzero(weights[:, last] > 0.9)
        axis = unit(vertices[own].mean(0) - joints[last])
        out = (vertices[own] - joints[last]) @ axis
        aside = np.linalg.norm(vertices[own] - joints[last] - out[:, None] * axis, axis=1)
        tips.append(own[np.argmax(out - 0.3 * aside)])
    return np.array(tips)


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
    data["weights"] = np.concatenate([data["weights"], np.eye(16)[:1]])
    fan = np.stack([loop, np.roll(loop, -1), np.full_like(loop, centre)], axis=1)
    texture = {int(v): int(t) for v, t in zip(data["faces"].ravel(), data["face_uv"].ravel(), strict=True)}
    around = np.array([texture[int(v)] for v in loop])
    data["uv"] = np.concatenate([data["uv"], data["uv"][around].mean(0, keepdims=True)])
    uv_fan = np.stack([around, np.roll(around, -1), np.full_like(around, len(data["uv"]) - 1)], axis=1)
    data["faces"] = np.concatenate([data["faces"], fan])
    data["face_uv"] = np.concatenate([data["face_uv"], uv_fan])
    used, inverse = np.unique(data["face_uv"], return_inverse=True)
    data["uv"], data["face_uv"] = data["uv"][used], inverse.reshape(-1, 3)
