from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from maskbench.data import fingerprint as module
from maskbench.data.coco import CocoFile
from maskbench.data.fingerprint import fingerprint, list_files
from maskbench.errors import DataError

SPLITS = [("annotations/instances_train.json", "images"), ("annotations/instances_val.json", "images")]


def files_of(root: Path) -> list[str]:
    return list_files(root, [(name, images, CocoFile(root / name)) for name, images in SPLITS])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKBENCH_CACHE", str(tmp_path / "cache"))


def test_files_are_listed_once_in_the_order_of_ids(write) -> None:
    root = write()
    train, val = (name for name, _ in SPLITS)
    assert files_of(root) == [train, "images/a.png", "images/b.png", "images/c.png", val]


def test_it_names_contents_not_places(write, tmp_path: Path) -> None:
    root = write()
    files = files_of(root)
    found = fingerprint(root, files)
    shutil.copytree(root, tmp_path / "elsewhere")
    assert fingerprint(tmp_path / "elsewhere", files) == found
    assert len(found) == 16
    for name in ("annotations/instances_val.json", "images/b.png"):
        path = tmp_path / "elsewhere" / name
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert fingerprint(tmp_path / "elsewhere", files) != found
        path.write_bytes(before)
    assert fingerprint(tmp_path / "elsewhere", files) == found


def test_contents_are_read_once(write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write()
    files = files_of(root)
    found = fingerprint(root, files)
    monkeypatch.setattr(module, "_digest", lambda path: pytest.fail(f"{path} was read again"))
    assert fingerprint(root, files) == found
    os.utime(root / "images" / "a.png", (1, 1))
    with pytest.raises(pytest.fail.Exception, match="read again"):
        fingerprint(root, files)


def test_missing_files_are_named_with_what_to_do(write, content: dict) -> None:
    root = write()
    files = files_of(root)
    (root / "images" / "b.png").unlink()
    with pytest.raises(DataError, match=r"images/b.png: no such image .* check the image folder"):
        fingerprint(root, files)
    (root / "annotations" / "instances_val.json").unlink()
    with pytest.raises(DataError, match=r"instances_val.json: no such file; .* holds instances_train.json"):
        files_of(root)
    with pytest.raises(DataError, match="no such file"):
        fingerprint(root, ["annotations/instances_val.json"])
    assert json.loads((root / "annotations" / "instances_train.json").read_text()) == content
