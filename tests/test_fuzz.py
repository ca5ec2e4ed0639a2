"""Two thousand of the inputs that `fuzz.py` draws, the same ones every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fuzz import KINDS, changed, damaged, feed_many

INPUTS = {"annotations": 500, "run lengths": 500, "photos": 300, "checkpoints": 300, "runs": 300, "settings": 100}


@pytest.mark.parametrize("name", KINDS)
def test_nothing_but_errors_of_ours_comes_out(name: str, tmp_path: Path) -> None:
    feed_many(name, INPUTS[name], tmp_path)


def test_what_raises_something_else_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fragile(path: Path) -> np.ndarray:
        if b"JFIF" in path.read_bytes():
            raise ZeroDivisionError
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr("fuzz.read_photo", fragile)
    with pytest.raises(ZeroDivisionError):
        feed_many("photos", 100, tmp_path)


def test_damage_by_hand() -> None:
    assert damaged(b"abcd", [("bit", 0, 0)]) == b"`bcd"
    assert damaged(b"abcd", [("cut", 2, 0), ("insert", 0, 120)]) == b"xab"
    assert damaged(b"abcd", [("delete", 1, 1)]) == b"ad"
    assert damaged(b"abcd", [("repeat", 0, 1), ("byte", 5, 65)]) == b"ababcA"[:5] + b"A"
    assert changed({"a": [1, 2]}, [("set", 1, "x")]) == {"a": ["x", 2]}
    assert changed({"a": [1, 2]}, [("delete", 2, None)]) == {"a": [1]}
    assert changed({}, [("set", 0, 1)]) == {}
