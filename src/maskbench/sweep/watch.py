"""What a sweep shows while it runs: a live table on a terminal, a line a change in a log file."""

from __future__ import annotations

import csv
import json
import math
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from maskbench.errors import RunError
from maskbench.sweep.settings import settings

Phase = Literal["waiting", "running", "done", "kept", "failed", "stopped"]

SYMBOLS: dict[Phase, tuple[str, str]] = {
    "running": ("●", "cyan"),
    "failed": ("✗", "red"),
    "stopped": ("■", "yellow"),
    "done": ("✓", "green"),
    "kept": ("✓", "green dim"),
    "waiting": ("·", "dim"),
}
"""Symbol and colour of each phase, in the order in which a screen too small for all trials shows them."""

REFRESH = 0.5
"""Seconds between two looks at the running trials."""


@dataclass(frozen=True)
class Progress:
    """How far a trial's history has come.

    Args:
        epochs: finished ones.
        total: epochs the config asks for, None where it doesn't say so.
        ap: mask AP on the tune split, 0 to 1, as it was last measured.
        ap_of: the epoch after which that was.
        images_per_second: while training.
        share: of the training, 0 to 1, None where it can't be told.
    """

    epochs: int
    total: int | None
    ap: float | None
    ap_of: int | None
    images_per_second: float | None
    share: float | None

    @property
    def epoch(self) -> str:
        return f"{self.epochs}/{self.total}" if self.total else str(self.epochs)


@dataclass
class Row:
    """A trial as the table shows it."""

    name: str
    folder: Path
    phase: Phase = "waiting"
    place: str = ""
    began: float | None = None
    seconds: float | None = None
    progress: Progress | None = None
    _seen: float = 0.0
    _since: float = 0.0
    _limits: tuple[int | None, int | None] | None = None
    _share_before: float = 0.0

    def start(self, place: str) -> None:
        self.place = place
        self.phase, self.began, self._since = "running", time.monotonic(), time.time()
        with suppress(OSError):
            self._share_before = self._share(self._read())

    def finish(self, phase: Phase) -> None:
        self.phase = phase
        if self.began is not None:
            self.seconds = time.monotonic() - self.began

    def look(self) -> bool:
        """Read the history if it was written since the last look; whether there is something new."""
        try:
            written = (self.folder / "history.csv").stat().st_mtime
            # What an earlier attempt left behind is not this one's progress.
            if written <= max(self._seen, self._since - 1):
                return False
            found = self._read()
        except OSError:
            return False
        self._seen = written
        # Fewer than before: the last epochs of the earlier attempt are trained again.
        self._share_before = min(self._share_before, self._share(found))
        before, self.progress = self.progress, found
        return self.progress is not None and (before is None or before.epochs != self.progress.epochs)

    def _read(self) -> Progress | None:
        """As `progress`, but config and plan are read once."""
        rows = _rows(self.folder)
        if self._limits is None:
            self._limits = _limits(self.folder)
        return _progress(rows, *self._limits)

    @staticmethod
    def _share(found: Progress | None) -> float:
        return (found.share if found else None) or 0.0

    @property
    def elapsed(self) -> float | None:
        if self.seconds is not None or self.began is None:
            return self.seconds
        return time.monotonic() - self.began

    @property
    def length(self) -> float | None:
        """Seconds of a whole training, by the pace of this attempt: one that goes on has done a part of it."""
        done = 1.0 if self.phase == "done" else self._share(self.progress)
        share = done - self._share_before
        return self.elapsed / share if self.elapsed is not None and share > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds until this trial's training ends, by its own pace."""
        if self.phase != "running" or self.length is None:
            return None
        return self.length * (1 - self._share(self.progress))


@dataclass
class Watch:
    """The rows of a sweep, shown on a console while the context is open."""

    rows: dict[str, Row]
    slots: int | None
    console: Console = field(default_factory=lambda: Console(stderr=True))
    _live: Live | None = None
    _looked: float = 0.0
    _drawn: float = 0.0

    @classmethod
    def over(cls, trials: Iterable[tuple[str, Path]], slots: int | None, console: Console | None = None) -> Watch:
        rows = {name: Row(name, folder) for name, folder in trials}
        return cls(rows, slots, console) if console else cls(rows, slots)

    def __enter__(self) -> Watch:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, get_renderable=self.render)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.refresh()
            self._live.stop()
            self._live = None

    def started(self, name: str, place: str = "") -> None:
        """It began, at a place that tells it from others: a GPU, a machine."""
        self.rows[name].start(place)
        self._say(name, f"started on {place}" if place else "started")

    def finished(self, name: str, phase: Phase, detail: str = "") -> None:
        row = self.rows[name]
        row.look()
        row.finish(phase)
        self._say(name, " ".join(filter(None, [phase, _duration(row.seconds), detail])))

    def waits(self, name: str) -> None:
        """It failed and will be tried once more."""
        self.rows[name].phase = "waiting"
        self._say(name, "is tried again after the others")

    def tick(self) -> None:
        """Look at the running trials, at most every `REFRESH` seconds."""
        if time.monotonic() - self._looked < REFRESH:
            return
        self._looked = time.monotonic()
        for row in self.rows.values():
            if row.phase == "running" and row.look() and row.progress:
                found = row.progress
                rate = f"{found.images_per_second:.0f} images/s" if found.images_per_second else ""
                ap = f"AP {_percent(found.ap)}" if found.ap_of == found.epochs else ""
                self._say(row.name, " ".join(filter(None, [f"epoch {found.epoch}", ap, rate])))
        self._draw()

    def render(self) -> Group:
        """The table and the line below it."""
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("Trial", no_wrap=True)
        table.add_column("State", no_wrap=True)
        placed = any(row.place for row in self.rows.values())
        if placed:
            table.add_column("Where", no_wrap=True)
        for heading in ("Epoch", "AP", "Images/s", "Time", "Left"):
            table.add_column(heading, justify="right", no_wrap=True)
        shown = self._shown()
        for row in shown:
            symbol, style = SYMBOLS[row.phase]
            found = row.progress
            table.add_row(
                escape(row.name),
                Text(f"{symbol} {row.phase}", style),
                *([escape(row.place)] if placed else []),
                found.epoch if found else "",
                _percent(found.ap) if found else "",
                f"{found.images_per_second:.0f}" if found and found.images_per_second else "",
                _duration(row.elapsed),
                _duration(row.left),
            )
        more = len(self.rows) - len(shown)
        return Group(table, Text(self.summary() + (f" · {more} more not shown" if more else ""), "dim"))

    def summary(self) -> str:
        """How many trials are where, and the time left by the pace so far."""
        counts = Counter(row.phase for row in self.rows.values())
        parts = [f"{counts['done'] + counts['kept']} of {len(self.rows)} done"]
        parts += [f"{counts[phase]} {phase}" for phase in ("running", "waiting", "failed", "stopped") if counts[phase]]
        left = self._left()
        return " · ".join(parts + ([f"about {_duration(left)} left"] if left else []))

    def _left(self) -> float | None:
        """Seconds: what the running ones need, and for each waiting one the mean length so far, over the slots."""
        active = [row for row in self.rows.values() if row.phase == "running"]
        pending = sum(row.phase == "waiting" for row in self.rows.values())
        rests = [row.left for row in active]
        lengths = [row.length for row in self.rows.values() if row.phase in ("done", "running") and row.length]
        if not active or not lengths or any(rest is None for rest in rests):
            return None
        work = sum(rest for rest in rests if rest) + pending * sum(lengths) / len(lengths)
        return max([work / (self.slots or len(active)), *(rest for rest in rests if rest)])

    def _shown(self) -> list[Row]:
        """All rows in their order, or those that matter most where the screen is too small."""
        rows = list(self.rows.values())
        room = max(self.console.height - 4, 4)
        if self._live is None or len(rows) <= room:
            return rows
        order = list(SYMBOLS)
        chosen = {row.name for row in sorted(rows, key=lambda row: order.index(row.phase))[:room]}
        return [row for row in rows if row.name in chosen]

    def _draw(self) -> None:
        if self._live:
            self._live.refresh()
            self._drawn = time.monotonic()

    def _say(self, name: str, message: str) -> None:
        if self._live:
            # hundreds of trials that were done before are told at once, and the table is drawn with all of them
            if time.monotonic() - self._drawn >= REFRESH:
                self._draw()
        else:
            clock = time.strftime("%H:%M:%S")
            self.console.print(f"{clock}  {name}  {message}", markup=False, highlight=False, soft_wrap=True)


def progress(folder: Path) -> Progress | None:
    """What the history of a trial says, whichever attempt wrote it; `OSError` where there is none."""
    return _progress(_rows(folder), *_limits(folder))


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _limits(folder: Path) -> tuple[int | None, int | None]:
    """Epochs and steps of a trial: as its plan says, by what is equal for all, or as its config asks for."""
    try:
        trainer = settings(folder).get("trainer")
    except RunError:
        return None, None
    found = [trainer.get(name) if isinstance(trainer, dict) else None for name in ("max_epochs", "max_steps")]
    with suppress(OSError, ValueError, RecursionError):
        plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        found[0] = plan["epochs"] if isinstance(plan, dict) and "epochs" in plan else found[0]
    epochs, steps = (value if isinstance(value, int) and value > 0 else None for value in found)
    return epochs, steps


def _progress(rows: list[dict[str, str]], epochs: int | None, steps: int | None) -> Progress | None:
    if not rows:
        return None
    shares = []
    if epochs:
        shares.append(len(rows) / epochs)
    if steps and (step := _float(rows[-1].get("step"))):
        shares.append(step / steps)
    # An epoch without validation has no AP of its own.
    aps = {epoch: ap for epoch, row in enumerate(rows, 1) if (ap := _float(row.get("tune/AP"))) is not None}
    return Progress(
        epochs=len(rows),
        total=epochs,
        ap=aps[max(aps)] if aps else None,
        ap_of=max(aps, default=None),
        images_per_second=_float(rows[-1].get("images_per_second")),
        share=min(max(shares), 1.0) if shares else None,
    )


def _float(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
