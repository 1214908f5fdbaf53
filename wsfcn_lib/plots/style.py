"""The look of all figures: colours that everybody can tell apart, and settings of matplotlib."""

import functools
import threading

import matplotlib

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#5c6670"
COLOURS = [BLUE, ORANGE, GREEN, PURPLE, GREY]
STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#b8bec4",
    "axes.labelcolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e9ecef",
    "legend.frameon": False,
    "text.parse_math": False,  # names of classes and files may hold a $
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "figure.constrained_layout.w_pad": 0.09,
    "figure.constrained_layout.h_pad": 0.09,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
BESIDE_TITLE = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 1),
    "borderpad": 0.2,
    "columnspacing": 1.2,
}  # a legend
SQUARES = {"handlelength": 1.1, "handleheight": 1.1}  # of a legend of fills
FONT = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
# Widget callbacks run beside a busy cell:
# there pyplot's state breaks, and rc settings are the process's. So no pyplot, and a lock.
_STYLE_LOCK = threading.RLock()


def styled(draw):
    """Decorate a function that draws, so that it does so in STYLE."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with _STYLE_LOCK, matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper
