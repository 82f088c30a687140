# Describes the figures that a program shows, one JSON object a line.
import base64
import io
import json
import math

MOST = 100  # charts of one program


def install(plt, path):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    left = [MOST]
    bxp = Axes.bxp

    def recorded(self, bxpstats, *args, **kwargs):
        bxpstats = list(bxpstats)
        if not hasattr(self, "_atoll_boxes"):
            self._atoll_boxes = []
        self._atoll_boxes.extend(bxpstats)
        return bxp(self, bxpstats, *args, **kwargs)

    def emit(figure):
        if left[0] <= 0:
            return
        left[0] -= 1
        with open(path, "a") as out:
            out.write(json.dumps(describe(figure)) + "\n")

    def show(*args, **kwargs):
        for number in plt.get_fignums():
            emit(plt.figure(number))
        plt.close("all")

    Axes.bxp = recorded
    Figure.show = lambda self, *args, **kwargs: emit(self)
    plt.show = show


def describe(figure):
    axes = [a for a in figure.axes if a.get_label() != "<colorbar>"]
    charts = [of_axes(a) for a in axes]
    if len(charts) == 1:
        chart = charts[0]
    elif charts:
        chart = {"type": "composite_chart", "title": "", "elements": charts}
    else:
        chart = {"type": "unknown", "title": "", "elements": []}
    title = getattr(figure, "_suptitle", None)
    if title is not None and title.get_text():
        chart["title"] = title.get_text()
    png = io.BytesIO()
    figure.savefig(png, format="png")
    chart["png"] = base64.b64encode(png.getvalue()).decode("ascii")
    return chart


def of_axes(ax):
    chart = {"title": ax.get_title(), "x_label": ax.get_xlabel(), "y_label": ax.get_ylabel()}
    for name, find in (("box_and_whisker", boxes), ("pie", wedges), ("bar", bars), ("scatter", scatters), ("line", lines)):
        try:
            elements = find(ax)
        except Exception:
            elements = []
        if elements:
            break
    else:
        name, elements = "unknown", []
    chart["type"], chart["elements"] = name, elements
    if name in ("line", "scatter"):
        for letter, axis, scale in (("x", ax.xaxis, ax.get_xscale()), ("y", ax.yaxis, ax.get_yscale())):
            ticks = numbers(axis.get_majorticklocs())
            chart[letter + "_ticks"] = ticks
            chart[letter + "_tick_labels"] = labels(axis)
            chart[letter + "_scale"] = kind(axis, scale)
    return chart


def kind(axis, scale):
    find = getattr(axis, "get_converter", lambda: getattr(axis, "converter", None))  # since 3.10
    converter = type(find()).__name__
    if "Category" in converter:
        return "categorical"
    return "datetime" if "Date" in converter else str(scale)


def labels(axis):
    try:
        return [str(s) for s in axis.get_major_formatter().format_ticks(axis.get_majorticklocs())]
    except Exception:
        return [t.get_text() for t in axis.get_ticklabels()]


def number(v):
    v = float(v)
    return v if math.isfinite(v) else None


def numbers(values):
    return [n for n in map(number, values) if n is not None]


def pairs(xs, ys):
    both = ((number(x), number(y)) for x, y in zip(xs, ys))
    return [[x, y] for x, y in both if x is not None and y is not None]


def named(artist, i):
    label = str(artist.get_label())
    return label if label and not label.startswith("_") else "%d" % i


def lines(ax):
    found = []
    for i, line in enumerate(ax.lines):
        points = pairs(line.get_xdata(orig=False), line.get_ydata(orig=False))
        if points:
            found.append({"label": named(line, i), "points": points})
    return found


def scatters(ax):
    from matplotlib.collections import PathCollection

    found = []
    for i, c in enumerate(ax.collections):
        if isinstance(c, PathCollection):
            offsets = c.get_offsets()
            found.append({"label": named(c, i), "points": pairs(offsets[:, 0], offsets[:, 1])})
    return found


def bars(ax):
    from matplotlib.container import BarContainer

    found = []
    for i, c in enumerate(c for c in ax.containers if isinstance(c, BarContainer)):
        flat = getattr(c, "orientation", "vertical") == "horizontal"
        axis = ax.yaxis if flat else ax.xaxis
        ticks = dict(zip(numbers(axis.get_majorticklocs()), labels(axis)))
        for p in c.patches:
            at, value = (p.get_y() + p.get_height() / 2, p.get_width()) if flat else (p.get_x() + p.get_width() / 2, p.get_height())
            near = [t for n, t in ticks.items() if abs(n - at) < 1e-6]
            found.append({"label": near[0] if near and near[0] else "%g" % at, "group": named(c, i), "value": "%.12g" % value})
    return found


def wedges(ax):
    from matplotlib.patches import Wedge

    texts = iter([t.get_text() for t in ax.texts])
    found = []
    for i, w in enumerate(p for p in ax.patches if isinstance(p, Wedge)):
        label = named(w, i)
        if label == "%d" % i:
            label = next(texts, label)
        found.append({"label": label, "angle": abs(number(w.theta2 - w.theta1)), "radius": number(w.r)})
    return found


def boxes(ax):
    names = [t for t in labels(ax.xaxis) if t]
    stats = getattr(ax, "_atoll_boxes", [])
    found = []
    for i, s in enumerate(stats):
        label = str(s.get("label", "")) or (names[i] if len(names) == len(stats) else "%d" % (i + 1))
        found.append({
            "label": label, "min": number(s["whislo"]), "first_quartile": number(s["q1"]), "median": number(s["med"]),
            "third_quartile": number(s["q3"]), "max": number(s["whishi"]), "outliers": numbers(s.get("fliers", [])),
        })
    return found
