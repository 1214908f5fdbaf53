"""A JupyterLab of its own with a chromium in front of it, driven as a person would: keys, clicks, files."""

import ast
import base64
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
from jupyter_client.blocking import BlockingKernelClient
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

from wsfcn_lib.runs import ROOT

LIMIT = 120  # seconds that anything may take before it counts as stalled
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-quic", "--disable-sync", "--force-color-profile=srgb"]
SETTINGS = {  # all cells stay in the page, and no question is asked
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
PIXELS = """async image => {
    try { await image.decode(); } catch { return null; }  // another picture took its place meanwhile
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/png");
}"""
RAN = """() => {
    const prompts = [...document.querySelectorAll(".jp-Notebook .jp-InputPrompt")].map(part => part.innerText);
    return prompts.some(text => /\\d/.test(text)) && !prompts.some(text => text.includes("*"))
        && document.querySelector('.jp-Notebook-ExecutionIndicator[data-status="idle"]');
}"""

TALL = """() => [...document.querySelectorAll(".jp-OutputArea .widget-box")].filter(
    box => box.scrollHeight > box.clientHeight + 1).map(box => `${box.className}: ${box.scrollHeight} in ${box.clientHeight}`)"""


def chromium() -> str:
    """The installed browser."""
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    assert found, "no chromium here: install the package chromium"
    return found[0]


def decode(encoded: str) -> np.ndarray:
    """A picture in base64 → (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))


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
        command += [f"--port={self.url.split(':')[-1]}", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
        command += [f"--ServerApp.root_dir={self.books}", "--LabApp.news_url=None", "--ServerApp.disable_check_xsrf=True"]
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
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/{path}", method=method), timeout=LIMIT) as answer:
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

    def copy(self, stage: str, given: dict) -> str:
        """Put a copy of a notebook with parameters and without outputs before the server; returns its name."""
        book = load_notebook_node(str(ROOT / "notebooks" / f"{stage}.ipynb"))
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(parameterize_notebook(book, given), self.books / f"{stage}.ipynb")
        return f"{stage}.ipynb"


@contextlib.contextmanager
def browser(home: Path) -> Iterator[Page]:
    """A page of a fresh chromium."""
    with sync_playwright() as driver:
        size = {"width": 1500, "height": 1000}
        context = driver.chromium.launch_persistent_context(str(home), executable_path=chromium(), args=FLAGS, viewport=size)
        context.set_default_timeout(1000 * LIMIT)
        yield context.pages[0]
        context.close()


class Book:
    """A notebook opened in the browser, whose one explorer is called `name` in its kernel."""

    def __init__(self, lab: Lab, page: Page, file: str, name: str):
        self.lab, self.page, self.name = lab, page, name
        page.goto(f"{lab.url}/lab/tree/{file}?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')

    def run(self) -> None:
        """Run all cells, by the menu."""
        for words in ("Run", "Run All Cells"):
            self.page.get_by_role("menuitem", name=words, exact=True).click()

    def ended(self) -> None:
        """Wait for the last cell; none may have failed."""
        self.page.wait_for_function(RAN, timeout=2000 * LIMIT)
        failed = self.page.locator('[data-mime-type="application/vnd.jupyter.error"]')
        assert failed.count() == 0, failed.first.inner_text()

    def hidden(self) -> list[str]:
        """Boxes of widgets whose content is taller than themselves, so that one would have to scroll inside the output."""
        return self.page.evaluate(TALL)

    @property
    def image(self) -> Locator:
        """The explorer's picture in the page."""
        return self.page.locator("img.widget-image")

    def shown(self) -> np.ndarray:
        """The pixels that the browser decoded, (H, W, 3) uint8."""
        while not (found := self.image.evaluate(PIXELS)):
            self.page.wait_for_timeout(50)
        return decode(found.split(",")[1])

    def tell(self, code: str = "", expression: str = "None") -> object:
        """Execute code in the notebook's kernel, past the page, and return the value of a literal expression."""
        (kernel,) = self.lab.ask("kernels")
        client = BlockingKernelClient(connection_file=str(self.lab.home / "runtime" / f"kernel-{kernel['id']}.json"))
        client.load_connection_file()
        client.start_channels()
        try:
            asked = {"value": expression}
            reply = client.execute(code, silent=True, user_expressions=asked, reply=True, timeout=LIMIT)["content"]
        finally:
            client.stop_channels()
        assert reply["status"] == "ok" and reply["user_expressions"]["value"]["status"] == "ok", reply
        return ast.literal_eval(reply["user_expressions"]["value"]["data"]["text/plain"])

    def drawn(self) -> np.ndarray:
        """`render(state)`, computed now by the notebook's kernel."""
        encode = '__import__("base64").b64encode(__import__("wsfcn_lib.explore.shell").explore.shell.encode'
        return decode(self.tell(expression=f"{encode}({self.name}.render({self.name}.state))).decode()"))

    def settled(self, before: np.ndarray | None = None) -> np.ndarray:
        """Wait until the page shows `render(state)` and something other than `before`; returns that picture."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            shown = self.shown()
            if (before is None or not np.array_equal(shown, before)) and np.array_equal(shown, self.drawn()):
                return shown
            time.sleep(0.2)
        same = before is not None and np.array_equal(shown, before)
        raise AssertionError("the picture did not change" if same else "the page does not show render(state)")

    def slide(self, words: str, key: str = "ArrowRight", times: int = 1) -> None:
        """Move a slider by the keyboard; `words`: its label, or its tooltip."""
        slider = self.page.locator(".widget-slider")
        named = slider.filter(has=self.page.get_by_text(words, exact=True))
        handle = named.or_(slider.filter(has=self.page.locator(f'label[title="{words}"]'))).locator(".noUi-handle")
        handle.focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def press(self, words: str) -> None:
        """Click a button."""
        self.page.locator("button.widget-button, button.widget-toggle-button", has_text=words).first.click()

    def choose(self, words: str, option: str) -> None:
        """Choose from a list; `words`: its label."""
        self.page.locator(".jp-OutputArea").get_by_label(words, exact=True).select_option(option)

    def upload(self, words: str, path: Path) -> None:
        """Give a file to an upload button."""
        with self.page.expect_file_chooser() as chooser:
            self.page.locator("button.widget-upload", has_text=words).click()
        chooser.value.set_files(path)
