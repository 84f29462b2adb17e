"""The look: contrast that everybody can read, and SVG that is safe to put beside other SVG in one page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest

from robolift.reports import plots, style
from robolift.reports.labels import Cut
from robolift.reports.training import Curves


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("surface", ["page", "card", "sunken"])
@pytest.mark.parametrize("name", style.TEXT_COLOURS)
def test_text_has_enough_contrast(name, surface, mode):
    assert contrast(style.PALETTE[name][mode], style.PALETTE[surface][mode]) >= 4.5


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", style.GRAPHIC_COLOURS)
def test_graphics_have_enough_contrast(name, mode):
    assert contrast(style.PALETTE[name][mode], style.PALETTE["card"][mode]) >= 3.0


def test_contrast_of_black_on_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)


def draw(name: str = "one", title: str = "Growth", description: str = "Up.") -> str:
    with style.drawing():
        fig = style.figure(200, 100)
        ax = fig.add_subplot()
        ax.plot([0, 1], [0.12345, 1], color=style.light("positive"), label="a < b & c")
        ax.fill_between([0, 1], [0, 0], [1, 1], color=style.light(style.blend(0.4)))
        ax.set_title("0.12345")
        style.legend(ax)
        return str(style.render(fig, name=name, title=title, description=description))


def test_svg_is_well_formed_and_described():
    root = ET.fromstring(draw(title="Rise <1>", description="A & B"))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == "one-title one-desc"
    assert root.attrib["viewBox"] == "0 0 200 100"
    assert root[0].text == "Rise <1>"
    assert root[1].text == "A & B"


def test_colours_follow_the_page():
    svg = draw()
    assert "var(--positive)" in svg
    assert "color-mix(in oklab, var(--positive) 40%, var(--negative))" in svg
    assert style.light("positive") not in svg
    assert "#fe00" not in svg


def test_nothing_of_it_reaches_the_rest_of_the_page():
    svg = draw()
    assert "<style" not in svg
    assert "http" not in svg
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert ids
    assert all(found.startswith("one-") for found in ids)
    referred = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
    assert referred <= set(ids)


def test_text_is_text_and_keeps_its_digits():
    svg = draw()
    assert ">a &lt; b &amp; c</text>" in svg
    assert ">0.12345</text>" in svg
    assert "DejaVu" not in svg


def test_the_same_drawing_has_the_same_bytes_whatever_the_user_configured():
    first = draw()
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.grid": False}):
        assert draw() == first
    assert draw(name="two") == first.replace("one-", "two-")


def test_many_frames_stay_small():
    num = 20_000
    rng = np.random.default_rng(0)
    value = np.cumsum(rng.normal(size=num))
    svg = plots.episode_curves(
        name="long",
        title="Long",
        value=value,
        value_std=np.ones(num),
        value_target=value,
        advantage=rng.normal(size=num),
        code=rng.integers(0, 2, num),
        target_name="value target",
        categories=(("positive", "positive"), ("negative", "negative"), ("none", "none")),
        is_human=np.zeros(num, dtype=bool),
    )
    assert len(svg) < 200_000


def test_thinning_keeps_the_ends():
    x = np.arange(10_000.0)
    kept, doubled = plots.thin(x, 2 * x)
    assert len(kept) == plots.MAX_POINTS
    assert (kept[0], kept[-1]) == (0.0, 9999.0)
    assert np.array_equal(doubled, 2 * kept)


def test_bars_of_a_long_episode_are_means_with_the_commonest_label():
    advantage, code = np.arange(1800.0), np.tile([0, 1, 1], 600)
    edges, heights, label = plots.binned(advantage, code, 3)
    assert len(heights) == plots.MAX_POINTS
    assert edges[:3].tolist() == [0.0, 3.0, 6.0]
    assert heights[:2].tolist() == [1.0, 4.0]
    assert (label == 1).all()


def test_a_short_episode_has_a_bar_a_frame():
    edges, heights, label = plots.binned(np.array([0.5, -0.5]), np.array([0, 1]), 2)
    assert (edges.tolist(), heights.tolist(), label.tolist()) == ([0.0, 1.0, 2.0], [0.5, -0.5], [0, 1])


def test_spans():
    assert plots.spans(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert plots.spans(np.zeros(3, dtype=bool)) == []


def texts(svg: str) -> list[str]:
    return re.findall(r">([^<>]+)</text>", svg)


def test_cut_is_drawn_and_named():
    cut = Cut(group="task", n=4, cut=0.25, requested=0.3, achieved=0.25, ties=0)
    categories = (("positive", "positive"), ("negative", "negative"), ("none", "none"))
    svg = plots.advantage_histogram(
        np.array([0.0, 0.1, 0.2, 0.3]), np.array([1, 1, 1, 0]), categories, [cut], what="frames"
    )
    assert "cut 0.2500" in texts(svg)
    assert {"positive", "negative"} <= set(texts(svg))
    assert "none" not in texts(svg)


def test_a_constant_advantage_can_be_drawn():
    svg = plots.advantage_histogram(
        np.zeros(5), np.ones(5, dtype=np.int64), (("a", "none"), ("b", "none")), [], what="x"
    )
    assert "frames" in texts(svg)


def test_curves_end_in_the_description():
    series = {
        "train": (np.array([10.0, 20.0]), np.array([2.0, 1.5])),
        "validation": (np.array([20.0]), np.array([1.75])),
    }
    svg = plots.training_curves(
        [Curves(name="value model", series=series, held_out={})], name="curves", title="Training", num_columns=1
    )
    assert "value model: train ends at 1.5, held out ends at 1.75." in svg
