"""What a study says in a sentence, and what it does not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from maskbench.study.leaderboard import Group
from maskbench.study.runs import Run

Row = Any
"""A row of `Group.methods`."""

DRAWN = (
    "The photos are drawn shapes: they show that methods learn and what they cost, and rank no paradigm for real "
    "photographs."
)
HUES = (
    "Each class has a hue of its own, so that the semantics are nearly given, which favours bottom-up methods: this "
    "study shows that methods learn, it ranks no paradigm."
)


def finding(found: Group) -> str:
    """Who segments best and who is fastest: these weights where a method has one seed alone, else these methods."""
    known = found.methods.dropna(subset=["AP"])
    ranked = known[~known["guest"]]
    if ranked.empty:
        return "No trial has an AP yet."
    best = ranked.iloc[0]
    return " ".join([_finding(best, ranked, found), *_of_guests(best, known[known["guest"]])])


def _finding(best: Row, ranked: pd.DataFrame, found: Group) -> str:
    if len(ranked) == 1:
        return f"{best['label']} reaches a mask AP of {_ap(best)}{_at(best)}. {_scope(found)}"
    timed = ranked[~ranked["timed_elsewhere"]].dropna(subset=["FPS"])
    fastest = timed.sort_values("FPS").iloc[-1] if len(timed) > 1 else None
    first = f"{best['label']} has the highest mask AP, {_ap(best)}{_at(best)}"
    if fastest is None:
        second = ""
    elif fastest.name == best.name:
        second = ", and is the fastest as well"
    else:
        second = (
            f"; {fastest['label']} is the fastest, {_at(fastest).removeprefix(' at ')} with an AP of {_ap(fastest)}"
        )
    return f"{first}{second}. {_doubt(best, ranked, found)}"


def caution(runs: Sequence[Run]) -> str | None:
    """What the data forbid to conclude; None for photographs."""
    roots = [run.data_root for run in runs]
    drawn = [root for root in roots if isinstance(root, dict) and str(root.get("_target_")).endswith("shapes.draw")]
    if not drawn:
        return None
    return HUES if any(root.get("hue", "class") == "class" for root in drawn) else DRAWN


def _of_guests(best: Row, guests: pd.DataFrame) -> list[str]:
    """The guests that have a higher AP, which proves nothing of their methods."""
    higher = [f"{row['label']} ({_ap(row)})" for _, row in guests.iterrows() if row["AP"] > best["AP"]]
    return [f"Higher, but on a footing that is not known: {_listed(higher)}."] if higher else []


def _scope(found: Group) -> str:
    """Whether this is said of weights or of methods."""
    own = found.methods[~found.methods["guest"]]
    alone = list(own.loc[own["n"] < 2, "label"])
    if not alone:
        return f"Means over {_seeds(own)} seeds."
    every = len(alone) == len(own)
    who = "Each method has" if every else f"{_listed(alone)} {'has' if len(alone) == 1 else 'have'}"
    return f"{who} one seed alone, so this is said of these weights, not of the methods."


def _doubt(best: Row, ranked: pd.DataFrame, found: Group) -> str:
    """Who can't be told from the best, or by how much it leads; without matches as far as the seeds can tell."""
    second = ranked.iloc[1]
    pair = found.uncertainty.between(best["label"], second["label"]) if found.uncertainty else None
    if pair is None:
        return f"{_scope(found)}{_doubt_of_seeds(best, second, found)}"
    peers = [row for _, row in ranked.iloc[1:].iterrows() if _is_peer(best, row, found)]
    if peers:
        names = _listed([row["label"] + _faster(row, best) for row in peers])
        return f"{names} can't be told from {best['label']}. {_scope(found)}"
    lead = f"The lead over {second['label']}, {100 * pair.difference:.1f}, is more than chance"
    return f"{lead} (95 %: {100 * pair.low:.1f} to {100 * pair.high:.1f}). {_scope(found)}"


def _is_peer(best: Row, row: Row, found: Group) -> bool:
    pair = found.uncertainty.between(best["label"], row["label"]) if found.uncertainty else None
    return pair is not None and not pair.apart


def _faster(row: Row, best: Row) -> str:
    """How many times as fast as the best a row is, where it is worth a word."""
    if row["timed_elsewhere"] or best["timed_elsewhere"] or not row["FPS"] >= 1.2 * best["FPS"]:
        return ""
    return f" ({row['FPS'] / best['FPS']:.1f} times as fast)"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _doubt_of_seeds(best: Row, second: Row, found: Group) -> str:
    """Whether the lead is more than the seeds' own spread, as far as so few can tell."""
    if found.one_seed:
        return ""
    gap, spreads = best["AP"] - second["AP"], best["AP_std"] + second["AP_std"]
    lead = "within" if gap <= spreads else "beyond"
    return (
        f" The lead of {100 * gap:.1f} over {second['label']} lies {lead} the two standard deviations "
        "together; no test was made of whether it is chance."
    )


def _seeds(own: pd.DataFrame) -> str:
    low, high = own["n"].min(), own["n"].max()
    return str(low) if low == high else f"{low}–{high}"


def _ap(row: Row) -> str:
    std = row["AP_std"]
    return f"{100 * row['AP']:.1f}" + ("" if std != std else f" ± {100 * std:.1f}")


def _at(row: Row) -> str:
    """Nothing where it was timed on another machine than the others: a sentence would compare the two."""
    fps = row["FPS"]
    return "" if fps != fps or row["timed_elsewhere"] else f" at {fps:.{0 if fps >= 10 else 1}f} FPS"
