"""Data: the manifest, what fills it (glyph scenes, VOC, COCO, a folder), and the training set read by it."""

from wsfcn_lib import front_door

__getattr__, __dir__ = front_door(
    __name__,
    {
        "prepare": "preparation",
        "SourceSettings": "preparation",
        "leave_out": "preparation",
        "Manifest": "manifest",
        "validate": "manifest",
        "GlyphSettings": "glyphs",
        "DataError": "files",
        "read_image": "images",
        "read_mask": "images",
        "find_coco": "coco",
        "voc_palette": "classes",
    },
)
