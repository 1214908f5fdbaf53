"""A JupyterLab of its own, on this machine only."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from wsfcn_lib.runs.paths import ROOT

LIMIT = 120  # seconds that anything may take before it counts as stalled
SETTINGS = {  # all cells stay in the page, and no question is asked, such as which kernel where cells run before it has come
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


class Lab:
    """A server without a token on a free port of this machine, its files in `home`; ends its kernels with itself."""

    def __init__(self, home: Path):
        self.home, self.books = home, home / "books"
        self.books.mkdir()
        for name, values in SETTINGS.items():
            self.configure(name, **values)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        kinds = {f"JUPYTER_{kind.upper()}_DIR": str(home / kind) for kind in ("config", "runtime", "data")}
        kinds |= {f"JUPYTERLAB_{kind.upper()}_DIR": str(home / kind) for kind in ("settings", "workspaces")}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
        command += [
            f"--port={self.url.split(':')[-1]}",
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=",
        ]
        command += [
            f"--ServerApp.root_dir={self.books}",
            "--LabApp.news_url=None",
            "--ServerApp.disable_check_xsrf=True",
        ]
        environment = os.environ | kinds | {"IPYTHONDIR": str(home / "ipython"), "PYTHONPATH": path}
        with (home / "lab.log").open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def configure(self, name: str, **values: object) -> None:
        """Set JupyterLab's settings of one part, as its settings editor would."""
        path = self.home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def ask(self, path: str, method: str = "GET") -> object:
        """What the server's interface answers."""
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/api/{path}", method=method), timeout=LIMIT
        ) as answer:
            return json.loads(answer.read() or "null")

    def wait(self) -> None:
        """Until the server answers."""
        for _ in range(10 * LIMIT):
            assert self.process.poll() is None, (self.home / "lab.log").read_text()
            with contextlib.suppress(OSError):
                self.ask("status")
                return
            time.sleep(0.1)
        raise AssertionError((self.home / "lab.log").read_text())

    def stop_kernels(self) -> None:
        """End all kernels, and with them the locks they hold."""
        for kernel in self.ask("kernels"):
            self.ask(f"kernels/{kernel['id']}", "DELETE")

    def close(self) -> None:
        """End kernels and server, by force where words do not help."""
        with contextlib.suppress(OSError):
            self.stop_kernels()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def take(self, name: str) -> str:
        """Put a copy of a notebook without parameters before the server; returns its name."""
        (self.books / f"{name}.ipynb").write_bytes((ROOT / "notebooks" / f"{name}.ipynb").read_bytes())
        return f"{name}.ipynb"

    def copy(self, stage: str, given: dict) -> str:
        """Put a copy of a notebook with parameters and without outputs before the server; returns its name."""
        book = load_notebook_node(str(ROOT / "notebooks" / f"{stage}.ipynb"))
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(parameterize_notebook(book, given), self.books / f"{stage}.ipynb")
        return f"{stage}.ipynb"
