"""Which pictures are held back: the same ones as ever, and the same ones for all that ask."""

import cv2
import numpy as np
import pytest
import torch
from detector_files import make_detector_folder
from hypothesis import given
from hypothesis import strategies as st

from densehand.data.held_back import BACKGROUNDS, DETECTOR, ESTIMATOR, Blocks, frame_number, neighbours
from densehand.detect.data import EMPTY_FRAMES, background_selected, frame_rows, read_frames
from densehand.evaluation import scores
from densehand.network.zoo import build_model


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 20), st.data())
def test_blocks_equal_counting_one_by_one(start, size, every, data):
    blocks = Blocks(size, every, data.draw(st.integers(0, every - 1)))
    first = start - start % (size * every)
    expected = [place == blocks.place for place in range(every) for _ in range(size)]
    assert [blocks.held_back(first + i) for i in range(size * every)] == expected
    assert len({blocks.block(first + i) for i in range(size * every)}) == every


@pytest.mark.parametrize(
    ("blocks", "period", "held"),
    [(ESTIMATOR, 480, range(440, 480)), (DETECTOR, 400, range(150, 200)), (BACKGROUNDS, 64, range(24, 32))],
)
def test_the_splits_of_the_published_weights_stay(blocks, period, held):
    for again in (0, period, 7 * period):
        assert [i for i in range(period) if blocks.held_back(again + i)] == list(held)


def test_frames_and_their_neighbours():
    assert frame_number("a/00440") == 440 and frame_number("b2/x00479_0") == 4790 and frame_number("c/none") == 0
    assert neighbours("a/00439") == neighbours("a/00400") == "a/10" and neighbours("a/00440") == "a/11"
    assert neighbours("b/00439") != neighbours("a/00439")


def test_hand_free_parts_are_cut_from_the_frames_that_the_detector_holds_back(tmp_path):
    make_detector_folder(tmp_path)
    rows = frame_rows(tmp_path / "photos", held_back=True)
    assert [name for name, _ in rows] == ["subhih/00150", "subhih/00160"]
    assert len(read_frames(tmp_path, True)) == 2 == len(read_frames(tmp_path, False))
    for name, _ in rows:  # room beside the hand
        cv2.imwrite(str(tmp_path / f"photos/frames/{name}.jpg"), np.full((640, 640, 3), 90, np.uint8))
    torch.manual_seed(0)
    found = scores.frame_looks(build_model("dhpe-lite").eval(), tmp_path / "photos", 12)
    assert set(found.group) == {"subhih/3", "subhih/4"} and not found.known.any()


def test_frames_without_a_label_are_left_out_but_for_the_empty_ones(tmp_path):
    lines = [
        f'{{"frame": "frames/{name}.jpg", "source": "fingercount", "boxes": [], "teacher": []}}\n\n'
        for name in (*sorted(EMPTY_FRAMES), "fingercount/00001")
    ]
    (tmp_path / "frames.jsonl").write_text("".join(lines))
    assert {name for name, _ in frame_rows(tmp_path, held_back=False)} == EMPTY_FRAMES
    assert not background_selected(150, False) and not background_selected(24, False) and background_selected(24, True)
