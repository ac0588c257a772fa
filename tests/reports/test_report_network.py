"""The page of one network: what it says, its routing graph, its size, and bad input."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_report import Page, page_data
from typer.testing import CliRunner

import hoplens as hl
from hoplens import plots
from hoplens.analysis.analysing import analyze
from hoplens.analysis.routing import routing_graph
from hoplens.cli.app import app
from hoplens.errors import NonFiniteError, ParameterError, ShapeError
from hoplens.reports import render_network_report, write_network_report
from hoplens.reports.prose import network_paragraph, strongest
from hoplens.reports.views import MOST_NAMES, MOST_PAIRS, grows, map_view
from hoplens.studies import runs
from hoplens.studies.runs import load_run


def random_net(inputs: int = 4, hidden: int = 12, outputs: int = 3, **names: object) -> hl.Pathways:
    g = torch.Generator().manual_seed(0)
    w_rec = 0.8 / hidden**0.5 * torch.randn(hidden, hidden, generator=g, dtype=torch.float64)
    w_in = torch.randn(hidden, inputs, generator=g, dtype=torch.float64)
    w_out = torch.randn(outputs, hidden, generator=g, dtype=torch.float64)
    return hl.Pathways(w_in, w_rec, w_out, **names)  # type: ignore[arg-type]


def chain() -> hl.Pathways:
    """x0 reaches y0 over h0, h1, h2 only: four hops."""
    w_rec = torch.zeros(3, 3)
    w_rec[1, 0] = w_rec[2, 1] = 1.0
    w_in, w_out = torch.zeros(3, 2), torch.zeros(2, 3)
    w_in[0, 0], w_out[0, 2] = 2.0, -1.5
    return hl.Pathways(w_in, w_rec, w_out, input_names=["in", "idle"], output_names=["out", "mute"])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--length", "4", "--steps", "1", "--seeds", "2", "--hidden", "6", "--out", str(folder)]
    assert CliRunner().invoke(app, ["train", "averaging", *options]).exit_code == 0
    return folder


class TestWords:
    def test_a_chain(self) -> None:
        text = network_paragraph(analyze(chain(), horizon=5))
        assert "2 inputs over 3 hidden units to 2 outputs" in text
        assert "100\u00a0% of the influence takes 4 hops, the most of all: inputs seen" in text
        assert "2 time steps before the read-out" in text
        assert "shared by 1 of the 4 input-output pairs" in text
        assert "from in to out in 4 hops, with weight −3.00" in text
        assert "no cycle" in text

    def test_a_readout_is_not_taken_for_hidden_units(self) -> None:
        assert "to 2 outputs. Influence" in network_paragraph(analyze(chain(), horizon=5))

    def test_nothing_to_route(self) -> None:
        text = network_paragraph(
            analyze(hl.Pathways(torch.ones(2, 1), torch.ones(2, 2), torch.zeros(1, 2)), horizon=3)
        )
        assert "No input reaches an output within 4 hops" in text

    def test_growth_is_told_and_hops_are_compared_within(self) -> None:
        net = hl.Pathways(torch.eye(2), torch.full((2, 2), 15.0), torch.eye(2))
        found = analyze(net, horizon=6)
        assert "multiplies the weights by 30.0" in network_paragraph(found)
        assert strongest(found.maps, 1)[0][0] < 5  # not the last hop, whose raw weights are the largest
        assert map_view(found.maps)["mode"] == "share"

    def test_modules(self) -> None:
        net = hl.Pathways(
            torch.eye(2),
            0.5 * torch.eye(2),
            torch.eye(2),
            input_modules=["a", "b"],
            output_modules=["a", "b"],
        )
        assert "100\u00a0% of the influence stays inside a module, where 50\u00a0%" in network_paragraph(
            analyze(net, horizon=3)
        )

    @pytest.mark.parametrize(
        ("share", "pattern", "words"),
        [
            (0.95, 0.99, "close to what flows there"),
            (0.7, 0.8, "a guide, and below stands"),
            (-2.0, 0.9, "take the pattern"),
            (-2.0, 0.1, "none of the flow pooled"),
            (-2.0, 0.1, "must not be taken"),
        ],
    )
    @pytest.mark.parametrize("at", [None, "raw"])
    def test_trust_follows_the_fidelity(
        self, at: str | None, share: float, pattern: float, words: str
    ) -> None:
        rnn, readout = torch.nn.RNN(2, 4, batch_first=True), torch.nn.Linear(4, 1)
        found = analyze(rnn, readout, inputs=torch.zeros(2, 3, 2), horizon=3, at=at)
        assert found.fidelity is not None
        fit = dataclasses.replace(
            found.fidelity,
            explained=torch.full((2,), share),
            pooled_explained=share,
            pooled_pattern=pattern,
            pooled_gain=0.4,
        )
        assert words in network_paragraph(dataclasses.replace(found, fidelity=fit))
        nan = float("nan")
        still = dataclasses.replace(fit, explained=torch.full((2,), nan), pooled_explained=nan)
        said = network_paragraph(dataclasses.replace(found, fidelity=still))
        assert ("nothing flows" in said) == (at == "raw")
        assert "explain" not in said


class TestView:
    def test_values_and_order(self) -> None:
        net = random_net(input_modules=["a", "b", "a", "b"])
        maps = hl.hop_maps(net, 3)
        view = map_view(maps)
        assert view["inputs"] == ["x0", "x2", "x1", "x3"]
        np.testing.assert_array_equal(
            np.reshape(view["values"], (3, 3, 4)), maps.values[:, :, [0, 2, 1, 3]].numpy()
        )
        assert view["start"] == int(maps.values.abs().sum((1, 2)).argmax())

    def test_many_inputs_without_modules(self) -> None:
        net = random_net(inputs=70)
        net.w_in[:, 5] = 100.0
        view = map_view(hl.hop_maps(net, 2))
        assert len(view["inputs"]) == MOST_NAMES
        assert "x5" in view["inputs"]
        assert f"the {MOST_NAMES} strongest of 70 inputs" in view["note"]

    def test_many_inputs_with_modules(self) -> None:
        maps = hl.hop_maps(random_net(inputs=70, input_modules=[f"m{n % 7}" for n in range(70)]), 2)
        view = map_view(maps)
        assert view["inputs"] == [f"m{n}" for n in range(7)]
        block = maps.values[0, 1, 3::7]
        assert np.reshape(view["values"], (2, 3, 7))[0, 1, 3] == float(block[block.abs().argmax()])

    def test_long_horizons_stay_small(self) -> None:
        view = map_view(hl.hop_maps(random_net(inputs=40, outputs=40), 200))
        assert np.size(view["values"]) <= 200_000
        assert len(view["pairs"]) == MOST_PAIRS

    def test_growth(self) -> None:
        assert grows([1, 10, 1e5, 1e9])
        assert not grows([1e9, 1, 1])  # a first hop far above the others is worth seeing as it is
        assert not grows([0, 0])


class TestRouting:
    @pytest.mark.parametrize("inputs", [2, 5])
    def test_lines_are_the_blocks_of_the_definition(self, inputs: int) -> None:
        """Recursing from either side gives W_out P_b W^(k-2) P_a W_in."""
        net = random_net(
            inputs=inputs, hidden=9, hidden_modules=["p", "q", "p", "r", "r", "q", "p", "q", "r"]
        )
        maps = hl.hop_maps(net, 4)
        graph = routing_graph(net, maps)
        names = [group["name"] for group in graph["groups"]]
        assert names == ["p", "q", "r"]
        masks = [torch.diag(torch.tensor([m == g for m in net.hidden_modules]).double()) for g in names]  # type: ignore[union-attr]
        for k in range(4):
            power = torch.linalg.matrix_power(net.w_rec, k)
            blocks = torch.stack(
                [torch.stack([net.w_out @ b @ power @ a @ net.w_in for a in masks]) for b in masks]
            )  # (B, A, O, I)
            torch.testing.assert_close(blocks.sum((0, 1)), maps.values[k])
            whole = maps.values[k].abs().sum()
            expected = {
                "enter": blocks.sum(0).abs().sum(1) / whole,
                "through": blocks.abs().sum((2, 3)) / blocks.abs().sum(),
                "leave": (blocks.sum(1).abs().sum(2) / whole).T,
            }
            for name, value in expected.items():
                np.testing.assert_allclose(graph[name][k], value.numpy().ravel(), rtol=1e-3)

    def test_groups_are_found_from_what_units_hear(self) -> None:
        w_in, w_out = torch.zeros(20, 2), torch.zeros(2, 20)
        w_in[::2, 0] = w_in[1::2, 1] = 1.0
        w_out[0, ::2] = w_out[1, 1::2] = 1.0
        net = hl.Pathways(w_in, torch.zeros(20, 20), w_out)
        graph = routing_graph(net, hl.hop_maps(net, 2))
        enter = np.asarray(graph["enter"][0]).reshape(-1, 2)
        assert ((enter > 0).sum(axis=1) <= 1).all()  # no group hears both inputs

    def test_direct_edges_have_no_routes(self) -> None:
        net = hl.Pathways(torch.ones(2, 1), torch.ones(2, 2), torch.ones(1, 2), torch.ones(1, 1))
        assert routing_graph(net, hl.hop_maps(net, 2))["enter"][0] is None
        Page(render_network_report(analyze(net, horizon=2)))


class TestPage:
    def test_tables_hold_the_strongest(self) -> None:
        found = analyze(random_net(), horizon=3)
        rows = [[text for _, text in row] for row in Page(render_network_report(found)).rows]
        k, o, i = strongest(found.maps, 1)[0]
        first = next(row for row in rows if row[0] == f"x{i}")
        assert first[1:4] == [f"y{o}", str(k + 2), str(k)]
        best = hl.top_paths(found.net, i, o, k + 2, 1)["path"].iloc[0]
        assert first[6] == best.replace(" > ", " → ")

    def test_names_are_escaped(self) -> None:
        bad = "</script><script>alert(1)</script>"
        net = random_net(input_names=[bad, "b", "c", "d"], hidden_names=[bad + str(n) for n in range(12)])
        text = render_network_report(analyze(net, horizon=2), title=bad, measures=pd.DataFrame({bad: [bad]}))
        parsed = Page(text)
        assert [tag for tag, _ in parsed.tags].count("script") == 3
        assert page_data(text)["views"][0]["inputs"][0] == bad

    def test_size(self) -> None:
        assert len(render_network_report(analyze(random_net(), horizon=3)).encode()) < 1_300_000

    def test_nan_leaves_the_old_page(self, tmp_path: Path) -> None:
        found = analyze(random_net(), horizon=2)
        found.maps.values[0, 0, 0] = torch.nan
        page = tmp_path / "report.html"
        page.write_text("old")
        with pytest.raises(NonFiniteError, match="NaN"):
            write_network_report(found, page)
        assert page.read_text() == "old"


class TestPlots:
    def test_axes_given_are_used(self) -> None:
        net = random_net()
        for draw in (
            lambda ax: plots.plot_routing_graph(net, horizon=3, ax=ax),
            lambda ax: plots.plot_paths(net, 0, 1, 3, n=2, ax=ax),
            lambda ax: plots.plot_spectrum(net, ax=ax),
        ):
            given = draw(None)
            assert draw(given) is given

    def test_spectrum_points(self) -> None:
        net = random_net()
        (_, points) = plots.plot_spectrum(net).lines[-2:]
        expected = torch.linalg.eigvals(net.w_rec)
        assert sorted(points.get_xdata()) == pytest.approx(sorted(expected.real.tolist()))

    def test_paths_show_their_units(self) -> None:
        ax = plots.plot_paths(chain(), "in", "out", 4)
        assert {text.get_text() for text in ax.texts} == {"h0", "h1", "h2", "in", "out"}
        assert "100%" in ax.get_title(loc="left")

    def test_errors(self) -> None:
        with pytest.raises(ParameterError, match="no walk of 3 hops"):
            plots.plot_paths(chain(), "in", "out", 3)
        with pytest.raises(ParameterError, match="hop must lie between 2 and 4"):
            plots.plot_routing_graph(chain(), hop=9, horizon=3)
        with pytest.raises(NonFiniteError):
            plots.plot_spectrum(torch.tensor([complex("nan")]))
        with pytest.raises(ShapeError):
            plots.plot_routing_graph(hl.Pathways(*(torch.ones(2, 1, 1) for _ in range(3))))


class TestCommand:
    def run(self, *arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.exception
        return result.output

    def fails(self, *arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert isinstance(result.exception, hl.HoplensError)
        assert "\n" not in str(result.exception)
        return str(result.exception)

    def test_training_run(self, tmp_path: Path) -> None:
        out = tmp_path / "run"
        options = ["--length", "4", "--steps", "3", "--seeds", "2", "--hidden", "6"]
        self.run("train", "averaging", *options, "--out", str(out))
        run = load_run(out)
        assert run.networks.test_error.idxmin() == run.best
        assert run.pathways.batch_shape == (2,)
        again = tmp_path / "again.html"
        self.run("report", str(out), "-o", str(again))
        assert again.read_text() == (out / "report.html").read_text()
        assert "One row a network" in again.read_text()

        (out / "pathways.safetensors").write_bytes(b"x")
        again.write_text("old")
        assert "damaged" in self.fails("report", str(out), "-o", str(again))
        assert again.read_text() == "old"
        (out / "run.json").write_text("[")
        assert "damaged" in self.fails("report", str(out), "-o", str(again))

    @pytest.mark.parametrize(
        ("name", "change", "words"),
        [
            ("run.json", ('"horizon": 4', '"horizon": -4'), "damaged (horizon must be"),
            ("run.json", ('"horizon": 4', '"horizon": 1e400'), "damaged (horizon must be"),
            ("run.json", ('"horizon"', '"other"'), "damaged (it lacks 'horizon')"),
            ("run.json", ('"format": 1', '"format": 9'), "do not fit together"),
            ("run.json", ("{", "[" * 100_000), "run.json is damaged"),
            ("networks.csv", ("test_error", "other"), "damaged (it lacks 'test_error')"),
            ("networks.csv", ("\n", "\nL1,1\n"), "do not fit together"),
        ],
    )
    def test_a_damaged_run(
        self, run_folder: Path, tmp_path: Path, name: str, change: tuple[str, str], words: str
    ) -> None:
        shutil.copytree(run_folder, tmp_path / "run")
        text = (run_folder / name).read_text()
        assert change[0] in text
        (tmp_path / "run" / name).write_text(text.replace(*change, 1))
        assert words in self.fails("report", str(tmp_path / "run"), "-o", str(tmp_path / "r.html"))

    def test_a_run_with_nan_weights(self, run_folder: Path, tmp_path: Path) -> None:
        shutil.copytree(run_folder, tmp_path / "run")
        tensors = load_file(run_folder / "pathways.safetensors")
        tensors["w_rec"][load_run(run_folder).best, 0, 0] = torch.nan
        save_file(tensors, tmp_path / "run" / "pathways.safetensors")
        assert "w_rec must be finite" in self.fails(
            "report", str(tmp_path / "run"), "-o", str(tmp_path / "r.html")
        )

    def test_a_half_written_run_is_not_taken_for_the_one_before(
        self, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Networks of one run must not stand under the title and measures of another."""
        folder = tmp_path / "run"
        shutil.copytree(run_folder, folder)
        kept = runs.write_atomically

        def stop(path: Path, data: bytes) -> Path:
            if path.name == "networks.csv":
                raise KeyboardInterrupt
            return kept(path, data)

        monkeypatch.setattr(runs, "write_atomically", stop)
        task = hl.tasks.make("averaging", length=3)
        result = hl.train(task, hl.recipes.none(), hidden=6, steps=1)
        with pytest.raises(KeyboardInterrupt):
            runs.save_run(folder, result, result.metrics, "second")
        assert "holds no run" in self.fails("report", str(folder), "-o", str(tmp_path / "r.html"))

    def test_a_folder_that_cannot_be_made_is_found_before_training(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        # steps and seeds that no test could wait for
        options = ["--steps", "100000000", "--seeds", "1", "--hidden", "6"]
        for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
            assert "cannot make" in self.fails("train", "averaging", *options, "--out", str(out))

    def test_a_model_without_a_readout(self, tmp_path: Path) -> None:
        """Its hidden units stand for the outputs, and the page says so."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            rnn = torch.nn.RNN(2, 4, batch_first=True)
        torch.save(rnn.state_dict(), tmp_path / "model.pt")
        page = tmp_path / "r.html"
        self.run("report", str(tmp_path / "model.pt"), "--horizon", "3", "-o", str(page))
        assert "to 4 outputs, hidden units themselves, without a read-out." in page.read_text()
        (view,) = page_data(page.read_text())["views"]
        expected = [rnn.weight_ih_l0, rnn.weight_hh_l0 @ rnn.weight_ih_l0]
        for values, wanted in zip(view["values"], expected, strict=False):
            np.testing.assert_allclose(values, wanted.detach().numpy().ravel(), rtol=1e-4)

    def test_model_with_inputs(self, tmp_path: Path) -> None:
        rnn, linear = torch.nn.RNN(2, 4, batch_first=True), torch.nn.Linear(4, 1)
        state = {f"rnn.{k}": v for k, v in rnn.state_dict().items()}
        state |= {f"head.{k}": v for k, v in linear.state_dict().items()}
        torch.save(state, tmp_path / "model.pt")
        np.savez(tmp_path / "data.npz", inputs=np.ones((3, 4, 2), dtype=np.float32))
        np.savez(tmp_path / "bad.npz", inputs=np.full((3, 4, 2), np.nan))
        out = str(tmp_path / "r.html")
        names = ["--rnn", "rnn", "--readout", "head", "--horizon", "4"]
        model = str(tmp_path / "model.pt")
        self.run("report", model, *names, "--inputs", str(tmp_path / "data.npz"), "-o", out)
        assert len(page_data(Path(out).read_text())["fidelity"]["hops"]) == 4
        assert "finite" in self.fails(
            "report", model, *names, "--inputs", str(tmp_path / "bad.npz"), "-o", out
        )
        self.run("analyze", model, *names, "--out", str(tmp_path / "all"))
        assert (tmp_path / "all" / "report.html").is_file()

    def test_folders_without_a_run(self, tmp_path: Path) -> None:
        assert "is empty" in self.fails("report", str(tmp_path))
        (tmp_path / "other.txt").write_text("")
        assert "holds no run" in self.fails("report", str(tmp_path))
        assert "--inputs" in self.fails("report", str(tmp_path), "--inputs", "x.npz")
        assert "--horizon" in self.fails("report", str(tmp_path), "--horizon", "20")
        assert "no file" in self.fails("report", str(tmp_path / "missing"))


def test_pages_along_data_say_that_they_are_and_pages_of_weights_do_not():
    torch.manual_seed(0)
    core, head, x = torch.nn.RNN(3, 6, batch_first=True), torch.nn.Linear(6, 2), torch.randn(4, 5, 3)
    along = analyze(core, head, inputs=x)
    page = render_network_report(along)
    assert "what flows along the 4 sequences given" in page
    assert "The mean Jacobian along them has the spectral radius" in page
    assert "The maps above are exact" in page
    assert str(along.net.agreement) in page
    assert "read off the weights" not in page
    titles = [figure.axes[0].get_title(loc="left") for figure in along.figures().values()]
    assert not any("by the weights" in title for title in titles)
    for weights in (analyze(core, head), analyze(core, head, inputs=x, at="raw")):
        page = render_network_report(weights)
        assert "What follows is read off the weights alone" in page
        assert "along the 4 sequences" not in page
    still = analyze(core, torch.nn.Linear(6, 2), inputs=x)
    for value in still.maps.values:
        value.zero_()
    assert "No input reaches an output there." in render_network_report(still)
