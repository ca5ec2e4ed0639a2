"""The console script: `maskbench VERB ...` is `python -m maskbench.VERB ...`.

Nothing heavy is imported before the verb is known, so that help and a misspelt verb answer at once.
"""

from __future__ import annotations

import difflib
import runpy
import sys

from maskbench import __version__

VERBS = {
    "train": "train one method, or many with -m (a sweep over methods and seeds)",
    "evaluate": "COCO numbers of a run, or of any results file",
    "benchmark": "latency, FPS, memory and FLOPs of finished runs, the methods taking turns",
    "preflight": "all that is wrong with a data set, before training on it",
    "predict": "overlays and COCO results for any photos",
    "export": "a trained network as ONNX or a program of torch.export",
    "convert": "weights of MMDetection, detectron2 or torchvision, made ours",
    "report": "table, plots and one HTML page of a study",
    "fit": "settings that belong to a data set's scale, as a file to review",
}


def main() -> None:
    """Run the verb that the command line names."""
    verb, *rest = sys.argv[1:] or ["--help"]
    if verb in VERBS:
        # As its own main module, not as a function of this one: the processes of a multi-device run start themselves
        # again from `__main__` and `sys.argv`.
        sys.argv = [verb, *rest]
        runpy.run_module(f"maskbench.{verb}", run_name="__main__", alter_sys=True)
    elif verb in ("-h", "--help", "help"):
        print(_help())
    elif verb in ("-V", "--version"):
        print(f"maskbench {__version__}")
    else:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the verbs are {', '.join(VERBS)}"
        print(f"maskbench: no verb {verb!r}; {hint}", file=sys.stderr)
        raise SystemExit(2)


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {meaning}" for verb, meaning in VERBS.items())
    return (
        "maskbench compares instance segmentation methods on equal footing.\n\n"
        f"usage: maskbench VERB [KEY=VALUE ...]\n\n{verbs}\n\n"
        "maskbench VERB --help lists what can be set."
    )


if __name__ == "__main__":
    main()
