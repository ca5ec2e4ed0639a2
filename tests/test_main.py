from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from maskbench import __main__ as entry
from maskbench import __version__


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["maskbench", *arguments])
    entry.main()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_names_every_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    run(monkeypatch, *arguments)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(entry.VERBS)


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "--version")
    assert capsys.readouterr().out == f"maskbench {__version__}\n"


@pytest.mark.parametrize(
    ("verb", "hint"), [("trian", "did you mean train?"), ("xyz", "the verbs are train, evaluate,")]
)
def test_a_misspelt_verb_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, hint: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, verb)
    assert stopped.value.code == 2
    assert hint in capsys.readouterr().err


def test_a_verb_runs_as_its_own_main_module_with_the_rest_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(runpy, "run_module", lambda name, **how: started.append((name, sys.argv[1:], how)))
    run(monkeypatch, "train", "-m", "seed=0,1")
    assert started == [("maskbench.train", ["-m", "seed=0,1"], {"run_name": "__main__", "alter_sys": True})]


@pytest.mark.parametrize("verb", entry.VERBS)
def test_a_verb_is_a_module_that_runs_main(root: Path, verb: str) -> None:
    source = (root / "src" / "maskbench" / f"{verb}.py").read_text()
    assert "def main() -> None:" in source
    assert source.rstrip().endswith('if __name__ == "__main__":\n    main()')


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['maskbench']; from maskbench.__main__ import main; main()\n"
        "heavy = {'torch', 'hydra', 'numpy', 'lightning'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, stdout=subprocess.DEVNULL)
