"""From cases to errors: against naive twins, stopped and continued, with damage; consistency of made-up systems."""

import json
import tarfile

import numpy as np
import pytest
from evaluation_cases import Oracle, fake_estimator, make_dataset, read_rows, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.data.sample import Sample
from densehand.errors import InputError
from densehand.evaluation import consistency
from densehand.evaluation.cases import Case, open_cases
from densehand.evaluation.errors import errors_of, label_kinds
from densehand.evaluation.journal import Journal
from densehand.evaluation.pictures import ESTIMATE, TRUTH, case_picture
from densehand.evaluation.prediction import Prediction
from densehand.evaluation.run import run
from densehand.evaluation.systems import FileSystem, MediapipeSystem, ModelSystem, distinct
from densehand.metrics import pa_mpjpe, root_relative_error, scaled_error, view_consistency
from densehand.report import write_report


def cases(folder, **options):
    return open_cases("densehand", folder, **options)


# ---- errors


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sets(st.integers(0, 20), max_size=18))
def test_3d_errors_are_those_of_the_valid_joints(seed, invalid):
    rng = np.random.default_rng(seed)
    target, found = rng.normal(0, 0.1, (2, 21, 3))
    valid = np.array([i not in invalid for i in range(21)])
    target[~valid] = np.nan
    case = Case(0, Sample("a", b"", joints_3d=target, joints_valid=np.ones(21, bool)))
    errors, _ = errors_of(case, Prediction(joints_3d=found))
    kinds = label_kinds(case)
    assert set(errors) == set(kinds)
    assert ("pa_mm" in kinds) == (valid.sum() >= 4) and ("root_mm" in kinds) == (valid[0] and valid.sum() >= 2)
    assert ("scaled_mm" in kinds) == (valid[0] and valid[9])
    naive = {"pa_mm": pa_mpjpe, "root_mm": root_relative_error, "scaled_mm": None}
    for kind in kinds:
        assert (np.isnan(errors[kind]) == ~valid).all()
        if kind == "scaled_mm":
            if not valid.all():
                continue
            wanted = scaled_error(found * 1000, target * 1000)
        else:
            wanted = naive[kind](found[valid] * 1000, target[valid] * 1000)
        assert np.nanmean(errors[kind]) == pytest.approx(wanted, rel=1e-9)


def test_all_scores_of_a_perfect_system(tmp_path):
    (result,) = run(cases(make_dataset(tmp_path, 2)), [Oracle()])
    for hand in result.hands():
        assert set(hand.errors) == {"pa_mm", "root_mm", "scaled_mm", "px", "mesh_px"}
        assert all(np.max(values) < 1e-6 for values in hand.errors.values())
        scores = dict(hand.scores)
        assert scores.pop("mask_iou") == pytest.approx(50 * 60 / (120 * 160)), "the whole picture against a rectangle"
        assert scores.pop("pa_mpvpe_mm") < 1e-6
        assert scores == {"pck_box": 1, "side_right": 1, "f5": 1, "f15": 1}
        assert hand.milliseconds == 5


def test_a_mesh_of_another_topology_is_aligned_by_its_joints(tmp_path):
    (case,) = cases(make_dataset(tmp_path, 1))
    joints = case.sample.joints_3d
    # turned, scaled and moved, with every vertex twice
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    moved, mesh = (2 * points @ turn.T + 0.3 for points in (joints, np.repeat(case.vertices, 2, axis=0)))
    _, scores = errors_of(case, Prediction(joints_3d=moved, vertices=mesh))
    assert scores["f5"] == 1 and "pa_mpvpe_mm" not in scores


def test_a_hand_with_a_mask_alone_is_measured_by_it(tmp_path):
    folder = make_dataset(tmp_path, 2)
    write_rows(
        folder, [{"image": row["image"], "mask": row["mask"], "box": [40, 30, 100, 80]} for row in read_rows(folder)]
    )

    class Masks(Oracle):
        def answer(self, case, image):
            truth = case.sample.read_mask()
            hand = type("Hand", (), {"mask": lambda self, size: truth})()
            return None if case.index in self.misses else Prediction(np.full((21, 2), 50.0), hand=lambda: hand)

    (result,) = run(cases(folder), [Masks(misses=[1])])
    assert [hand.scores["mask_iou"] for hand in result.hands()] == [1.0, 0.0], "a miss finds no pixel"


# ---- runs


def test_misses_failures_and_what_a_system_never_tells(tmp_path):
    folder = make_dataset(tmp_path)

    class Failing(Oracle):
        def answer(self, case, image):
            if case.index == 2:
                raise InputError("box lies outside the picture")
            return super().answer(case, image)

    result, flat = run(cases(folder), [Failing(misses=[0]), Oracle(flat=True, misses=[3])])
    assert dict(result.states) == {"missed": 1, "found": 4, "failed": 1}
    assert "box lies outside" in result.why["failed"]
    hands = result.hands()
    assert [np.isinf(hand.errors["pa_mm"]).all() for hand in hands] == [True, False, True, False, False, False]
    assert all(set(hand.errors) == {"px"} for hand in flat.hands()), "2D only: a miss is one in 2D only"
    assert [hand.source for hand in hands] == list("ababab")
    assert [hand.scores["pck_box"] for hand in hands[:3]] == [0, 1, 0], "a miss fails every threshold"


@pytest.mark.parametrize("cut", [0, 1, 25])
def test_a_stopped_run_goes_on_to_the_same_report(tmp_path, cut):
    folder = make_dataset(tmp_path / "data")
    (whole,) = run(cases(folder), [Oracle(pixels=2, metres=0.01, misses=[1])])
    write_report(tmp_path / "a", whole.hands())
    first, path = Oracle(pixels=2, metres=0.01, misses=[1]), tmp_path / "hands.jsonl"
    ticks = iter(range(100))

    def stop():
        if next(ticks) == 2:
            raise KeyboardInterrupt

    journal = Journal(path, first.settings)
    with pytest.raises(KeyboardInterrupt):
        run(cases(folder), [first], [journal], stop)
    journal.close()
    if cut:  # killed while it wrote
        path.write_bytes(path.read_bytes()[:-cut])
    second = Oracle(pixels=2, metres=0.01, misses=[1])
    (result,) = run(cases(folder), [second], [Journal(path, second.settings)])
    assert len(second.asked) == 6 - 3 + (cut > 0) and result.resumed == 3 - (cut > 0)
    write_report(tmp_path / "b", result.hands())
    for name in ("report.json", "report.csv", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len(path.read_text().splitlines()) == 7


def test_journals_of_other_settings_or_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "hands.jsonl"
    journal = Journal(path, {"model": "a", "n": (1, 2)})
    journal.add({"name": "x", "v": 1.5})
    journal.close()
    assert Journal(path, {"model": "a", "n": (1, 2)}).rows == {"x": {"name": "x", "v": 1.5}}
    with pytest.raises(InputError, match=r"other settings: model 'a' → 'b', n .* --restart"):
        Journal(path, {"model": "b"})
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{", lines[1]]) + "\n")
    with pytest.raises(InputError, match=r"hands\.jsonl:2: damaged .*--restart"):
        Journal(path, {"model": "a", "n": (1, 2)})
    assert Journal(path, {"model": "a"}, restart=True).rows == {}
    path.write_text(json.dumps({"name": "of something else"}) + "\n")
    with pytest.raises(InputError, match="no results of densehand evaluate"):
        Journal(path, {})


def test_only_the_worst_keep_their_pictures(tmp_path):
    folder = make_dataset(tmp_path, 40)

    class Growing(Oracle):
        def answer(self, case, image):
            self.metres = case.index / 1000
            return super().answer(case, image)

    (result,) = run(cases(folder), [Growing()])
    drawn = [int(hand.name.split(":")[1]) for hand in result.hands() if hand.picture is not None]
    assert set(range(17, 41)) <= set(drawn), "the 24 worst in 3D"


def test_the_picture_of_a_case_shows_labels_and_estimate(tmp_path):
    (case,) = cases(make_dataset(tmp_path, 1))
    for points, colours in ((None, [TRUTH]), (case.sample.keypoints_2d + 15, [TRUTH, ESTIMATE])):
        tile = case_picture(case, points)()
        assert tile.shape == (224, 224, 3)
        for colour in colours:
            assert (np.abs(tile.astype(int) - colour).sum(-1) < 30).sum() > 200
    assert case_picture(case, np.full((21, 2), 1e12))().shape == (224, 224, 3), "far points do no harm"
    (tmp_path / "00.png").unlink()
    assert case_picture(case, None)().shape == (224, 224, 3)


def test_models_find_the_hands_of_a_picture_once(tmp_path):
    folder = make_dataset(tmp_path, 2)
    rows = read_rows(folder)
    rows[1]["image"] = rows[0]["image"]
    write_rows(folder, rows)
    points, calls = np.array(rows[0]["keypoints_px"]), []
    estimator = fake_estimator(points, np.array(rows[0]["joints_m"]), side="right")
    found = type(estimator).__call__
    type(estimator).__call__ = lambda self, image, boxes: calls.append(boxes) or found(self, image, boxes)
    (result,) = run(cases(folder), [ModelSystem(estimator, "detect")])
    assert calls == [None] and result.rows[0]["scores"]["pck_box"] == 1
    run(cases(folder), [ModelSystem(estimator)])
    assert [len(boxes) for boxes in calls[1:]] == [1, 1]


def test_systems_of_one_name_are_told_apart():
    systems = [Oracle(name="a"), Oracle(name="a"), Oracle(name="a-2")]
    distinct(systems)
    assert len({system.name for system in systems}) == 3 and systems[0].name == "a"


def test_shards_are_measured_as_folders_are(tmp_path):
    folder, shard = make_dataset(tmp_path / "data"), tmp_path / "tar/a.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for index, row in enumerate(read_rows(folder)):
            label = tmp_path / "row.json"
            label.write_text(json.dumps({key: value for key, value in row.items() if key not in ("image", "mask")}))
            tar.add(label, f"x/{index:02}.json")
            tar.add(folder / row["image"], f"x/{index:02}.png")
    (a,), (b,) = run(cases(folder), [Oracle(pixels=3)]), run(cases(shard.parent), [Oracle(pixels=3)])
    for one, other in zip(a.hands(), b.hands(), strict=True):
        np.testing.assert_array_equal(one.errors["px"], other.errors["px"])
    assert [hand.picture().shape for hand in b.hands()] == [(224, 224, 3)] * 6
    points = (np.array(read_rows(folder)[4]["keypoints_px"])).tolist()
    lines = [{"schema": "densehand-keypoints/1", "image": f"elsewhere/x/{i:02}.png", "hands": []} for i in range(6)]
    lines[4]["hands"] = [{"keypoints_2d": points}]
    (tmp_path / "p.json").write_text(json.dumps(lines))
    (found,) = run(cases(shard.parent), [FileSystem(tmp_path / "p.json", "densehand", shard.parent, None)])
    assert [row["state"] for row in found.rows] == ["missed"] * 4 + ["found", "missed"]


# ---- consistency


def test_crop_consistency_is_that_of_the_answers(tmp_path):
    folder, system = make_dataset(tmp_path, 2), Oracle(metres=0.005)
    (found,) = consistency.measure("crops", cases(folder), [system], [Journal(None, {})])
    paddings = (1.2, 1.4, 1.6, 1.8, 2.0, 2.2)
    assert system.asked == list(paddings) * 2
    wanted = view_consistency([system.crop(None, None, padding).joints_3d for padding in paddings])
    assert found.percent_mean == pytest.approx(wanted.percent) and found.percent_median == pytest.approx(wanted.percent)
    assert (found.hands, found.of, found.missed, found.skipped) == (2, 2, 0, 0)


def test_view_consistency_is_over_the_photos_of_one_hand(tmp_path):
    folder = make_dataset(tmp_path / "data", 7)  # hands of three, three and one photo
    rows = read_rows(folder)
    rows[0]["image"] = "gone.png"
    write_rows(folder, rows)
    path, system = tmp_path / "v.jsonl", Oracle(misses=[4])
    (found,) = consistency.measure("views", cases(folder), [system], [Journal(path, {})])
    joints = [np.array(row["joints_m"]) for row in rows]
    wanted = [view_consistency(joints[1:3]), view_consistency([joints[3], None, joints[5]])]
    assert (found.hands, found.of, found.skipped) == (2, 3, 1)
    assert found.percent_mean == pytest.approx(np.mean([entry.percent for entry in wanted]))
    assert found.missed == pytest.approx(1 / 6)
    again = Oracle(misses=[4])
    assert consistency.measure("views", cases(folder), [again], [Journal(path, {})]) == [found]
    assert again.asked == [], "it is all in the journal"
    rows[1]["keypoints_px"][0][0] += 1
    write_rows(folder, rows)
    with pytest.raises(InputError, match=r"labels of labels\.jsonl:2 have changed"):
        consistency.measure("views", cases(folder), [again], [Journal(path, {})])


def test_consistency_needs_boxes_or_hand_ids(tmp_path):
    folder = make_dataset(tmp_path, 1)
    rows = read_rows(folder)
    write_rows(folder, [{key: value for key, value in rows[0].items() if key not in ("hand_id", "keypoints_px")}])
    for kind, said in (("crops", "a box or keypoints"), ("views", '"hand_id"')):
        with pytest.raises(InputError, match=said):
            consistency.measure(kind, cases(folder), [Oracle()], [Journal(None, {})])


def test_crops_of_mediapipe_are_cut_out_at_their_padding():
    """Its keypoints come back in the crop's pixels; the crop reaches beyond the picture where the box does."""
    seen = []
    system = object.__new__(MediapipeSystem)
    system._find = lambda image: seen.append(image) or [Prediction(np.array([[20.0, 20], [60, 60]]).repeat(11, 0)[:21])]
    image = np.full((50, 50, 3), 9, np.uint8)
    found = system.crop(np.array([10.0, 10, 50, 50]), image, 2.0)
    assert found is not None and seen[0].shape == (80, 80, 3)
    assert (seen[0][20:60, 20:60] == 9).all() and (seen[0][61:] == 0).all()
