from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning import LightningModule, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from maskbench.runtime.interrupts import interruptible
from maskbench.runtime.quiet import hush
from trained import QUIET


@pytest.mark.parametrize(
    ("raised", "kept"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (SystemExit(3), SystemExit), (ValueError("wrong"), ValueError)],
)
def test_ctrl_c_is_told_from_an_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, kept: type[BaseException]
) -> None:
    class Stopped(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise raised

    # Lightning leaves Ctrl-C ignored for the process that is about to end
    monkeypatch.setattr("lightning.pytorch.trainer.call.signal.signal", lambda *_: None)
    hush()
    trainer = Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, **QUIET)
    module: LightningModule = Stopped()
    with pytest.raises(kept) as caught, interruptible():
        trainer.fit(module)
    assert trainer.interrupted
    assert not isinstance(raised, SystemExit) or caught.value.code == 3
