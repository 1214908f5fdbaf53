"""Runs: the run folder with its record, lock and log, and what is written to a disk at all."""

from wsfcn_lib import front_door

__getattr__, __dir__ = front_door(
    __name__,
    {
        "ROOT": "paths",
        "RunError": "storage",
        "RunFolder": "folder",
        "read_run": "folder",
        "list_runs": "folder",
    },
)
