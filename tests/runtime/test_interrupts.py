from __future__ import annotations

from pathlib import Path

import pytest
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerStatus

from maskbench.runtime.interrupts import interruptible


@pytest.mark.parametrize(
    ("status", "kept"), [(TrainerStatus.INTERRUPTED, KeyboardInterrupt), (TrainerStatus.RUNNING, SystemExit)]
)
def test_ctrl_c_is_told_from_an_exit(tmp_path: Path, status: TrainerStatus, kept: type[BaseException]) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    trainer.state.status = status
    with pytest.raises(kept), interruptible(trainer):
        raise SystemExit(1)
