"""How a network is evaluated unless asked otherwise: scales, background rule, cuts, and the size of its images.

A file of weights says so in its facts, as far as it knows; what it leaves out is as published, or as the networks
trained here want it.
"""

from typing import Annotated

from pydantic import Field

from wsfcn_lib.checkpoints import CheckpointError
from wsfcn_lib.config import Fraction, Recipe
from wsfcn_lib.runs.settings import Settings

SCALES = (1.0, 0.5, 1.5, 2.0)  # paper, section IV-A
OWN_SCALES = (1.0, 1.5, 2.0)  # of networks trained here that name none: the built-in scenes gain by enlarging
SCORE_CUT = 0.1  # a class is present where its probability exceeds this
LONG_SIDE = 640  # pixels; VOC's images have at most 500, COCO's 640
LONGEST = 500  # pixels of networks trained here that name none, see `usual_side`


class Protocol(Settings):
    """How a network is evaluated, as its file says."""

    recipe: Recipe
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field(min_length=1, max_length=16)
    canvas: int = Field(ge=0, le=4096)  # pixels; 0: none
    long_side: int = Field(ge=0, le=8192)  # pixels; larger images are shrunk to it; 0: never
    score_cut: Fraction


def stated(facts: dict) -> dict:
    """What the facts of a file say of its protocol."""
    return {name: facts[name] for name in Protocol.model_fields if name in facts}


def protocol_of(facts: dict) -> dict:
    """The fields of `Protocol` for a network, by the facts of its file; CheckpointError where one makes no sense."""
    protocol = {
        "recipe": "wsfcn",
        "scales": SCALES if "published" in facts else OWN_SCALES,
        "canvas": 0,
        "long_side": LONG_SIDE,
        "score_cut": SCORE_CUT,
    }
    try:
        return Protocol(**protocol | stated(facts)).model_dump()
    except ValueError as error:
        raise CheckpointError(f"the facts in this file of weights are none of this kit's: {error}") from error


def usual_side(facts: dict) -> int:
    """The longest side, in pixels, of the images that a network is shown, by the facts of its file.

    A network knows objects by the size it has seen them in. So where its file names no side, it is twice the
    crop of training, and at most LONGEST; LONG_SIDE for released weights, whose crop was 321.
    """
    if "long_side" in facts or "crop" not in facts:
        return protocol_of(facts)["long_side"]
    return min(LONGEST, 2 * facts["crop"])
