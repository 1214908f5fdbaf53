"""What all of the data agree on: the ignored label, VOC's classes and its colours (method: data)."""

from collections.abc import Sequence

IGNORE = 255  # in masks and labels: pixels that count for no class
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
BORDER_COLOUR = (224, 224, 192)  # of what is ignored, such as the borders of objects
# of Okabe and Ito: light enough for a photograph, and told apart with any kind of colour vision
SAFE_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


def is_background(name: str) -> bool:
    """Whether a name means the background, as labelling tools spell it: background, _background_, Background."""
    return name.strip(" _").casefold() == "background"


def voc_colour(index: int) -> tuple[int, int, int]:
    """The colour VOC gives mask id `index` (0..255): its bits are dealt to R, G, B, highest bit first."""
    if not 0 <= index <= 255:
        raise ValueError(f"mask id {index} has no colour: ids lie in 0..255")
    rgb = [0, 0, 0]
    for bit in range(8):
        rgb[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return rgb[0], rgb[1], rgb[2]


def voc_palette() -> list[int]:
    """The 256 VOC colours as Pillow's `putpalette` wants them: 768 numbers, R G B of id 0 first."""
    return [value for index in range(256) for value in voc_colour(index)]


def shown_colours(colours: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The colours in which pictures on a screen show classes that have these (R, G, B) in mask files.

    VOC's are dark, and hard to tell apart for many: up to seven classes have SAFE_COLOURS instead. Colours that
    somebody chose stay as they are, and so do VOC's of more classes than can be told apart by colour.
    """
    nobody_chose = set(map(tuple, colours)) <= set(map(voc_colour, range(256)))
    if nobody_chose and len(colours) <= len(SAFE_COLOURS):
        return list(SAFE_COLOURS[: len(colours)])
    return [tuple(colour) for colour in colours]
