"""Reports: their figures by hand and against the measures, and a page that needs nothing but itself."""

import base64
import csv
import json
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.errors import InputError
from densehand.hand.keypoints import KEYPOINT_NAMES
from densehand.metrics import THRESHOLDS_0_50, auc, end_point_error, pck
from densehand.report import (
    CURVE_MM,
    PUBLISHED_AUC,
    PUBLISHED_FREIHAND,
    HandErrors,
    System,
    csv_row,
    figures,
    page,
    summarise,
    thumbnail,
    worst,
    write_report,
)


def hand(name="a.jpg", pa=1.0, **more):
    return HandErrors(name, {"pa_mm": np.full(21, float(pa))}, **more)


class Reader(HTMLParser):
    """Collects what the tests look at: tags with their attributes, the text, and whether all tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + "\n"

    def found(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


# ---- figures


def test_figures_by_hand():
    hands = [hand(pa=10, scores={"iou": 0.5}), hand(pa=40, scores={"iou": 1.0}), hand(pa=np.inf, scores={})]
    result = figures(hands)
    assert result["hands"] == 3 and result["missed"] == pytest.approx(1 / 3)
    assert result["pa_mm"]["mean"] == pytest.approx(25) and result["pa_mm"]["median"] == pytest.approx(25)
    assert result["pa_mm"]["per_joint"] == pytest.approx(dict.fromkeys(KEYPOINT_NAMES, 25.0))
    assert np.array(result["pa_mm"]["pck"])[[19, 20, 79, 80, 100]] == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    # 10 mm is right at all of the last 12 thresholds, 40 mm over the last 3.5 of 11 steps, the missed one nowhere
    assert result["pa_mm"]["auc_20_50"] == pytest.approx((1 + 3.5 / 11) / 3)
    assert result["scores"] == {"iou": 0.75}
    assert "root_mm" not in result


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_figures_are_those_of_the_measures(seed):
    rng = np.random.default_rng(seed)
    errors = rng.gamma(2, 8, (6, 21))
    errors[rng.random(errors.shape) < 0.3] = np.nan
    errors[:, 0] = 1.0
    result = figures([HandErrors(str(i), {"root_mm": e, "px": e}) for i, e in enumerate(errors)])
    assert (result["px"]["mean"], result["px"]["median"]) == end_point_error(errors, per_keypoint=True)
    assert result["root_mm"]["auc_0_50"] == auc(errors, THRESHOLDS_0_50, per_keypoint=True)
    assert result["root_mm"]["pck"] == pck(errors, CURVE_MM, per_keypoint=True).tolist()
    assert "pck" not in result["px"], "thresholds in mm say nothing of pixels"
    for name, column in zip(KEYPOINT_NAMES, errors.T, strict=True):
        value = result["px"]["per_joint"][name]
        assert value is None if np.isnan(column).all() else value == pytest.approx(np.nanmean(column))


def test_where_nothing_is_known_there_is_no_figure():
    unlabelled, lost = hand(pa=np.nan), hand(pa=np.inf)
    assert "pa_mm" not in figures([unlabelled]) and figures([unlabelled])["missed"] == 0
    result = figures([lost])
    assert result["pa_mm"]["mean"] is None and result["pa_mm"]["auc_20_50"] == 0 and result["missed"] == 1
    assert figures([hand(scores={"iou": np.nan})])["scores"] == {"iou": None}


def test_sources_apart_and_a_flat_row():
    summary = summarise([hand(pa=1, source="x"), hand(pa=3, source="y"), hand(pa=5, source="y")])
    assert {name: group["pa_mm"]["mean"] for name, group in summary["sources"].items()} == {"x": 1, "y": 4}
    row = csv_row(summary["all"])
    assert list(row) == ["hands", "missed", "pa_mm_mean", "pa_mm_median", "pa_mm_auc_0_50", "pa_mm_auc_20_50"]
    assert row["hands"] == 3 and row["pa_mm_mean"] == 3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, 9.0, np.inf, np.nan]), min_size=1, max_size=40))
def test_the_worst_cases_are_the_largest_errors(errors):
    ranked = [error for _, error in worst([hand(str(i), e) for i, e in enumerate(errors)])]
    assert ranked == sorted((e for e in errors if not np.isnan(e)), reverse=True)[:24]


def test_the_first_kind_that_any_hand_has_ranks():
    both = HandErrors("both", {"root_mm": np.full(21, 1.0), "px": np.full(21, 99.0)})
    assert [h.name for h, _ in worst([both, HandErrors("px", {"px": np.ones(21)})])] == ["both"]


# ---- errors


@pytest.mark.parametrize(
    ("hands", "said"),
    [
        ([], "hands: empty"),
        ([HandErrors("a.jpg", {"mm": np.ones(21)})], "a.jpg: unknown kind of error 'mm'; known: pa_mm"),
        ([HandErrors("a.jpg", {"px": np.ones(20)})], "a.jpg: px is not 21 distances"),
        ([HandErrors("a.jpg", {"px": -np.ones(21)})], "a.jpg: px is not 21 distances"),
        ([HandErrors("a.jpg", {"px": np.zeros(0)})], "a.jpg: px: empty"),
        ([hand(picture=lambda: np.zeros((4, 4)))], "a.jpg: its picture is float64"),
    ],
)
def test_hands_that_cannot_be_reported_leave_no_file(tmp_path, hands, said):
    with pytest.raises(InputError, match=said):
        write_report(tmp_path / "out", hands)
    assert not (tmp_path / "out").exists()


# ---- the page


def test_the_page_needs_nothing_else_and_is_well_formed():
    picture = np.full((50, 400, 3), (200, 30, 30), np.uint8)
    hands = [hand(f"{i:02}.jpg", pa=i, picture=lambda: picture) for i in range(30)]
    text = page(hands, "Test of 30")
    reader = Reader(text)
    assert not reader.open and "http" not in text and not reader.found("script") and not reader.found("link")
    images = reader.found("img")
    assert [image["alt"] for image in images] == [f"{i:02}.jpg" for i in range(29, 5, -1)], "the worst 24, worst first"
    kind, data = images[0]["src"].split(",")
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert kind == "data:image/jpeg;base64" and decoded.shape == (28, 224, 3)
    assert np.abs(decoded.mean((0, 1)) - (30, 30, 200)).max() < 6, "red stays red"
    assert "Test of 30" in reader.text and all(name in reader.text for name in KEYPOINT_NAMES)


def test_pictures_of_good_cases_are_not_read():
    def never():
        raise AssertionError("read a picture that is not shown")

    hands = [hand(str(i), pa=5) for i in range(24)] + [hand("good", pa=1, picture=never)]
    assert "good" not in Reader(page(hands)).text


def test_curves_pass_through_the_shares():
    (line,) = Reader(page([hand(pa=25), hand(pa=np.inf)])).found("polyline")
    points = np.array([[float(v) for v in point.split(",")] for point in line["points"].split()])
    assert len(points) == 101 and (np.diff(points[:, 0]) > 0).all()
    bottom, top = points[0, 1], points[-1, 1]
    assert (points[:50, 1] == bottom).all() and (points[50:, 1] == top).all() and bottom - top == pytest.approx(130)
    assert not Reader(page([HandErrors("a", {"px": np.ones(21)})])).found("svg"), "no curve without errors in mm"


def test_names_are_escaped():
    reader = Reader(page([hand("<script>x</script>", source="a&b<i>")], "<b>"))
    assert not reader.found("script") and not reader.found("i") and not reader.found("b")
    assert "<script>x</script>" in reader.text and "a&b<i>" in reader.text


def test_published_figures_are_marked_as_published():
    text = Reader(page([hand()])).text
    assert "As published by their authors, not measured here." in text
    assert {n.split(" ")[0]: v for n, *v in PUBLISHED_FREIHAND}["Boukhayma"] == [None, 13.2]
    for name, *values in (*PUBLISHED_FREIHAND, *PUBLISHED_AUC):
        cells = text[text.index(name) :].split("\n")
        shown = [None if cell == "–" else float(cell) for cell in [c for c in cells if c.strip()][1:3]]
        assert shown == values


def test_a_small_picture_keeps_its_size():
    data = thumbnail(np.zeros((3, 5, 3), np.uint8), "x").split(",")[1]
    assert cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1).shape == (3, 5, 3)


# ---- files


def test_files(tmp_path):
    hands = [hand("ä.jpg", 2, source="s", scores={"f5": 0.5}), hand("b.jpg", np.inf, source="s")]
    write_report(tmp_path / "deep" / "out", hands)
    folder = tmp_path / "deep" / "out"
    assert sorted(path.name for path in folder.iterdir()) == ["report.csv", "report.html", "report.json"]
    data = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    (told,) = data["systems"]
    assert told["all"] == json.loads(json.dumps(summarise(hands)["all"]))
    assert [row["name"] for row in told["per_hand"]] == ["ä.jpg", "b.jpg"]
    assert [row["pa_mm_mean"] for row in told["per_hand"]] == [2.0, None]
    assert [row["missed"] for row in told["per_hand"]] == [0, 1]
    assert [row.get("f5") for row in told["per_hand"]] == [0.5, None]
    with (folder / "report.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    wanted = {"system": "", **csv_row(told["all"])}
    assert row == {key: "" if value is None else str(value) for key, value in wanted.items()}
    assert (folder / "report.html").read_text(encoding="utf-8") == page(hands)


# ---- systems side by side


def test_two_systems_side_by_side(tmp_path):
    a = System("ours", [hand("x", 10, milliseconds=30.0), hand("y", 20, milliseconds=50.0)], {"boxes": "of labels"})
    b = System("theirs", [hand("x", 30), HandErrors("y", {"px": np.ones(21)})])
    write_report(tmp_path, [a, b], "Both", dataset="freihand", legend="Red <is> wrong")
    data = json.loads((tmp_path / "report.json").read_text())
    assert [entry["name"] for entry in data["systems"]] == ["ours", "theirs"]
    assert data["systems"][0]["about"] == {"boxes": "of labels"}
    assert data["systems"][0]["all"]["ms"] == {"mean": 40.0, "median": 40.0}
    with (tmp_path / "report.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["system"], row["pa_mm_mean"], row["px_mean"], row["ms_median"]) for row in rows] == [
        ("ours", "15.0", "", "40.0"),
        ("theirs", "30.0", "1.0", ""),
    ]
    reader = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not reader.open
    lines = reader.found("polyline")
    assert len(lines) == 2 and lines[0]["stroke"] != lines[1]["stroke"], "one curve a system"
    for words in (
        "3D, after alignment (mm) · ours",
        "3D, after alignment (mm) · theirs",
        "of labels",
        "Red <is> wrong",
    ):
        assert words in reader.text
    with pytest.raises(InputError, match="two have one name"):
        write_report(tmp_path, [a, System("ours", b.hands)])


@pytest.mark.parametrize(
    ("dataset", "kind", "cells"),
    [
        ("freihand", "pa_mm", ["12.0", "–"]),
        ("rhd_mmpose", "scaled_mm", ["1.000", "–"]),
        ("stb", "scaled_mm", None),
        ("fixtures", "pa_mm", None),
    ],
)
def test_measured_figures_stand_among_published_ones_of_the_same_set(dataset, kind, cells):
    text = Reader(page([System("ours", [HandErrors("a", {kind: np.full(21, 12.0)})])], dataset=dataset)).text
    if cells is None:
        assert "MEASURED HERE" not in text
    else:
        words = [line for line in text[text.index("ours: MEASURED HERE") :].split("\n") if line.strip()]
        assert words[1:3] == cells
