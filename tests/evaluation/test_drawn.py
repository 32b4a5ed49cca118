"""The report as a browser draws it: nothing runs off the page, and every color is readable in light and in dark."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_med.evaluation.report.charts import STYLE as CHART_STYLE
from lora_med.evaluation.report.charts import WIDTH_INCHES, loss_curves
from lora_med.evaluation.report.page import STYLE
from lora_med.evaluation.report.write_report import write_report
from tests.evaluation.test_report import choice_evaluation, text_evaluation

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
WIDTH, HEIGHT = 1000, 3200
NARROW, MARGIN = 480, 16
TEXT_ON_GROUND = [("ink", "paper"), ("soft", "paper"), ("ink", "wash"), ("ink", "better-wash"), ("soft", "better-wash")]
TEXT_ON_GROUND += [(kind, f"{kind}-wash") for kind in ("better", "worse", "unsure")]
MEASURE = """<script>
const wide = [...document.querySelectorAll("body *")].filter((element) => !element.closest("table, svg")
  && element.getBoundingClientRect().right > innerWidth + 0.5).map((element) => element.outerHTML.slice(0, 80));
const chips = [...document.querySelectorAll(".chip")].filter((chip) => chip.getBoundingClientRect().right > innerWidth);
document.body.innerHTML = JSON.stringify({ width: innerWidth, page: document.documentElement.scrollWidth,
  wide: wide.length, hidden: chips.length, chips: document.querySelectorAll(".chip").length });
</script>"""


def browse(page: Path, width: int, *options: str, dark: bool = False) -> str:
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--force-color-profile=srgb", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command += [f"--window-size={width},{HEIGHT}", *options, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, timeout=120, text=True).stdout


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_drawn_within_its_width_in_color(tmp_path: Path, dark: bool) -> None:
    report = write_report([text_evaluation(), choice_evaluation()], tmp_path, title="Drawn")
    picture = tmp_path / "page.png"
    browse(report.html, WIDTH, f"--screenshot={picture}", dark=dark)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert pixels.shape[:2] == (HEIGHT, WIDTH)
    ground = pixels[2, 2]
    assert ground.mean() < 40 if dark else ground.mean() > 215
    drawn = np.abs(pixels - ground).sum(-1) > 24
    assert drawn.mean() > 0.02, "an empty page"
    assert not drawn[:, :4].any() and not drawn[:, -4:].any(), "something runs off the page"
    spread = pixels.max(-1) - pixels.min(-1)
    assert (spread > 60).sum() > 500, "figures and verdicts have color"


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_on_a_narrow_screen_no_element_is_wider_than_the_page_and_every_verdict_is_in_view(tmp_path: Path) -> None:
    report = write_report([text_evaluation(), choice_evaluation()], tmp_path, title="Narrow")
    measured = tmp_path / "measured.html"
    page = report.html.read_text(encoding="utf-8")
    # A frame has exactly the width it is given; a window may have a least width.
    inner = tmp_path / "inner.html"
    inner.write_text(page.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    frame = f'<iframe src="inner.html" style="width:{NARROW}px;height:900px;border:0"></iframe>'
    script = "<script>onload = () => document.title = frames[0].document.body.textContent</script>"
    measured.write_text(f"<!doctype html><title>none</title>{frame}{script}", encoding="utf-8")
    text = browse(measured, WIDTH, "--allow-file-access-from-files", "--dump-dom")
    title = re.search(r"<title>(\{.*?\})\s*</title>", text)
    assert title is not None, text[:300]
    found = json.loads(title[1])
    assert found["chips"] > 5
    assert found == {"width": NARROW, "page": NARROW, "wide": 0, "hidden": 0, "chips": found["chips"]}


def test_text_of_charts_is_at_least_eleven_pixels_high_on_a_narrow_screen(tmp_path: Path) -> None:
    report = write_report([text_evaluation(), choice_evaluation()], tmp_path, title="Narrow")
    widths = re.findall(r'<svg [^>]*viewBox="0 0 ([\d.]+) [\d.]+"', report.html.read_text(encoding="utf-8"))
    assert {round(float(width), 1) for width in widths} == {
        round(72 * WIDTH_INCHES, 1)
    }  # points, of which an inch has 72
    assert CHART_STYLE["font.size"] * (NARROW - 2 * MARGIN) / (72 * WIDTH_INCHES) >= 11


def test_wide_tables_scroll_in_their_own_box_and_the_verdict_stays(tmp_path: Path) -> None:
    page = write_report([text_evaluation(), choice_evaluation()], tmp_path, title="Narrow").html.read_text()
    assert page.count('<div class="scroll"><table>') == page.count("<table>") > 3
    assert re.search(r"\.scroll \{ overflow-x: auto; \}", page)
    assert re.search(r"\.verdict \{ position: sticky; right: 0;", page)
    assert '<th class="verdict">verdict</th>' in page
    assert '<td class="verdict"><span class="chip better">better</span></td>' in page


def palettes() -> tuple[dict[str, str], dict[str, str]]:
    """The variables of the style sheet by name: light, and dark with the light ones where it has none of its own."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE.read_text(encoding="utf-8"), re.DOTALL)
    first, second = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in (light, dark))
    assert set(first) == set(second), "a color without its counterpart"
    return first, second


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2, from the relative luminance of sRGB."""

    def luminance(color: str) -> float:
        shares = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_text_has_a_contrast_of_at_least_four_and_a_half_in_light_and_in_dark() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the known gray that just fails
    for palette in palettes():
        for text, ground in TEXT_ON_GROUND:
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
        for number in (1, 2, 3, 4):  # lines and bars: 3 is enough for graphics, WCAG 1.4.11
            assert contrast(palette[f"series-{number}"], palette["paper"]) >= 3


def test_dark_mode_is_for_screens_alone() -> None:
    style = STYLE.read_text(encoding="utf-8")
    assert style.count("prefers-color-scheme") == style.count("@media screen and (prefers-color-scheme: dark)") == 1


def test_each_color_of_a_chart_is_a_variable_of_the_page(tmp_path: Path) -> None:
    light, _ = palettes()
    page = write_report([text_evaluation(), choice_evaluation()], tmp_path, title="Dark").html.read_text()
    charts = [*re.findall(r"<svg.*?</svg>", page, re.DOTALL), loss_curves({"run": [{"step": 1, "loss": 2.0}]})]
    colors = 0
    for chart in charts:
        for variable, fallback in re.findall(r"var\(--([\w-]+), (#[0-9a-f]{6})\)", chart):
            assert light[variable] == fallback
            colors += 1
        bare = re.sub(r"var\(--[\w-]+, #[0-9a-f]{6}\)", "", chart)
        assert not re.search(r"(?:fill|stroke)[:=]\s*\"?(?:#|black|white)", bare)
    assert colors > 50


@pytest.mark.parametrize(("count", "dashed"), [(1, False), (2, False), (3, True)])
def test_a_validation_curve_of_two_points_is_drawn_as_points(count: int, dashed: bool) -> None:
    rows = [{"step": step, "loss": 3.0 - step / 100} for step in range(0, 400, 10)]
    rows += [{"step": 100 * step, "eval_loss": 3.0 - step / 10} for step in range(1, count + 1)]
    chart = loss_curves({"run": rows})
    assert ("stroke-dasharray" in chart) is dashed
    markers = re.findall(r"<use [^>]*style=\"fill: var\(--ink", chart)
    assert len(markers) == count + 1  # and the one in the legend
