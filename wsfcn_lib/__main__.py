"""Segment pictures from the command line: which classes they hold, and pictures of where they are."""

import argparse
import sys

from wsfcn_lib.data.drawn import require_own
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.scan import unique_names
from wsfcn_lib.evaluation.inputs import photographs
from wsfcn_lib.infer import segment
from wsfcn_lib.runs.paths import expanded, shell_path, use_utf8


def main() -> None:
    """Print the score of each class and write the image with the classes' colours laid over it.

    Of a folder all pictures are taken, those of its sub-folders too, and one line is printed of each.
    """
    parser = argparse.ArgumentParser(prog="python -m wsfcn_lib", description=main.__doc__)
    parser.add_argument("image", help="a picture, or a folder of pictures")
    parser.add_argument(
        "-o",
        "--output",
        help="the PNG to write; for a folder of pictures, the folder to write into; default: "
        "<name>_segmented.png or <name>_segmented in the current folder",
    )
    parser.add_argument("--checkpoint", help="run folder or file of weights; default: the network of the kit")
    parser.add_argument("--crf", action="store_true", help="refine the mask by the dense CRF")
    args = parser.parse_args()
    named, args.image = args.image, shell_path(args.image)
    if args.checkpoint and expanded(args.checkpoint).exists():  # else a name, or from the repository
        args.checkpoint = shell_path(args.checkpoint)
    if args.image.is_dir():
        segment_folder(args)
        return
    output = expanded(args.output or f"{args.image.stem}_segmented.png").absolute()
    if output.suffix.lower() != ".png":
        raise ValueError(f"{output.name} is written as PNG; name it .png")
    if not args.image.exists():
        raise DataError(f"{named}: no such picture or folder, neither where you are nor in the repository")
    require_own(output, args.image)
    result = segment(args.image, args.checkpoint, use_crf=args.crf)
    result.save(output)
    for name, score, present in zip(result.names[1:], result.scores, result.tags):
        mark = "present" if present else ""
        print(f"{score:.3f}  {name:20}  {mark}".rstrip())
    print(
        f"Present are classes with a score above {result.score_cut:g}. The image with their masks: {output}"
    )


def segment_folder(args: argparse.Namespace) -> None:
    """Segment the pictures below a folder; what is no picture, or cannot be opened, is said and counted."""
    folder = args.image
    output = expanded(args.output or f"{folder.resolve().name}_segmented").absolute()
    if output.is_file() or folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise ValueError(f"{output} is a file or lies in {folder}; name another folder for the results as -o")
    files = photographs(folder)
    outputs = {
        path: output / f"{name}.png" for path, name in zip(files.pictures, unique_names(files.pictures))
    }
    for path in outputs:
        require_own(outputs[path], folder / path)
    bad, empty = 0, []
    for path in outputs:
        try:
            result = segment(folder / path, args.checkpoint, use_crf=args.crf)
            result.save(outputs[path])
        except DataError as error:
            bad += 1
            print(error)
            continue
        print(f"{path}: {result.summary()}")
        if not result.labels.any():
            empty.append(path)
    done = len(files.pictures) - bad
    if not done:
        raise DataError(f"{folder}: none of its {bad} pictures can be opened")
    print(f"{done} pictures with their masks lie in {output}; {bad} cannot be opened")
    if empty:
        first = ", ".join(str(path) for path in empty[:3])
        print(f"no pixel painted in {len(empty)} of {done} pictures, first {first}")
    print(
        f"Classes with a score above {result.score_cut:g} are present; known are {', '.join(result.names[1:])}."
    )
    for line in files.notes():
        print(line)


if __name__ == "__main__":
    use_utf8()
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{error}")
