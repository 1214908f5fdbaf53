"""What every source of pictures hands over, before `prepare` selects from it and writes the manifest."""

from dataclasses import dataclass, field

from wsfcn_lib.data.manifest import ClassInfo, Sample

MASKLESS = "it trains without this mask"  # ends a line of `missing` about an image that stays


@dataclass(frozen=True)
class DatasetListing:
    """The images of a source: `splits` maps train, val and test to samples, all with their masks, if any."""

    classes: tuple[ClassInfo, ...]
    splits: dict[str, list[Sample]]
    missing: list[str] = field(
        default_factory=list
    )  # "<split>: <name>: <its missing or bad files>", a line each
    untagged: list[str] = field(default_factory=list)  # training images that show no class; in no split
    notes: list[str] = field(default_factory=list)  # warnings and facts, a line each
