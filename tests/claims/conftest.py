"""Folders of results, made by hand."""

import json
from pathlib import Path

import pandas as pd
import pytest

from wsfcn_lib.ablation.statistics import CORNERS
from wsfcn_lib.claims.listing import Test


class Results:
    """A folder like data/results, to put evidence into."""

    def __init__(self, path: Path):
        self.path = path

    def run(
        self, name, seed=0, settings=None, seconds=3600.0, device="cpu", training=None, steps=0, **metrics
    ):
        """A folder with metrics.json, run.json and, of a training of so many steps, log.csv; metrics in per cent."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"seconds": seconds, "peak_memory_mb": 1500.0, "device": device, "cpus": 2, "finished": True}
        stages = {
            "02_train": {"settings": {"seed": seed} | (training or {}), **facts},
            "05_evaluate": {"settings": settings or {}, **facts},
        }
        if seed is None:
            del stages["02_train"]
        (folder / "run.json").write_text(json.dumps({"stages": stages}))
        if steps:
            (folder / "log.csv").write_text(f"epoch,step\n0,0\n1,{steps}\n")
        shares = {key: value if key in ("images", "split") else value / 100 for key, value in metrics.items()}
        (folder / "metrics.json").write_text(json.dumps(shares))
        return folder

    def stage(self, folder, name, settings):
        """Another finished stage in a folder's run.json."""
        path = folder / "run.json"
        record = json.loads(path.read_text()) if path.is_file() else {"stages": {}}
        record["stages"][name] = {"settings": settings, "finished": True}
        path.write_text(json.dumps(record))

    def ablation(self, name, gains, variants=None):
        """A table in which FCA brings `gains` (points, one a seed) over ASPP, and SF2 nothing over GCI."""
        rows = []
        for seed, gain in enumerate(gains):
            for context, fusion in CORNERS:
                share = (40 + gain * (context == "fca")) / 100
                rows.append(
                    [f"{context}-{fusion}-s{seed}", f"{context} {fusion}", context, fusion, seed, share]
                )
                if (context, fusion) == ("fca", "sf2"):
                    rows[-1][1] = "FCA + SF2 (WS-FCN)"
                    for variant, losses in (variants or {}).items():
                        less = share - losses[seed] / 100
                        rows.append(
                            [f"{variant.replace(' ', '-')}-s{seed}", variant, context, fusion, seed, less]
                        )
        table = pd.DataFrame(rows, columns=["run", "variant", "context", "fusion", "seed", "mean_iou"])
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        table.assign(recipe="wsfcn", crf=False, tags="predicted").to_csv(folder / "table.csv", index=False)
        return folder


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


def a_test(rule, *evidence, **more):
    """A test of claims.yaml, as the rules see it."""
    return Test(**{"scale": "scenes", "command": "make demo"} | more, rule=rule, evidence=evidence)


@pytest.fixture
def make_test():
    return a_test
