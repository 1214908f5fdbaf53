"""Data: the manifest, what fills it (glyph scenes, VOC folders), and the training pictures read through it."""
