"""Pictures blurred by motion: the share asked for, along a line, the rest as they were."""

import torch

from densehand.data.augment import recolour
from densehand.data.augmentation import Augmentation

PLAIN = {"colour": 0.0, "blur": 0.0, "noise": 0.0, "grey": 0.0}


def pictures() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(64, 3, 48, 48).clamp(1e-3, 1)


def changed(share: float, seed: int = 3) -> torch.Tensor:
    given = pictures()
    seen = recolour(given.clone(), Augmentation(**PLAIN, motion=share), torch.Generator().manual_seed(seed))
    plain = recolour(given.clone(), Augmentation(**PLAIN), torch.Generator().manual_seed(seed))
    return (seen - plain).abs().amax((1, 2, 3)) > 1e-3


def test_the_share_asked_for_is_blurred():
    assert not changed(0.0).any() and changed(1.0).all()
    assert 4 < int(changed(0.3).sum()) < 40
    assert not changed(1e-9).any()  # none of the batch is a batch too


def test_motion_blurs_along_a_line():
    """A point becomes five points on a line through it, and no light is lost."""
    given = torch.full((1, 3, 65, 65), 0.001)
    given[:, :, 32, 32] = 1
    seen = recolour(given, Augmentation(**PLAIN, motion=1.0), torch.Generator().manual_seed(1))[0, 0]
    light = seen - 0.001
    torch.testing.assert_close(light.sum(), torch.tensor(0.999), atol=1e-2, rtol=0)
    rows, columns = (light > 0.01).nonzero(as_tuple=True)
    x, y = columns.float() - 32, rows.float() - 32
    spread = torch.linalg.eigvalsh(torch.cov(torch.stack((x, y)), aweights=light[rows, columns]))
    assert spread[1] > 1 and spread[0] < 0.75  # what bilinear sampling adds across the line
