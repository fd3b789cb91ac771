"""Fixtures shared by the tests."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def real_volume() -> Callable[..., Path]:
    """Return a function: the folder of a real volume, or a file in it; skips where it is absent."""

    def find(name: str, file: str | None = None) -> Path:
        data = Path(os.environ.get("VEMSEG_TEST_DATA", ROOT.parent / "shared" / "data"))
        path = data / name if file is None else data / name / file
        if not path.exists():
            pytest.skip(f"{path} is absent: set VEMSEG_TEST_DATA to the folder of real volumes")
        return path

    return find
