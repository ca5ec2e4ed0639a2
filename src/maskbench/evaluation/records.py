"""What several processes find out about images, an image counted once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import Module
from torchmetrics import Metric


class Records(Metric):
    """Keeps something about each image in host memory, wherever the metric goes.

    When processes share the work, their records are gathered and an image that several of them saw (samplers repeat
    images to give every process as many) counts once.
    """

    is_differentiable = False
    full_state_update = False

    records: list[tuple[int, str]]

    def __init__(self) -> None:
        super().__init__()
        # An image's record as text: hashable, picklable and free to copy, all of which torchmetrics does with states.
        self.add_state("records", default=[], dist_reduce_fx=None)

    def keep(self, image_id: int, record: Any) -> None:
        """Something that JSON can hold."""
        self.records.append((image_id, json.dumps(record)))

    def merged(self) -> list[Any]:
        """One record an image, by image id, of the processes whose states are synchronised by now."""
        first: dict[int, str] = {}
        for image_id, record in self.records:
            first.setdefault(image_id, record)
        return [json.loads(first[image_id]) for image_id in sorted(first)]

    def merged_over_processes(self) -> list[Any]:
        """One record an image, by image id, of all processes; to be called on every one."""
        with self.sync_context(should_sync=self._to_sync, should_unsync=self._should_unsync):
            return self.merged()

    def _sync_dist(self, dist_sync_fn: Callable | None = None, process_group: Any | None = None) -> None:
        group = process_group or self.process_group
        gathered: list[Any] = [None] * torch.distributed.get_world_size(group)
        torch.distributed.all_gather_object(gathered, self.records, group=group)
        self.records = [record for records in gathered for record in records]

    def _apply(self, fn: Callable, exclude_state: Sequence[str] = ()) -> Module:
        return super()._apply(fn, exclude_state=(*exclude_state, "records"))
