"""What all of the data agree on: the ignored label, VOC's classes and its colours (method: data)."""

IGNORE = 255  # in masks and labels: pixels that count for no class
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
BORDER_COLOUR = (224, 224, 192)  # of what is ignored, such as the borders of objects


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
