"""What an explorer needs of the browser beyond widgets: clicks on pictures, and keys that stay with the controls."""

from collections.abc import Callable

import anywidget
import traitlets

# classes of the parts of the page
EXPLORER, PICTURE, STRIP, WORDS = "wsfcn-explorer", "wsfcn-picture", "wsfcn-strip", "wsfcn-words"
ASKED = "wsfcn-asked"  # a picture whose places answer a click


class Page(anywidget.AnyWidget):
    """An invisible part of an explorer's page.

    JupyterLab takes keys as its own where a list or a slider has the focus: an arrow goes to the next cell, D twice
    deletes one. Within the explorer they go to the control. Clicks on its pictures are passed on with the pixel.

    words, thumbs: what the picture and the thumbnails show, for those who cannot see them.
    """

    words = traitlets.Unicode().tag(sync=True)
    thumbs = traitlets.Unicode().tag(sync=True)

    _css = f"""
    img.{ASKED} {{ cursor: crosshair }}
    img.{STRIP} {{ cursor: pointer }}
    .{WORDS} .widget-html-content {{ line-height: 1.4 }}
    """
    _esm = (
        """
    function render({ model, el }) {
        el.style.display = "none";
        const adopt = () => {
            const page = el.closest(".EXPLORER");
            if (!page) {  // the page is put together around this part
                requestAnimationFrame(adopt);
                return;
            }
            // JupyterLab looks for this mark at what has the focus, from there upwards to the first match
            page.addEventListener("focusin", event => {
                event.target.setAttribute("data-lm-suppress-shortcuts", "true");
            });
            page.addEventListener("click", event => {
                const image = event.target.closest("img.PICTURE, img.STRIP");
                if (!image) return;
                const box = image.getBoundingClientRect();
                const x = Math.floor((event.clientX - box.left) * image.naturalWidth / box.width);
                const y = Math.floor((event.clientY - box.top) * image.naturalHeight / box.height);
                model.send({ part: image.classList.contains("STRIP") ? "STRIP" : "PICTURE", x, y });
            });
            const describe = () => {
                for (const image of page.querySelectorAll("img.PICTURE")) image.alt = model.get("words");
                for (const image of page.querySelectorAll("img.STRIP")) image.alt = model.get("thumbs");
            };
            model.on("change:words change:thumbs", describe);
            describe();
        };
        adopt();
    }
    export default { render };
    """.replace("EXPLORER", EXPLORER)
        .replace("PICTURE", PICTURE)
        .replace("STRIP", STRIP)
    )

    def __init__(self, clicked: dict[str, Callable[[int, int], None]]):
        """`clicked`: by the class of a picture, what receives the column and row of the pixel."""
        super().__init__()
        self.clicked = clicked
        self.on_msg(self._received)

    def _received(self, widget: anywidget.AnyWidget, message: dict, buffers: list) -> None:
        if action := self.clicked.get(message.get("part", "")):
            action(message["x"], message["y"])
