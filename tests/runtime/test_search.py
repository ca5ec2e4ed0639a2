from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from maskbench.errors import ConfigError, RunError
from maskbench.runtime.search import JOURNAL, RESULT, Search
from maskbench.runtime.search_space import Space
from maskbench.sweep.trial import Outcome, Trial

SPACE = ("method=solov2", "method.x=interval(0,1)", "method.y=a,b")
NUMBERS = ("method.x=interval(0,1)", "method.y=tag(log, interval(1e-4,1e-2))")


def near(overrides: Sequence[str]) -> float | None:
    """AP on tune of a training that is best at x = 0.3 and y = a."""
    given = dict(word.split("=") for word in overrides)
    return 0.9 - abs(float(given["method.x"]) - 0.3) - 0.1 * (given.get("method.y") == "b")


class Bench:
    """What stands in the place of a launcher: it knows at once what comes of a training.

    Args:
        runs: where studies lie.
        ap: of overrides; None: it fails.
        stop: after so many trainings it is interrupted.
    """

    def __init__(self, runs: Path, ap: Callable[[Sequence[str]], float | None] = near, stop: int | None = None) -> None:
        self.runs, self.ap, self.stop = runs, ap, stop
        self.rounds: list[list[list[str]]] = []

    @property
    def trained(self) -> list[list[str]]:
        return [job for jobs in self.rounds for job in jobs]

    def find(self, overrides: Sequence[str]) -> Trial:
        name = f"solov2-seed0-{zlib.crc32(' '.join(sorted(overrides)).encode()):08x}"
        return Trial(name, list(overrides), self.runs / "study" / name)

    def run(self, jobs: Sequence[Sequence[str]]) -> list[Outcome]:
        self.rounds.append([])
        return [self._train(self.find(job)) for job in jobs]

    def _train(self, trial: Trial) -> Outcome:
        if len(self.trained) == self.stop:
            raise KeyboardInterrupt
        self.rounds[-1].append(list(trial.command))
        ap = self.ap(trial.command)
        if ap is None:
            return Outcome(trial, "failed", reason="ValueError: out of luck")
        trial.folder.mkdir(parents=True, exist_ok=True)
        (trial.folder / "history.csv").write_text(f"epoch,tune/AP\n0,{ap}\n")
        (trial.folder / "metrics.json").write_text(json.dumps({"segm": {"AP": ap}}))
        return Outcome(trial, "done")

    def search(self, words: Sequence[str] = SPACE, **settings: int) -> Search:
        return Search(Space.read(words), self.runs, "study", self.find, self.run, **settings)


def test_it_finds_what_is_best_on_tune(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    outcomes = bench.search(trials=30, batch=2).rounds()
    assert [len(jobs) for jobs in bench.rounds] == [2] * 15
    assert len(outcomes) == 30
    assert {outcome.state for outcome in outcomes} == {"done"}
    best = json.loads((tmp_path / "study" / RESULT).read_text())["best"]
    assert best["tune/AP"] == max(map(near, bench.trained)) > 0.85
    assert abs(float(best["settings"]["method.x"]) - 0.3) < 0.05
    assert best["settings"]["method.y"] == "a"


def test_the_last_round_has_what_is_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.search(trials=5, batch=3).rounds()
    assert [len(jobs) for jobs in bench.rounds] == [3, 2]


def test_a_round_is_no_suggestion_many_times(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.search(trials=24, batch=6).rounds()
    assert len({tuple(job) for job in bench.trained}) == 24


def test_the_seed_says_what_is_suggested(tmp_path: Path) -> None:
    one, same, other = (Bench(tmp_path / name) for name in ("one", "same", "other"))
    for bench, seed in ((one, 0), (same, 0), (other, 1)):
        bench.search(trials=14, batch=2, seed=seed).rounds()
    assert one.trained == same.trained
    assert not {tuple(job) for job in one.trained} & {tuple(job) for job in other.trained}


def test_what_was_told_is_not_run_anew(tmp_path: Path) -> None:
    Bench(tmp_path).search(trials=3).rounds()
    again = Bench(tmp_path)
    outcomes = again.search(trials=3).rounds()
    assert not again.trained
    assert [outcome.state for outcome in outcomes] == ["kept"] * 3
    more = Bench(tmp_path)
    assert len(more.search(trials=5).rounds()) == 5
    assert len(more.trained) == 2


@pytest.mark.parametrize("stop", [0, 1, 5, 12, 15])
def test_a_search_that_was_broken_off_goes_on_as_if_it_had_not_been(tmp_path: Path, stop: int) -> None:
    whole, broken, again = Bench(tmp_path / "whole"), Bench(tmp_path / "broken", stop=stop), Bench(tmp_path / "broken")
    whole.search(NUMBERS, trials=16, batch=2).rounds()
    with pytest.raises(KeyboardInterrupt):
        broken.search(NUMBERS, trials=16, batch=2).rounds()
    again.search(NUMBERS, trials=16, batch=2).rounds()
    told = stop - stop % 2
    assert broken.trained == whole.trained[:stop]
    assert again.trained == whole.trained[told:]


def test_suggestions_that_are_the_same_are_run_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ap=lambda _: 0.5)
    searched = bench.search(["method.y=a,b"], trials=8, batch=4)
    assert len(searched.rounds()) == len(bench.trained) == 2
    assert len(searched.ranked()) == 2
    assert json.loads((tmp_path / "study" / RESULT).read_text())["best"]["tune/AP"] == 0.5


def test_a_trial_that_failed_is_told_and_the_search_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(tmp_path, ap=lambda words: None if "method.y=b" in words else near(words))
    states = [outcome.state for outcome in bench.search(trials=12).rounds()]
    assert set(states) == {"done", "failed"}
    assert len(states) == 12
    again = bench.search(trials=12)
    assert [outcome.state for outcome in again.rounds()] == ["kept" if state == "done" else state for state in states]
    rows = json.loads((tmp_path / "study" / RESULT).read_text())["rows"]
    assert [row["tune/AP"] is None for row in rows] == sorted(row["tune/AP"] is None for row in rows)
    assert {row["failed"] for row in rows if row["tune/AP"] is None} == {"ValueError: out of luck"}
    again.show()
    assert capsys.readouterr().err.count("–") == states.count("failed")


def test_where_all_failed_nothing_is_best(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ap=lambda _: None)
    searched = bench.search(trials=2)
    searched.rounds()
    searched.show()
    assert json.loads((tmp_path / "study" / RESULT).read_text())["best"] is None


def test_a_run_without_ap_on_tune_has_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(tmp_path, ap=lambda _: float("nan"))
    (outcome,) = bench.search(trials=1).rounds()
    assert outcome.state == "failed"
    assert "no AP on tune after epoch 1" in str(outcome.reason)
    assert "no AP on tune after epoch 1" in " ".join(capsys.readouterr().err.split())


def test_what_a_trial_is_worth_on_test_changes_nothing(tmp_path: Path) -> None:
    class Misled(Bench):
        """Whose trials are worth something else on test each time."""

        def _train(self, trial: Trial) -> Outcome:
            outcome = super()._train(trial)
            (trial.folder / "metrics.json").write_text(json.dumps({"segm": {"AP": random.random()}, "tune": {}}))
            return outcome

    one, other = Bench(tmp_path / "one"), Misled(tmp_path / "other")
    for bench in (one, other):
        bench.search(trials=16, batch=2).rounds()
    assert one.trained == other.trained
    one_found, other_found = ((bench.runs / "study" / RESULT).read_text() for bench in (one, other))
    assert one_found == other_found


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*SPACE[:2], "method.y=a,c"), "what is searched changed since"),
        (("method=solo", *SPACE[1:]), "other settings, or the data changed since"),
    ],
)
def test_another_search_has_a_study_of_its_own(tmp_path: Path, words: Sequence[str], told: str) -> None:
    Bench(tmp_path).search(trials=1).rounds()
    with pytest.raises(ConfigError, match=rf"began with {SPACE[0]} .*{told}, found {words[0]} .* say study=NAME"):
        Bench(tmp_path).search(words)


def test_the_same_search_may_be_said_in_another_way(tmp_path: Path) -> None:
    Bench(tmp_path).search(trials=1).rounds()
    again = Bench(tmp_path)
    again.search(("method.y=choice(b,a)", "method.x=float(interval(0,1))", "method=solov2"), trials=1).rounds()
    assert not again.trained


def test_a_line_that_a_killed_search_left_unfinished_is_no_obstacle(tmp_path: Path) -> None:
    journal = tmp_path / "study" / JOURNAL
    Bench(tmp_path).search(trials=3).rounds()
    journal.write_bytes(journal.read_bytes()[:-7])  # of the last trial it is not known that it was told
    again = Bench(tmp_path)
    assert len(again.search(trials=4).rounds()) == 4
    assert len(again.trained) == 2
    assert len(Bench(tmp_path).search(trials=4).rounds()) == 4


def test_a_suggestion_that_was_not_finished_is_none(tmp_path: Path) -> None:
    searched = Bench(tmp_path).search(trials=2)
    searched._study.ask({"method.x": searched.space.searched["method.x"]})
    assert len(searched.rounds()) == 2


def test_a_journal_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / JOURNAL).write_text("this\nis none\n")
    with pytest.raises(RunError, match=r"not readable as a search .* move it away"):
        Bench(tmp_path).search()


def test_the_command_of_the_best_can_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*SPACE, "study=study", "data.root='/my data'")
    bench = Bench(tmp_path)
    searched = bench.search(words, trials=4)
    searched.rounds()
    searched.show()
    best = max(bench.trained, key=near)
    command = json.loads((tmp_path / "study" / RESULT).read_text())["best"]["command"]
    x = dict(word.split("=") for word in best)["method.x"]
    assert command == (
        "python -m maskbench.train method=solov2 'data.root='\"'\"'/my data'\"'\"'' "
        f"method.x={x} method.y={dict(word.split('=') for word in best)['method.y']} study=study-best"
    )
    said = capsys.readouterr().err
    assert said.endswith(f"{command}\n")
    assert said.index(bench.find(best).name) < min(
        said.index(bench.find(job).name) for job in bench.trained if job != best
    )
