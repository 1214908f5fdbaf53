"""The rules by which results decide about a claim.

Figures over several seeds have a 95 % interval by Student's t (`ablation.statistics.intervals`). One seed decides
nothing: a second training may turn it. What lies under a name of the evidence counts where it is the run that the
test asks for (`mismatch`), no copy of another, and not what the claim's own number was read from (`origin`).

| rule       | holds where                                                | does not where                         |
|------------|------------------------------------------------------------|----------------------------------------|
| reaches    | the interval lies above the published number, less `within` | it lies below                          |
| reproduces | of given weights or masks, on all images, no farther away than `within` | farther away               |
| repeats    | each of several runs of one seed lies no farther away than `within`    | one lies farther away                  |
| effect     | the interval of a module's effect lies above 0             | it lies below                          |
| without    | the interval of what leaving a part out costs lies above 0 | it lies below                          |
| gain       | the interval of one number less another lies above 0       | it lies below                          |
| share      | the interval of the share of the ceiling lies above `at_least` | it lies below                      |
| at_most    | a measurement on a GPU, of what `row` says, is at most `at_most` | it is more                       |
| aside      | never: the number is told, and decides nothing             | never                                  |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from wsfcn_lib.ablation.statistics import differences, effects, intervals
from wsfcn_lib.claims.evidence import (
    by_seed,
    distinct,
    figure,
    find,
    read_json,
    seed_of,
    stages_of,
    steps_of,
    unlike,
)
from wsfcn_lib.claims.listing import Test

HOLDS, DOES_NOT, UNDECIDED, NOT_RUN = "holds", "does not", "undecided at this scale", "not run"
OF_ABLATION = ("effect", "without")  # rules on the table of an ablation
REFERENCE = "FCA + SF2 (WS-FCN)"  # of an ablation's table, which one-line changes are compared with


@dataclass(frozen=True)
class Finding:
    """What the results say of one test."""

    verdict: str = NOT_RUN
    figure: str = ""  # with its spread
    reason: str = ""  # of the verdict, where the figure does not say it
    folders: tuple[Path, ...] = ()  # it is computed from
    left_out: tuple[str, ...] = ()  # folders that do not count, each with why


def judge(test: Test, results: Path) -> Finding:
    """The finding of a test on the folders below `results` that count.

    Where there is nothing but what the claim's own number was read from, this is told and decides nothing.
    """
    origin = [results / name for name in test.origin]
    found, left_out = _that_count(test, results, test.evidence, origin)
    above, left_out_above = _that_count(test, results, test.ceiling, supervision="masks")
    others = [folder for folder in found if folder not in origin]
    finding = RULES[test.rule](test, others or found, above)
    left_out += left_out_above
    if origin and others:
        left_out += [
            f"{_name(folder, results)} (the number is its own)" for folder in found if folder in origin
        ]
    elif origin and finding.verdict != NOT_RUN:
        finding = replace(
            finding, verdict=UNDECIDED, reason="the number is their own, so only another run can test it"
        )
    return replace(finding, left_out=tuple(left_out))


def _that_count(
    test: Test, results: Path, names: Sequence[str], origin: Sequence[Path] = (), **training: object
) -> tuple[list[Path], list[str]]:
    """What lies under the names of evidence and counts, what the number was read from first; and why the rest does not.

    `training` are settings that the training must have had instead of the test's own.
    """
    found = sorted(find(results, names), key=lambda folder: folder not in origin)
    counted, left_out = [], []
    for folder in found:
        if fault := mismatch(folder, test, training):
            left_out.append(f"{_name(folder, results)} ({fault})")
        elif test.rule == "repeats" and counted and seed_of(folder) != seed_of(counted[0]):
            left_out.append(
                f"{_name(folder, results)} (seed {seed_of(folder)} instead of {seed_of(counted[0])})"
            )
        else:
            counted.append(folder)
    kept = distinct(counted)
    left_out += [f"{_name(folder, results)} (a copy of another)" for folder in counted if folder not in kept]
    return kept, left_out


def _name(path: Path, results: Path) -> str:
    return path.relative_to(results).as_posix()


def mismatch(folder: Path, test: Test, training: Mapping = MappingProxyType({})) -> str:
    """In what a folder is not the run that a test asks for, in words; "" where it is, or the test asks for nothing.

    `run` asks for settings of the stages, `split` and `images` for what was evaluated, `steps` for the length of its
    trainings, which follows from their images. `training` as in `_that_count`.
    """
    faults, stages = [], stages_of(folder)
    for name, asked in test.run.items():
        stage = stages.get(name, {})
        wanted = asked | training if name == "02_train" else asked
        faults += [] if stage.get("finished") else [f"{name} not finished"]
        faults += unlike(stage.get("settings", {}), wanted) if stage else []
    if test.split:
        faults += unlike(read_json(folder / "metrics.json"), {"split": test.split, "images": test.images})
    if test.steps:
        logs = sorted(folder.glob("logs/*.csv" if test.rule in OF_ABLATION else "log.csv"))
        faults += [] if logs else ["no log of its training"]
        lengths = {steps_of(log) for log in logs} - {test.steps}
        faults += [f"{min(lengths):,} steps instead of {test.steps:,}"] if lengths else []
    return ", ".join(faults)


def _verdict(seeds: int, low: float, high: float, bound: float) -> str:
    """Holds where an interval lies above a bound, does not where below; one seed decides nothing."""
    if seeds < 2:
        return UNDECIDED
    if low >= bound:
        return HOLDS
    return DOES_NOT if high < bound else UNDECIDED


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _mean_and_spread(row: Mapping, unit: str = "", sign: str = "") -> str:
    """In words, such as "61.1 ± 1.9, 3 seeds"; of a row of `intervals`."""
    text = f"{row['points']:{sign}.1f}".replace("-", "−")
    if row["seeds"] > 1:
        text += f" ± {row['sd']:.1f}"
    return f"{text}{unit}, {_seeds(row['seeds'])}"


def _interval(row: Mapping, sign: str = "") -> str:
    """In words, the 95 % interval over seeds; empty for one."""
    if row["seeds"] < 2:
        return "a second training may turn it"
    low, high = (f"{row[end]:{sign}.1f}".replace("-", "−") for end in ("low", "high"))
    return f"95 % interval over seeds {low} to {high}"


def _over_seeds(folders: Sequence[Path], key: str, scale: float = 100) -> dict | None:
    """Mean, sd and interval over seeds; runs of one seed are averaged first. None without any."""
    values = by_seed(folders, key)
    if not values:
        return None
    return intervals(np.array([scale * np.mean(runs) for runs in values.values()]), None)


def reaches(test: Test, folders: Sequence[Path], above: Sequence[Path]) -> Finding:
    """A training comes up to a published number."""
    row = _over_seeds(folders, test.key)
    if row is None:
        return Finding()
    verdict = _verdict(row["seeds"], row["low"], row["high"], test.published - test.within)
    reason = f"{_interval(row)}; to reach: {test.published - test.within:.1f}"
    return Finding(verdict, _mean_and_spread(row), reason, tuple(folders))


def reproduces(test: Test, folders: Sequence[Path], above: Sequence[Path]) -> Finding:
    """Given weights or masks have their published number, which depends on no seed."""
    for folder in folders:
        value = figure(folder, test.key)
        if value is None:
            continue
        points, words = 100 * value, f"{100 * value:.2f}"
        if (images := figure(folder, "images")) != test.images:
            reason = f"of {images} of the {test.images:,} images"
            return Finding(UNDECIDED, words, reason, (folder,))
        used = stages_of(folder).get("05_evaluate", {}).get("settings", {})
        other = [
            f"{name} {used.get(name)}" for name, asked in test.settings.items() if used.get(name) != asked
        ]
        if other:
            return Finding(UNDECIDED, words, f"by another protocol: {', '.join(other)}", (folder,))
        goals = [goal for goal in (test.published, test.or_published) if goal is not None]
        away = min(abs(round(points - goal, 4)) for goal in goals)
        reason = f"{away:.2f} points away, allowed {test.within}"
        return Finding(HOLDS if away <= test.within else DOES_NOT, words, reason, (folder,))
    return Finding()


def repeats(test: Test, folders: Sequence[Path], above: Sequence[Path]) -> Finding:
    """Runs of one recipe and seed, on several machines, come to the same number."""
    folders = [path for path in folders if figure(path, test.key) is not None]
    values = [100 * figure(folder, test.key) for folder in folders]
    if not values:
        return Finding()
    if len(values) == 1:
        return Finding(UNDECIDED, f"{values[0]:.1f}, one run", "one run", tuple(folders))
    away = max(abs(value - test.published) for value in values)
    words = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}, {len(values)} runs of seed {seed_of(folders[0])}"
    reason = f"at most {away:.1f} points away, allowed {test.within}"
    return Finding(HOLDS if away <= test.within else DOES_NOT, words, reason, tuple(folders))


def effect(test: Test, folders: Sequence[Path], above: Sequence[Path]) -> Finding:
    """A module raises mIoU, averaged over both choices of the other module."""
    folder, table = _ablation(folders)
    if table is None:
        return Finding()
    row = _effect(table, test.effect, "wsfcn", False, "predicted")
    verdict = _verdict(row["seeds"], row["low"], row["high"], 0.0)
    reason = _interval(row, "+")
    if row["seeds"] > 1:
        reason += f"; {_other_ways(table, test.effect)}"
    return Finding(verdict, _mean_and_spread(row, " points", "+"), reason, (folder,))


def _ablation(folders: Sequence[Path]) -> tuple[Path | None, pd.DataFrame | None]:
    """The folder of the most seeds, and its table; (None, None) where there is none."""
    tables = {}
    for folder in folders:
        if (folder / "table.csv").is_file():
            tables[folder] = pd.read_csv(folder / "table.csv")
    if not tables:
        return None, None
    folder = max(tables, key=lambda path: tables[path].seed.nunique())
    return folder, tables[folder]


def _counted(table: pd.DataFrame, recipe: str, crf: bool, tags: str) -> pd.DataFrame:
    """The rows of a table of an ablation that are counted in one way."""
    return table[(table.recipe == recipe) & (table.crf == crf) & (table.tags == tags)]


def _effect(table: pd.DataFrame, name: str, recipe: str, crf: bool, tags: str) -> dict:
    """The row of `effects` of one module; the grid's four corners alone have both modules by name."""
    rows = _counted(table, recipe, crf, tags)
    corners = rows[rows.run.str.match(r"(aspp|fca)-(gci|sf2)-s\d+$")]
    found = effects(corners).set_index("effect")
    return found.loc[name].to_dict()


def _other_ways(table: pd.DataFrame, name: str) -> str:
    """In words, how often the effect's interval excludes 0 where it is counted in every way that the table has."""
    ways = table[["recipe", "crf", "tags"]].drop_duplicates().itertuples(index=False)
    rows = [_effect(table, name, *way) for way in ways]
    above, below = (sum(row[end] * sign > 0 for row in rows) for end, sign in (("low", 1), ("high", -1)))
    return f"of {len(rows)} ways to count (recipe, CRF, tags) {above} lie above 0, {below} below"


def without(test: Test, folders: Sequence[Path], above: Sequence[Path]) -> Finding:
    """Leaving a part out costs mIoU."""
    folder, table = _ablation(folders)
    if table is None or test.variant not in set(table.variant):
        return Finding()
    found = differences(_counted(table, "wsfcn", False, "predicted"), REFERENCE).set_index("variant")
    row = found.loc[test.variant]
    cost = {"points": -row.points, "sd": row.sd, "seeds": int(row.seeds), "low": -row.high, "high": -row.low}
    verdict = _verdict(cost["seeds"], cost["low"], cost["high"], 0.0)
    return Finding(verdict, _mean_and_spread(cost, " points", "+"), _interval(cost, "+"), (folder,))


def gain(test: Test, folders: Sequence[Path], above: Sequence[Path]) -> Finding:
    """One number of a run is higher than another of the same run."""
    after, before = (by_seed(folders, key) for key in (test.key, test.over))
    seeds = [seed for seed in after if seed in before]
    if not seeds:
        return Finding()
    row = intervals(np.array([100 * (np.mean(after[s]) - np.mean(before[s])) for s in seeds]), None)
    verdict = _verdict(row["seeds"], row["low"], row["high"], 0.0)
    return Finding(verdict, _mean_and_spread(row, " points", "+"), _interval(row, "+"), tuple(folders))


def share(test: Test, folders: Sequence[Path], above: Sequence[Path]) -> Finding:
    """A network that learns from tags comes near the same network that learns from masks, paired by seed."""
    tags, masks = by_seed(folders, test.key), by_seed(above, test.key)
    seeds = [seed for seed in tags if seed in masks]
    if not seeds:
        return Finding()
    row = intervals(np.array([100 * np.mean(tags[s]) / np.mean(masks[s]) for s in seeds]), None)
    verdict = _verdict(row["seeds"], row["low"], row["high"], 100 * test.at_least)
    reason = f"{_interval(row)}; to reach: {100 * test.at_least:.0f} %"
    return Finding(verdict, _mean_and_spread(row, " %"), reason, (*folders, *above))


def _of_bench(test: Test, paths: Sequence[Path]) -> tuple[Path | None, dict]:
    """The first of the bench's files whose row of the test's stage has the number, and this row."""
    for path in paths:
        for row in read_json(path):
            if row["stage"] == test.stage and row.get(test.key) is not None:
                return path, row
    return None, {}


def at_most(test: Test, folders: Sequence[Path], above: Sequence[Path]) -> Finding:
    """The bench's number of a training on a GPU stays below a limit."""
    path, row = _of_bench(test, folders)
    if path is None:
        return Finding()
    value = row[test.key]
    words = f"{value:.3g} {test.unit}"
    if row["device"] == "cpu":
        return Finding(UNDECIDED, words, "measured on no GPU", (path,))
    if other := unlike(row, test.row):
        return Finding(UNDECIDED, words, f"measured with {', '.join(other)}", (path,))
    return Finding(HOLDS if value <= test.at_most else DOES_NOT, words, f"allowed {test.at_most:g}", (path,))


def aside(test: Test, folders: Sequence[Path], above: Sequence[Path]) -> Finding:
    """A number that is told beside a claim, and decides nothing."""
    if test.unit:
        path, row = _of_bench(test, folders)
        return Finding(UNDECIDED, f"{row[test.key]:.3g} {test.unit}", test.why, (path,)) if row else Finding()
    row = _over_seeds(folders, test.key)
    if row is None:
        return Finding()
    return Finding(UNDECIDED, _mean_and_spread(row), test.why, tuple(folders))


RULES = {
    rule.__name__: rule
    for rule in (reaches, reproduces, repeats, effect, without, gain, share, at_most, aside)
}
