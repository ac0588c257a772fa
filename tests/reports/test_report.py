"""The report says what the frames say, safely, in one file that needs nothing else."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import math
import os
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from colours import VISION, contrast, distance

import hoplens as hl
from hoplens.errors import FileError
from hoplens.plots.frames import interval
from hoplens.plots.style import KNOWN_STYLES, OTHER_STYLES, MethodStyle
from hoplens.reports import numbers as n
from hoplens.reports import render_study_report, theme
from hoplens.reports.rendering import script_json
from hoplens.reports.study import agreement, duels, means_over_tasks
from hoplens.reports.tables import summary_table
from hoplens.reports.verdict import tiles, verdict
from hoplens.studies.comparison.results import StudyResults
from hoplens.studies.measures import measure_info

MEASURES = (
    "test_error",
    "accuracy",
    "resolvent_corr",
    "weight_corr",
    "active_hops",
    "alignment",
    "temporal_sparsity",
    "signal_share",
    "kept_70",
)
STRENGTHS = {"none": (0.0,), "L1": (1e-3, 1e-2), "paper": (1e-3, 1e-2), "recommended": (3e-5, 1e-3)}
ERRORS = {"none": 0.3, "L1": 0.2, "paper": 0.1, "recommended": 0.05}
NASTY = '<script>alert(1)</script> & "it\'s" $x^2$'


def make_networks(tasks: tuple[str, ...]) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = []
    for task in tasks:
        for method, strengths in STRENGTHS.items():
            for strength in strengths:
                for seed in range(5):
                    row = {"task": task, "method": method, "strength": strength, "seed": seed}
                    row |= {name: generator.uniform(0.2, 0.9) for name in (*MEASURES, "kept_10", "kept_90")}
                    row["test_error"] = ERRORS[method] * generator.uniform(0.9, 1.1)
                    row |= {"role": "validation" if seed < 2 else "report"}
                    row |= {"target_active_hops": 1.5, "diverged_at": -1}
                    rows.append(row)
    return pd.DataFrame(rows)


def summarise(networks: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (task, method), group in networks.groupby(["task", "method"], sort=False):
        own = group[(group.role == "report") & (group.strength == group.strength.max())]
        row = {"task": task, "method": method, "strength": own.strength.iloc[0], "n": len(own), "diverged": 0}
        for name in MEASURES:
            found = interval(own[name].to_numpy())
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def make_results(tasks: tuple[str, ...] = ("addition, every", "subtraction, sparse (lag 6)")) -> StudyResults:
    networks = make_networks(tasks)
    summary = summarise(networks)
    paired = pd.DataFrame(
        {
            "task": list(tasks),
            "method": "recommended",
            "reference": "paper",
            "measure": "test_error",
            "difference": -0.05,
            "low": -0.06,
            "high": -0.04,
            "p": 0.002,
            "n": 10,
            "p_holm": 0.03,
        }
    )
    task = hl.tasks.make("subtraction", signal="sparse", lag=2, modules=2, module_size=2, length=4)
    trained = hl.train(task, [hl.recipes.none(), hl.recipes.paper()], hidden=6, steps=5)
    maps = hl.hop_maps(trained.pathways, 4)
    target = hl.HopMaps(task.target_maps, maps[0].hops, maps.input_names, maps.output_names)
    return StudyResults(
        networks=networks,
        summary=summary,
        paired=paired,
        reach=networks[networks.task == tasks[0]].assign(lag=4)[
            ["method", "lag", "strength", "seed", "role", "test_error"]
        ],
        ablation=summary.assign(method=summary.method + " + start"),
        anchors=pd.DataFrame(
            {
                "claim": ["accuracy, L1", "accuracy, paper", "active hops"],
                "paper": ["0.84", 0.91, "2.1"],
                "ours": [0.8512, 0.7, 2.9],
                "low": [0.84, 0.69, 2.8],
                "high": [0.86, 0.71, np.nan],
                "agrees": ["yes", "no", "direction only"],
                "note": ["", "worse here", "x"],
            }
        ),
        aims=pd.DataFrame(
            {
                "aim": ["first aim", "second aim"],
                "target": ["at most 1", "at least 0.9"],
                "measured": ["worst 0.5", 0.8123],
                "met": [True, False],
                "where": ["", tasks[0]],
            }
        ),
        examples={"none": (task.label, maps[0]), "paper": (task.label, maps[1]), "target": target},
        settings={"hidden units": 32, "learning rate": 3e-3, "resumed": False, "torch": "2.13.0"},
    )


def page_data(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(text)


def vendored() -> str:
    return files("hoplens.reports").joinpath("vendor/echarts.min.js").read_text(encoding="utf-8")


def empty_results() -> StudyResults:
    return StudyResults(pd.DataFrame(), pd.DataFrame())


@pytest.fixture(scope="module")
def results() -> StudyResults:
    return make_results()


@pytest.fixture(scope="module")
def page(results: StudyResults) -> str:
    return render_study_report(results)


class Page(HTMLParser):
    """Collects what the tests look at: tags with attributes, table rows, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[tuple[dict[str, str | None], str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "path", "input"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "input"):
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            attributes, text = self.rows[-1][-1]
            self.rows[-1][-1] = (attributes, text + " " * ("small" in self.open) + data)
        if not {"style", "svg", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


class TestContents:
    def test_table_cells_equal_the_frame(self, page: str, results: StudyResults) -> None:
        rows = [row for row in Page(page).rows if len(row) > 1 and "data-value" in row[1][0]]
        found = {}
        expected = {}
        for frame, start in ((results.summary, 0), (results.ablation, len(results.summary))):
            for m, record in enumerate(frame.to_dict("records")):
                expected[start + m] = [
                    (
                        repr(record[name]),
                        n.number(record[name]),
                        n.interval(record[f"{name}_low"], record[f"{name}_high"]),
                    )
                    for name in MEASURES
                ]
        for m, row in enumerate(rows):
            cells = [(attrs["data-value"], *text.split(" ", 1)) for attrs, text in row[1 : 1 + len(MEASURES)]]
            found[m] = cells
        # within a task the page has its own order of methods; these frames are in that order already
        assert found == expected

    def test_strength_and_count_of_networks(self, page: str) -> None:
        rows = [row for row in Page(page).rows if len(row) > 1 and "data-value" in row[1][0]]
        assert [(row[-2][1], row[-1][1]) for row in rows[:4]] == [
            ("–", "3"),
            ("0.01", "3"),
            ("0.01", "3"),
            ("0.001", "3"),
        ]

    def test_duel_table(self, page: str, results: StudyResults) -> None:
        rows = [[text for _, text in row] for row in Page(page).rows]
        means = results.summary.set_index(["task", "method"]).test_error
        for task in results.summary.task.unique():
            ours, theirs = means[task, "recommended"], means[task, "paper"]
            assert [
                task,
                n.number(ours),
                f"{n.number(theirs)}  paper",
                n.number(ours / theirs, 2),
                "−0.0500 −0.0600 to −0.0400",
                "0.0020 0.030 corrected",
                "10",
                "✓ better",
            ] in rows

    def test_anchors_aims_and_settings(self, page: str) -> None:
        parsed = Page(page)
        rows = [[text for _, text in row] for row in parsed.rows]
        assert ["accuracy, L1", "0.84", "0.851 0.840 to 0.860", "✓ agrees", ""] in rows
        assert ["accuracy, paper", "0.910", "0.700 0.690 to 0.710", "✗ disagrees", "worse here"] in rows
        assert ["active hops", "2.1", "2.90", "direction only", "x"] in rows
        assert "✗ missed second aim Target at least 0.9; measured 0.812; missed on addition, every." in (
            re.sub(r"(met|missed)(?=[a-z])", r"\1 ", parsed.text.replace("aimTarget", "aim Target"))
        )
        assert parsed.text.index("second aim") < parsed.text.index("first aim")  # what is missed comes first
        for name, value in (("hidden units", "32"), ("learning rate", "0.00300000"), ("resumed", "no")):
            assert f"<dt>{name}</dt><dd>{value}" in page
        assert "70 networks trained (42 report, 28 validation); none diverged." in parsed.text

    def test_measures_are_defined(self, page: str) -> None:
        for name in MEASURES[:-1]:
            assert f"<dt>{measure_info(name).label}</dt>" in page
            assert html.escape(measure_info(name).meaning, quote=False).replace("'", "&#39;") in page
        assert "<dt>kept at p %</dt>" in page

    def test_verdict_and_tiles_come_first(self, page: str, results: StudyResults) -> None:
        text = Page(page).text
        sentence = " ".join(verdict(results).replace(" %", "\u00a0%").split())
        assert sentence in text
        assert text.index(sentence) < text.index("Every method on every task")

    def test_every_figure_is_there_and_says_what_it_shows(self, page: str, results: StudyResults) -> None:
        figures = page_data(page)["figures"]
        placed = [attrs["data-figure"] for tag, attrs in Page(page).tags if tag == "figure"]
        # 4 of the maps, 6 comparisons, 2 + 2 sweeps, 2 + 2 fronts, 2 prunings, 1 reach
        assert len(placed) == 21
        assert sorted(placed) == sorted(figures)
        assert all(len(figure["label"]) > 20 for key, figure in figures.items() if "-" in key)
        error = results.summary.test_error.iloc[0]
        assert f"addition, every: no penalty {n.number(error)}" in figures["cmp-test_error"]["label"]

    def test_figures_hold_the_numbers_of_the_frames(self, page: str, results: StudyResults) -> None:
        figures = page_data(page)["figures"]
        rows = [row for task in figures["cmp-alignment"]["data"]["tasks"] for row in task["rows"]]
        expected = results.summary[["alignment", "alignment_low", "alignment_high"]].to_numpy()
        np.testing.assert_allclose([[r["mean"], r["low"], r["high"]] for r in rows], expected, rtol=1e-5)
        task = results.networks[results.networks.task == "addition, every"]
        fair = task[(task.role == "report") & (task.method == "L1") & (task.strength == 1e-2)]
        lines = {line["method"]: line["points"] for line in figures["sweep-test_error-0"]["data"]["lines"]}
        assert lines["L1"][1][0] == 1e-2
        assert lines["L1"][1][1] == pytest.approx(fair.test_error.mean(), rel=1e-5)
        hops = {line["method"]: line["points"] for line in figures["hops-0"]["data"]["lines"]}
        assert hops["L1"][1][:2] == pytest.approx([fair.active_hops.mean(), fair.test_error.mean()], rel=1e-5)
        weights = {line["method"]: line["points"] for line in figures["weights-0"]["data"]["lines"]}
        assert [point[0] for point in weights["L1"]] == [10, 30, 90, 100]
        both = task[(task.role == "report") & (task.method == "L1")]
        least = (1 - both.kept_70 * (1 - both.test_error)).groupby(both.strength).mean()
        assert weights["L1"][1][1:] == pytest.approx([least.min(), least.idxmin()], rel=1e-5)

    def test_many_tasks_have_fewer_panels(self) -> None:
        many = make_results(tuple(f"task {k}" for k in range(7)))
        only = dataclasses.replace(
            empty_results(), summary=many.summary, networks=many.networks.iloc[:0], paired=many.paired
        )
        assert render_study_report(only).count("<figcaption>") == 3

    def test_frames_in_another_order_and_with_an_unknown_measure(self, results: StudyResults) -> None:
        shuffled = results.summary.iloc[::-1].assign(task_note="x")
        table = summary_table(shuffled)
        assert [row.method for row in table.blocks[0].rows] == ["no penalty", "L1", "paper", "recommended"]

    def test_diverged_networks_are_counted(self, results: StudyResults) -> None:
        networks = results.networks.copy()
        networks.loc[:2, "diverged_at"] = 7
        summary = results.summary.assign(diverged=[2, *[0] * (len(results.summary) - 1)])
        summary.loc[1, [*MEASURES]] = np.nan
        text = Page(
            render_study_report(dataclasses.replace(results, networks=networks, summary=summary))
        ).text
        assert "3 diverged (no penalty 3)" in text
        assert "2 diverged" in text


class TestBest:
    def frame(self, **columns: list[float]) -> pd.DataFrame:
        return pd.DataFrame({"task": "a", "method": ["L1", "paper"], "strength": 1.0, "n": 1, **columns})

    @pytest.mark.parametrize(
        ("name", "values", "best"),
        [
            ("test_error", [0.1, 0.2], [True, False]),
            ("accuracy", [0.1, 0.2], [False, True]),
            ("active_hops", [1.4, 1.7], [True, False]),
            ("active_hops", [1.2, 1.7], [False, True]),
            ("weight_corr", [0.1, 0.2], [False, False]),
            ("accuracy", [0.90001, 0.90002], [False, False]),
            ("accuracy", [math.nan, 0.2], [False, False]),
        ],
    )
    def test_bold(self, name: str, values: list[float], best: list[bool]) -> None:
        table = summary_table(self.frame(**{name: values, "target_active_hops": [1.5, 1.5]}))
        assert [row.cells[0].best for row in table.blocks[0].rows] == best


class TestVerdict:
    def with_errors(self, ours: list[float], rrnn: list[float], **paired: list[float]) -> StudyResults:
        tasks = [f"t{k}" for k in range(len(ours))]
        rows = [
            {"task": task, "method": method, "strength": 1.0, "n": 5, "test_error": error}
            for task, o, r in zip(tasks, ours, rrnn, strict=True)
            for method, error in (("L1", 1.0), ("paper", r), ("recommended", o))
        ]
        frame = pd.DataFrame()
        if paired:
            frame = pd.DataFrame(
                {
                    "task": tasks,
                    "method": "recommended",
                    "reference": "paper",
                    "measure": "test_error",
                    "n": 5,
                }
                | {"difference": 0.0, "p": 0.01}
                | paired
            )
        return dataclasses.replace(empty_results(), summary=pd.DataFrame(rows), paired=frame)

    def test_wins(self) -> None:
        text = verdict(self.with_errors([0.1, 0.2], [0.2, 0.8], low=[-1.0, -1.0], high=[-0.1, -0.2]))
        assert "lower test error than the better of L1 and the paper’s recipe on both." in text
        assert "clear in its favour on both (95 % interval without zero" in text
        assert "0.35 times theirs in the geometric mean, between 0.25 and 0.50." in text
        assert "worse" not in text

    def test_losses_are_named(self) -> None:
        text = verdict(
            self.with_errors([0.1, 0.9, 0.3], [0.2, 0.3, 0.2], low=[-1.0, 0.1, -1.0], high=[-0.1, 0.9, 1.0])
        )
        assert "recipe on 1 of 3." in text
        assert "clear in its favour on 1 of 3 and against it on 1 of 3" in text
        assert "It does worse on t1 (3.0 × paper) and t2 (1.5 × paper)." in text

    def test_one_task_untested(self) -> None:
        text = verdict(self.with_errors([0.1], [0.2]))
        assert text.startswith("On the one task")
        assert "recipe on it. Its error is 0.50 times that of paper." in text
        assert "clear" not in text

    def test_nothing(self) -> None:
        assert verdict(empty_results()) == "This study holds no numbers to judge yet."
        assert tiles(empty_results()) == []

    @pytest.mark.parametrize(
        ("low", "high", "p", "outcome"),
        [
            (-2.0, -1.0, 0.01, "better"),
            (-2.0, -1.0, math.nan, "better"),
            (1.0, 2.0, 0.01, "worse"),
            (-1.0, 2.0, 0.01, "unclear"),
            (-2.0, -1.0, 0.25, "unclear"),  # three pairs: an interval without zero proves nothing
            (math.nan, math.nan, 0.25, "untested"),
        ],
    )
    def test_outcome(self, low: float, high: float, p: float, outcome: str) -> None:
        (duel,) = duels(self.with_errors([0.1], [0.2], low=[low], high=[high], p=[p]))
        assert duel.outcome == outcome

    def test_the_better_reference_is_taken(self) -> None:
        near, far = duels(self.with_errors([0.1, 0.1], [0.2, 2.0]))
        assert (near.reference, near.ratio) == ("paper", 0.5)
        assert (far.reference, far.ratio) == ("L1", 0.1)

    def test_a_reference_that_diverged_is_no_reference(self) -> None:
        (duel,) = duels(self.with_errors([0.1], [math.nan]))
        assert duel.reference == "L1"
        assert duels(self.with_errors([math.nan], [0.1])) == []

    def test_means_are_over_the_same_tasks(self) -> None:
        frame = self.with_errors([0.1, 0.2], [0.3, math.nan]).summary
        assert means_over_tasks(frame, "test_error") == {"recommended": 0.1, "L1": 1.0, "paper": 0.3}
        assert means_over_tasks(frame, "alignment") == {}

    def test_paper_and_aims(self, results: StudyResults) -> None:
        text = verdict(results)
        assert (
            "Of 3 numbers checked against the paper, 1 agrees, 1 disagrees and 1 is marked “direction" in text
        )
        assert text.endswith("1 of 2 aims is met.")

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (True, "agrees"),
            (np.False_, "disagrees"),
            ("yes", "agrees"),
            ("no", "disagrees"),
            ("partly", "partly"),
        ],
    )
    def test_agreement(self, value: object, words: str) -> None:
        assert agreement(value) == words


class TestSafety:
    def test_user_text_is_escaped_everywhere(self, results: StudyResults) -> None:
        maps = results.examples["target"]
        assert isinstance(maps, hl.HopMaps)
        named = hl.HopMaps(
            maps.values, maps.hops, tuple(f"{NASTY}{k}" for k in range(4)), (NASTY, "y"), None, (NASTY, "b")
        )
        rename = {"addition, every": NASTY}
        nasty = dataclasses.replace(
            results,
            networks=results.networks.replace({"task": rename, "method": {"L1": NASTY}}),
            summary=results.summary.replace({"task": rename, "method": {"L1": NASTY}}),
            paired=results.paired.replace({"task": rename}),
            ablation=results.ablation.assign(method=[NASTY + str(k) for k in range(8)]),
            anchors=results.anchors.assign(claim=NASTY, paper=NASTY, agrees=NASTY, note=NASTY),
            aims=results.aims.assign(aim=NASTY, target=NASTY, measured=NASTY, where=NASTY),
            examples={NASTY: (NASTY, named)},
            settings={NASTY: NASTY},
        )
        text = render_study_report(nasty)
        parsed = Page(text)
        scripts = [attrs for tag, attrs in parsed.tags if tag == "script"]
        assert scripts == [{"type": "application/json", "id": "data"}, {}, {}]
        assert not {tag for tag, _ in parsed.tags} & {"img", "iframe", "object", "link", "image"}
        assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
        assert parsed.text.count(NASTY) > 20
        assert any(view["name"] == NASTY for view in page_data(text)["views"])

    def test_the_page_refers_to_nothing_outside(self, page: str) -> None:
        own = page.replace(vendored(), "")
        assert set(re.findall(r"\w+://", own)) <= {"path://"}  # how ECharts marks the outline of a marker
        assert "@import" not in own
        assert "url(" not in own
        parsed = Page(page)
        ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        links = [attrs["href"] for _, attrs in parsed.tags if "href" in attrs]
        assert links
        assert {str(link)[1:] for link in links} <= set(ids)
        assert all(str(link).startswith("#") for link in links)
        assert not any({"src", "srcset", "xlink:href", "data"} & set(attrs) for _, attrs in parsed.tags)
        assert "default-src 'none'" in page  # and the browser is told so

    def test_scripts_run_only_by_their_hash(self, page: str) -> None:
        (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
        allowed = re.findall(r"'sha256-([^']*)'", policy)
        scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
        assert allowed == [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
        assert "unsafe-eval" not in policy
        assert "script-src 'unsafe-inline'" not in policy

    @pytest.mark.parametrize("text", [NASTY, "</script>", "<!-- <script>", "\u2028", "a&amp;b", "\\u003c"])
    def test_data_cannot_end_its_script(self, text: str) -> None:
        written = str(script_json({text: [text, math.nan, 0.1234567890123, math.inf, 2.0, True, None]}))
        assert not set("<>&\u2028\u2029") & set(written)
        assert json.loads(written) == {text: [text, None, 0.123457, None, 2, True, None]}

    def test_bundled_library_is_the_published_one(self) -> None:
        folder = files("hoplens.reports").joinpath("vendor")
        readme = folder.joinpath("README.md").read_text(encoding="utf-8")
        digest = hashlib.sha256(folder.joinpath("echarts.min.js").read_bytes()).hexdigest()
        assert digest in readme
        assert "Apache License" in folder.joinpath("LICENSE").read_text(encoding="utf-8")
        for script in ("</script", "<!--"):
            assert script not in vendored()

    def test_size(self, page: str) -> None:
        assert len(page.encode()) < 5_000_000


class TestWriting:
    def test_writes_utf8_and_returns_the_path(self, tmp_path: Path, results: StudyResults, page: str) -> None:
        target = tmp_path / "report.html"
        assert hl.report(results, path=target) == target
        assert target.read_text(encoding="utf-8") == page  # and the same study gives the same page
        assert os.listdir(tmp_path) == ["report.html"]

    def test_a_failed_report_leaves_the_old_one(self, tmp_path: Path, results: StudyResults) -> None:
        target = tmp_path / "report.html"
        target.write_text("old")
        broken = dataclasses.replace(results, summary=results.summary.drop(columns="method"))
        with pytest.raises(KeyError):
            hl.report(broken, path=target)
        assert target.read_text() == "old"
        assert os.listdir(tmp_path) == ["report.html"]

    def test_a_target_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="missing"):
            hl.report(empty_results(), path=tmp_path / "missing" / "report.html")
        with pytest.raises(FileError, match="folder"):
            hl.report(empty_results(), path=tmp_path)

    def test_settings_of_the_user_do_not_matter_and_stay(self, results: StudyResults, page: str) -> None:
        with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
            before = dict(matplotlib.rcParams)
            assert render_study_report(results) == page
            assert dict(matplotlib.rcParams) == before


class TestEmpty:
    def test_everything_empty(self) -> None:
        text = Page(render_study_report(empty_results())).text
        for line in (
            "This study holds no numbers to judge yet.",
            "This study compared no methods.",
            "There is nothing to draw yet.",
            "No ablation was run in this study.",
            "No number was checked against the paper.",
            "No aims were set for this study.",
            "No settings were recorded.",
            "No measure was reported.",
        ):
            assert line in text

    @pytest.mark.parametrize(
        "name",
        ["networks", "summary", "paired", "reach", "ablation", "anchors", "aims", "examples", "settings"],
    )
    def test_one_part_empty(self, results: StudyResults, name: str) -> None:
        nothing = {} if name in ("examples", "settings") else getattr(results, name).iloc[:0]
        text = render_study_report(dataclasses.replace(results, **{name: nothing}))
        Page(text)
        assert len(text) > 5000

    def test_one_method_one_network(self, results: StudyResults) -> None:
        one = results.summary.iloc[:1].assign(n=1)
        one[[f"{name}{end}" for name in MEASURES for end in ("_low", "_high")]] = np.nan
        alone = dataclasses.replace(empty_results(), summary=one, networks=results.networks.iloc[2:3])
        assert "no penalty" in render_study_report(alone)


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.123456, "0.123"),
            (0.9996, "1.00"),
            (0.09996, "0.100"),
            (12.345, "12.3"),
            (1234.5, "1,230"),
            (-0.05, "−0.0500"),
            (0.0, "0"),
            (0.00012, "0.000120"),
            (3.21e-5, "3.21 × 10⁻⁵"),
            (-1e-7, "−1.00 × 10⁻⁷"),
            (1e-300, "1.00 × 10⁻³⁰⁰"),
            (1234, "1,234"),
            (np.int64(7), "7"),
            (np.float32(0.5), "0.500"),
            (math.nan, "–"),
            (-math.inf, "–"),
            (None, "–"),
            (True, "yes"),
            ("1 to 2", "1 to 2"),
        ],
    )
    def test_number(self, value: object, text: str) -> None:
        assert n.number(value) == text

    @pytest.mark.parametrize(
        ("value", "text"),
        [(1e-3, "0.001"), (3e-4, "0.0003"), (1e-5, "10⁻⁵"), (3e-5, "3 × 10⁻⁵"), (10.0, "10")],
    )
    def test_strength(self, value: float, text: str) -> None:
        assert n.strength(value) == text

    def test_words(self) -> None:
        assert n.percent(0.984) == "98\u00a0%"
        assert n.interval(1.0, math.nan) == ""
        assert n.count(1, "aim") == "1 aim"
        assert n.count(2, "aim") == "2 aims"
        assert n.listing([]) == ""
        assert n.listing(["a", "b", "c"]) == "a, b and c"


class TestTheme:
    @pytest.mark.parametrize("mode", [theme.LIGHT, theme.DARK])
    def test_text_can_be_read(self, mode: dict[str, str]) -> None:
        for name in ("ink", "muted", "good", "bad", "link"):
            assert contrast(mode[name], mode["ground"]) >= 4.5

    @pytest.mark.parametrize("vision", list(VISION))
    def test_methods_stay_apart_in_the_dark(self, vision: str) -> None:
        colors = [theme.DARK_METHODS[style.color] for style in KNOWN_STYLES.values()]
        assert min(distance(a, b, vision) for k, a in enumerate(colors) for b in colors[:k]) > 15
        assert min(contrast(color, theme.DARK["ground"]) for color in colors) > 3

    def test_every_variable_is_defined_in_both_modes(self, page: str) -> None:
        used = set(re.findall(r"var\(--([\w-]+)\)", page.replace(vendored(), "")))
        light, dark = (
            set(re.findall(r"--([\w-]+):", str(theme.variables(dark=is_dark)))) for is_dark in (False, True)
        )
        assert used <= light == dark
        assert "prefers-color-scheme: dark" in page
        assert "@media print" in page

    @pytest.mark.parametrize("style", [*KNOWN_STYLES.values(), *OTHER_STYLES])
    def test_marks_fill_their_box(self, style: MethodStyle) -> None:
        found = re.search(r' d="([^"]+)"', theme.mark(style))
        assert found
        values = [float(value) for value in re.findall(r"-?\d+\.\d+", found.group(1))]
        assert max(map(abs, values)) == pytest.approx(5.0, abs=0.01)
        assert found.group(1).startswith("M")
