from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskbench.runtime import heartbeat
from maskbench.runtime.heartbeat import Heartbeat
from maskbench.sweep.status import HEARTBEAT


@pytest.mark.parametrize("stage", ["train", "validation", "test", "predict"])
def test_every_stage_gives_a_sign_now_and_then(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 9.0, 11.0, 11.0])
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: next(clock))
    file, trainer, module = tmp_path / HEARTBEAT, object.__new__(heartbeat.Trainer), heartbeat.LightningModule()
    beats: Any = getattr(Heartbeat(tmp_path), f"on_{stage}_batch_end")
    seen = []
    for _ in range(3):
        beats(trainer, module, None, None, 0)
        seen.append(file.exists())
        file.unlink(missing_ok=True)
    assert seen == [True, False, True]
