"""The pages in a real browser: figures follow the controls, show the computed numbers, and load nothing."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_report import make_results

import hoplens as hl
from hoplens.analysis.analysing import analyze
from hoplens.analysis.summary import Analysis
from hoplens.reports import theme, write_network_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NASTY = "</script><!--<script>\"'&\u2028{a|b}"
CHART = "echarts.getInstanceByDom(document.querySelector('figure[data-figure={}] .chart')).getOption()"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        reason = "THE PAGES WERE NOT TESTED IN A BROWSER: `make browser` installs Chromium where it may"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def found() -> Analysis:
    generator = torch.Generator().manual_seed(0)
    net = hl.Pathways(
        torch.randn(12, 4, generator=generator),
        0.3 * torch.randn(12, 12, generator=generator),
        torch.randn(3, 12, generator=generator),
        input_names=[NASTY, "second", "third", "fourth"],
        input_modules=["left", "right", "left", "right"],
    )
    return analyze(net, horizon=5)


@pytest.fixture(scope="module")
def network_page(found: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network_report(found, tmp_path_factory.mktemp("page") / "network.html", title=NASTY)


@pytest.fixture(scope="module")
def study_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hl.report(make_results(), path=tmp_path_factory.mktemp("page") / "study.html")


class Visit:
    """An open page with all that went wrong on it."""

    def __init__(self, browser: Any, path: Path, *, width: int = 1600, scheme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on(
            "console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "request", lambda r: None if r.url.startswith(("file:", "blob:")) else self.wrong.append(r.url)
        )
        self.page.goto(path.as_uri())
        # charts are drawn when they come into view, and on a narrow page the first lies below the words
        self.page.locator("figure").first.scroll_into_view_if_needed()
        self.page.wait_for_selector("figure svg")

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def chart(self, key: str) -> Any:
        self.page.locator(f"figure[data-figure='{key}']").scroll_into_view_if_needed()
        self.page.wait_for_selector(f"figure[data-figure='{key}'] svg")
        return self.page.evaluate(CHART.format(f'"{key}"'))

    def slide(self, place: int) -> None:
        self.page.locator("#hop").fill(str(place))

    def save(self, key: str, kind: str) -> bytes:
        with self.page.expect_download() as wanted:
            self.page.locator(f"figure[data-figure='{key}'] .save button", has_text=kind).click()
        return Path(wanted.value.path()).read_bytes()


def cells(chart: Any, shape: tuple[int, int]) -> np.ndarray:
    values = np.full(shape, np.nan)
    for i, o, value in chart["series"][0]["data"]:
        values[o, i] = value
    return values


def in_page_order(found: Analysis) -> np.ndarray:
    values: np.ndarray = found.maps.values.numpy()[:, :, [0, 2, 1, 3]]  # inputs by module
    return values


@pytest.mark.parametrize("width", [400, 1600])
def test_the_slider_moves_the_map_to_the_computed_values(
    browser: Any, network_page: Path, found: Analysis, width: int
) -> None:
    with Visit(browser, network_page, width=width) as visit:
        expected = in_page_order(found)
        for place in (0, 3):
            visit.slide(place)
            np.testing.assert_allclose(cells(visit.chart("map"), (3, 4)), expected[place], rtol=1e-5)
            assert visit.page.locator("#readout").inner_text() == f"hop {place + 2} · lag {place}"
            share = 100 * np.abs(expected[place]).sum() / np.abs(expected).sum()
            said = f"{share:.{0 if share >= 9.95 else 1}f} % of all influence"
            assert visit.page.locator("#say").inner_text().startswith(said)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.wrong == []


def test_the_toggle_and_one_scale_across_hops(browser: Any, network_page: Path, found: Analysis) -> None:
    values = in_page_order(found)
    with Visit(browser, network_page) as visit:
        for mode, shown in (
            ("signed", values),
            ("raw", np.abs(values)),
            ("share", np.abs(values) / np.abs(values).sum((1, 2), keepdims=True)),
        ):
            visit.page.locator(f"input[value={mode}]").check(force=True)
            limits = set()
            for place in (1, 4):
                visit.slide(place)
                chart = visit.chart("map")
                np.testing.assert_allclose(cells(chart, (3, 4)), shown[place], rtol=1e-5)
                limits.add((chart["visualMap"][0]["min"], chart["visualMap"][0]["max"]))
            ((low, high),) = limits
            assert high == pytest.approx(np.abs(shown).max(), rel=1e-5)
            assert low == (-high if mode == "signed" else 0)
        assert visit.wrong == []


def test_the_routing_graph_adds_up_to_the_hop_map(browser: Any, network_page: Path, found: Analysis) -> None:
    with Visit(browser, network_page) as visit:
        visit.slide(2)
        lines = [item["value"] for item in visit.chart("graph")["series"][0]["data"]]
        through = sum(value[6] for value in lines if value[0] == 1)
        assert through == pytest.approx(1.0, abs=1e-3)
        for stage in (0, 2):  # what cancels between groups leaves no less than the map itself
            assert sum(value[6] for value in lines if value[0] == stage) >= 1 - 1e-3
        before = max(value[4] for value in lines)
        visit.slide(4)
        after = max(item["value"][4] for item in visit.chart("graph")["series"][0]["data"])
        assert before != after


def test_keyboard_and_play(browser: Any, network_page: Path) -> None:
    with Visit(browser, network_page) as visit:
        visit.slide(0)
        visit.page.locator("#hop").press("ArrowRight")
        assert visit.page.locator("#readout").inner_text() == "hop 3 · lag 1"
        assert visit.page.locator("#hop").get_attribute("aria-valuetext") == "hop 3 (lag 1)"
        visit.page.clock.install()
        visit.page.locator("#play").press("Enter")
        assert visit.page.locator("#play").get_attribute("aria-pressed") == "true"
        visit.page.clock.run_for(1600)
        assert visit.page.locator("#readout").inner_text() == "hop 4 · lag 2"
        visit.page.locator("#play").press("Enter")
        assert visit.page.locator("#play").get_attribute("aria-pressed") == "false"
        for label in visit.page.locator("figure .chart").evaluate_all("all => all.map(e => e.ariaLabel)"):
            assert label is None or len(label) > 20
        assert visit.wrong == []


def test_hovering_names_a_cell_and_names_are_never_markup(
    browser: Any, network_page: Path, found: Analysis
) -> None:
    with Visit(browser, network_page) as visit:
        assert visit.page.locator("h1").inner_text() == NASTY.replace("\u2028", "\\u2028")
        visit.slide(1)
        visit.chart("map")
        where = visit.page.evaluate(
            "(() => { const c = echarts.getInstanceByDom(document.querySelector('[data-figure=map] .chart'));"
            "c.dispatchAction({type: 'showTip', seriesIndex: 0, dataIndex: 0});"
            "return document.querySelector('[data-figure=map] .chart').innerText; })()"
        )
        assert NASTY.split("\u2028")[0] in where
        assert f"{abs(in_page_order(found)[1, 0, 0]):.3g}" in where
        assert visit.page.evaluate("document.querySelectorAll('script').length") == 3
        assert visit.wrong == []


def test_saving(browser: Any, network_page: Path, found: Analysis) -> None:
    with Visit(browser, network_page, scheme="dark") as visit:
        visit.chart("map")
        rows = list(csv.DictReader(io.StringIO(visit.save("map", "CSV").decode())))
        expected = found.maps.to_dataframe()
        assert len(rows) == len(expected)
        saved = {(int(r["hop"]), r["output"], r["input"]): float(r["weight"]) for r in rows}
        for row in expected.itertuples():
            assert saved[row.hop, row.output, row.input] == pytest.approx(row.weight, rel=1e-5)
        assert visit.save("map", "PNG").startswith(b"\x89PNG")
        drawn = visit.save("graph", "SVG").decode()
        assert drawn.startswith("<svg")
        assert "#ffffff" in drawn or "rgb(255,255,255)" in drawn
        assert visit.wrong == []


@pytest.mark.parametrize("width", [400, 1600])
def test_study_page(browser: Any, study_page: Path, width: int) -> None:
    results = make_results()
    with Visit(browser, study_page, width=width, scheme="dark") as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        dots = visit.chart("cmp-test_error")
        shown = sorted(
            item["value"][0] for s in dots["series"] if s["type"] == "scatter" for item in s["data"]
        )
        np.testing.assert_allclose(shown, sorted(results.summary.test_error), rtol=1e-5)
        first = visit.chart("map")["series"][0]["data"]
        visit.page.locator("#view").select_option("0")
        assert visit.chart("map")["series"][0]["data"] != first
        for key in ("sweep-test_error-0", "hops-0", "weights-1", "prune-0", "reach"):
            assert visit.chart(key)["series"]
        tip = visit.chart("reach")["tooltip"][0]
        assert (tip["backgroundColor"], tip["confine"]) == (theme.DARK["panel"], True)
        ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(20, 23, 26)"
        assert visit.wrong == []


def test_print_draws_everything_on_white(browser: Any, study_page: Path) -> None:
    with Visit(browser, study_page, scheme="dark") as visit:
        visit.page.emulate_media(media="print")
        visit.page.locator("figure .chart:not(:has(svg))").first.wait_for(state="detached")
        ink = visit.page.evaluate(CHART.format("map"))["textStyle"]["color"]
        assert ink == "#1c2024"
        assert visit.page.pdf()[:5] == b"%PDF-"
        assert visit.wrong == []
