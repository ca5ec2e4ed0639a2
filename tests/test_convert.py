from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision.models
from safetensors.torch import save_file

from checkpoints import THIN, detectron2, mmdetection_solov2
from converted import CLASSES, converted, source, weights
from maskbench.benchmark import benchmark
from maskbench.convert import convert
from maskbench.data.shapes import draw
from maskbench.errors import ConfigError, DataError, WeightsError
from maskbench.evaluate import evaluate
from maskbench.predict import predict
from maskbench.runtime.run_folder import RunFolder, load_method
from maskbench.runtime.trial import identify
from maskbench.sweep.identity import trial_hash
from maskbench.train import train
from maskbench.weights.coco_names import COCO
from maskbench.weights.file import NOTE, load, save
from trained import TINY, call, composed

__all__ = ["weights"]  # a fixture

SHAPES = ("data=shapes", "data.root.images=16", "data.root.val_images=4", "data.root.size=64")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A disc on grey."""
    drawn = np.full((70, 90, 3), 90, np.uint8)
    cv2.circle(drawn, (40, 35), 20, (40, 200, 40), -1)
    cv2.imwrite(str(tmp_path / "photo.png"), drawn)
    return tmp_path / "photo.png"


def test_what_is_told_and_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep/ours.safetensors"
    overrides = (f"source={source(tmp_path)}", "layout=detectron2", "method=mask_rcnn", f"out={out}", CLASSES)
    found = call(convert, *overrides, "method.nms=0.6")
    assert json.loads(json.dumps(found)) == found
    assert (found["classes"], found["left_out"]) == (3, [])
    assert found["backbone"]["stride_in_1x1"]
    assert f"maskbench predict images=PHOTOS weights={out}" in capsys.readouterr().err.replace("\n", "")
    kept = load(out)
    assert (kept.classes, kept.category_ids, kept.size) == (("disc", "rectangle", "triangle"), (1, 2, 3), (800, 1333))
    assert kept.method == found["method"]
    assert kept.method["nms"] == 0.6
    assert len(kept.weights) == found["weights"]


def test_names_that_a_file_notes(tmp_path: Path) -> None:
    state = mmdetection_solov2(**THIN, head_width=8, depth=1, feature_width=8, kernels=4, classes=2)
    torch.save({"meta": {"dataset_meta": {"classes": ("cat", "dog")}}, "state_dict": state}, tmp_path / "epoch_12.pth")
    out = tmp_path / "ours.safetensors"
    call(convert, f"source={tmp_path / 'epoch_12.pth'}", "layout=mmdetection", "method=solov2", f"out={out}")
    assert load(out).classes == ("cat", "dog")


def test_errors_name_the_file(tmp_path: Path) -> None:
    given = ("layout=detectron2", "method=point_rend", f"source={source(tmp_path)}")
    with pytest.raises(
        WeightsError,
        match=r"model_3\.pth: no point_rend as detectron2 writes it \(.*method=mask_rcnn\):\n12 have no place",
    ):
        call(convert, *given, f"out={tmp_path}/ours.safetensors")
    with pytest.raises(ConfigError, match=r"out=.*ours.pth: expected a name that ends in \.safetensors"):
        call(convert, *given, f"out={tmp_path}/ours.pth")
    assert not (tmp_path / "ours.safetensors").exists()


def test_a_method_of_another_package_has_no_names_that_others_wrote(tmp_path: Path) -> None:
    theirs = ("hydra.searchpath=[pkg://paper.conf]", "method=tiny_paper", f"out={tmp_path}/ours.safetensors")
    with pytest.raises(ConfigError, match=r"_target_=paper\.method\.Cores: .* is known for our own methods alone"):
        call(convert, f"source={source(tmp_path)}", "layout=detectron2", *theirs)


class TestPredict:
    def test_a_photo(self, weights: Path, photo: Path, tmp_path: Path) -> None:
        found = call(predict, f"weights={weights}", f"images={photo}", f"out={tmp_path}/out", "score=0", "device=cpu")
        assert found["images"] == 1
        results = json.loads((tmp_path / "out/predictions.json").read_text())
        assert len(results) == found["instances"] > 0
        assert {result["category_id"] for result in results} <= {1, 2, 3}
        assert all(result["segmentation"]["size"] == [70, 90] for result in results)

    def test_what_segments_is_named_once(self, weights: Path, photo: Path) -> None:
        for named in ((), (f"weights={weights}", "run=some")):
            with pytest.raises(ConfigError, match="expected one of run=DIR, weights=FILE"):
                call(predict, *named, f"images={photo}")

    def test_a_file_that_convert_did_not_make(self, photo: Path, tmp_path: Path) -> None:
        save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
        (tmp_path / "broken.safetensors").write_bytes(b"no weights")
        for name, message in (
            ("plain", "holds weights without a note of what they are; maskbench convert writes one"),
            ("broken", r"not readable as converted weights .*; maskbench convert makes them"),
            ("absent", "no such file or folder"),
        ):
            with pytest.raises(WeightsError, match=rf"{name}\.safetensors: {message}"):
                call(predict, f"weights={tmp_path}/{name}.safetensors", f"images={photo}")

    @pytest.mark.parametrize(
        ("part", "message"),
        [
            ({"method": {"_target_": "os.system", "command": "true"}}, r"names os\.system, which is no class of"),
            ({"method": {"_target_": "maskbench.atomic.os.system"}}, r"names maskbench\.atomic\.os\.system"),
            ({"method": {"pool": {"_target_": "maskbench.nn.backbone.Path"}}}, r"names maskbench\.nn\.backbone\.Path"),
            ({"backbone": {"_target_": "maskbench.nn.nowhere.Thing"}}, r"names maskbench\.nn\.nowhere\.Thing"),
            (
                {"backbone": {"options": {"layers": [{"_target_": "os.system", "command": "true"}]}}},
                r"names os\.system",
            ),
            ({"backbone": {"name": "${oc.env:HOME}"}}, r"holds '\$\{oc\.env:HOME\}', which refers to something else"),
            ({"backbone": {"options": {"checkpoint_path": "x"}}}, r"has the options \['checkpoint_path'\], expected"),
        ],
    )
    def test_a_note_that_would_call_something_else(
        self, weights: Path, photo: Path, tmp_path: Path, part: dict[str, Any], message: str
    ) -> None:
        """Files come from strangers: what their notes name is not called."""
        kept = load(weights)
        changed = {name: {**getattr(kept, name), **values} for name, values in part.items()}
        save(replace(kept, **changed), tmp_path / "evil.safetensors")
        with pytest.raises(WeightsError, match=rf"evil\.safetensors: its note {message}"):
            call(predict, f"weights={tmp_path}/evil.safetensors", f"images={photo}")

    @pytest.mark.parametrize("part", [{"backbone": [1]}, {"method": "solov2"}, {"classes": [1, 2, 3]}, {"size": [1]}])
    def test_a_damaged_note(self, weights: Path, photo: Path, tmp_path: Path, part: dict[str, Any]) -> None:
        note = {name: value for name, value in asdict(load(weights)).items() if name != "weights"}
        path = tmp_path / "odd.safetensors"
        save_file({"a": torch.zeros(1)}, path, metadata={NOTE: json.dumps(note | part)})
        with pytest.raises(WeightsError, match=r"odd\.safetensors: its note of what the weights are is damaged"):
            call(predict, f"weights={path}", f"images={photo}")

    def test_heads_that_were_left_out_are_missed(self, photo: Path, tmp_path: Path) -> None:
        partial = converted(tmp_path, 80, CLASSES, "allow=[classes]")
        with pytest.raises(
            WeightsError, match=r"their 80\.safetensors: .*\n6 are missing:\n  box_head\.classify\.weight"
        ):
            call(predict, f"weights={partial}", f"images={photo}")


class TestByName:
    @pytest.mark.parametrize(
        ("name", "frozen_norm"), [("maskrcnn_resnet50_fpn", True), ("maskrcnn_resnet50_fpn_v2", False)]
    )
    def test_a_name_is_fetched_and_converted(
        self, name: str, frozen_norm: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None)
        entry = type(torchvision.models.get_model_weights(name).COCO_V1)
        monkeypatch.setattr(entry, "get_state_dict", lambda self, **_: model.state_dict())
        from maskbench.runtime.published import load_weights

        trained = load_weights(f"torchvision/{name}")
        norms = [layer for layer in trained.method.backbone.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        assert (not norms) is frozen_norm
        assert trained.category_ids == tuple(COCO)
        assert trained.method.pool.how.aligned is False  # type: ignore[attr-defined]
        assert (trained.cfg.transforms.eval.short, trained.cfg.transforms.eval.long) == (800, 1333)

    def test_without_a_network_it_says_what_to_do(self, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise OSError("no route to host")

        entry = type(torchvision.models.get_model_weights("maskrcnn_resnet50_fpn").COCO_V1)
        monkeypatch.setattr(entry, "get_state_dict", refuse)
        with pytest.raises(WeightsError, match=r"OSError: no route to host.*https://.*TORCH_HOME.*maskbench convert"):
            call(predict, "weights=torchvision/maskrcnn_resnet50_fpn", f"images={photo}")
        with pytest.raises(WeightsError, match="neither a file nor one of torchvision/maskrcnn_resnet50_fpn"):
            call(predict, "weights=torchvision/resnet50", f"images={photo}")


class TestEvaluate:
    def test_a_data_set(self, weights: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        found = call(evaluate, f"weights={weights}", *SHAPES, f"out={out}", "device=cpu")
        assert found["images"] == 4
        assert 0 <= found["segm"]["AP"] <= 1
        assert found["ceiling"]["segm"]["AP"] > 0.8
        assert json.loads((out / "metrics.json").read_text())["segm"] == found["segm"]
        assert (out / "predictions.json.gz").exists()

    def test_a_folder_with_nothing_to_train_on(self, weights: Path, tmp_path: Path) -> None:
        root = draw(cache=tmp_path, images=1, val_images=3, size=64)
        (root / "annotations/instances_train.json").unlink()
        words = ("data=coco", f"data.root={root}", "evaluation=default", "evaluation.iou_types=[bbox]")
        found = call(evaluate, f"weights={weights}", *words, f"out={tmp_path}/out", "device=cpu")
        assert found["images"] == 3

    def test_an_operating_point_of_ones_own(self, weights: Path, tmp_path: Path) -> None:
        point = ("evaluation=default", "evaluation.iou_types=[bbox]", "transforms=small")
        found = call(evaluate, f"weights={weights}", *SHAPES, *point, f"out={tmp_path}/out", "device=cpu")
        assert "bbox" in found
        assert "segm" not in found

    def test_data_of_other_classes(self, tmp_path: Path) -> None:
        other = converted(tmp_path, 80)
        with pytest.raises(DataError, match=r"the classes disc, rectangle, triangle, but .* knows person, .* \(80\)"):
            call(evaluate, f"weights={other}", *SHAPES, f"out={tmp_path}/out")

    def test_what_does_not_go_together(self, weights: Path) -> None:
        with pytest.raises(ConfigError, match=r"say data=coco data\.root=PATH"):
            call(evaluate, f"weights={weights}")
        with pytest.raises(ConfigError, match="iou_type=bbox belongs to predictions=FILE; weights="):
            call(evaluate, f"weights={weights}", "iou_type=bbox")
        with pytest.raises(ConfigError, match="data belongs to weights=FILE; run=some is evaluated as its own"):
            call(evaluate, "run=some", *SHAPES)
        with pytest.raises(ConfigError, match="transforms belongs to weights=FILE; predictions=some are scored"):
            call(evaluate, "predictions=some", "annotations=other", "transforms=small")


def test_weights_are_timed(weights: Path) -> None:
    found = call(benchmark, f"weights={weights}", *SHAPES, "images=2", "device=cpu")["runs"]
    assert set(found) == {weights.name}
    assert found[weights.name]["fps"] > 0
    with pytest.raises(ConfigError, match="data and transforms belong to weights=FILE"):
        call(benchmark, "run=some", *SHAPES)


LIKE_IT = (
    *(setting for setting in TINY if not setting.startswith("method")),
    "method=mask_rcnn",
    "method.width=16",
    "method.mask_width=16",
    "method.box_width=8",
    "method.post_nms=[20,20]",
    "method.regions=[8,0.25]",
    "backbone=resnet50_msra",
    "+backbone.options={layers:[1,1,1,1],channels:[8,8,8,8]}",
    "trainer.max_epochs=1",
    "logger=none",
    "speed.enabled=false",
)
CHOICES = {"method": "mask_rcnn", "data": "shapes"}


class TestTrain:
    @pytest.mark.parametrize("classes", [3, 80])
    def test_training_starts_from_weights(
        self, classes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """At a learning rate of 0 they stay what they were; of other classes the heads alone are new."""
        weights = converted(tmp_path, classes)
        still = ("optim.optimiser.lr=0", f"runs={tmp_path}")
        found = call(train, *LIKE_IT, *still, f"weights={weights}")
        run = load_method(found["run"])
        kept, state = load(weights).weights, run.method.state_dict()
        other = {name for name, value in kept.items() if not torch.equal(state[name], value)}
        heads = {f"{layer}.{part}" for layer in HEADS for part in ("weight", "bias")}
        assert other == (heads if classes == 80 else set())
        told = capsys.readouterr().err.replace("\n", " ")
        assert ("box_head.classify, box_head.regress, mask_head.logits start anew" in told) is (classes == 80)
        fields = json.loads(RunFolder(Path(found["run"])).fairness.read_text())["footing"]["fields"]
        assert len(fields["weights.content"]) == 64
        assert fields["backbone.weights"] == "scratch"

    def test_a_trial_is_another_by_the_content_of_its_weights(self, weights: Path, tmp_path: Path) -> None:
        def name(*overrides: str) -> str:
            return identify(composed("train", [*LIKE_IT, *overrides]), CHOICES).folder.name

        copy = tmp_path / "copy.safetensors"
        copy.write_bytes(weights.read_bytes())
        assert name(f"weights={copy}") == name(f"weights={weights}") != name()
        copy.write_bytes(b"other")
        assert name(f"weights={copy}") != name(f"weights={weights}")
        with pytest.raises(WeightsError, match=r"weights=nowhere\.safetensors: no such file"):
            name("weights=nowhere.safetensors")

    def test_a_trial_without_weights_keeps_its_name(self) -> None:
        """Trials of before there were any are not trained again."""
        trial = identify(composed("train", LIKE_IT), CHOICES)
        assert "weights" not in trial.cfg
        assert trial.folder.name.endswith(trial_hash(dict(trial.cfg), trial.fingerprint))

    def test_a_backbone_that_sees_otherwise_is_refused(self, weights: Path, tmp_path: Path) -> None:
        plain = [setting.replace("resnet50_msra", "resnet50") for setting in LIKE_IT]
        with pytest.raises(
            WeightsError, match=r"\+\+backbone\.std=\[1\.0,1\.0,1\.0\] \+\+backbone\.stride_in_1x1=True"
        ):
            call(train, *plain, f"weights={weights}", f"runs={tmp_path}")


HEADS = ("box_head.classify", "box_head.regress", "mask_head.logits")


def test_a_backbone_alone_goes_into_a_method(photo: Path, tmp_path: Path) -> None:
    state = {
        name.removeprefix("backbone.bottom_up."): value
        for name, value in detectron2(**THIN).items()
        if name.startswith("backbone.bottom_up.")
    }
    torch.save({"model": state, "matching_heuristics": True}, tmp_path / "R-50.pth")
    out = tmp_path / "r50.safetensors"
    call(convert, f"source={tmp_path / 'R-50.pth'}", "layout=detectron2", f"out={out}")
    from maskbench.runtime.compose import make

    cfg = composed("train", [*LIKE_IT, f"backbone.weights={out}"])
    backbone = make(cfg.backbone)
    stem = state["stem.conv1.weight"].flip(1)
    assert torch.equal(backbone.body.conv1.weight, stem)
    with pytest.raises(
        WeightsError, match=rf"holds a backbone alone; train a method on it with backbone\.weights={out}"
    ):
        call(predict, f"weights={out}", f"images={photo}")
