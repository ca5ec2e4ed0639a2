from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_method
from omegaconf import OmegaConf

from answers import answer
from cells import FRAME, matched, narrow, rectangles
from maskbench.errors import ConfigError
from maskbench.methods.discriminative import Discriminative, Raw
from maskbench.nn.decoders import semantic_fpn
from maskbench.nn.upsample import Doubling
from maskbench.ops.cluster import AffinityComponents, MeanShift
from maskbench.ops.grouping import SCORES
from maskbench.ops.masks import pairwise_iou
from maskbench.runtime.compose import build_method, composed
from maskbench.structures import Batch, Frame, Instances, Masks

ROOT = Path(__file__).resolve().parents[2]
DECODERS, UPSAMPLES, CLUSTERERS = (
    sorted(path.stem for path in (ROOT / "conf" / "method" / group).glob("*.yaml"))
    for group in ("decoder", "decoder/upsample", "cluster")
)


@pytest.fixture
def method(classes: tuple[str, ...]) -> Discriminative:
    decoder = partial(semantic_fpn, fpn_width=8, width=8)
    return Discriminative(backbone=narrow(), classes=classes, decoder=decoder, dimensions=8)


class TestPrediction:
    @pytest.mark.parametrize("score", [rule for rule in SCORES if rule != "learned"])
    def test_the_truth_gives_what_can_be_drawn_of_it(
        self, method: Discriminative, batch: Batch, truth: list[Instances], score: str
    ) -> None:
        method.score = score
        found = method.instances(answer(method, batch.targets), batch.frames)
        for instances, ceiling, true in zip(found, method.ceiling(batch), truth, strict=True):
            row, overlap = matched(instances, ceiling)
            assert overlap.tolist() == [1] * len(true)
            assert sorted(row.tolist()) == list(range(len(true)))
            assert torch.equal(instances.labels[row], ceiling.labels)
            torch.testing.assert_close(instances.scores, torch.ones(len(true)))
            assert pairwise_iou(ceiling.masks.dense(), true.masks.dense()).diagonal().min() > 0.9

    def test_objects_of_one_place_in_the_embedding_are_told_apart_by_class(self, method: Discriminative) -> None:
        target = rectangles((64, 64), (0, 0, 32, 64), (32, 0, 64, 64), labels=[0, 1])
        raw = answer(method, [target])
        found = method.instances(raw._replace(embedding=torch.zeros(1, 8, 16, 16)), [FRAME])[0]
        row, overlap = matched(found, target)
        assert len(found) == 2
        assert overlap.tolist() == [1, 1]
        assert found.labels[row].tolist() == [0, 1]

    def test_many_classes_do_not_blur_distances(self, method: Discriminative) -> None:
        """The last of 1203 classes clusters as the first would."""
        method.classes = tuple(f"class {label}" for label in range(1203))
        target = rectangles((64, 64), (0, 0, 32, 64), (32, 0, 64, 64), labels=[1202, 1202])
        raw = answer(method, [target], classes=1203)
        raw = raw._replace(embedding=0.3 * raw.embedding + 0.2 * torch.randn(1, 8, 16, 16))
        found = method.instances(raw, [FRAME])[0]
        assert found.labels.tolist() == [1202, 1202]
        assert matched(found, target)[1].tolist() == [1, 1]

    def test_a_small_object_keeps_its_class_beside_a_large_one(self, method: Discriminative) -> None:
        """Of 3528 cells of foreground every second is a seed, and none of those that the object's column holds."""
        size = (256, 256)
        target = rectangles(size, (0, 0, 220, 256), (224, 96, 228, 128), labels=[0, 1])
        found = method.instances(answer(method, [target]), [Frame(1, photo=size, resized=size)])[0]
        row, overlap = matched(found, target)
        assert len(found) == 2
        assert found.labels[row].tolist() == [0, 1]
        assert overlap[0] == 1

    def test_the_outline_runs_between_cells_where_the_class_says(self, method: Discriminative) -> None:
        """Background that is nearly the class gives the mask pixels of its cells; the cell behind it gives none."""
        raw = answer(method, [rectangles((64, 64), (0, 0, 32, 64), labels=[1])])
        raw.semantic[0, :, :, 8] = torch.tensor([-20.0, 0.0, 0.1])[:, None]
        found = method.instances(raw, [FRAME])[0]
        assert found.boxes.tolist() == [[0, 0, 34, 64]]

    def test_masks_never_overlap(self, method: Discriminative) -> None:
        """Whatever the network says of classes, also where background lies between two instances."""
        boxes = [(0, 0, 24, 64), (28, 0, 64, 28), (28, 28, 64, 64)]
        raw = answer(method, [rectangles((64, 64), *boxes, labels=[0, 0, 1])])
        noise = torch.randn(raw.semantic.shape, generator=torch.Generator().manual_seed(0))
        found = method.instances(raw._replace(semantic=raw.semantic / 10 + noise), [Frame(1, (61, 59), (64, 62))])[0]
        assert len(found) >= 3
        assert found.masks.dense().sum(dim=0).max() == 1

    @pytest.mark.parametrize(("smallest", "kept"), [(4, 2), (5, 1)])
    def test_the_smallest_instance(self, method: Discriminative, smallest: int, kept: int) -> None:
        target = rectangles((64, 64), (0, 0, 32, 32), (40, 40, 48, 48), labels=[0, 0])  # 64 and 4 cells
        method.smallest = smallest
        assert len(method.instances(answer(method, [target]), [FRAME])[0]) == kept

    def test_padding_is_no_foreground(self, method: Discriminative) -> None:
        """What is said there counts neither in the mask nor in the score."""
        raw = answer(method, [rectangles((64, 64), (0, 0, 64, 64), labels=[1])])
        raw.semantic[:, :, 10:] *= 0.05
        found = method.instances(raw, [Frame(1, photo=(40, 64), resized=(40, 64))])[0]
        assert found.masks.areas().tolist() == [40 * 64]
        assert found.scores.tolist() == pytest.approx([1])

    def test_threshold_and_number_of_instances(self, method: Discriminative) -> None:
        boxes = [(0, 0, 32, 24), (0, 24, 32, 40), (0, 40, 32, 64)]
        target = rectangles((64, 64), *boxes, labels=[0, 0, 0])
        raw, frames = answer(method, [target]), [FRAME]
        for row, certainty in zip(target.masks.dense(), (2.0, 1.0, 3.0), strict=True):  # softmax of 0.79, 0.58, 0.91
            raw.semantic[0][:, row[::4, ::4]] *= certainty / 20
        method.score = "semantic"
        expected = [math.exp(c) / (math.exp(c) + 2) for c in (3, 2, 1)]
        assert method.instances(raw, frames)[0].scores.tolist() == pytest.approx(expected)
        method.point = replace(method.point, score_threshold=0.7)
        assert method.instances(raw, frames)[0].scores.tolist() == pytest.approx(expected[:2])
        method.point = replace(method.point, max_instances=1)
        assert method.instances(raw, frames)[0].scores.tolist() == pytest.approx(expected[:1])


class TestTraining:
    def losses(self, method: Discriminative, raw: Raw, batch: Batch, patch: pytest.MonkeyPatch) -> dict[str, float]:
        patch.setattr(method, "forward", lambda images: raw)
        return {name: loss.item() for name, loss in method.loss(batch).items()}

    def test_the_truth_costs_nothing_but_the_regulariser(
        self, method: Discriminative, batch: Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losses = self.losses(method, answer(method, batch.targets), batch, monkeypatch)
        assert losses == pytest.approx({"semantic": 0, "pull": 0, "push": 0, "regulariser": 0.001 * 10}, abs=1e-5)

    def test_losses_arrive_weighted(
        self, method: Discriminative, batch: Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All cells in one place: nothing to pull, and two means of one class at 0 of the 3 they should be apart."""
        raw = answer(method, batch.targets)
        raw = raw._replace(embedding=torch.zeros_like(raw.embedding))
        method.embedding_weight, method.weights = 2.0, (1.0, 0.5, 0.001)
        losses = self.losses(method, raw, batch, monkeypatch)
        # The first image holds a pair of one class, the second holds none.
        expected = {"semantic": 0, "pull": 0, "push": 2 * 0.5 * (2 * 1.5) ** 2 / 2, "regulariser": 0}
        assert losses == pytest.approx(expected, abs=1e-5)

    def test_background_is_learnt_without_objects(
        self, method: Discriminative, without_objects: Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw = Raw(torch.zeros(2, 3, 32, 32), torch.randn(2, 8, 32, 32))
        losses = self.losses(method, raw, without_objects, monkeypatch)
        assert losses == pytest.approx({"semantic": math.log(3), "pull": 0, "push": 0, "regulariser": 0})

    def test_embeddings_start_apart(self, method: Discriminative) -> None:
        """What starts as one point takes epochs to part: of features as large as normalised ones, not some 1 %."""
        torch.manual_seed(0)
        spread = method.embed(torch.randn(1, 8, 40, 40)).std(dim=(2, 3))
        assert spread.mean().item() == pytest.approx(1, rel=0.4)


class TestParts:
    """What lies between backbone and branches, from a configuration."""

    @pytest.fixture
    def build(self, classes: tuple[str, ...]) -> Callable[..., Discriminative]:
        def build(*overrides: str) -> Discriminative:
            method = build_method(composed("train", ["backbone=tiny", *overrides]), classes)
            assert isinstance(method, Discriminative)
            return method

        return build

    @pytest.mark.parametrize("decoder", DECODERS)
    def test_a_step_of_training(self, build: Callable[..., Discriminative], batch: Batch, decoder: str) -> None:
        """A single image, as the last batch of an epoch may be."""
        method = build("method=small/discriminative", f"method/decoder={decoder}").train()
        assert method.decoder.width == 48
        single = Batch(batch.images[:1], batch.targets[:1], batch.frames[:1])
        optimiser = torch.optim.SGD(method.parameters(), lr=1e-3)
        before = torch.stack(list(method.loss(single).values())).sum()
        before.backward()
        assert [name for name, weight in method.named_parameters() if weight.grad is None] == []
        optimiser.step()
        after = torch.stack(list(method.loss(single).values())).sum()
        assert after < before

    @pytest.mark.parametrize("decoder", [name for name in DECODERS if not name.endswith("_thin")])
    def test_the_papers_settings_are_the_defaults(self, decoder: str) -> None:
        node: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "method" / "decoder" / f"{decoder}.yaml"))
        defaults = inspect.signature(get_method(node["_target_"])).parameters
        for key in node.keys() - {"_target_", "_partial_", "defaults"}:
            default = defaults[key].default
            assert node[key] == (list(default) if isinstance(default, tuple) else default) or key == "finest"

    @pytest.mark.parametrize("cluster", CLUSTERERS)
    def test_clusterers(self, build: Callable[..., Discriminative], batch: Batch, cluster: str) -> None:
        for name in ("discriminative", "small/discriminative", "crowded/discriminative"):
            method = build(f"method={name}", "method/decoder=semantic_fpn_thin", f"method/cluster={cluster}")
        with torch.inference_mode():
            assert len(method.predict(batch)) == len(batch)

    @pytest.mark.parametrize("upsample", UPSAMPLES)
    def test_ways_to_double(self, build: Callable[..., Discriminative], upsample: str) -> None:
        target = "".join(word.capitalize() for word in upsample.split("_"))
        for method, decoder in (("discriminative", "fcn16s"), ("small/discriminative", "unet")):
            built = build(f"method={method}", f"method/decoder={decoder}", f"method/decoder/upsample={upsample}")
            kinds = {type(part).__name__ for part in built.decoder.modules() if isinstance(part, Doubling)}
            assert kinds == {target}


def test_objects_of_too_few_cells_of_their_own_do_not_come_through(method: Discriminative) -> None:
    """Four by four cells of which a smaller object takes a row, and that row, which is as many as are asked for."""
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    masks[0, :16, :16], masks[1, :4, :16], masks[2, 24:28, 24:28] = True, True, True
    target = Instances(Masks(masks), Masks(masks).boxes(), torch.zeros(3, dtype=torch.long), torch.ones(3))
    batch = Batch(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), (target,), (Frame(1, (32, 32), (32, 32)),))
    assert method.reach(answer(method, [target]), batch) == [{"4 cells of its own": (2, 3)}]


class TestOracles:
    def test_each_mends_what_it_says(self, method: Discriminative) -> None:
        """A semantic map that misses one object, and an embedding that splits the other."""
        target = rectangles((64, 64), (0, 0, 32, 64), (32, 0, 64, 64), labels=[0, 1])
        raw = answer(method, [target])
        raw.semantic[0, :, :, 8:] = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
        raw.embedding[0, :, 8:, :8] += torch.tensor([0, 0, 3.0, *[0] * 5])[:, None, None]
        batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))
        assert [len(image) for image in method.instances(raw, [FRAME])] == [2]
        (known,) = method.given(raw, batch, "semantic map")
        assert sorted(known.labels.tolist()) == [0, 0, 1]
        (joined,) = method.given(raw, batch, "centres")
        assert joined.labels.tolist() == [0]
        assert matched(joined, target[:1])[1].item() > 0.95
        assert len(method.given(raw, batch, "count")[0]) == 2


class TestTrueCentres:
    def test_means_of_other_classes_are_no_rivals(self, method: Discriminative) -> None:
        """Objects of two classes lie in one place of the embedding, as the loss lets them."""
        target = rectangles((64, 64), (0, 0, 32, 64), (32, 0, 64, 64), labels=[0, 1])
        raw = answer(method, [target])._replace(embedding=torch.zeros(1, 8, 16, 16))
        batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))
        (found,) = method.given(raw, batch, "centres")
        row, overlap = matched(found, target)
        assert overlap.tolist() == [1, 1]
        assert found.labels[row].tolist() == [0, 1]


class TestClasses:
    def test_an_agnostic_embedding_pushes_all_apart_and_lets_most_cells_say_the_class(
        self, method: Discriminative, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = rectangles((64, 64), (0, 0, 32, 64), (32, 0, 64, 64), labels=[0, 1])
        raw = answer(method, [target])._replace(embedding=torch.zeros(1, 8, 16, 16))
        batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))
        monkeypatch.setattr(method, "forward", lambda images: raw)
        assert method.loss(batch)["push"].item() == pytest.approx(0, abs=1e-5)
        method.per_class = False
        assert method.loss(batch)["push"].item() == pytest.approx(9, abs=1e-4)
        raw.semantic[0, 0, :, :10] = 30  # five eighths are of class 0
        (found,) = method.instances(raw, [FRAME])
        assert found.labels.tolist() == [0]
        assert found.masks.areas().tolist() == [64 * 64]

    def test_settings_that_there_are_not_are_refused(self, method: Discriminative) -> None:
        with pytest.raises(ConfigError, match="'best'; expected one of constant, semantic, semantic_x_centre"):
            Discriminative(backbone=method.backbone, classes=method.classes, score="best")
        with pytest.raises(ConfigError, match="reduction='sum': expected one of paper, authors, pixels"):
            Discriminative(backbone=method.backbone, classes=method.classes, reduction="sum")

    def test_components_have_no_bandwidth_to_choose(self, method: Discriminative) -> None:
        with pytest.raises(ConfigError, match="AffinityComponents has no bandwidth"):
            Discriminative(
                backbone=method.backbone, classes=method.classes, cluster=AffinityComponents(), bandwidths=[1.0]
            )

    def test_bandwidths_are_numbers_above_nothing(self, method: Discriminative) -> None:
        with pytest.raises(ConfigError, match=r"bandwidths=\[1.0, -1.0\]: expected a list of numbers above 0"):
            Discriminative(backbone=method.backbone, classes=method.classes, bandwidths=[1.0, -1.0])

    def test_the_clusterer_is_a_part(self, method: Discriminative) -> None:
        target = rectangles((64, 64), (0, 0, 32, 64), (32, 0, 64, 64), labels=[0, 0])
        method.cluster = MeanShift(bandwidth=100.0)
        assert len(method.instances(answer(method, [target]), [FRAME])[0]) == 1
