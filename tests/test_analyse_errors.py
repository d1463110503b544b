"""tools/analyse_errors.py: errors by group, and which groups a model's card must name."""

import numpy as np
import pytest
import torch
from tool_loader import load_tool

tool = load_tool("analyse_errors")


def cases(words: dict[str, list[str]]):
    count = len(next(iter(words.values())))
    joints = np.zeros((count, 21, 3))
    return tool.Cases(
        torch.zeros(count, 3, 8, 8), torch.zeros(count, 21, 2), joints, None, np.zeros(count, bool), words
    )


def test_a_group_far_above_the_mean_is_named_unless_it_is_small():
    words = {"view": ["palm"] * 60 + ["side"] * 30, "pose": ["open"] * 85 + ["fist"] * 5}
    error = np.array([4.0] * 60 + [10.0] * 25 + [50.0] * 5)
    rows = tool.table(cases(words), error, np.full(90, np.nan), np.ones(90, bool))
    mean = error.mean()
    by_name = {(row["attribute"], row["group"]): row for row in rows}
    assert by_name["all", "all"]["over_mean"] == 1
    assert by_name["view", "side"]["over_mean"] == pytest.approx(error[60:].mean() / mean, abs=0.005)
    assert by_name["pose", "fist"]["lost"] == 1
    ratio = by_name["view", "side"]["over_mean"]
    assert tool.weak_groups(rows) == {"view: side": {"hands": 30, "over_mean": ratio}}  # five fists tell too little


def test_even_errors_name_nobody():
    words = {"side": ["left", "right"] * 40}
    rows = tool.table(cases(words), np.full(80, 5.0), np.full(80, np.nan), np.ones(80, bool))
    assert tool.weak_groups(rows) == {}
