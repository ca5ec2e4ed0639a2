from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from maskbench.runtime.command_line import explain, usage


def refused(root: Path, override: str) -> str:
    folder = str(root / "conf")
    with initialize_config_dir(version_base="1.3", config_dir=folder), pytest.raises(HydraException) as raised:
        compose("train", [override])
    return explain(raised.value, root / "conf")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.root=/photos/my data (1)", "data.root=/photos/my data (1) can't be read"),
        ("data.root=photos/[ab]", "'data.root=\"photos/[ab]\"'"),
        ("data.root=~/photos", f"~ is not expanded: write {Path.home()}"),
        ("seed", "seed: expected SETTING=VALUE"),
    ],
)
def test_what_hydra_cannot_read_is_told_with_what_it_can(root: Path, override: str, told: str) -> None:
    found = refused(root, override)
    assert told in found
    if "quotes" in found:
        advised = found.split("shell: '")[1].split("'.")[0]
        with initialize_config_dir(version_base="1.3", config_dir=str(root / "conf")):
            assert compose("train", ["data=coco", advised]).data.root == override.partition("=")[2]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("method=small/solo2", r"there is no method=small/solo2; did you mean small/solov?2? or small/solov?2?\?"),
        ("data=nowhere", "there is no data=nowhere; there are coco, coco2017, nuclei, shapes, shapes_hard"),
        ("trainer.epochs=1", r"there is no setting trainer\.epochs; did you mean trainer\.max_epochs"),
        ("trainr.max_epochs=1", r"there is no setting trainr; did you mean trainer"),
    ],
)
def test_what_is_not_there_is_told_with_what_is_near(root: Path, override: str, told: str) -> None:
    assert re.match(told, refused(root, override))


@pytest.mark.parametrize("verb", ["train", "convert", "predict"])
def test_help_is_the_verbs_file_with_its_comments(root: Path, verb: str) -> None:
    text = usage(verb, root / "conf")
    assert text.startswith(f"usage: maskbench {verb} [SETTING=VALUE ...]")
    for line in (root / "conf" / f"{verb}.yaml").read_text().splitlines():
        assert line in text


def test_help_lists_the_choices_of_the_verbs_own_groups(root: Path) -> None:
    assert "  data=coco|coco2017|nuclei|shapes|shapes_hard\n" in usage("train", root / "conf")
    assert "optim=" not in usage("convert", root / "conf")
