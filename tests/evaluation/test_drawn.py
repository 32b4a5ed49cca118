"""The report as a browser draws it: nothing runs off the page, and figures and tables are there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_med.evaluation.report.write_report import write_report
from tests.evaluation.test_report import choice_evaluation, text_evaluation

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
WIDTH, HEIGHT = 1000, 3200


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_the_page_is_drawn_within_its_width_in_color(tmp_path: Path) -> None:
    report = write_report([text_evaluation(), choice_evaluation()], tmp_path, title="Drawn")
    picture = tmp_path / "page.png"
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
    ]
    command += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={picture}", report.html.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert pixels.shape[:2] == (HEIGHT, WIDTH)
    ground = pixels[2, 2]
    drawn = np.abs(pixels - ground).sum(-1) > 24
    assert drawn.mean() > 0.02, "an empty page"
    assert not drawn[:, :4].any() and not drawn[:, -4:].any(), "something runs off the page"
    spread = pixels.max(-1) - pixels.min(-1)
    assert (spread > 60).sum() > 500, "figures and verdicts have color"
