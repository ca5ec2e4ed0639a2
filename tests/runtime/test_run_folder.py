from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from maskbench.errors import RunError, WeightsError
from maskbench.runtime.run_folder import RunFolder, load, load_method, read_json, write_json
from trained import run

__all__ = ["run"]


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A finished run to break."""
    return shutil.copytree(run, tmp_path / run.name)


def test_a_run_gives_back_its_data_and_its_method(run: Path) -> None:
    cfg, data, method = load(run)
    assert cfg.method_name == "solov2-small"
    assert data.classes == method.classes
    assert not method.training
    stored = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, stored[name]) for name, value in method.state_dict().items())


def test_labels_keep_their_categories(run: Path) -> None:
    _, data, _ = load(run)
    assert load_method(run).category_ids == data.category_ids


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run \(expected a folder with config\.yaml"):
        load(tmp_path)


def test_a_run_that_has_not_finished_an_epoch(copy: Path) -> None:
    (copy / "checkpoints/last.ckpt").unlink()
    with pytest.raises(WeightsError, match="has not finished an epoch"):
        load_method(copy)


def test_a_config_of_another_method(copy: Path) -> None:
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("head_width: ", "head_width: 1"))
    with pytest.raises(WeightsError, match="does not fit SOLOv2"):
        load_method(copy)


def test_a_config_without_a_part(copy: Path) -> None:
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("\nbackbone:", "\nspine:"))
    with pytest.raises(RunError, match=r"config\.yaml: lacks backbone, which every run writes"):
        load_method(copy)


@pytest.mark.parametrize("fitted", [[1], {"bandwidth": 1.0}, {"bandwidth": {"value": "x"}}])
def test_damaged_choices_of_tune(copy: Path, fitted: object) -> None:
    write_json(copy / "metrics.json", read_json(copy / "metrics.json") | {"fitted": fitted})
    with pytest.raises(RunError, match=r"metrics\.json: `fitted` is .*expected settings with their values"):
        load_method(copy)


def test_a_damaged_config(copy: Path) -> None:
    (copy / "config.yaml").write_text("a: [")
    with pytest.raises(RunError, match="not readable as a config"):
        load_method(copy)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("_target_: maskbench.methods.solov2.SOLOv2", "_target_: paper.SOLOv2", "MASKBENCH_TRUSTED=paper"),
        ("_target_: maskbench.data.shapes.draw", "_target_: os.system", r"data\.root\._target_=os\.system would run"),
        ("study: trained", "study: ${oc.env:HOME}", r"holds '\$\{oc\.env:HOME\}', which refers to something else"),
        ("study: trained", 'study: "\\x24{oc.env:HOME}"', "which refers to something else"),
        ("study: trained", "study: !!python/object/apply:os.system ['true']", "not readable as a config"),
        ("study: trained", "a: &a [1, 2]\nstudy: [*a, *a]", r"has aliases \(\*NAME\)"),
        ("study: trained", f"study: {'[' * 5000}", "not readable as a config"),
    ],
)
def test_a_config_that_would_do_something(copy: Path, old: str, new: str, told: str) -> None:
    config = copy / "config.yaml"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    with pytest.raises(RunError, match=rf"config\.yaml: .*{told}"):
        load_method(copy)


def test_a_method_of_others_is_called_once_it_is_trusted(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody/nets.py").write_text("from maskbench.methods.solov2 import SOLOv2\nclass Net(SOLOv2): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("maskbench.methods.solov2.SOLOv2", "somebody.nets.Net"))
    with pytest.raises(RunError, match=r"method\._target_=somebody\.nets\.Net would run .* MASKBENCH_TRUSTED=somebody"):
        load_method(copy)
    monkeypatch.setenv("MASKBENCH_TRUSTED", "somebody")
    assert type(load_method(copy).method).__name__ == "Net"


def test_a_data_set_with_other_classes(copy: Path) -> None:
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("- triangle", "- star"))
    with pytest.raises(RunError, match=r"was trained on the classes .*triangle.* has .*star.* now"):
        load(copy)


def test_json_is_replaced_whole_and_errors_name_the_file(tmp_path: Path) -> None:
    path = RunFolder(tmp_path).metrics
    write_json(path, {"AP": 0.5})
    assert read_json(path) == {"AP": 0.5}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]
    path.write_text("{")
    with pytest.raises(RunError, match=r"metrics\.json: not readable"):
        read_json(path)
    with pytest.raises(RunError, match=r"speed\.json: missing"):
        read_json(RunFolder(tmp_path).speed)
