"""Evaluation: what a trained network is worth, on a split, a list or a folder of pictures."""

from wsfcn_lib import front_door

__getattr__, __dir__ = front_door(
    __name__,
    {
        "evaluate": "scoring",
        "EvalSettings": "scoring",
        "score_archive": "mask_archives",
        "load_trained": "inputs",
        "manifest_of": "inputs",
    },
)
