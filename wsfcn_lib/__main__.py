"""Segment one image from the command line: which classes it holds, and a picture of where they are."""

import argparse
import sys
from pathlib import Path

from PIL import Image

from wsfcn_lib.data.images import encode, to_array
from wsfcn_lib.infer import SCORE_CUT, segment
from wsfcn_lib.plots.overlays import overlay
from wsfcn_lib.runs.storage import atomic_write


def main() -> None:
    """Print the score of each class and write the image with the classes' colours laid over it."""
    parser = argparse.ArgumentParser(prog="python -m wsfcn_lib", description=main.__doc__)
    parser.add_argument("image")
    parser.add_argument("-o", "--output", help="the PNG to write; default: <name>_mask.png in this folder")
    parser.add_argument("--checkpoint", help="run folder or file of weights; default: the network of the kit")
    parser.add_argument("--crf", action="store_true", help="refine the mask by the dense CRF")
    args = parser.parse_args()
    output = Path(args.output or f"{Path(args.image).stem}_mask.png").absolute()
    if output.suffix.lower() != ".png":
        raise ValueError(f"{output.name} is written as PNG; name it .png")
    image = to_array(args.image)
    result = segment(image, args.checkpoint, use_crf=args.crf)
    for name, score, present in zip(result.names[1:], result.scores, result.tags):
        mark = "present" if present else ""
        print(f"{score:.3f}  {name:20}  {mark}".rstrip())
    picture = Image.fromarray(overlay(image, result.labels, result.colours))
    atomic_write(output, encode(picture, "PNG"))
    print(f"Present are classes with a score above {SCORE_CUT}. The image with their masks: {output}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{error}")
