"""What every source of pictures hands over, before `prepare` selects from it and writes the manifest."""

from dataclasses import dataclass, field

from wsfcn_lib.data.manifest import ClassInfo, Sample

MASKLESS = "it trains without this mask"  # said of a picture in `missing` that stays


@dataclass(frozen=True)
class DatasetListing:
    """Pictures of a source: `splits` maps train, val and test to samples, those of train with their masks where there are any."""

    classes: tuple[ClassInfo, ...]
    splits: dict[str, list[Sample]]
    missing: list[str] = field(default_factory=list)  # a line for each listed image that lacks a file
    untagged: list[str] = field(
        default_factory=list
    )  # training images that show no class; they are in no split
    notes: list[str] = field(default_factory=list)  # warnings and facts, a line each
