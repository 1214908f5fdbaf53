"""The commands `score A` and `compare A B` of python -m wsfcn_lib.evaluation: anyone's masks against a truth."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from wsfcn_lib.evaluation.comparison import (
    DRAWS,
    as_csv,
    as_text,
    compare,
    count_masks,
    images_to_compare,
    read_wanted,
)
from wsfcn_lib.evaluation.mask_sources import classes_of, is_prepared, open_masks, prepared_classes, read_ids
from wsfcn_lib.runs.paths import expanded, shell_path
from wsfcn_lib.runs.storage import RunError, atomic_write

COMMANDS = {
    "score": "Measure masks: mIoU and more, with intervals over the images.",
    "compare": "Measure two sets of masks on the same images, and their difference, with intervals.",
}
EPILOG = """\
A and B are folders or archives (tar, tar.gz, zip) of PNG masks called as their images, at any depth, or COCO .json
files; masks.tar.gz/crf takes the folder crf of an archive. Masks hold ids or the classes' colours; 255 is ignored.
Exit code: 0 measured, 1 masks refused (the message names the file), 2 wrong usage.
"""


def build_parser(command: str) -> argparse.ArgumentParser:
    """The options of one of the COMMANDS."""
    parser = argparse.ArgumentParser(
        prog=f"python -m wsfcn_lib.evaluation {command}",
        description=COMMANDS[command],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("A", "B")[: 1 + (command == "compare")]:
        parser.add_argument(name, help="masks: folder, archive or COCO .json")
    parser.add_argument("--truth", required=True, help="true masks alike, or a folder of 01_prepare_data")
    parser.add_argument(
        "--classes",
        default="",
        help="voc; names with commas between them, ids 1, 2, ...; a classes.json; a run folder",
    )
    parser.add_argument(
        "--categories",
        help="COCO annotation file that tells the ids in lists of results: categories by name, images if it has them "
        "(default: the truth, where it is one)",
    )
    parser.add_argument("--split", default="val", help="of a folder of 01_prepare_data (default: val)")
    parser.add_argument(
        "--images", help="list of image names to score, one a line (default: all of the truth)"
    )
    parser.add_argument("--common", action="store_true", help="score the images that all have")
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"of the bootstrap (default: {DRAWS})")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--processes", type=int, help="that read masks (default: one a core)")
    parser.add_argument("--csv", help="write the table here, values in 0..1")
    parser.add_argument("--json", help="write everything here")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run a command, the first of `arguments`; returns the exit code."""
    parser = build_parser(arguments[0])
    options = parser.parse_args(arguments[1:])
    given = [options.A, *([options.B] if arguments[0] == "compare" else [])]
    if options.draws < 1 or options.seed < 0 or (options.processes or 1) < 1:
        parser.error("--draws and --processes must be at least 1, --seed at least 0")
    # a last "/." takes the top of a folder alone, which is another set of masks than the whole of it
    if len({(shell_path(name).resolve(), name.endswith("/.")) for name in given}) < len(given):
        parser.error(f"A and B are both {options.A}; name two")
    try:
        result = measured(options, given)
        for path, text in (
            (options.csv, as_csv(result)),
            (options.json, json.dumps(result, indent=1) + "\n"),
        ):
            if path:
                atomic_write(expanded(path).absolute(), text)
    except (OSError, ValueError, RunError) as error:
        print(error, file=sys.stderr)
        return 1
    print(as_text(result))
    return 0


def measured(options: argparse.Namespace, given: Sequence[str]) -> dict:
    """What `compare` returns of the masks that the options name; its errors, and those of `open_masks`."""
    manifest = classes_of(options.classes or options.truth)
    truth = open_masks(options.truth, manifest, split=options.split)
    if is_prepared(truth.path):
        manifest = prepared_classes(truth.path)  # its colours are those of its masks
    ids = read_ids(shell_path(options.categories)) if options.categories else None
    names = short_names(given)
    sources = {}
    for name, place in zip(names, given):
        source = open_masks(place, manifest, truth, options.split, ids)
        sources[name] = source.spelt_like(truth.places)
    wanted = read_wanted(shell_path(options.images) if options.images else None)
    images = images_to_compare(truth, sources, wanted, options.common)
    counts = count_masks(truth, sources, images, manifest, options.processes)
    notes = [note for source in (truth, *sources.values()) for note in source.notes]
    left = len(truth.places if wanted is None else wanted) - len(images)
    if left:
        notes.append(f"{left:,} images of the truth lack a mask and do not count (--common)")
    return {"truth": options.truth} | compare(counts, manifest.names, options.draws, options.seed, notes)


def short_names(given: Sequence[str]) -> list[str]:
    """What the sources are called in a table: their last names or, where these are the same, the whole."""
    names = [Path(name.rstrip("/.")).name or name for name in given]
    return names if len(set(names)) == len(names) else list(given)
