"""Each explorer in JupyterLab in chromium: after every control the page shows other pixels, and those of `render(state)`."""

import numpy as np
import pytest
from book import Book
from PIL import Image
from playwright.sync_api import expect

from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.log import read_rows
from wsfcn_lib.runs.notebook import known_settings
from wsfcn_lib.runs.paths import ROOT

pytestmark = pytest.mark.browser


def opened(lab, page, stage, settings, name, **given):
    """A notebook with those of the settings that it declares."""
    own = known_settings(f"notebooks/{stage}.ipynb")
    return Book(
        lab,
        page,
        lab.copy(stage, {key: value for key, value in (settings | given).items() if key in own}),
        name,
    )


def walk(book, actions):
    """Use one control after the other; every picture differs from the one before and is `render(state)`."""
    shown = book.settled()
    assert not book.hidden()
    for words, act in actions.items():
        act()
        try:
            shown = book.settled(shown)
        except AssertionError as error:
            raise AssertionError(f"{words}: {error}") from None


def test_cam_explorer(lab, page, settings, keep, tmp_path):
    book = opened(lab, page, "03_explore", settings, "explorer")
    book.run()
    book.ended()
    keep(book, "cams")
    noise = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    Image.fromarray(noise).resize((320, 200)).save(tmp_path / "own.png")
    walk(
        book,
        {
            "opacity": lambda: book.slide("opacity", "ArrowLeft", 4),
            "PAMR steps": lambda: book.slide("PAMR steps", "ArrowLeft", 5),
            "softmax mask": lambda: book.choose("layer", "softmax mask"),
            "pseudo label": lambda: book.choose("layer", "pseudo label"),
            "more": lambda: (
                [book.press("more")] + [book.slide(cut, "Home") for cut in ("least cut", "class cut")]
            ),
            "class cut": lambda: book.slide("class cut", "End"),
            "truth over it": lambda: book.choose("over it", "ground truth"),
            "cross-hair": lambda: book.slide("across, %", "ArrowRight", 10),
            "class": lambda: book.choose("class", Manifest.load(ROOT / settings["data"]).names[1]),
            "next": lambda: book.press("next"),
            "previous": lambda: book.press("previous"),
            "all views": lambda: (
                book.choose("layer", "softmax mask"),
                book.choose("seen in", "all views, as evaluated"),
            ),
            "what changed": lambda: book.choose("changed since", "activation map (CAM)"),
        },
    )
    keep(book, "cams-changed")
    walk(
        book,
        {
            "layers": lambda: book.choose("changed since", "(not compared)"),
            "upload": lambda: book.upload("your own", tmp_path / "own.png"),
        },
    )
    keep(book, "cams-own")


SMALL = {"width": 1366, "height": 768}  # of many a laptop


@pytest.fixture
def small_page(page):
    before = page.viewport_size
    page.set_viewport_size(SMALL)
    yield page
    page.set_viewport_size(before)


def test_the_page_to_try_fits_a_small_screen_and_answers_clicks_and_keys(lab, small_page, keep, tmp_path):
    book = Book(lab, small_page, lab.take("try"), "explorer")
    book.run()
    book.ended()
    before = book.settled()
    small_page.locator(".jp-Notebook .jp-CodeCell").first.scroll_into_view_if_needed()
    controls = [
        small_page.locator(".wsfcn-explorer").get_by_label(words, exact=True)
        for words in ("picture", "class", "layer")
    ]
    sliders = small_page.locator(".wsfcn-explorer .widget-slider")
    assert book.in_window(book.image, *controls, sliders.nth(0), sliders.nth(1)), (
        "the picture and its five controls"
    )
    keep(book, "try")

    book.click("wsfcn-picture", 0.25, 0.4)
    shown = book.settled(before)
    assert book.state("across") == pytest.approx(25, abs=2) and book.image.get_attribute("alt").startswith(
        "At the cross"
    )
    book.click("wsfcn-strip", 0.5, 0.4)
    shown = book.settled(shown)
    assert book.state("image") == "dog", "the third of five"

    cells = small_page.locator(".jp-Notebook .jp-Cell").count()
    controls[0].focus()
    for key, image in (("ArrowDown", "horse"), ("ArrowUp", "dog"), ("c", "cat"), ("d", "dog"), ("d", "dog")):
        small_page.keyboard.press(key)
        small_page.wait_for_timeout(1200)  # letters within a second are one word to a list
        assert book.state("image") == image, key
        assert small_page.evaluate("document.activeElement.tagName") == "SELECT", "no other cell was chosen"
    assert small_page.locator(".jp-Notebook .jp-Cell").count() == cells, "D twice deletes no cell here"
    more = small_page.get_by_role("button", name="▸ more")
    more.focus()
    small_page.keyboard.press("Space")
    small_page.get_by_label("network", exact=True).wait_for()
    sliders.nth(0).locator(".noUi-handle").focus()
    for key in ("ArrowDown", "ArrowUp", "Home"):
        small_page.keyboard.press(key)
    shown = book.settled()
    assert book.state("opacity") == 0.0
    photo = tmp_path / "mine.jpg"
    Image.open(ROOT / "data" / "pictures" / "cow.jpg").save(photo)
    book.upload("your own", photo)
    book.settled(shown)
    assert book.state("image") == "your own 1: mine.jpg" and "predicted cow" in book.words()
    keep(book, "try-own")


def test_mask_explorer(lab, page, settings, keep):
    book = opened(lab, page, "05_evaluate", settings, "explorer")
    book.run()
    book.ended()
    keep(book, "masks")
    walk(
        book,
        {
            "best first": lambda: book.choose("order", "best first"),
            "next": lambda: book.press("next"),
            "difference": lambda: book.choose("show", "difference"),
            "other pair": lambda: book.choose("difference", "prediction / with CRF"),
            "with CRF": lambda: book.choose("show", "with CRF"),
            "ground truth": lambda: book.choose("show", "ground truth"),
            "opacity": lambda: book.slide("opacity", "ArrowLeft", 4),
        },
    )
    book.press("more")
    charts = page.locator(".wsfcn-explorer img:not(.wsfcn-picture):not(.wsfcn-strip)")
    curves = {
        "no sweep": lambda: book.tell("explorer.set(sweep=None)"),  # the notebook made the same one already
        "sweep": lambda: book.press("sweep"),
        "its place": lambda: book.slide("background", "ArrowRight", 4),
        "score cut": lambda: book.slide("score cut", "ArrowRight", 8),
    }
    for act in curves.values():  # they change the charts beside the picture
        old = charts.get_attribute("src")
        act()
        expect(charts).not_to_have_attribute("src", old)
    walk(
        book,
        {
            "cut by the sliders": lambda: book.choose("show", "cut by the sliders"),
        },
    )
    keep(book, "masks-cut")


def test_run_comparison(lab, page, settings, keep):
    book = opened(lab, page, "04_ablations", settings, "explorer")
    book.run()
    book.ended()
    walk(book, {"next": lambda: book.press("next"), "previous": lambda: book.press("previous")})
    keep(book, "runs")


def test_training_is_stopped_by_its_button(lab, page, settings, keep, tmp_path):
    run = tmp_path / "run"
    book = opened(lab, page, "02_train", settings, "view", run=str(run), epochs=999, log_every=1)
    book.run()
    page.get_by_text("; in training").first.wait_for()  # its first row is logged
    first = book.image.get_attribute("src")
    page.wait_for_function("old => document.querySelector('img.widget-image').src != old", arg=first)
    assert page.locator(".jp-InputPrompt", has_text="*").count(), "the picture grew while a cell was busy"
    keep(book, "training")
    book.press("stop")
    book.ended()
    book.settled()
    keep(book, "training-stopped")
    rows = read_rows(run / "log.csv")
    assert int(rows[-1]["step"]) > 0 and int(rows[-1]["epoch"]) < 999, (
        "it had begun, and was far from its end"
    )
    stage = read_run(run)["stages"]["02_train"]
    assert not stage.get("finished") and not (run / "stop").exists(), (
        "an obeyed request does not stop the next start"
    )
    assert (
        page.get_by_text("stopped before its end").count()
        and f"; stopped after step {stage['stopped_at']}. " in book.words()
    )
    assert (run / "checkpoints" / "last.safetensors").exists() or list(
        (run / "checkpoints").glob("state-*.pt")
    )


def test_a_stop_that_comes_before_the_training_is_obeyed(lab, page, settings, tmp_path):
    run = tmp_path / "run"
    book = opened(lab, page, "02_train", settings, "view", run=str(run), epochs=999)
    book.run()
    book.press("stop")  # as soon as the view stands: the next cell builds the network
    book.ended()
    stage = read_run(run)["stages"]["02_train"]
    assert stage["stopped_at"] > 0 and not stage.get("finished") and not (run / "stop").exists()


def test_dark_theme(lab, page, settings, keep):
    lab.configure("apputils-extension/themes", theme="JupyterLab Dark")
    try:
        book = opened(lab, page, "03_explore", settings, "explorer", count=1, sampled=1)
        book.run()
        book.ended()
        page.wait_for_selector('body[data-jp-theme-light="false"]', state="attached")
        book.settled()
        keep(book, "cams-dark")
    finally:
        lab.configure("apputils-extension/themes", theme="JupyterLab Light")
