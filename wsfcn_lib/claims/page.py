"""CLAIMS.md: the claims as a table, and a note for each, written from the results."""

import os
import re
from pathlib import Path

from wsfcn_lib.claims.costs import (
    ABLATION,
    BENCH,
    TRAINING,
    Cost,
    bench_of,
    cost_of,
    cpu_hours,
    gpu_hours,
    in_hours,
)
from wsfcn_lib.claims.evidence import RESULTS
from wsfcn_lib.claims.listing import SCALES, Claim, Compute, Test, read_claims
from wsfcn_lib.claims.rules import DOES_NOT, HOLDS, NOT_RUN, OF_ABLATION, UNDECIDED, Finding, judge

NO_BREAK = "\u00a0"  # a space at which a cell breaks no line
PAGE = RESULTS / "CLAIMS.md"
INTRODUCTION = """\
# Claims

Each row is a claim of WS-FCN, of 1-stage-wseg or of this kit, and what runs of this kit say of it, at the scale that stands in the row \
and at no other. *Holds* and *does not* rest on an interval over several seeds, on several machines, or on released weights; *undecided* \
means that there is a figure and that it settles nothing, such as that of one seed. *Not run* says what a run would take; commands, \
intervals and evidence stand in the notes.
"""
HEADER = """\
| # | claim | where | tested by | scale | verdict | figure | hardware | hours | memory |
|---|---|---|---|---|---|---|---|---|---|"""


def page(results: Path = RESULTS) -> str:
    """The text of CLAIMS.md, by what lies below `results`."""
    listing = read_claims()
    tables, notes, verdicts = {}, [], []
    for number, claim in enumerate(listing.claims, 1):
        findings = [judge(test, results) for test in claim.tests]
        k = speaking(claim.tests, findings)
        where = ", ".join(
            f"[{name.removeprefix(claim.of).strip()}]({listing.sources[name]})" for name in claim.where
        )
        row = _row(number, claim, where, claim.tests[k], findings[k], results)
        tables.setdefault(claim.of, []).append(row)
        notes += ["", f"### Note {number}", "", *_note(claim, where, findings, results)]
        verdicts.append(findings[k].verdict)
    words = {HOLDS: "hold", DOES_NOT: "do not", UNDECIDED: "undecided", NOT_RUN: "not run"}
    told = ", ".join(f"{verdicts.count(verdict)} {word}" for verdict, word in words.items())
    written = f"{len(verdicts)} claims: {told}. Written by `make claims` from the folders beside this page. Figures are mIoU in %."
    lines = [INTRODUCTION, written]
    for name, rows in tables.items():
        lines += ["", f"## {name}", "", HEADER, *rows]
    lines += ["", "## The columns", "", _columns(listing.compute, results), "", "## Notes", *notes]
    return "\n".join(lines) + "\n"


def speaking(tests: tuple[Test, ...], findings: list[Finding]) -> int:
    """Which test speaks for its claim: of those that decide the largest; else of those that ran; else of all.

    What only stands beside a claim (rule `aside`) never does.
    """
    order = [k for k, test in enumerate(tests) if test.rule != "aside"]
    order.sort(key=lambda k: SCALES.index(tests[k].scale))
    for wanted in ((HOLDS, DOES_NOT), (UNDECIDED,)):
        for k in order:
            if findings[k].verdict in wanted:
                return k
    return order[0]


def _row(number: int, claim: Claim, where: str, test: Test, found: Finding, results: Path) -> str:
    cost = _cost(test, found, results)
    verdict = found.verdict
    if verdict == NOT_RUN:  # it says itself what it needs
        verdict, cost = f"not run: {_needed(test, results)}", Cost()
    cells = [
        f"[{number}](#note-{number})",
        claim.claim,
        where,
        _short(test.command),
        test.scale,
        verdict,
        found.figure or "–",
        cost.machine or "–",
        in_hours(cost.hours) if cost.hours else "–",
        f"{cost.memory_mb / 1000:.1f} GB" if cost.memory_mb else "–",
    ]
    return f"| {' | '.join(cells)} |"


def _short(command: str) -> str:
    """A command in a cell: the target of make, or the name of the parameters' file."""
    file = re.search(r"params/(\w+)\.yaml", command)
    return f"`{file[1]}`" if file else f"`{command}`"


def _cost(test: Test, found: Finding, results: Path) -> Cost:
    """What the test took; of one that nobody ran, what it would."""
    if found.verdict != NOT_RUN:
        return cost_of(found.folders, ABLATION if test.rule in OF_ABLATION else TRAINING)
    if test.like:
        return cost_of([results / test.like])
    if test.needs and (test.needs.images or test.needs.evaluated):
        return Cost("1 GPU", gpu_hours(test.needs, read_claims().compute, results))
    return Cost()


def _needed(test: Test, results: Path) -> str:
    """What a test needs that nobody ran: "needs 1 GPU, about 5.4 h"."""
    cost = _cost(test, Finding(), results)
    parts = ["the released file"] if test.scale == "released weights" else []
    if cost.machine:
        parts += [
            cost.machine,
            f"about {in_hours(cost.hours)}{NO_BREAK}h" if cost.hours else "hours not known",
        ]
    return "needs " + ", ".join([*parts, *([test.also] if test.also else [])])


def _columns(compute: Compute, results: Path) -> str:
    """What the columns mean, and what the hours of tests rest on that nobody ran."""
    bench = bench_of(results)
    reckoned = f"""\
is reckoned, not measured: counted operations on one {compute.gpu}-class GPU ({compute.tflops:g} TFLOP/s) at an assumed \
{100 * compute.share:.0f} % of its peak. A training step counts {bench.get("gigaflop_per_image", 0):,.0f} GFLOP an image of 321 pixels \
([bench]({BENCH})), a forward pass {compute.forward_gflop_per_megapixel:,.0f} GFLOP a megapixel. It is for one seed, of an ablation for all \
of its trainings. The CRF, on the CPU, comes on top."""
    if not bench:
        reckoned = f"would be reckoned from `{BENCH}`, which is missing: run `make bench` first, then `make claims` again."
    return f"""\
* *Tested by*: a target of make, or a file of [notebooks/params](../../notebooks/params); the number leads to the whole command.
* *Scale*: full (the published data, network and schedule), released weights, short schedule (the published data and network, a quarter of \
the epochs), photographs (six animals of VOC, small networks), scenes (built-in pictures). Of several tests, the largest that decides stands in the row; the note has all.
* *Figure*: mean ± standard deviation over seeds, and how many. The rules of the verdicts: \
[rules.py](../../wsfcn_lib/claims/rules.py). Claims and tests: [claims.yaml](../../wsfcn_lib/claims/claims.yaml).
* *Hours*: all runs that the figure is of, added up: their training and its evaluation, or the ablation (notebooks 02 and 05, or 02 and \
04). *Memory*: of the largest process.
* *About N h* {reckoned}"""


def _note(claim: Claim, where: str, findings: list[Finding], results: Path) -> list[str]:
    """The lines of a note: the claim, a remark, and each test with its command, figure and evidence."""
    lines = [f"**{claim.of}, {claim.claim}** ({where})", ""]
    if claim.remark:
        lines += [claim.remark.strip(), ""]
    for test, found in zip(claim.tests, findings):
        lines.append(f"* {test.scale}, {_code(test.command)}  ")
        lines.append(f"  {_finding(test, found, results)}")
    return lines


def _finding(test: Test, found: Finding, results: Path) -> str:
    if found.verdict == NOT_RUN:
        needed = _needed(test, results)
        if test.scale == "released weights" and test.needs and test.needs.evaluated:
            hours = cpu_hours(test.needs, read_claims().compute, results)
            needed += f" (on two CPU cores about {in_hours(hours)} h)" if hours else ""
        awaited = " and ".join(f"`{name}`" for name in (*test.evidence[:1], *test.ceiling[:1]))
        return f"**not run**: {needed}; it would lie in {awaited}{_left_out(found)}"
    links = ", ".join(_link(folder, results) for folder in found.folders)
    verdict = "decides nothing" if test.rule == "aside" else f"**{found.verdict}**"
    return f"{verdict}: {'; '.join(part for part in (found.figure, found.reason) if part)} ({links}){_left_out(found)}"


def _left_out(found: Finding) -> str:
    """What lies there and does not count, and why."""
    return f"; left out: {', '.join(found.left_out)}" if found.left_out else ""


def _link(path: Path, results: Path) -> str:
    name = os.path.relpath(path, results).replace(os.sep, "/")
    return f"[{name}]({name})"


def _code(command: str) -> str:
    """A command as code; what a sentence adds to it stays text."""
    code, comma, words = command.partition(", ")
    return f"`{code}`{comma}{words}"
