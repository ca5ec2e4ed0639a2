"""The engine `pool`: trials as processes of this machine, a number of them at once."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator, Sequence

from maskbench.errors import ConfigError
from maskbench.sweep.engine import Engine
from maskbench.sweep.process import TrialProcess, stop
from maskbench.sweep.trial import Outcome, Started, Trial


class Pool(Engine):
    """Slots of this machine, each with its GPUs.

    Args:
        slots: trials at once.
        threads: CPU threads a trial.
        gpus: device ids to be shared out among the slots, as CUDA_VISIBLE_DEVICES names them; none: leave it as it is.
        silence: seconds without a sign of life after which a trial is killed; None: never.

    Raises:
        ConfigError: slots and GPUs don't go together.
    """

    def __init__(self, slots: int, threads: int = 1, *, gpus: Sequence[str] = (), silence: float | None = None) -> None:
        self.slots, self.threads, self.silence = slots, threads, silence
        self._shares = _share(gpus, slots)
        self._free = sorted(range(slots), reverse=True)
        self._waiting: deque[Trial] = deque()
        self._running: dict[int, TrialProcess] = {}
        """By slot."""
        self._owner = f"pool {uuid.uuid4()}"

    def submit(self, trials: Sequence[Trial]) -> None:
        self._waiting.extend(trials)

    def look(self) -> Iterator[Started | Outcome]:
        for slot, process in list(self._running.items()):
            process.kill_if_silent(self.silence)
            if not process.alive:
                del self._running[slot]
                self._free.append(slot)
                yield process.end()
        while self._waiting and self._free:
            slot, trial = self._free.pop(), self._waiting.popleft()
            gpus = self._shares[slot]
            try:
                self._running[slot] = TrialProcess.start(trial, self.threads, self._owner, gpus=gpus)
            except OSError as error:  # the disk is full, say: that ends no other trial
                self._free.append(slot)
                yield Outcome(trial, "failed", reason=f"{type(error).__name__}: {error}")
                continue
            yield Started(trial, ",".join(gpus))

    def stop(self, stops: Sequence[int]) -> list[Outcome]:
        ended = list(self._running.values())
        stop(ended, stops, self.patience)
        self._waiting.clear()
        self._running.clear()
        return [process.end(interrupted=True) for process in ended]


def _share(gpus: Sequence[str], slots: int) -> list[tuple[str, ...]]:
    """GPUs of each slot: none belongs to two."""
    if slots < 1:
        raise ConfigError(f"a pool needs at least one slot, found slots={slots}")
    if gpus and len(gpus) < slots:
        raise ConfigError(
            f"{slots} slots but {len(gpus)} GPUs ({', '.join(gpus)}): set slots to {len(gpus)} or fewer, "
            "so that no two trials share one"
        )
    each = len(gpus) // slots
    return [tuple(gpus[slot * each : (slot + 1) * each]) for slot in range(slots)]
