"""A method that can't learn a few photos by heart is broken, whatever else its tests say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from maskbench.train import train
from trained import call

METHODS = Path(__file__).parents[1] / "conf" / "method"
NAMES = sorted(path.stem for path in (METHODS / "small").glob("*.yaml"))
PAPERS = sorted(path.stem for path in METHODS.glob("*.yaml"))


FLOOR = "semantic"  # whose components make one of two objects of a class that touch, however well it has learnt


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != FLOOR])
def test_eight_drawn_images_are_learnt_by_heart(name: str, tmp_path: Path) -> None:
    """To 0.9 AP50, or 95 % of what the method's masks can draw of the truth, as experiments/overfit asks on COCO."""
    metrics = call(
        train,
        "experiment=overfit",
        f"method=small/{name}",
        "data=shapes",
        "data.root.images=8",
        "data.root.val_images=1",
        "transforms=small",
        "transforms.train.augment=[]",
        "trainer.max_epochs=400",
        "threads=1",
        "logger=none",
        "speed.enabled=false",
        f"runs={tmp_path}",
    )
    assert metrics["images"] == 8
    assert metrics["segm"]["AP50"] >= min(0.9, 0.95 * metrics["ceiling"]["segm"]["AP50"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_real_photographs_are_trained_on_and_judged(name: str, tmp_path: Path, shared: Path) -> None:
    """Sixteen crowded photographs, once: from bytes on a disc to COCO results and a score, for every method."""
    data = shared / "data" / "dsb2018"
    truth = json.loads((data / "annotations/instances_val.json").read_text())
    truth["images"] = sorted(truth["images"], key=lambda image: image["height"] * image["width"])[:4]
    ids = {image["id"] for image in truth["images"]}
    truth["annotations"] = [note for note in truth["annotations"] if note["image_id"] in ids]
    (tmp_path / "four.json").write_text(json.dumps(truth))
    metrics = call(
        train,
        "experiment=nuclei",
        f"method=crowded/{name}",
        f"data.root={data}",
        f"data.test_annotations={tmp_path / 'four.json'}",
        "data.limit=16",
        "trainer.max_epochs=1",
        "threads=1",
        "logger=none",
        "speed.images=2",
        f"runs={tmp_path}",
    )
    assert (metrics["images"], metrics["images_seen"]) == (4, 16)
    assert 0 <= metrics["segm"]["AP50"] <= 1
    assert metrics["ceiling"]["segm"]["AP50"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_backbone_is_trained(name: str, tmp_path: Path) -> None:
    """In a process of its own, since shapes that are checked while they are traced are no numbers."""
    settings = [
        "data.root.images=8",
        "data.root.val_images=2",
        "data.root.size=64",
        "data.tune_share=0",
        "data.batch=4",
    ]
    settings += ["trainer.max_epochs=1", "threads=1", "logger=none", "speed.enabled=false", f"runs={tmp_path}"]
    command = [sys.executable, "-m", "maskbench.train", f"method=small/{name}", "backbone.compile=true", *settings]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["images_seen"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_a_few_steps_of_the_standard_recipe(name: str, tmp_path: Path, shared: Path) -> None:
    """Two steps at full size and width on photographs of COCO, and one photograph judged, for every method."""
    data = shared / "data" / "coco_slice"
    truth = json.loads((data / "annotations/instances_val.json").read_text())
    truth["images"] = truth["images"][:1]
    truth["annotations"] = [note for note in truth["annotations"] if note["image_id"] == truth["images"][0]["id"]]
    (tmp_path / "one.json").write_text(json.dumps(truth))
    metrics = call(
        train,
        f"experiment=coco_r50_1x{'_solo' if 'solo' in name else ''}",
        f"method={name}",
        "backbone.weights=scratch",
        "data=coco",
        f"data.root={data}",
        f"data.test_annotations={tmp_path / 'one.json'}",
        "data.limit=2",
        "data.batch=1",
        "trainer.max_epochs=1",
        "logger=none",
        "speed.enabled=false",
        f"runs={tmp_path}",
    )
    assert (metrics["images"], metrics["images_seen"]) == (1, 2)
    assert metrics["ceiling"]["segm"]["AP50"] > 0.6
