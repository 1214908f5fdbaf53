"""Pictures that the kit draws are marked, so that a new one replaces none of another origin."""

import os
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from wsfcn_lib.data.files import DataError

MARK = PngInfo()  # for Pillow's option `pnginfo`
MARK.add_text("Software", "wsfcn_lib")


def require_own(output: Path, image: Path | None = None) -> None:
    """DataError unless a drawing of `image` may be written as `output`: nothing is there, or another drawing."""
    if not os.path.lexists(output):
        return
    if image and os.path.exists(output) and os.path.samefile(output, image):
        raise DataError(f"{output} is the picture itself, which is never replaced; name another file")
    if not is_drawn(output):
        raise DataError(
            f"{output} is there, and was not drawn by this kit; move it away, or name another file or folder"
        )


def is_drawn(path: Path) -> bool:
    """Whether a file is a picture that the kit drew."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return b"tEXtSoftware\0wsfcn_lib" in file.read(1000)  # the mark stands before the pixels
