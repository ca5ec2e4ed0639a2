"""Our own methods are held to the contract that is there for everybody's, and to what only files of ours promise."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from exported import exported_alike
from maskbench.errors import ConfigError
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import build_method, composed
from maskbench.runtime.exporting import Format, Input
from maskbench.structures import Batch
from maskbench.testing.contract import Contract

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "conf" / "method"
PAPERS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if "_target_" in OmegaConf.load(path))


class TestContract(Contract):
    """Of every method in conf/method, which are found by globbing."""

    configs = ROOT / "conf"
    test_none_of_its_configs_has_the_name_of_one_of_ours = None  # they are
    test_a_gpu_computes_what_the_cpu_does = pytest.mark.gpu(Contract.test_a_gpu_computes_what_the_cpu_does)

    @pytest.mark.slow
    @pytest.mark.parametrize("format", ["torch", "onnx"])
    def test_an_exported_network_is_read_as_the_method_itself(
        self, trained: Segmenter, batch: Batch, format: Format, tmp_path: Path
    ) -> None:
        exported_alike(trained, batch, format, tmp_path, Input())


@pytest.mark.parametrize("name", PAPERS)
def test_a_method_has_the_same_stem_in_every_room(name: str) -> None:
    target = OmegaConf.load(CONFIGS / f"{name}.yaml")["_target_"]
    assert target.rsplit(".", 1)[0] == f"maskbench.methods.{name}"
    assert (ROOT / "src" / "maskbench" / "methods" / f"{name}.py").is_file()
    assert (ROOT / "tests" / "methods" / f"test_{name}.py").is_file()


def test_no_method_is_without_a_config() -> None:
    modules = {path.stem for path in (ROOT / "src" / "maskbench" / "methods").glob("*.py")}
    assert modules - {"__init__", "base", "bottom_up", "optim"} == set(PAPERS)


@pytest.mark.parametrize("name", ["solo", "decoupled_solo", "solov2"])
def test_grids_refuse_maps_that_they_do_not_lie_on(name: str) -> None:
    cfg = composed("train", [f"method=small/{name}", "backbone=tiny", "backbone.strides=[2,4,8,16,32]"])
    with pytest.raises(ConfigError, match=r"the backbone's have \[2, 4, 8, 16, 32\]: leave backbone.strides"):
        build_method(cfg, ("red", "blue"))
