from __future__ import annotations

import json
from pathlib import Path

import pytest

import exports
from maskbench.errors import ConfigError, RunError
from maskbench.runtime.objective import final_ap, require_last_validation, require_tune
from trained import TINY, composed


def write(run: Path, *aps: str) -> Path:
    rows = [f"{epoch},{ap}" for epoch, ap in enumerate(aps)]
    (run / "history.csv").write_text("\n".join(["epoch,tune/AP", *rows, ""]))
    return run


def test_it_is_the_ap_on_tune_after_the_last_epoch(tmp_path: Path) -> None:
    assert final_ap(write(tmp_path, "0.3", "", "0.2")) == 0.2


@pytest.mark.parametrize(
    ("aps", "told"),
    [
        (["0.3", ""], r"no AP on tune after epoch 2 \(the last of epoch 1\)"),
        (["nan"], r"no AP on tune after epoch 1 \(none\)"),
        (["inf"], r"no AP on tune after epoch 1 \(none\)"),
        ([], r"no AP on tune after epoch 0 \(none\)"),
        (["-1.0"], "AP on tune is -1, so no object is in that split"),
    ],
)
def test_a_run_without_it_is_told(tmp_path: Path, aps: list[str], told: str) -> None:
    with pytest.raises(RunError, match=told):
        final_ap(write(tmp_path, *aps))


def test_a_run_without_a_history_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"history\.csv: can't be read \(No such file or directory\)"):
        final_ap(tmp_path)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=3"], "the last of 4 epochs has none: set it to 4"),
        (["trainer.max_epochs=8", "trainer.check_val_every_n_epoch=4"], None),
        (["trainer.max_epochs=8", "trainer.check_val_every_n_epoch=4", "protocol.share=0.25"], "of 2 epochs has none"),
        (["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=3", "protocol.minutes=1"], None),
        (["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=3", "+trainer.max_steps=9"], None),
        (["trainer.max_epochs=null", "trainer.check_val_every_n_epoch=3"], None),
    ],
)
def test_settings_say_whether_the_last_epoch_has_it(settings: list[str], told: str | None) -> None:
    cfg = composed("train", settings)
    if told is None:
        require_last_validation(cfg)
        return
    with pytest.raises(ConfigError, match=told):
        require_last_validation(cfg)


def test_a_tune_split_without_objects_is_told() -> None:
    data = composed("train", TINY).data
    require_tune(data)
    data.tune_share = 0.0
    with pytest.raises(ConfigError, match=r"of the 0 photos .* data\.tune_share \(0\.0 now\) higher"):
        require_tune(data)


def test_a_tune_split_is_counted_where_it_is_found(tmp_path: Path) -> None:
    """Valid, of train, valid and test; a share of train, and of its groups, where there is nothing else."""
    data = composed("train", ["data=coco", f"data.root={exports.roboflow(tmp_path / 'three')}"]).data
    require_tune(data)
    path = tmp_path / "three/valid/_annotations.coco.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    with pytest.raises(ConfigError, match="of the 4 photos of that split none has an object"):
        require_tune(data)
    words = [f"data.root={exports.cvat(tmp_path / 'one')}", "data.test_share=0.5", "data.group_by='tray (.)'"]
    with pytest.raises(ConfigError, match="of the 0 photos of that split none"):  # one of two groups is for testing
        require_tune(composed("train", ["data=coco", *words]).data)


def test_a_tune_split_of_its_own_file_is_counted(tmp_path: Path) -> None:
    data = composed("train", ["data=coco", f"data.root={tmp_path}"]).data
    data.tune_annotations, data.train_annotations, data.test_annotations = "tune.json", "tune.json", "tune.json"
    empty = '{"images": [{"id": 1, "file_name": "a", "height": 8, "width": 8}], "annotations": [], "categories": '
    (tmp_path / "images").mkdir()
    (tmp_path / "tune.json").write_text(empty + '[{"id": 1, "name": "disc"}]}')
    with pytest.raises(ConfigError, match="of the 1 photos of that split none has an object"):
        require_tune(data)
