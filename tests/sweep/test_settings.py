from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from maskbench.errors import RunError
from maskbench.sweep.settings import config, settings


def test_settings_are_those_of_the_config(tmp_path: Path) -> None:
    content = {"data": {"root": {"_target_": "maskbench.data.shapes.draw", "hue": "any"}}, "trainer": {"max_epochs": 4}}
    OmegaConf.save(OmegaConf.create(content), tmp_path / "config.yaml")
    assert settings(tmp_path) == content


def test_a_number_without_a_point_is_one_as_in_an_omegaconf(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("lr: 1e-3\nmost: +2E6\nhash: '1e7'\nname: 1e-3x\n")
    found = {"lr": 0.001, "most": 2e6, "hash": "1e7", "name": "1e-3x"}
    assert settings(tmp_path) == config(tmp_path) == OmegaConf.load(tmp_path / "config.yaml") == found


def test_what_no_config_can_hold_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("ended: 2026-01-01\n")
    with pytest.raises(RunError, match=r"config\.yaml: not readable as a config"):
        config(tmp_path)


@pytest.mark.parametrize("content", [None, "", "[1, 2]"])
def test_what_has_no_settings_has_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    assert settings(tmp_path) == {}


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00"])
def test_what_cant_be_read_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(RunError, match="not readable as a config"):
        settings(tmp_path)
