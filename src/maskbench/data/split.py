"""Which images of the training file are for training and which for tuning: by hash, so that no run can choose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from maskbench.data.coco import Record


def by_hash(records: Iterable[Record]) -> list[Record]:
    """The images in an order that looks random and is the same everywhere, whatever else the file lists."""
    return sorted(records, key=_digest)


def _digest(record: Record) -> bytes:
    return hashlib.sha256(f"{record.image_id}/{record.file_name}".encode()).digest()


def split_off(records: Iterable[Record], share: float, limit: int | None = None) -> tuple[list[int], list[int]]:
    """Image ids for training and for tuning, each ascending.

    Args:
        records: the images of the training file.
        share: of the images that go to tuning, those with the lowest hashes; at least one unless it is 0 (or there is
            one image only).
        limit: training images kept. Neither the tuning images nor the smaller of two limited sets depend on it.
    """
    order = [record.image_id for record in by_hash(records)]
    count = min(len(order) - 1, max(1, round(share * len(order)))) if share > 0 else 0
    train = order[count:] if limit is None else order[count : count + limit]
    return sorted(train), sorted(order[:count])
