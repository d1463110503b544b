"""What `--refine` and `HandEstimator(refine=...)` may be: off, fast, paper, or a number of gradient steps."""

from __future__ import annotations

from densehand.errors import InputError

FAST, PAPER = "fast", "paper"
VIEWS, FRAMES = "views", "frames"  # of `densehand refine`
PAPER_STEPS = 50
FAST_STEPS = 5  # most of fast refinement
MODES = "off, fast, paper, or a number of gradient steps"


def parse_refine(value: str | int) -> str | int:
    """`FAST`, or how many steps of the paper's gradient descent: "off" is 0 and "paper" `PAPER_STEPS`.

    Errors:
        InputError: anything else, a negative number among it.
    """
    text = str(value).strip().lower()
    if text == FAST:
        return FAST
    steps = {"off": "0", PAPER: str(PAPER_STEPS)}.get(text, text)
    if not (steps.isascii() and steps.isdigit()):
        raise InputError(f"refine is {MODES}, not {value!r}")
    return int(steps)
