from __future__ import annotations

from pathlib import Path

import pytest

from maskbench.runtime.searchpath import searched


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the configs of a package that can be imported."""
    folder = tmp_path / "somebodys" / "conf"
    folder.mkdir(parents=True)
    for made in (folder, folder.parent):
        (made / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_folders_are_found_by_all_words_that_name_them(package: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    assert searched([f"hydra.searchpath=[pkg://somebodys.conf,file://{own}]", "seed=1"]) == [package, own]
    assert searched([f'hydra.searchpath=["pkg://somebodys/conf","{own}"]']) == [package, own]
    assert (
        searched(["-m", f"--config-dir={own}"]) == searched(["--config-dir", str(own)]) == searched(["-cd", str(own)])
    )
    assert searched([f"--config-dir={own}", "hydra.searchpath=[pkg://somebodys.conf]"]) == [own, package]


@pytest.mark.parametrize("words", [[], ["seed=1"], ["hydra.searchpath=["], ["hydra.searchpath=null"]])
def test_where_none_is_named_there_is_none(words: list[str]) -> None:
    assert searched(words) == []
