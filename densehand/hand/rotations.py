"""`roma`, loaded when a rotation is first asked of it: it brings torch's compiler along, two seconds of start-up, and
one hand at a time is estimated without it (`numpy_skin.py`, `vector_skeleton.py`)."""

from typing import Any


def __getattr__(name: str) -> Any:
    import roma

    return getattr(roma, name)
