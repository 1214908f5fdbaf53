"""Open JupyterLab on working copies of the notebooks, so that running them changes nothing that git keeps.

    open_lab.py                  the five notebooks
    open_lab.py try              the page on which to try the network that ships

The copies lie in data/lab. One that you changed stays as it is; one that you only ran is replaced when the notebook itself
has changed. What JupyterLab shows begins at the repository: data/runs holds the reports and the executed notebooks of runs.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.storage import atomic_write, make_folder

HOME = ROOT / "data" / "lab"
COPIED = ".copied.json"  # {notebook: its cells when it was copied}
NEWS = (
    "@jupyterlab/apputils-extension:announcements"  # asks, over the first page, whether news may be fetched
)


def main() -> None:
    """Copy the notebooks, say which copies are kept, and become JupyterLab."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", nargs="?", choices=["try"], help="the page to open; default: 01_prepare_data")
    parser.epilog = "What else is given goes to JupyterLab, such as --no-browser or --allow-root."
    options, further = parser.parse_known_args()
    for name in copy_notebooks(ROOT / "notebooks", HOME):
        print(f"data/lab/{name} is yours and stays; notebooks/{name} is newer: remove your copy to have it")
    first = (HOME / f"{options.page or '01_prepare_data'}.ipynb").relative_to(ROOT)
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        f"--ServerApp.root_dir={ROOT}",
        f"--LabApp.default_url=/lab/tree/{first.as_posix()}",
    ]
    os.environ["JUPYTER_CONFIG_PATH"] = without_news(HOME / ".config")
    os.execv(sys.executable, command + further)


def without_news(folder: Path) -> str:
    """Write settings by which JupyterLab asks nothing about news; returns JUPYTER_CONFIG_PATH with them first."""
    disabled = {"disabledExtensions": {NEWS: True}}
    atomic_write(make_folder(folder / "labconfig") / "page_config.json", json.dumps(disabled))
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("JUPYTER_CONFIG_PATH"))))


def copy_notebooks(source: Path, home: Path) -> list[str]:
    """Bring the copies in `home` up to date; returns the names of those that a person changed, and that are old."""
    record = make_folder(home) / COPIED
    copied = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    kept = []
    for notebook in sorted(source.glob("*.ipynb")):
        copy, name, today = home / notebook.name, notebook.name, sources(notebook)
        if copied.get(name) == today and copy.is_file():
            continue
        if copy.is_file():
            here = sources(copy)
            if here is None or here not in (copied.get(name), today):
                kept.append(name)
                continue
        atomic_write(copy, notebook.read_bytes())
        copied[name] = today
    atomic_write(record, json.dumps(copied))
    return kept


def sources(notebook: Path) -> list[str] | None:
    """The text of a notebook's cells, without outputs; None for a file that is no notebook any more."""
    try:
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells]
    except (ValueError, KeyError, TypeError):
        return None


if __name__ == "__main__":
    main()
