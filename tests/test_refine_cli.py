"""`densehand refine`: pictures and the JSON of earlier predictions in, refined hands out."""

import dataclasses
import json

import numpy as np
import pytest
from hands import make_hand, open_hand
from PIL import Image
from test_refine_views import looked_at

from densehand import export
from densehand.cli import run
from densehand.document import document
from densehand.result import Hand

SIZE = (480, 640)


def written(folder, hands_of: dict[str, list]) -> list[str]:
    """Pictures NAME.png and their predictions; the pictures' paths."""
    paths = []
    for name, hands in hands_of.items():
        path = folder / f"{name}.png"
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path)
        record = document(str(path), SIZE[1], SIZE[0], "dhpe-lite", hands)
        export.write_json(folder / f"{name}.json", record)
        paths.append(str(path))
    return paths


def hands_in(path) -> list[Hand]:
    return [Hand.from_json_dict(record, open_hand()) for record in json.loads(path.read_text())["hands"]]


@pytest.fixture
def pair(tmp_path):
    _, cameras, (a, b) = looked_at(0, 2)
    return written(tmp_path, {"a": [a], "b": [b]}), cameras, tmp_path


def test_each_hand_for_itself_and_the_mask_is_the_refined_meshes(tmp_path):
    hands = [looked_at(1, 1)[2][0], looked_at(2, 1, "left")[2][0]]
    (path,) = written(tmp_path, {"a": hands})
    out = tmp_path / "out"
    arguments = [
        "refine",
        path,
        "-p",
        str(tmp_path / "a.json"),
        "-o",
        str(out),
        "--write",
        "json,mask,depth,overlay",
        "-q",
    ]
    assert run(arguments) == 0
    for k, (before, after) in enumerate(zip(hands, hands_in(out / "a.json"), strict=True)):
        assert after.refinement.mode == "fast" and after.side == before.side
        gaps = [np.linalg.norm(h.project(h.joints_3d) - h.keypoints_2d, axis=1).mean() for h in (before, after)]
        assert gaps[1] < gaps[0]
        np.testing.assert_array_equal(after.keypoints_2d, before.keypoints_2d)
        mask = np.asarray(Image.open(out / f"a.{k}.mask.png")) > 0
        assert (mask != after.mask(SIZE)).sum() <= 3 and (mask != before.mask(SIZE)).sum() > 100
        np.testing.assert_array_equal(export.read_depth(out / f"a.{k}.depth.png") > 0, mask)
    assert (out / "a.overlay.jpg").is_file()


def test_views_share_pose_and_shape(pair, capsys):
    paths, _, folder = pair
    assert run(["refine", *paths, "-p", str(folder), "-o", str(folder / "out"), "--views"]) == 0
    (a,), (b,) = (hands_in(folder / "out" / f"{name}.json") for name in "ab")
    np.testing.assert_array_equal(a.pose, b.pose)
    np.testing.assert_array_equal(a.shape, b.shape)
    assert a.refinement.mode == "views" and not np.allclose(a.rotation, b.rotation)
    assert "2 pictures →" in capsys.readouterr().err


def test_known_cameras_give_true_places(pair):
    paths, cameras, folder = pair
    names = ("intrinsics", "rotation", "translation")
    entries = {
        f"{which}.png": {name: getattr(camera, name).tolist() for name in names}
        for which, camera in zip("ab", cameras, strict=True)
    }
    (folder / "cameras.txt").write_text(json.dumps(entries))
    arguments = ["refine", *paths, "-p", str(folder), "-o", str(folder / "out"), "--views", "-q"]
    assert run([*arguments, "--cameras", str(folder / "cameras.txt")]) == 0
    (a,), (b,) = (hands_in(folder / "out" / f"{name}.json") for name in "ab")
    worlds = [(h.translation - c.translation) @ c.rotation for h, c in zip((a, b), cameras, strict=True)]
    np.testing.assert_allclose(worlds[0], worlds[1], atol=1e-5)
    for name in "ab":  # by their paths
        entries[str(folder / f"{name}.png")] = entries.pop(f"{name}.png")
    (folder / "cameras.txt").write_text(json.dumps(entries))
    assert run([*arguments, "--cameras", str(folder / "cameras.txt")]) == 0
    np.testing.assert_allclose(hands_in(folder / "out" / "a.json")[0].translation, a.translation)
    np.testing.assert_allclose(a.project(a.joints_3d), cameras[0].pixels(a.joints_3d + a.translation), atol=0.01)
    del entries[str(folder / "b.png")]
    (folder / "cameras.txt").write_text(json.dumps(entries))
    assert run([*arguments, "--cameras", str(folder / "cameras.txt")]) == 1


def test_frames_and_both_sides(tmp_path):
    rights, lefts = looked_at(3, 3, film=True)[2], looked_at(4, 3, "left", film=True)[2]
    paths = written(tmp_path, {f"f{k}": [rights[k], lefts[k]][:: 1 if k else -1] for k in range(3)})
    arguments = ["refine", *paths, "-p", str(tmp_path), "-o", str(tmp_path / "out"), "--frames", "--smooth", "3", "-q"]
    assert run(arguments) == 0
    found = [{hand.side: hand for hand in hands_in(tmp_path / "out" / f"f{k}.json")} for k in range(3)]
    for side in ("left", "right"):
        assert len({tuple(one[side].shape) for one in found}) == 1
        assert {one[side].refinement.mode for one in found} == {"frames"}
    assert run([*arguments, "--side", "left"]) == 0
    right = next(hand for hand in hands_in(tmp_path / "out" / "f0.json") if hand.side == "right")
    assert right.refinement is None  # was left as it was


@pytest.mark.parametrize(
    ("second", "options", "words"),
    [
        ([], ["--views"], "b.png: no right hand in its prediction, none at all"),
        (["left"], ["--views"], "b.png: no right hand in its prediction, only a left one"),
        (["right", "right"], ["--frames"], "b.png: 2 right hands"),
        (["right"], ["--views", "--side", "left"], "a.png: no left hand"),
    ],
)
def test_a_view_without_the_hand(tmp_path, capsys, second, options, words):
    paths = written(tmp_path, {"a": [make_hand("right", SIZE)], "b": [make_hand(side, SIZE) for side in second]})
    assert run(["refine", *paths, "-p", str(tmp_path), "-o", str(tmp_path / "out"), *options]) == 1
    assert words in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_no_hand_in_the_first_view(tmp_path, capsys):
    paths = written(tmp_path, {"a": [], "b": [make_hand("right", SIZE)]})
    assert run(["refine", *paths, "-p", str(tmp_path), "-o", str(tmp_path / "out"), "--views"]) == 1
    assert "a.png: no hand" in capsys.readouterr().err


def test_pictures_and_predictions_that_do_not_fit(pair, tmp_path, capsys):
    paths, _, folder = pair
    out = ["-o", str(folder / "out")]
    assert run(["refine", *paths, "-p", str(folder / "a.json"), *out]) == 1  # b has none, a is still done
    assert "b.png: no prediction names it" in capsys.readouterr().err and (folder / "out" / "a.json").is_file()
    assert run(["refine", *paths, "-p", str(folder / "a.json"), *out, "--views"]) == 1
    assert "nothing was refined" in capsys.readouterr().err
    (folder / "more").mkdir()
    (folder / "more" / "c.json").write_bytes((folder / "a.json").read_bytes())
    assert run(["refine", paths[0], "-p", str(folder / "more"), "-p", str(folder), *out]) == 1
    assert "several predictions" in capsys.readouterr().err
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(paths[0])
    assert run(["refine", paths[0], "-p", str(folder / "a.json"), *out]) == 1
    assert "20×10" in capsys.readouterr().err
    (folder / "empty").mkdir()
    assert run(["refine", paths[1], "-p", str(folder / "empty"), *out]) == 1
    assert "no .json" in capsys.readouterr().err
    shaped = dataclasses.asdict(make_hand("right", SIZE))["shape"] + 1
    record = json.loads((folder / "b.json").read_text())
    record["hands"][0]["shape"] = shaped.tolist()
    (folder / "b.json").write_text(json.dumps(record))
    assert run(["refine", paths[1], "-p", str(folder / "b.json"), *out]) == 1
    assert "--hand" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--views", "--frames"], ["--cameras", "x.json"], ["--smooth", "3"], ["--frames", "--smooth", "-1"],
        ["--side", "left"], ["--views", "--side", "both"], ["--write", "png"],
    ],
)  # fmt: skip
def test_wrong_command_lines(pair, options):
    paths, _, folder = pair
    assert run(["refine", *paths, "-p", str(folder), "-o", str(folder / "out"), *options]) == 2
    assert not (folder / "out").exists()
