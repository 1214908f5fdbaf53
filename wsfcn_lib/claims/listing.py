"""The list of claims: claims.yaml, checked as it is read."""

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from wsfcn_lib.evaluation.gpus import GPUS, SHARES
from wsfcn_lib.runs.settings import Settings

SCALES = (
    "full",
    "released weights",
    "short schedule",
    "photographs",
    "scenes",
)  # the largest first


class Needs(Settings):
    """What a test computes: training steps on crops of 321 pixels, and views of images on a canvas."""

    images: int = 0  # of an epoch
    epochs: int = 0  # of all its trainings together
    batch: int = 16  # the last, partial one is dropped
    evaluated: int = 0  # images
    canvas: int = 0  # pixels, the side of a view
    views: int = 8  # of an image


class Test(Settings):
    """One way to test a claim; claims.yaml says what each name means."""

    __test__ = False  # to pytest, which would take it for its own

    scale: Literal[SCALES]
    command: str
    evidence: tuple[str, ...] = Field(min_length=1)
    rule: Literal[
        "reaches", "reproduces", "repeats", "effect", "without", "gain", "share", "at_most", "aside"
    ]
    key: str = "mean_iou"  # in metrics.json, with dots between levels
    published: float | None = None  # per cent
    or_published: float | None = None  # a second number that will do
    within: float = 0.0  # points
    images: int = 0  # that the number must be of
    split: str = ""  # that these must be
    settings: dict = {}  # that the evaluation must have had
    run: dict[str, dict] = {}  # settings that stages of run.json must have had
    steps: int = 0  # that each of its trainings must have had
    origin: tuple[str, ...] = ()  # evidence that the number was read from, which cannot test it
    stage: str = "training"  # of the bench
    row: dict = {}  # what the bench's row of this stage must say
    effect: Literal["", "context", "fusion"] = ""
    variant: str = ""  # of the table of an ablation
    over: str = ""  # the key that another is compared with
    ceiling: tuple[str, ...] = ()  # evidence of the same network, learning from masks
    at_least: float = 0.0  # share of the ceiling
    at_most: float = 0.0
    unit: str = ""  # of a figure that is no mIoU
    why: str = ""  # a number decides nothing
    needs: Needs | None = None
    like: str = ""
    also: str = ""  # what it takes beside computing


class Claim(Settings):
    """What somebody claims, and its tests."""

    of: str
    claim: str
    where: tuple[str, ...] = Field(min_length=1)  # names of sources
    tests: tuple[Test, ...] = Field(min_length=1)
    remark: str = ""


class Compute(Settings):
    """The machine that the hours of tests are reckoned for that nobody ran."""

    gpu: Literal[tuple(GPUS)]
    forward_gflop_per_megapixel: float = Field(gt=0)

    @property
    def tflops(self) -> float:
        """Of its data sheet, in the precision that the published settings train in: fp32, convolutions in TF32."""
        return GPUS[self.gpu].tf32

    @property
    def share(self) -> float:
        """Of that peak, the least that a training is assumed to reach."""
        return SHARES[0]


class Listing(Settings):
    """The content of claims.yaml."""

    claims: tuple[Claim, ...]
    compute: Compute
    sources: dict[str, str]  # name -> address
    shared: dict  # what tests are made of, in the file alone


@cache
def read_claims() -> Listing:
    """The claims in order, where they stand, and the machine that would test them; SettingsError names a mistake."""
    return Listing(**yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text("utf-8")))
