"""How far the true objects come through the stages of a method, which what follows starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from maskbench.evaluation.records import Records
from maskbench.structures import Frame

Stages = Mapping[str, tuple[int, int]]
"""By stage of one image: how many come through it, and of how many."""


class Reach(Records):
    """Sums over images, by stage: recall of proposals, objects that own a cell of a grid, and the like."""

    def update(self, stages: Sequence[Stages], frames: Sequence[Frame]) -> None:
        """Take what a method says of a batch (`Segmenter.reach`)."""
        for found, frame in zip(stages, frames, strict=True):
            self.keep(frame.image_id, found)

    def compute(self) -> dict[str, dict[str, int]]:
        """`reached` and `of` by stage, in the method's order."""
        total: dict[str, dict[str, int]] = {}
        for image in self.merged():
            for stage, (reached, of) in image.items():
                sums = total.setdefault(stage, {"reached": 0, "of": 0})
                sums["reached"] += reached
                sums["of"] += of
        return total
