"""A chromium in front of a JupyterLab, driven as a person would: keys, clicks, files."""

import ast
import base64
import contextlib
import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jupyter_client.blocking import BlockingKernelClient
from lab import LIMIT, Lab
from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as TooLate

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
FLAGS += ["--disable-quic", "--disable-sync", "--force-color-profile=srgb"]
PIXELS = """async image => {
    try { await image.decode(); } catch { return null; }  // another picture took its place meanwhile
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/png");
}"""
BEGUN = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].some(prompt => /[*0-9]/.test(prompt.innerText))"
RAN = """() => {
    const prompts = [...document.querySelectorAll(".jp-Notebook .jp-InputPrompt")].map(part => part.innerText);
    return prompts.some(text => /\\d/.test(text)) && !prompts.some(text => text.includes("*"))
        && document.querySelector('.jp-Notebook-ExecutionIndicator[data-status="idle"]');
}"""

TALL = """() => [...document.querySelectorAll(".jp-OutputArea .widget-box")].filter(
    box => box.scrollHeight > box.clientHeight + 1).map(box => `${box.className}: ${box.scrollHeight} in ${box.clientHeight}`)"""


def chromium() -> str:
    """The installed browser."""
    found = [
        path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))
    ]
    assert found, "no chromium here: install the package chromium"
    return found[0]


def decode(encoded: str) -> np.ndarray:
    """A picture in base64 → (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))


@contextlib.contextmanager
def browser(home: Path) -> Iterator[Page]:
    """A page of a fresh chromium."""
    with sync_playwright() as driver:
        size = {"width": 1500, "height": 1000}
        context = driver.chromium.launch_persistent_context(
            str(home), executable_path=chromium(), args=FLAGS, viewport=size
        )
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
        page.wait_for_timeout(3000)  # the manager of widgets comes last, and tells nobody

    def run(self) -> None:
        """Run all cells, by the menu; again where JupyterLab, not yet done with opening, let the click pass."""
        for _ in range(5):
            for words in ("Run", "Run All Cells"):
                self.page.get_by_role("menuitem", name=words, exact=True).click()
            try:
                self.page.wait_for_function(BEGUN, timeout=15_000)
            except TooLate:
                continue
            return
        raise AssertionError("Run All Cells started no cell")

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
        return self.page.locator("img.wsfcn-picture")

    def words(self) -> str:
        """The line below the picture."""
        return self.tell(expression=f"{self.name}.note.value")

    def shown(self) -> np.ndarray:
        """The pixels that the browser decoded, (H, W, 3) uint8."""
        while not (found := self.image.evaluate(PIXELS)):
            self.page.wait_for_timeout(50)
        return decode(found.split(",")[1])

    def tell(self, code: str = "", expression: str = "None") -> object:
        """Execute code in the notebook's kernel, past the page, and return the value of a literal expression."""
        (kernel,) = self.lab.ask("kernels")
        client = BlockingKernelClient(
            connection_file=str(self.lab.home / "runtime" / f"kernel-{kernel['id']}.json")
        )
        client.load_connection_file()
        client.start_channels()
        try:
            asked = {"value": expression}
            reply = client.execute(code, silent=True, user_expressions=asked, reply=True, timeout=LIMIT)[
                "content"
            ]
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
        """Move a slider by the keyboard, once it is free to move; `words`: its label, or its tooltip."""
        slider = self.page.locator(".widget-slider").filter(
            has=self.page.locator(".noUi-target:not([disabled])")
        )
        named = slider.filter(has=self.page.get_by_text(words, exact=True))
        handle = named.or_(slider.filter(has=self.page.locator(f'label[title="{words}"]'))).locator(
            ".noUi-handle"
        )
        handle.focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def press(self, words: str) -> None:
        """Click a button."""
        self.page.locator("button.widget-button, button.widget-toggle-button", has_text=words).first.click()

    def choose(self, words: str, option: str) -> None:
        """Choose from a list; `words`: its label."""
        self.page.locator(".jp-OutputArea").get_by_label(words, exact=True).select_option(option)

    def click(self, part: str, across: float, down: float) -> None:
        """Click on a picture at shares of its width and height; `part`: its class in the page."""
        image = self.page.locator(f"img.{part}")
        box = image.bounding_box()
        image.click(position={"x": across * box["width"], "y": down * box["height"]})

    def state(self, key: str) -> object:
        """A part of the explorer's state, as its kernel has it."""
        return self.tell(expression=f"{self.name}.state[{key!r}]")

    def in_window(self, *locators: Locator) -> bool:
        """Whether all of these lie inside the window, as a whole."""
        size = self.page.viewport_size
        for locator in locators:
            box = locator.bounding_box()
            inside = box["x"] >= 0 and box["y"] >= 0
            if (
                not inside
                or box["x"] + box["width"] > size["width"]
                or box["y"] + box["height"] > size["height"]
            ):
                return False
        return True

    def upload(self, words: str, path: Path) -> None:
        """Give a file to an upload button."""
        with self.page.expect_file_chooser() as chooser:
            self.page.locator("button.widget-upload", has_text=words).click()
        chooser.value.set_files(path)
