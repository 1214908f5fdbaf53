"""The look of all figures: colours that everybody can tell apart, and matplotlib settings that a drawing function wears."""

import functools
import threading

import matplotlib

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#5c6670"  # told apart by all
STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#b8bec4",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e9ecef",
    "legend.frameon": False,
    "text.parse_math": False,  # names of classes and files may hold a $
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    **dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), GREY),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size", "ytick.minor.size"), 0),
    **dict.fromkeys(("figure.constrained_layout.w_pad", "figure.constrained_layout.h_pad"), 0.09),
}
FONT, PORTRAIT = (
    f"{matplotlib.get_data_path()}/{name}"
    for name in ("fonts/ttf/DejaVuSans.ttf", "sample_data/grace_hopper.jpg")
)
# pyplot's state breaks, and rc settings are the process's, when widget callbacks run beside a busy cell: no pyplot, and a lock
_STYLE_LOCK = threading.RLock()


def styled(draw):
    """Decorate a function that draws, so that it does so in STYLE."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with _STYLE_LOCK, matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper
