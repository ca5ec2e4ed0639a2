"""What annotation tools export is trained on and judged, by nothing but the name of its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import exports
from maskbench.data import labelme
from maskbench.errors import DataError
from maskbench.runtime.run_folder import read_json
from maskbench.train import train
from trained import call

TINY = (
    "experiment=mine",
    "method=small/solov2",
    "transforms.eval.short=48",
    "data.batch=2",
    "data.limit=4",
    "evaluation=default",
    "evaluation.iou_types=[segm]",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.check_val_every_n_epoch=1",
    "logger=none",
    "speed.enabled=false",
    "threads=1",
)


def converted(folder: Path) -> Path:
    labelme.convert(exports.labelme(folder / "drawn"), folder / "coco")
    return folder / "coco"


EXPORTS: dict[str, tuple[Callable[[Path], Path], tuple[int, int], list[str]]] = {
    "cvat": (exports.cvat, (4, 1), ["coin", "key"]),
    "label studio": (exports.label_studio, (4, 1), ["coin", "key"]),
    "roboflow": (exports.roboflow, (4, 4), ["trays", "coin", "key"]),
    "labelme2coco": (exports.labelme2coco, (4, 1), ["coin", "key"]),
    "labelme": (converted, (4, 1), ["coin", "key"]),
}
"""The export, how many photos are trained on and judged, and its classes."""


def test_a_folder_that_is_none_is_told_before_a_trial_starts(tmp_path: Path) -> None:
    exports.labelme(tmp_path / "drawn")
    for folder, told in (("nowhere", "nowhere: no such folder"), ("drawn", "python -m maskbench.data.labelme SOURCE")):
        with pytest.raises(DataError, match=told):
            call(train, *TINY, f"data.root={tmp_path / folder}", f"runs={tmp_path / 'runs'}")
    assert not (tmp_path / "runs").exists()


# COCO's evaluation misses the annotation of id 0, which most of these tools begin with
@pytest.mark.filterwarnings("ignore:.*an annotation has id 0")
@pytest.mark.parametrize(
    "tool", [pytest.param(tool, marks=pytest.mark.slow if tool.startswith("labelme") else ()) for tool in EXPORTS]
)
def test_an_export_trains_and_is_judged(tool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export, (seen, judged), classes = EXPORTS[tool]
    root = export(tmp_path / "my trays, (1) [ü]")
    found = call(train, *TINY, f'data.root="{root}"', f"runs={tmp_path / 'runs'}")
    told = capsys.readouterr().err
    assert ("20% of its photos are set apart by hash" in " ".join(told.split())) is (tool != "roboflow")
    metrics = read_json(Path(found["run"]) / "metrics.json")
    assert (metrics["images_seen"], metrics["images"]) == (seen, judged)
    assert list(metrics["per_class"]["segm"]) == classes
    assert 0 <= metrics["segm"]["AP"] <= metrics["ceiling"]["segm"]["AP"] <= 1
    assert metrics["ceiling"]["segm"]["AP"] > 0.5
