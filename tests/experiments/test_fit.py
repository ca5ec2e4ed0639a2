"""The narrow methods of experiments/fit differ from the papers' in what they cost, not in what can be fitted."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from maskbench.data.fitting.rules import RULES
from trained import composed

FOLDER = Path(__file__).parents[2] / "experiments" / "fit"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="a source distribution has no experiments")


@pytest.mark.parametrize("method", ["solov2", "mask_rcnn"])
def test_the_baseline_has_the_papers_settings(method: str) -> None:
    searched = f"hydra.searchpath=['file://{FOLDER}']"
    narrow, paper = (
        OmegaConf.to_container(composed("train", [searched, f"method={name}"]).method)
        for name in (f"narrow/{method}", method)
    )
    differing = {f"method.{name}" for name in paper if narrow[name] != paper[name]}
    fitted = {rule.setting for rule in RULES if rule.setting.removeprefix("method.") in paper}
    assert narrow.keys() == paper.keys()
    assert differing & fitted <= {"method.regions"}  # of which the paper's 512 are no matter of minutes on a CPU
    assert len(fitted) >= 3  # a SOLO's grids and ranges, and what shares a name with a centre's bump
