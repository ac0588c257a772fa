"""Figures show the numbers they are given, and change nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from colours import VISION, contrast, distance
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure

import hoplens as hl
from hoplens import plots
from hoplens.errors import FileError, NonFiniteError, ParameterError, ShapeError, UnknownNameError
from hoplens.plots.columns import MOST_PAIRS, TOP_PAIRS
from hoplens.plots.frames import interval
from hoplens.plots.style import DIVERGING, KNOWN_STYLES, METHODS, PAPER_WHITE, method_styles
from hoplens.studies.measures import kept_columns


def make_maps(
    hops: int = 3,
    outputs: int = 2,
    inputs: int = 3,
    *,
    batch: tuple[int, ...] = (),
    output_modules: tuple[str, ...] | None = None,
    input_modules: tuple[str, ...] | None = None,
) -> hl.HopMaps:
    generator = torch.Generator().manual_seed(0)
    return hl.HopMaps(
        torch.randn(*batch, hops, outputs, inputs, generator=generator),
        torch.arange(2, hops + 2),
        tuple(f"x{j}" for j in range(inputs)),
        tuple(f"y{j}" for j in range(outputs)),
        input_modules,
        output_modules,
    )


def mesh_of(ax: Axes) -> QuadMesh:
    (mesh,) = [artist for artist in ax.collections if isinstance(artist, QuadMesh)]
    return mesh


def shown(ax: Axes) -> np.ndarray:
    return np.asarray(mesh_of(ax).get_array()).reshape(mesh_of(ax).get_coordinates().shape[0] - 1, -1)


def title(ax: Axes) -> str:
    return ax.get_title(loc="left")


def networks(**changes: object) -> pd.DataFrame:
    """Return two validation and three report seeds of L1 at two strengths, and of no penalty."""
    rows = [
        {
            "task": "addition",
            "method": method,
            "strength": strength,
            "seed": seed,
            "role": "validation" if seed < 2 else "report",
            "test_error": (0.5 if strength == 1e-3 else 0.2) * (1 + 0.1 * seed),
            "kept_10": 0.9,
            "kept_70": 0.5 if strength == 1e-3 else 0.7 + 0.01 * seed,
            "lag": 4,
        }
        for method, strength in (("L1", 1e-3), ("L1", 1e-2), ("none", 0.0))
        for seed in range(5)
    ]
    return pd.DataFrame(rows).assign(**changes)


def curve(ax: Axes, method: str) -> tuple[list[float], list[float]]:
    """Return the line of a method: the one of its colour without markers."""
    (line,) = [
        line
        for line in ax.lines
        if line.get_color() == KNOWN_STYLES[method].color and line.get_marker() in ("None", None, "")
    ]
    return list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))


class TestHops:
    def test_cells_follow_output_then_input_module(self) -> None:
        maps = make_maps(3, 2, 4, output_modules=("b", "a"), input_modules=("p", "q", "p", "q"))
        expected = [
            maps.values[:, o, i] for o, i in [(0, 0), (0, 2), (0, 1), (0, 3), (1, 0), (1, 2), (1, 1), (1, 3)]
        ]
        np.testing.assert_allclose(shown(plots.plot_hops(maps)), torch.stack(expected, dim=1).numpy())

    def test_pairs_of_modules_are_neighbours(self) -> None:
        maps = make_maps(2, 2, 2, output_modules=("a", "a"), input_modules=("p", "q"))
        expected = [maps.values[:, o, i] for o, i in [(0, 0), (1, 0), (0, 1), (1, 1)]]
        ax = plots.plot_hops(maps)
        np.testing.assert_allclose(shown(ax), torch.stack(expected, dim=1).numpy())
        assert [label.get_text() for label in ax.get_xticklabels()] == ["p", "q"]

    def test_rows_name_hop_and_lag_and_the_first_is_on_top(self) -> None:
        ax = plots.plot_hops(make_maps(3))
        assert [label.get_text() for label in ax.get_yticklabels()] == ["2 (0)", "3 (1)", "4 (2)"]
        assert ax.yaxis_inverted()

    def test_lines_between_modules_only(self) -> None:
        maps = make_maps(3, 2, 4, output_modules=("a", "b"), input_modules=("p", "p", "q", "q"))
        lines = [artist for artist in plots.plot_hops(maps).collections if isinstance(artist, LineCollection)]
        places = [sorted(float(path.vertices[0][0]) for path in line.get_paths()) for line in lines]
        assert places == [[2.0, 6.0], [4.0]]  # between input modules, between output modules

    def test_scale_is_centred_and_shared(self) -> None:
        maps = make_maps(4)
        largest = float(maps.values.abs().max())
        assert mesh_of(plots.plot_hops(maps)).get_clim() == pytest.approx((-largest, largest))
        figure = plots.plot_hop_grid(maps)
        meshes = [a for ax in figure.axes for a in ax.collections if isinstance(a, QuadMesh)]
        scales = {mesh.get_clim() for mesh in meshes}
        assert len(scales) == 1
        assert scales.pop() == pytest.approx((-largest, largest))

    def test_default_is_the_first_network_and_the_title_says_so(self) -> None:
        maps = make_maps(batch=(3,))
        ax = plots.plot_hops(maps)
        np.testing.assert_array_equal(shown(ax), shown(plots.plot_hops(maps[0])))
        assert title(ax) == "network 0 of 3"
        assert title(plots.plot_hops(maps[0])) == ""

    def test_network_chooses(self) -> None:
        maps = make_maps(batch=(2, 3))
        ax = plots.plot_hops(maps, network=(1, -1))
        np.testing.assert_array_equal(shown(ax), shown(plots.plot_hops(maps[1][2])))
        assert title(ax) == "network (1, 2) of 2 × 3"

    @pytest.mark.parametrize(("batch", "network"), [((3,), 3), ((3,), (0, 0)), ((2, 3), 1), ((), 0)])
    def test_networks_that_do_not_exist(self, batch: tuple[int, ...], network: int | tuple[int, ...]) -> None:
        with pytest.raises(ShapeError, match="network"):
            plots.plot_hops(make_maps(batch=batch), network=network)

    def test_many_pairs_become_module_pairs_with_their_strongest_weight(self) -> None:
        modules = tuple(f"m{n // 7}" for n in range(21))
        maps = make_maps(2, 21, 21, output_modules=modules, input_modules=modules)
        ax = plots.plot_hops(maps)
        values = maps.values.reshape(2, 3, 7, 3, 7).permute(0, 1, 3, 2, 4).flatten(3)
        index = values.abs().argmax(dim=-1, keepdim=True)
        np.testing.assert_allclose(shown(ax), values.gather(-1, index).reshape(2, 9).numpy())
        assert title(ax) == "441 pairs as 9 pairs of modules, the strongest weight of each"

    def test_many_pairs_without_modules_become_the_strongest(self) -> None:
        maps = make_maps(2, 21, 21)
        ax = plots.plot_hops(maps)
        mass = maps.values.abs().sum(dim=0).flatten().sort(descending=True).values
        drawn = np.sort(np.abs(shown(ax)).sum(axis=0))[::-1]
        np.testing.assert_allclose(drawn, mass[:TOP_PAIRS].numpy(), rtol=1e-6)
        assert title(ax) == f"the {TOP_PAIRS} strongest of 441 pairs"

    def test_as_many_pairs_as_fit_are_all_shown(self) -> None:
        ax = plots.plot_hops(make_maps(2, 20, MOST_PAIRS // 20))
        assert shown(ax).shape == (2, MOST_PAIRS)
        assert title(ax) == ""

    def test_labels_that_do_not_fit_are_turned_or_left_out(self) -> None:
        ax = plots.plot_hops(make_maps(2, 1, 30))
        assert {label.get_rotation() for label in ax.get_xticklabels()} == {90.0}
        crowded = plots.plot_hops(make_maps(2, 10, 30))
        assert not crowded.get_xticklabels()
        assert "in order" in crowded.get_xlabel()

    def test_zero_maps_are_white(self) -> None:
        maps = make_maps(2)
        zero = hl.HopMaps(torch.zeros_like(maps.values), maps.hops, maps.input_names, maps.output_names)
        mesh = mesh_of(plots.plot_hops(zero))
        np.testing.assert_array_equal(mesh.to_rgba(mesh.get_array()).reshape(-1, 4), 1.0)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_numbers_that_are_none(self, bad: float) -> None:
        maps = make_maps(2)
        maps.values[0, 0, 0] = bad
        for draw in (plots.plot_hops, plots.plot_hop_grid):
            with pytest.raises(NonFiniteError, match="1 of its 12"):
                draw(maps)
        with pytest.raises(NonFiniteError):
            plots.plot_map(maps.values[0], maps.input_names, maps.output_names)

    def test_trained_maps_with_gradient_and_half_precision(self) -> None:
        maps = make_maps(2)
        values = maps.values.bfloat16().requires_grad_()
        half = hl.HopMaps(values, maps.hops, maps.input_names, maps.output_names)
        np.testing.assert_allclose(shown(half.plot()), values.detach().float().flatten(1).numpy())

    def test_grid_has_one_panel_a_hop_and_says_when_it_has_fewer(self) -> None:
        figure = plots.plot_hop_grid(make_maps(7), network=None)
        panels = [ax for ax in figure.axes if title(ax)]
        assert [title(ax) for ax in panels] == [f"hop {k} (lag {k - 2})" for k in range(2, 9)]
        figure = plots.plot_hop_grid(make_maps(60, 1, 1, batch=(2,)), network=1)
        assert len([ax for ax in figure.axes if title(ax)]) == 48
        assert figure.get_suptitle() == "network 1 of 2 · the 48 strongest of 60 hops"

    def test_grid_cells(self) -> None:
        maps = make_maps(2, 2, 4, output_modules=("a", "b"), input_modules=("p", "q", "p", "q"))
        first = plots.plot_hop_grid(maps).axes[0]
        np.testing.assert_allclose(shown(first), maps.values[0][:, [0, 2, 1, 3]].numpy())


class TestMap:
    def test_cells_names_and_scale(self) -> None:
        value = torch.tensor([[1.0, -2.0, 0.0], [0.5, 0.0, 0.25]])
        ax = plots.plot_map(value, ("a", "b", "c"), ("u", "v"))
        np.testing.assert_array_equal(shown(ax), value.numpy())
        assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
        assert [label.get_text() for label in ax.get_yticklabels()] == ["u", "v"]
        assert mesh_of(ax).get_clim() == (-2.0, 2.0)

    def test_ensemble_shows_the_first(self) -> None:
        value = np.arange(12.0).reshape(2, 2, 3)
        ax = plots.plot_map(value, "abc", "uv")
        np.testing.assert_array_equal(shown(ax), value[0])
        assert title(ax) == "network 0 of 2"

    def test_resolvent_calls_it(self) -> None:
        net = hl.Pathways(torch.eye(2), 0.5 * torch.eye(2), torch.eye(2))
        res = hl.resolvent(net)
        np.testing.assert_allclose(shown(res.plot()), res.value.numpy())

    @pytest.mark.parametrize("shape", [(3, 2), (2,), (0, 2, 3)])
    def test_shapes_that_do_not_fit(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ShapeError, match=r"\(\.\.\., 2, 3\)"):
            plots.plot_map(torch.zeros(shape), "abc", "uv")


class TestSweep:
    def test_points_are_means_of_the_report_seeds(self) -> None:
        frame = networks()
        report = frame[(frame.role == "report") & (frame.method == "L1")]
        x, y = curve(plots.plot_strength_sweep(frame, "test_error"), "L1")
        assert x == [1e-3, 1e-2]
        assert y == pytest.approx(report.groupby("strength").test_error.mean().tolist())

    def test_validation_seeds_where_report_seeds_miss_a_strength_and_all_where_both_do(self) -> None:
        whole = networks()
        frame = whole[(whole.role == "validation") | (whole.strength != 1e-3)]
        neither = frame[(frame.role == "report") | (frame.strength != 1e-2)]
        for given, role in ((frame, ["validation"]), (neither, ["validation", "report"])):
            rows = given[(given.method == "L1") & given.role.isin(role)]
            _, y = curve(plots.plot_strength_sweep(given, "test_error"), "L1")
            assert y == pytest.approx(rows.groupby("strength").test_error.mean().tolist())

    def test_no_penalty_is_a_line_across(self) -> None:
        frame = networks()
        ax = plots.plot_strength_sweep(frame, "test_error")
        x, y = curve(ax, "none")
        mean = frame[(frame.method == "none") & (frame.role == "report")].test_error.mean()
        assert x == [0.0, 1.0]  # axes fractions
        assert y == pytest.approx([mean, mean])

    def test_a_diverged_network_leaves_a_hollow_marker(self) -> None:
        frame = networks()
        frame.loc[(frame.strength == 1e-2) & (frame.seed == 2), "test_error"] = np.nan
        ax = plots.plot_strength_sweep(frame, "test_error")
        marks = {
            line.get_markerfacecolor(): list(map(float, line.get_xdata()))
            for line in ax.lines
            if line.get_marker() == "^"
        }
        assert marks == {KNOWN_STYLES["L1"].color: [1e-3], PAPER_WHITE: [1e-2]}
        kept = frame[(frame.strength == 1e-2) & (frame.role == "report")].test_error.dropna().mean()
        assert curve(ax, "L1")[1][1] == pytest.approx(kept)

    def test_all_diverged_draws_nothing(self) -> None:
        ax = plots.plot_strength_sweep(networks(test_error=np.nan), "test_error")
        assert not ax.lines

    def test_given_axes_get_no_legend(self) -> None:
        given = Figure().subplots()
        assert plots.plot_strength_sweep(networks(), "test_error", ax=given) is given
        assert given.get_legend() is None
        legend = plots.plot_strength_sweep(networks(), "test_error").get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["no penalty", "L1"]

    def test_user_errors(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'test_error'"):
            plots.plot_strength_sweep(networks(), "test_mes")
        with pytest.raises(ParameterError, match="no rows"):
            plots.plot_strength_sweep(networks().iloc[:0], "test_error")
        two = pd.concat([networks(), networks(task="other")])
        with pytest.raises(ParameterError, match="one task, got 2"):
            plots.plot_strength_sweep(two, "test_error")


class TestPruning:
    def test_each_method_at_the_strength_best_on_validation_seeds(self) -> None:
        frame = networks()
        x, y = curve(plots.plot_pruning(frame), "L1")
        assert x == [0, 10, 70]
        assert y == pytest.approx([1.0, 0.9, 0.73])  # strength 1e-2, mean of seeds 2, 3, 4

    def test_report_seeds_do_not_choose(self) -> None:
        frame = networks()
        frame.loc[(frame.strength == 1e-3) & (frame.role == "report"), "test_error"] = 0.0
        assert curve(plots.plot_pruning(frame), "L1")[1][2] == pytest.approx(0.73)

    def test_a_diverged_network_counts_as_error_one_in_the_choice(self) -> None:
        frame = networks()
        frame.loc[(frame.strength == 1e-2) & (frame.seed == 0), "test_error"] = np.nan
        assert curve(plots.plot_pruning(frame), "L1")[1][2] == pytest.approx(0.5)

    def test_user_errors(self) -> None:
        with pytest.raises(ParameterError, match="kept_10"):
            plots.plot_pruning(networks().drop(columns=["kept_10", "kept_70"]))
        with pytest.raises(ParameterError, match="L1 has 2 strengths"):
            plots.plot_pruning(networks().drop(columns=["test_error"]))

    def test_columns_by_share(self) -> None:
        assert kept_columns(["kept_90", "a", "kept_10", "kept_x"]) == ["kept_10", "kept_90"]


class TestReach:
    def test_best_strength_at_each_lag(self) -> None:
        near = networks()
        far = networks(lag=9)
        far.loc[far.strength == 1e-3, "test_error"] = 0.05
        far.loc[(far.strength == 1e-3) & (far.role == "report"), "test_error"] = 0.6
        x, y = curve(plots.plot_reach(pd.concat([far, near])), "L1")
        chosen = near[(near.strength == 1e-2) & (near.role == "report")].test_error.mean()
        assert x == [4, 9]
        assert y == pytest.approx([chosen, 0.6])  # the choice stands although the report seeds regret it

    def test_empty(self) -> None:
        with pytest.raises(ParameterError, match="no rows"):
            plots.plot_reach(networks().iloc[:0])


class TestComparison:
    summary = pd.DataFrame(
        {
            "task": ["a", "a", "b", "b"],
            "method": ["L1", "recommended", "L1", "recommended"],
            "test_error": [0.5, 0.01, 0.4, np.nan],
            "test_error_low": [0.4, 0.008, np.nan, np.nan],
            "test_error_high": [0.6, 0.012, np.nan, np.nan],
            "active_hops": [2.0, 1.0, 3.0, 1.0],
            "active_hops_low": [2.0, 1.0, 3.0, 1.0],
            "active_hops_high": [2.0, 1.0, 3.0, 1.0],
            "target_active_hops": [1.5, 1.5, 0.5, 0.5],
        }
    )

    def test_dots_and_bars(self) -> None:
        ax = plots.plot_comparison(self.summary, "test_error")
        dots = {
            (line.get_marker(), float(line.get_xdata()[0]))
            for line in ax.lines
            if line.get_marker() != "None"
        }
        assert dots == {("^", 0.5), ("o", 0.01), ("^", 0.4)}
        bars = [
            tuple(path.vertices[:, 0])
            for artist in ax.collections
            if isinstance(artist, LineCollection)
            for path in artist.get_paths()
        ]
        assert bars == [(0.4, 0.6), (0.008, 0.012)]  # one network alone has no bar
        assert ax.get_xscale() == "log"
        texts = [text.get_text() for text in ax.texts]
        assert texts.count("no number: all networks diverged") == 1
        assert [text for text in texts if text in ("a", "b")] == ["a", "b"]

    def test_the_tasks_own_number_is_marked(self) -> None:
        ax = plots.plot_comparison(self.summary, "active_hops")
        marks = [
            path.vertices[0][0]
            for artist in ax.collections
            if isinstance(artist, LineCollection)
            for path in artist.get_paths()
            if path.vertices[0][0] == path.vertices[1][0] and path.vertices[0][1] != path.vertices[1][1]
        ]
        assert marks == [1.5, 0.5]
        assert ax.get_xlim()[0] == 0

    def test_no_number_at_all(self) -> None:
        nothing = self.summary.assign(test_error=np.nan, test_error_low=np.nan, test_error_high=np.nan)
        texts = [text.get_text() for text in plots.plot_comparison(nothing, "test_error").texts]
        assert texts.count("no number: all networks diverged") == 4

    def test_user_errors(self) -> None:
        with pytest.raises(UnknownNameError, match="accuracy"):
            plots.plot_comparison(self.summary, "accuracy")


class TestInterval:
    def test_covers_the_mean_and_shrinks(self) -> None:
        few = interval(np.random.default_rng(1).normal(size=8))
        many = interval(np.random.default_rng(1).normal(size=800))
        assert few.low < few.mean < few.high
        assert many.high - many.low < 0.3 * (few.high - few.low)
        assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(800), rel=0.15)

    def test_lost_networks_are_counted_and_left_out(self) -> None:
        assert interval([1.0, np.nan, 1.0]) == (1.0, 1.0, 1.0, 2, 1)
        assert np.isnan(interval([np.nan]).mean)


class TestStyle:
    @pytest.mark.parametrize("vision", list(VISION))
    def test_methods_stay_apart_to_every_reader(self, vision: str) -> None:
        colors = [style.color for style in KNOWN_STYLES.values()]
        assert min(distance(a, b, vision) for a, b in itertools.combinations(colors, 2)) > 15
        assert len({style.marker for style in KNOWN_STYLES.values()}) == len(METHODS)

    @pytest.mark.parametrize("vision", list(VISION))
    def test_signs_stay_apart_and_weigh_the_same(self, vision: str) -> None:
        low, high = (matplotlib.colors.to_hex(DIVERGING(n)) for n in (0, DIVERGING.N - 1))
        assert distance(low, high, vision) > 40
        assert contrast(low, "#fff") == pytest.approx(contrast(high, "#fff"), rel=0.25)
        assert DIVERGING(DIVERGING.N // 2) == (1.0, 1.0, 1.0, 1.0)

    def test_a_method_looks_the_same_everywhere(self) -> None:
        alone = method_styles(["recommended"])
        among = method_styles(["other", "recommended", "L1", "new"])
        assert alone["recommended"] == among["recommended"] == KNOWN_STYLES["recommended"]
        assert list(among) == ["L1", "recommended", "other", "new"]
        assert len(set(among.values())) == 4

    def test_labels_are_text_not_formulas(self, tmp_path: Path) -> None:
        name = r"$\frac$ <b> & \$x$"
        maps = hl.HopMaps(torch.ones(1, 1, 1), torch.tensor([2]), (name,), ("y",), None, None)
        ax = plots.plot_hops(maps)
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            ax.figure.savefig(tmp_path / "a.svg")
        assert r"$\frac$ &lt;b&gt; &amp; \$x$" in (tmp_path / "a.svg").read_text()

    def test_long_names_keep_both_ends(self) -> None:
        ax = plots.plot_map(torch.ones(2, 1), ["x"], ["a very long name of unit 1", "18 letters fit it."])
        assert [label.get_text() for label in ax.get_yticklabels()] == [
            "a very lo…f unit 1",
            "18 letters fit it.",
        ]


class TestSave:
    def figure(self) -> Figure:
        return plots.plot_map(torch.ones(2, 2), "ab", "uv").figure

    def test_pdf_embeds_truetype(self, tmp_path: Path) -> None:
        data = plots.save_figure(self.figure(), tmp_path / "a.pdf").read_bytes()
        assert b"/FontFile2" in data
        assert b"/Type3" not in data

    def test_svg_needs_no_font(self, tmp_path: Path) -> None:
        assert "<text" not in plots.save_figure(self.figure(), tmp_path / "a.svg").read_text()

    @pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
    def test_the_same_figure_gives_the_same_bytes(self, tmp_path: Path, suffix: str) -> None:
        one, two = (
            plots.save_figure(self.figure(), tmp_path / f"{n}.{suffix}").read_bytes() for n in range(2)
        )
        assert one == two

    def test_user_errors(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match="'jpg'"):
            plots.save_figure(self.figure(), tmp_path / "a.jpg")
        with pytest.raises(FileError, match="missing"):
            plots.save_figure(self.figure(), tmp_path / "missing" / "a.svg")

    def test_a_failure_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target = tmp_path / "a.svg"
        target.write_text("old")
        figure = self.figure()

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("disk on fire")

        monkeypatch.setattr(figure, "savefig", fail)
        with pytest.raises(RuntimeError):
            plots.save_figure(figure, target)
        assert target.read_text() == "old"


def test_drawing_leaves_global_settings_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    plots.save_figure(plots.plot_hops(make_maps()).figure, tmp_path / "a.pdf")
    plots.plot_strength_sweep(networks(), "test_error")
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_imported() -> None:
    code = (
        "import sys, torch, hoplens as hl, hoplens.plots as p; net = hl.Pathways(*3 * [torch.eye(2)]);"
        "p.plot_hops(hl.hop_maps(net, 3)); p.plot_hop_grid(hl.hop_maps(net, 3));"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("by", [None, [], ["task"], ["task", "length"]])
def test_comparison_draws_the_table_of_compare(by) -> None:
    rows = [
        ("t", 5, method, 0.1, seed, role, 0.1 + 0.01 * seed + shift)
        for method, shift in (("none", 0.3), ("L1", 0.0))
        for seed, role in enumerate(["validation", "validation", "report", "report", "report"])
    ]
    names = ["task", "length", "method", "strength", "seed", "role", "test_error"]
    table = hl.statistics.compare(pd.DataFrame(rows, columns=names), by=by)
    ax = plots.plot_comparison(table, "test_error")
    drawn = sorted(
        float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() not in ("None", None, "")
    )
    assert drawn == pytest.approx(sorted(table["mean"]))
