"""What the losses of a method promise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from maskbench.evaluation.cost import count_flops, peak_memory
from maskbench.methods.base import Segmenter
from maskbench.structures import Batch
from maskbench.testing.subject import Subject, overlaps, predict, seeded_losses, total


class Training(Subject):
    """Losses are finite numbers and reach every weight, whatever is on the photos and in whatever precision."""

    @pytest.mark.parametrize("case", ["batch", "without_objects"])
    def test_every_trainable_weight_gets_a_gradient_also_without_objects(
        self, fresh: Segmenter, case: str, batch: Batch, without_objects: Batch
    ) -> None:
        fresh.train().zero_grad(set_to_none=True)
        losses = fresh.loss({"batch": batch, "without_objects": without_objects}[case])
        _require_finite(losses)
        total(losses).backward()
        told = {"batch": "photos with objects", "without_objects": "photos without objects"}[case]
        trainable = {name: weight.grad for name, weight in fresh.named_parameters() if weight.requires_grad}
        assert trainable, "it has no weight that can be trained"
        without = [name for name, gradient in trainable.items() if gradient is None]
        assert not without, (
            f"{len(without)} of {len(trainable)} weights get no gradient from {told}, and training on several "
            f"devices waits for every one: {', '.join(without[:5])}. Where there is nothing to learn from, add 0 × the "
            "sum of what they say to a loss."
        )
        broken = [name for name, gradient in trainable.items() if not torch.as_tensor(gradient).isfinite().all()]
        assert not broken, f"gradients that are no finite numbers from {told}: {', '.join(broken[:5])}"

    def test_an_image_without_objects_beside_one_with_them(
        self, fresh: Segmenter, batch: Batch, without_objects: Batch
    ) -> None:
        mixed = replace(batch, targets=(batch.targets[0], without_objects.targets[1]))
        _require_finite(fresh.eval().loss(mixed))

    def test_the_order_of_the_targets_does_not_matter(self, fresh: Segmenter, batch: Batch) -> None:
        order = [torch.arange(len(target)).flip(0) for target in batch.targets]
        turned = tuple(target[rows] for target, rows in zip(batch.targets, order, strict=True))
        fresh.eval()
        expected, found = (seeded_losses(fresh, some) for some in (batch, replace(batch, targets=turned)))
        assert found == pytest.approx(expected, rel=0.02, abs=1e-3), (
            f"losses depend on the order of the targets: {expected}, and {found} the other way round"
        )

    def test_half_precision_keeps_every_loss_finite(self, fresh: Segmenter, batch: Batch) -> None:
        fresh.train().zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            losses = fresh.loss(batch)
        total(losses).backward()
        _require_finite(losses)

    def test_half_precision_predicts(self, trained: Segmenter, batch: Batch) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            predictions = predict(trained, batch)
        for found, expected, frame in zip(predictions, predict(trained, batch), batch.frames, strict=True):
            assert found.masks.size == frame.photo, f"masks of {found.masks.size} pixels for a photo of {frame.photo}"
            partner = overlaps(expected[:3], found).amax(dim=1)
            assert partner.min() > 0.5, (
                f"of the best three instances bfloat16 finds masks with an IoU of {partner.tolist()} only"
            )

    def test_memory_and_flops_are_measured_in_half_precision_too(self, fresh: Segmenter, batch: Batch) -> None:
        # counters stand between an operator and the autocast of those that it is made of
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            memory, _ = peak_memory(lambda: fresh.eval().predict(batch), torch.device("cpu"))
            assert count_flops(lambda: fresh.predict(batch)) > 0
        assert memory

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_a_gpu_computes_what_the_cpu_does(self, trained: Segmenter, batch: Batch) -> None:
        losses, found = seeded_losses(trained, batch), predict(trained, batch)
        trained.cuda()
        try:
            there, moved = predict(trained, batch.to("cuda")), seeded_losses(trained, batch.to("cuda"))
        finally:
            trained.cpu()
        assert set(moved) == set(losses)
        assert all(torch.isfinite(torch.tensor(value)) for value in moved.values()), moved
        for ours, theirs in zip(there, found, strict=True):
            partner = overlaps(theirs[:3], ours.to("cpu")).amax(dim=1)
            assert partner.min() > 0.9, f"of the best three instances a GPU finds masks with an IoU of {partner} only"

    def test_training_mode_changes_the_statistics_of_the_backbone_alone(self, trained: Segmenter, batch: Batch) -> None:
        expected: Any = seeded_losses(trained, batch), [found.scores for found in predict(trained, batch)]
        trained.train()
        trained.backbone.eval()
        losses, scores = seeded_losses(trained, batch), [found.scores for found in predict(trained, batch)]
        trained.eval()
        assert losses == pytest.approx(expected[0]), f"train() makes losses of {expected[0]} those: {losses}"
        torch.testing.assert_close(scores, expected[1], msg=lambda text: f"train() changes the scores: {text}")


def _require_finite(losses: dict[str, Tensor]) -> None:
    wrong = {name: value.detach() for name, value in losses.items() if value.shape != () or not value.isfinite()}
    assert not wrong, f"expected a finite number of each loss, found {wrong}"
