"""Files of predictions: every format read, every fault named with its row, pictures found by the end of their path."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_cases import make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.document import document
from densehand.errors import DependencyError, InputError
from densehand.evaluation.cases import check_dataset, open_cases
from densehand.evaluation.formats import PictureTable, Reading, read_predictions
from densehand.evaluation.mediapipe_hands import find_hands
from densehand.evaluation.prediction import Prediction
from densehand.evaluation.run import run
from densehand.evaluation.systems import FileSystem, MediapipeSystem
from densehand.hand.keypoints import ORDERS
from densehand.hand.model import HandModel
from densehand.result import Hand, posed_mesh

RNG = np.random.default_rng(1)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


# ---- formats


def test_freihand(tmp_path):
    joints, vertices = RNG.normal(size=(3, 21, 3)), RNG.normal(size=(3, 778, 3))
    rows = joints.tolist()
    rows[1] = None
    found = read_predictions(write(tmp_path / "pred.json", [rows, vertices.tolist()])).ordered
    assert found[1] is None and found[0].keypoints_2d is None
    np.testing.assert_array_equal(found[2].joints_3d, joints[2])
    np.testing.assert_array_equal(found[2].vertices, vertices[2])
    assert read_predictions(write(tmp_path / "no_mesh.json", [joints.tolist(), []])).ordered[0].vertices is None


def test_mmpose_old_results_go_by_bbox_id_where_the_labels_have_no_ids(tmp_path):
    points = np.concatenate([RNG.uniform(0, 200, (4, 21, 2)), np.ones((4, 21, 1))], axis=2)
    more = {"center": [1, 2], "scale": [1, 1], "area": 9.0, "score": 0.5}
    rows = [{"keypoints": points[i].tolist(), **more, "image_id": 90 + i, "bbox_id": i} for i in (2, 0, 3, 1)]
    found = read_predictions(write(tmp_path / "result_keypoints.json", rows)).ordered
    np.testing.assert_array_equal([hand.keypoints_2d for hand in found], points[..., :2])
    assert found[0].score == 0.5


def test_mmpose_coco_results_go_by_image_and_in_the_order_of_the_labels(tmp_path):
    points = RNG.uniform(0, 200, (21, 3))
    rows = [{"image_id": 7, "category_id": 1, "keypoints": points.ravel().tolist(), "score": 0.25}]
    about = Reading({7: "color/1.png", 8: "color/2.png"}, "rhd")
    found = dict(read_predictions(write(tmp_path / "r.keypoints.json", rows), about).pictures)
    assert found["color/2.png"] == [], "a picture without results: nothing was found in it"
    (hand,) = found["color/1.png"]
    np.testing.assert_array_equal(hand.keypoints_2d[list(ORDERS["rhd"])], points[:, :2])
    rows[0]["image_id"] = 9
    with pytest.raises(InputError, match=r"entry 1: image_id 9 is not in the dataset's labels"):
        read_predictions(write(tmp_path / "r.json", rows), about)


def test_mmpose_inferencer_writes_a_file_a_picture(tmp_path):
    points = RNG.uniform(0, 200, (21, 2)).tolist()
    instance = {"keypoints": points, "keypoint_scores": [1.0] * 21, "bbox": [[0, 0, 9, 9]], "bbox_score": 0.5}
    write(tmp_path / "a.json", [instance])
    write(tmp_path / "b.json", {"meta_info": {}, "instance_info": [instance, instance]})
    write(tmp_path / "c.json", [])
    found = dict(read_predictions(tmp_path).pictures)
    assert {name: len(hands) for name, hands in found.items()} == {"a": 1, "b": 2, "c": 0}
    assert found["a"][0].score == 0.5


def real_hand():
    """A hand of the open model as predict writes it."""
    model = HandModel.load("open")
    arrays = {"pose": np.zeros(45), "shape": np.zeros(10), "rotation": np.array([1.0, 0, 0, 0])}
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    vertices, joints, faces = posed_mesh(model, **arrays, side="left")
    points = joints[:, :2] * 400 + (80, 60)
    box = np.concatenate([points.min(0), points.max(0)])
    return Hand(
        side="left", side_score=0.9, score=0.8, box=box, keypoints_2d=points, keypoints_score=np.ones(21),
        joints_3d=joints, **arrays, scale=400.0, translation=(0.0, 0.0, 0.5), focal_px=200.0, center_px=(80, 60),
        vertices=vertices, faces=faces,
    )  # fmt: skip


def test_densehand_documents(tmp_path):
    hand = real_hand()
    record = document("photos/01.jpg", 160, 120, "dhpe", [hand])
    write(tmp_path / "one.json", record)
    write(tmp_path / "many.json", [record, {**record, "image": "02.jpg", "hands": []}])
    (tmp_path / "lines.jsonl").write_text(json.dumps(record) + "\n\n" + json.dumps(record) + "\n")
    for name, count in (("one.json", 1), ("many.json", 2), ("lines.jsonl", 2)):
        pictures = read_predictions(tmp_path / name).pictures
        assert len(pictures) == count and pictures[0][0] == "photos/01.jpg"
    (found,) = pictures[0][1]
    np.testing.assert_allclose(found.joints_3d, hand.joints_3d)
    np.testing.assert_allclose(found.hand().vertices, hand.vertices, atol=1e-6)
    assert (found.side, found.score) == ("left", pytest.approx(0.8))


GOOD = np.zeros((21, 3)).tolist()
DOCUMENT = {"schema": "densehand-keypoints/1", "image": "a.jpg"}


def with_hands(*hands):
    return {**DOCUMENT, "hands": list(hands)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([[GOOD, GOOD[:20]], []], "row 1: xyz is 20×3, not 21×3"),
        ([[GOOD, [[float("nan")] * 3] * 21], []], "row 1: xyz holds NaN"),
        ([[GOOD], [GOOD, GOOD]], "1 hands have joints, 2 vertices"),
        ([[["a"]], []], "row 0: xyz is no array of numbers"),
        ([{"keypoints": [[1, 2]] * 42}], "entry 1: keypoints is 42×2, not 21×V"),
        ([{"keypoints": [1.0] * 62}], "entry 1: keypoints is 62, not 21×V"),
        (with_hands({"keypoints_2d": [[0, 0]] * 20}), r"document 1 \(a.jpg\), hand 0: keypoints_2d is 20×2"),
        (with_hands({"joints_3d": [[0, 0, float("inf")]] * 21}), "hand 0: joints_3d holds NaN or infinity"),
        ({**DOCUMENT, "hands": [{"side": "left"}]}, "hand 0: lacks keypoints_2d and joints_3d"),
        ({**DOCUMENT, "hands": [{"side": "up"}]}, "hand 0: side is"),
        ({**DOCUMENT, "hands": [7]}, "hand 0: is no object"),
        ({**DOCUMENT, "hands": None}, "document 1: lacks image"),
        ({"schema": "other/1"}, "document 1: schema 'other/1'"),
        ({"a": 1}, "no predictions that are read; give densehand/1"),
        (3, "no predictions that are read"),
        ([[GOOD]], "no predictions that are read"),
    ],
)  # fmt: skip
def test_faults_are_named_with_file_and_row(tmp_path, content, said):
    path = write(tmp_path / "given.json", content)
    with pytest.raises(InputError, match=rf"given\.json: .*{said}"):
        read_predictions(path)


def test_files_that_are_not_there_or_no_json(tmp_path):
    (tmp_path / "x.json").write_text("{")
    for path, said in ((tmp_path / "x.json", "not JSON"), (tmp_path / "y.json", "cannot be read")):
        with pytest.raises(InputError, match=said):
            read_predictions(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.json"):
        read_predictions(tmp_path / "empty")


KEYS = ["schema", "image", "hands", "keypoints", "instance_info"]


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["schema", "image", "hands", "keypoints", "instance_info"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("any") / "given.json", content)
    try:
        read_predictions(path)
    except InputError as error:
        assert "given.json" in str(error)


# ---- which prediction is meant


def table(*names):
    return PictureTable([(name, [Prediction(score=i)]) for i, name in enumerate(names)], Path("p.json"))


def test_pictures_are_found_by_the_end_of_their_path():
    root = Path("/data/set")
    found = table("eval/1.jpg", "train/1.jpg", "/elsewhere/set/train/2.jpg", "3", "C:\\set\\train\\4.jpg")
    for picture, wanted in (
        ("train/1.jpg", 1),
        ("eval/1.jpg", 0),
        ("train/2.jpg", 2),
        ("x/3.png", 3),
        ("train/4.jpg", 4),
    ):
        assert found(root / picture, root)[0].score == wanted
    assert found(root / "test/1.jpg", root) is None, "another folder is another picture"
    assert found(root / "5.jpg", root) is None
    with pytest.raises(InputError, match=r"2 entries for .*1\.jpg"):
        table("1.jpg", "1.png")(root / "1.jpg", root)


# ---- a file as a system


def test_counts_must_match(tmp_path):
    data = make_dataset(tmp_path / "data")
    file = write(tmp_path / "pred.json", [[GOOD] * 5, []])
    system = FileSystem(file, "densehand", data, None)
    system.check_count(4, limited=True)
    system.check_count(5, limited=False)
    for hands, limited in ((6, False), (6, True), (4, False)):
        with pytest.raises(InputError, match=rf"pred\.json: predictions of 5 hands, but the dataset has {hands}"):
            system.check_count(hands, limited)
    with pytest.raises(InputError, match="HO-3D"):
        FileSystem(file, "ho3d_v3", data, None)


def test_a_file_of_another_dataset_is_refused_and_a_gap_is_a_miss(tmp_path):
    data = make_dataset(tmp_path / "data", 3)
    hand = {"keypoints_2d": [[50, 50]] * 20 + [[90, 90]]}
    rows = [{**DOCUMENT, "image": f"0{i}.png", "hands": [hand]} for i in (0, 1)]
    result = run(
        open_cases("densehand", data), [FileSystem(write(tmp_path / "p.json", rows), "densehand", data, None)]
    )[0]
    assert result.states["untold"] == 1 and len(result.hands()) == 3
    other = [{**DOCUMENT, "image": "other.png", "hands": []}]
    with pytest.raises(InputError, match=r"00\.png is not in .*nor any other of the 3"):
        run(open_cases("densehand", data), [FileSystem(write(tmp_path / "q.json", other), "densehand", data, None)])


def test_mmpose_results_of_published_labels(shared_dir, tmp_path):
    """The labels of mmpose's own sample as if predicted: no error, whatever order the set lists joints in."""
    root = tmp_path / "rhd"
    (root / "annotations").mkdir(parents=True)
    source = shared_dir / "fixtures/mmpose/rhd"
    labels = json.loads((source / "test_rhd.json").read_text())
    write(root / "annotations/rhd_test.json", labels)
    rows = [
        {
            "image_id": a["image_id"],
            "category_id": 1,
            "keypoints": np.ravel(a["keypoints"]).astype(float).tolist(),
            "score": 1.0,
        }
        for a in labels["annotations"]
    ]
    file = write(tmp_path / "results.keypoints.json", rows)
    result = run(open_cases("rhd_mmpose", root, "test"), [FileSystem(file, "rhd_mmpose", root, "test", name="mmpose")])[
        0
    ]
    assert len(result.rows) == len(rows)
    assert max(np.nanmax(hand.errors["px"]) for hand in result.hands()) < 1e-9


def test_unknown_dataset():
    with pytest.raises(InputError, match="unknown dataset 'x'; known: fixtures, densehand"):
        check_dataset("x")


# ---- MediaPipe


def test_mediapipe_turns_sides_round_and_gives_pixels():
    point = SimpleNamespace(x=0.25, y=0.5, z=-0.01)
    marks = [SimpleNamespace(landmark=[point] * 21)]
    sides = [SimpleNamespace(classification=[SimpleNamespace(label="Left", score=0.75)])]
    result = SimpleNamespace(multi_hand_landmarks=marks, multi_hand_world_landmarks=marks, multi_handedness=sides)
    (hand,) = find_hands(SimpleNamespace(process=lambda image: result), np.zeros((100, 200, 3), np.uint8))
    assert hand["side"] == "right" and hand["score"] == 0.75
    assert hand["keypoints_2d"][3] == [50, 50] and hand["joints_3d"][3] == [0.25, 0.5, -0.01]
    nothing = SimpleNamespace(process=lambda image: SimpleNamespace(multi_hand_landmarks=None))
    assert find_hands(nothing, np.zeros((100, 200, 3), np.uint8)) == []


def test_without_mediapipe_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(DependencyError, match=r"pip install 'mediapipe<0\.10\.30'"):
        MediapipeSystem()
    monkeypatch.setitem(sys.modules, "mediapipe", SimpleNamespace(__version__="0.10.33"))
    with pytest.raises(DependencyError, match=r"0\.10\.33 is without its legacy solutions"):
        MediapipeSystem()
