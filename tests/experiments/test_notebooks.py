"""What a notebook shows: tables, pictures and bars, once each; and an interrupted cell."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import cyconv
from cyconv import plots
from cyconv._tables import Table
from cyconv.experiments import DataSource, Run, run_experiment
from cyconv.experiments.search import Measurement, rank

ROOT = Path(__file__).parents[2]


def text_of(html):
    return re.sub(r"<[^>]+>", " ", html)


@pytest.fixture(scope="module")
def history():
    history = cyconv.History()
    for step in range(8):
        accuracy = [0.1, 0.2, 0.5, 0.4, 0.5, 0.3, 0.3, 0.3][step]
        history.append(100 * step, 0.01, (2.0, 2.1, 0.25), (2.2, 2.3, accuracy))
    return history


def test_a_table_is_text_and_html():
    table = Table(["a", "b < c"], [["x & y", "1"], ["z", "22"]], remark="Two rows.")
    assert str(table).splitlines() == ["a      b < c", "-----  -----", "x & y      1", "z         22", "Two rows."]
    html = table._repr_html_()
    assert "b &lt; c" in html and "x &amp; y" in html and html.count("<tr>") == 3 and "Two rows." in html
    assert "<thead>" in html and "<thead>" not in Table(["", ""], [["a", "b"]], numbers=False)._repr_html_()


@pytest.mark.parametrize(
    "settings, rows",
    [
        (
            {"filter_size": 4, "n_filters": 10, "n_hidden": 50},
            [
                ["conv", "(10, 8, 8)", "490", "30,720"],
                ["hidden", "(50,)", "32,050", "32,000"],
                ["output", "(10,)", "510", "500"],
                ["total", "", "33,050", "63,220"],
            ],
        ),
        (
            {"filter_size": (2, 4), "n_filters": (1, 2), "n_hidden": (5, 6), "image_shape": (1, 8, 4), "n_classes": 3},
            [
                ["conv.0", "(1, 4, 2)", "5", "32"],
                ["conv.1", "(2, 2, 1)", "34", "64"],
                ["hidden.0", "(5,)", "65", "60"],
                ["hidden.1", "(6,)", "36", "30"],
                ["output", "(3,)", "21", "18"],
                ["total", "", "161", "204"],
            ],
        ),
    ],
)
def test_a_networks_summary_has_its_layers(settings, rows):
    network = cyconv.Network(**settings)
    lines = [re.split(r"  +", line.strip()) for line in str(network.summary()).splitlines()]
    assert lines[0] == ["layer", "output shape", "parameters", "multiplications"]
    assert lines[2:] == [[cell for cell in row if cell] for row in rows]
    assert f"{network.n_parameters:,}" in lines[-1]
    assert "<td>(" in network.summary()._repr_html_()


def test_a_history_shows_its_last_points_and_the_best(history):
    text = " ".join(text_of(history._repr_html_()).split())
    assert "600 0.01 2.0000 25.00 % 2.2000 30.00 % 700 0.01" in text and " 200 0.01" not in text
    assert "8 points, incomplete." in text
    assert text.endswith("Best validation accuracy: 50.00 %, after 200 updates.")


def test_a_history_without_validation_or_points_is_shown():
    history = cyconv.History()
    assert "0 points" in history._repr_html_()
    history.append(0, 0.01, (2.0, 2.1, 0.25))
    assert "nan" not in history._repr_html_() and "alidation" not in history._repr_html_()


def test_a_history_draws_itself(history):
    figure = history.plot("Shapes", boundaries=[300, 700])
    expected = plots.plot_train_validation(history, "Shapes", boundaries=[300, 700])
    assert figure._repr_png_() == expected._repr_png_()


def test_results_are_shown_in_one_line(history):
    result = run_experiment(
        Run("tiny", n_filters=2, n_hidden=4, step_size=2, n_cycles=1), DataSource(small=True), progress=False
    )
    accuracy = f"{100 * result.test['accuracy']:.2f} %"
    assert repr(result).startswith(f"<Result: 'tiny', seed 0, complete, test accuracy {accuracy}, ")
    assert accuracy in cyconv.Evaluation(1.0, 2.0, result.test["accuracy"])._repr_html_()
    found = cyconv.LrRangeResult(np.arange(500.0), np.arange(500.0), np.arange(500.0), 0.001, 0.1, diverged=True)
    assert repr(found) == "<LrRangeResult: 500 steps, eta_min 0.001, eta_max 0.1, diverged>"
    measurements = [Measurement(0, 0.01, seed, "complete", 0.5, 1.0, 0.6, 1.0) for seed in range(2)]
    assert repr(rank(measurements)) == "[<Candidate: 0.01, round 1, validation accuracy 50.00 ± 0.00 %>]"
    schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=1e-1, step_size=2, n_cycles=1)
    trainer = cyconv.CyclicTrainer(cyconv.Network(4, 2, 5), schedule)
    assert repr(trainer).startswith("<CyclicTrainer: 0 of 4 update steps, Network(filter_size=4, ")


CELLS = """
import os, signal, threading, cyconv
data = cyconv.make_shapes(n_train=400, n_validation=50, n_test=50, seed=0)
schedule = cyconv.CyclicSchedule(eta_min=1e-5, eta_max=1e-1, step_size=10000, n_cycles=1)
trainer = cyconv.CyclicTrainer(cyconv.Network(4, 4, 10), schedule, batch_size=20)
# %% config
cyconv.show_config()
# %% summary
trainer.network.summary()
# %% fit
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
trainer.fit(data.train, data.validation, log_every=50)
# %% continued
stopped = trainer.step
history = trainer.fit(data.train, data.validation, log_every=5000)
assert 0 < stopped < history.last_step == 20000
again = cyconv.CyclicTrainer(cyconv.Network(4, 4, 10), schedule, batch_size=20)
again.fit(data.train, data.validation, log_every=5000, progress=False)
assert all((again.network.parameters[name] == array).all() for name, array in trainer.network.parameters.items())
# %% history
history
# %% plot
history.plot()
# %% inline
%matplotlib inline
# %% plot
history.plot()
# %% shown
import matplotlib.pyplot as plt
history.plot().show()
plt.show()
# %% plot
plt.show()
history.plot()
"""


@pytest.mark.slow
@pytest.mark.optional
def test_a_notebook_shows_everything_once(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    first, *others = CELLS.split("# %% ")
    names, sources = zip(("start", first), *(cell.split("\n", 1) for cell in others))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = nbclient.NotebookClient(
        notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    for name, cell in zip(names, notebook.cells):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if name == "fit":
            (error,) = errors
            assert error.ename == "Interrupted" and len(error.traceback) == 1
            assert re.fullmatch(r"Interrupted: .* SIGINT after \d+ of 20000 update steps", error.traceback[0])
            continue
        assert not errors, cell
        shown = [output for output in cell.outputs if output.output_type != "stream"]
        if name == "config":
            assert not shown and cell.outputs[0].text.startswith("cyconv ")
        elif name in ("plot", "shown"):
            assert [sorted(output.data) for output in shown] == [["image/png", "text/plain"]]
        elif name in ("summary", "history"):
            assert [sorted(output.data) for output in shown] == [["text/html", "text/plain"]]


@pytest.mark.optional
def test_a_bar_is_a_widget_where_there_are_widgets(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("ipywidgets")
    first = CELLS.split("# %% ")[0].replace("10000", "50") + "trainer.fit(data.train);"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(first)])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = notebook.cells[0].outputs
    assert "application/vnd.jupyter.widget-view+json" in output.data


# What the tutorials are tested with in place of their sizes.
TUTORIALS = {
    "1-first-steps": {
        "n_train=10000, n_validation=1000, n_test=2000": "300, 50, 60",
        "step_size=": "step_size=5 + 0 * ",
    },
    "2-assignment": {
        "n_train=8000, n_validation=1000, n_test=2000": "300, 50, 60",
        "FULL else (200, 1)": "FULL else (8, 2)",
    },
    "3-research": {
        "n_train=5000, n_validation=1000, n_test=2000": "300, 50, 60",
        "SEEDS, STEP_SIZE = 3, 200": "SEEDS, STEP_SIZE = 2, 10",
    },
}


def tutorials():
    return sorted((ROOT / "scripts" / "notebooks").iterdir())


def test_the_tutorials_are_kept_without_outputs():
    assert [path.name for path in tutorials()] == [f"{name}.ipynb" for name in TUTORIALS]
    for path in tutorials():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
        assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
        for cell in notebook["cells"]:
            assert not cell["metadata"]
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.slow
@pytest.mark.optional
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    monkeypatch.delenv("CYCONV_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where no CIFAR-10 is found
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    notebook = nbformat.read(ROOT / "scripts" / "notebooks" / f"{name}.ipynb", 4)
    nbformat.validate(notebook)
    for size, small in TUTORIALS[name].items():
        assert any(size in cell.source for cell in notebook.cells), size
        for cell in notebook.cells:
            cell.source = cell.source.replace(size, small) if cell.cell_type == "code" else cell.source
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == {"1-first-steps": 7, "2-assignment": 6, "3-research": 3}[name]
    assert not [output for output in outputs if output.get("name") == "stderr" and "Warning" in output.text]
    said = "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)
    for sentence in {
        "1-first-steps": ["conv      (20, 8, 8)", "complete>", "\nTrue"],
        "2-assignment": [
            "All gradients are right.",
            "not divided by n = 100, the number of images (grad_b1)",
            "no gradient of the penalty, 2λW (grad_Fs_flat)",
            "4: f=16, nf=160",
            "2 wide: f=4, nf=40",
            "smoothing ε = 0.1",
        ],
        "3-research": ["The machine went down.", "resumed at step 20", "\nTrue", "p against the best"],
    }[name]:
        assert sentence in said, said
