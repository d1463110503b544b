"""Contact sheets: every picture in its place, the rest of the last row plain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.synth.sheet import contact_sheet


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 13), st.none() | st.integers(1, 15), st.sampled_from([0, 255]), st.booleans())
def test_a_sheet_equals_pasting_one_by_one(count, columns, ground, listed):
    pictures = np.random.default_rng(count).integers(0, 256, (count, 3, 5, 3), dtype=np.uint8)
    found = contact_sheet(list(pictures) if listed else pictures, columns, ground)
    wide = columns or int(np.ceil(np.sqrt(count)))
    expected = np.full((3 * -(-count // wide), 5 * wide, 3), ground, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = 3 * (k // wide), 5 * (k % wide)
        expected[top : top + 3, left : left + 5] = picture
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


def test_pictures_of_several_sizes_are_no_sheet():
    with pytest.raises(ValueError):
        contact_sheet([np.zeros((3, 5, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)])
