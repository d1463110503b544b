"""The hands of unlabelled photos: found, cut out, held back, and matched with a teacher's keypoints."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from adapt_files import label_row, write_pictures
from hands import make_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.adapt.gather import Found, find_photos, gather, hold_back, teacher_keypoints
from densehand.adapt.labels import label_error
from densehand.camera import Crop
from densehand.errors import InputError


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=40), st.floats(0.01, 0.9))
def test_whole_photos_are_held_back_and_some_are_left(hands, share):
    photo = [index for index, count in enumerate(hands) for _ in range(count)]
    found = Found(
        torch.zeros(len(photo), 1, 1, 3), [None] * len(photo), photo, [Path(str(i)) for i in range(len(hands))]
    )
    held = hold_back(found, share)
    assert held.any() and not held.all()
    by_photo = [{bool(h) for h, p in zip(held, photo, strict=True) if p == i} for i in range(len(hands))]
    assert all(len(values) == 1 for values in by_photo)
    kept = sum(values == {True} for values in by_photo) / len(hands)
    assert abs(kept - share) <= 3 / len(hands) + 0.01


def test_one_photo_is_too_few():
    with pytest.raises(InputError, match="one photo only"):
        hold_back(Found(torch.zeros(2, 1, 1, 3), [None] * 2, [0, 0], [Path("a")]), 0.2)


class Finder:
    """An estimator that finds the hands it is given, photo after photo."""

    def __init__(self, *hands):
        self.hands = list(hands)

    def estimate(self, photos):
        return [self.hands.pop(0) for _ in photos]


def test_hands_are_cut_out_as_right_hands(tmp_path):
    write_pictures(tmp_path, "a.png", "b.png")
    write_pictures(tmp_path / "more", "c.png", "d.jpg")
    write_pictures(tmp_path / ".thumbs", "x.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    paths = find_photos(tmp_path)
    assert [p.name for p in paths] == ["a.png", "b.png", "c.png", "d.jpg"]
    left = make_hand("left")
    seen = []
    found = gather(paths, Finder([left, make_hand()], [], [make_hand()]), watch=lambda *a: seen.append(a))
    assert len(found) == 3 and found.empty == 1 and found.photo == [0, 0, 1]
    assert [p.name for p in found.paths] == ["a.png", "d.jpg"]
    assert len(found.unreadable) == 1 and "b.png" in str(found.unreadable[0])
    assert [crop.mirrored for crop in found.crops] == [True, False, False]
    inside = found.crops[0].to_crop(left.keypoints_2d)
    assert np.ptp(inside, axis=0).max() == pytest.approx(2 / 2.4, rel=1e-5)
    assert seen[-1] == ("finding hands", 4, 4)


def test_folders_without_use_are_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        find_photos(tmp_path / "none")
    with pytest.raises(InputError, match="no pictures"):
        find_photos(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"none of 1 pictures can be read.*a\.png"):
        gather(find_photos(tmp_path), Finder())
    write_pictures(tmp_path, "a.png", "b.png")
    with pytest.raises(InputError, match="no hand found in 2 photos"):
        gather(find_photos(tmp_path), Finder([], []))


def test_a_teachers_keypoints_are_matched_by_path_name_and_place(tmp_path, hand):
    points = [make_hand(seed=k).keypoints_2d for k in range(3)]
    crops = [Crop((160, 120), 100, mirrored=k == 1) for k in range(3)]
    paths = [tmp_path / "p" / name for name in ("a.png", "b.png")]
    found = Found(torch.zeros(3, 1, 1, 3), crops, [0, 0, 1], paths)
    usual = torch.stack([torch.as_tensor(c.to_crop(p)) for c, p in zip(crops, points, strict=True)]).float()
    moved = points[1] + (150.0, 0)  # another hand of the first photo

    rows = [label_row("p/a.png", moved), label_row("p/a.png", points[0] + 1), label_row("elsewhere/b.png", points[2])]
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found.crops[1] = replace(crops[1], center=(1000.0, 120.0))
    got = teacher_keypoints(found, file, usual)
    torch.testing.assert_close(got[0], usual[0] + 0.01, atol=1e-4, rtol=0)
    torch.testing.assert_close(got[2], usual[2], atol=1e-4, rtol=0)
    assert got[1].isnan().all()
    error = label_error(usual, got)
    assert error[1].isnan() and error[0] > 0.5 and error[2] < 1e-3
    with pytest.raises(InputError, match=r"named labels\.jsonl"):
        teacher_keypoints(found, tmp_path / "teacher.json", usual)
    file.write_text(json.dumps(label_row("other.png", points[0])) + "\n")
    with pytest.raises(InputError, match="names no hand"):
        teacher_keypoints(found, file, usual)
