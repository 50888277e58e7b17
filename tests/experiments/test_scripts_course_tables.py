"""scripts/course_tables.py in miniature: tables with published figures, where they are for the same images."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from strict import strict_json

from cyconv.experiments import ARCHITECTURES, LONGER_TRAINING, report
from cyconv.experiments.published import PUBLISHED, Published

TINY = {"n_hidden": 4, "step_size": 2}
PICTURES = ("equal-cycles", "doubling-cycles", "exercise4")


@pytest.fixture
def script(load_script):
    return load_script("course_tables", QUICK=TINY)


def templates(script):
    return {run.name: run.check() for _, runs in script.TABLES.values() for run in runs}


def summary(name, *accuracies, unfinished=0):
    row = {"name": name, "label": f"label of {name}", "n_parameters": 1234, "unfinished": unfinished}
    return report.Summary.from_document(
        {**row, "seeds": list(range(len(accuracies))), "test_accuracy": {"each": list(accuracies)}}
    )


def test_the_settings_are_those_of_the_assignment(script):
    runs = templates(script)
    assert all(
        (run.eta_min, run.eta_max, run.step_size, run.batch_size) == (1e-5, 0.1, 800, 100) for run in runs.values()
    )
    assert all((run.momentum, run.dropout, run.shift) == (0, 0, 0) for run in runs.values())
    architectures = [(run.filter_size, run.n_filters, run.n_hidden, run.l2) for run in ARCHITECTURES]
    assert architectures == [(2, 3, 50, 0.003), (4, 10, 50, 0.003), (8, 40, 50, 0.003), (16, 160, 50, 0.003)]
    for cycles, growth, total in (("equal", 1.0, 4800), ("doubling", 2.0, 11200)):
        found = [runs[f"{cycles}-f{f}-nf{nf}"] for f, nf, _, _ in architectures]
        assert [(run.filter_size, run.n_filters, run.n_hidden, run.l2) for run in found] == architectures
        assert all((run.n_cycles, run.growth, run.schedule().total_steps) == (3, growth, total) for run in found)
    wide, larger = runs["doubling-f4-nf40"], [runs[name] for name in runs if name.startswith("exercise4")]
    assert dataclasses.replace(LONGER_TRAINING[-1], name="a", label="b", log_every=1000) == dataclasses.replace(
        wide, name="a", label="b"
    )
    assert [(run.label_smoothing, run.flip) for run in larger] == [(0.0, False), (0.1, False), (0.0, True)]
    assert all((run.filter_size, run.n_filters, run.n_hidden, run.l2) == (4, 40, 300, 0.0025) for run in larger)
    assert all(run.schedule().total_steps == 24000 for run in larger)


def test_figures_are_percent_and_belong_to_runs(script):
    assert set(PUBLISHED) <= set(templates(script))
    for figures in PUBLISHED.values():
        assert figures and all(50 < figure.low <= figure.high < 70 and figure.source for figure in figures)


@pytest.mark.parametrize(
    ("name", "protocol", "expected"),
    [
        ("CIFAR-10", "full", True),
        ("CIFAR-10 (not the original files)", "full", True),
        ("CIFAR-10", "batch1", False),
        ("CIFAR-100", "full", False),
        ("CIFAR-100 (not the original files), coarse labels", "full", False),
        ("CIFAR-10.npz", "full", False),
        ("shapes (synthetic)", "full", False),
    ],
)
def test_figures_stand_only_beside_results_on_the_same_images(script, name, protocol, expected):
    assert script.is_published(SimpleNamespace(name=name), protocol) is expected
    sentence = script.describe_published(SimpleNamespace(name=name), protocol)
    assert ("ours are for" in sentence) is expected and ("No published" in sentence) is (protocol == "batch1")


def test_elsewhere_the_tables_have_no_published_figures(script, run_script, tmp_path, capsys):
    assert run_script(script, "--quick", "--output", "out") == 0
    output = capsys.readouterr().out
    assert "they are left out beside results on shapes (synthetic)" in output and "the lecturer" not in output
    document = strict_json(tmp_path / "out" / "results.json")
    assert document["complete"] and len(document["runs"]) == 12
    assert [len(section["rows"]) for section in document["summary"]] == [4, 5, 3]
    assert not any(row["published"] for section in document["summary"] for row in section["rows"])
    assert not any("conclusion" in section for section in document["summary"])


def test_figures_stand_beside_results_in_terminal_report_file_and_picture(
    script, run_script, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(script, "is_published", lambda *_: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert run_script(script, "--quick", "--seeds", "2", "--output", "out") == 0
    output, folder = capsys.readouterr().out, tmp_path / "out"
    document, page = strict_json(folder / "results.json"), (folder / "summary.md").read_text(encoding="utf-8")
    rows = {row["name"]: row for section in document["summary"] for row in section["rows"]}
    assert list(rows) == list(templates(script))
    accuracies = {name: row["test_accuracy"]["each"] for name, row in rows.items()}
    for run in document["runs"]:
        assert accuracies[run["run"]["name"]][run["run"]["seed"]] == run["test"]["accuracy"]
    assert [Published(**figure) for figure in rows["equal-f4-nf10"]["published"]] == list(PUBLISHED["equal-f4-nf10"])
    equal, doubling, larger = (section["conclusion"] for section in document["summary"])
    assert "with equal ones" in doubling and "with equal ones" not in equal + larger
    mean = 100 * sum(accuracies["equal-f4-nf10"]) / 2
    for text in (output, page):
        lines = [line for line in text.splitlines() if line.lstrip("| ").startswith("2: f=4") and "57.61" in line]
        assert len(lines) == 1 and "the lecturer" in lines[0] and f"{mean - 57.61:+.2f}" in lines[0]
        assert equal in text and doubling in text and larger in text
    for name in PICTURES:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") and f"({name}.png)" in page
    assert "published: 57.6, 55.9 to 56.2" in page


def test_every_figure_has_a_line_and_a_difference(script):
    section = script.ComparedSection(
        "heading",
        [summary("a", 0.50, 0.52), summary("b", 0.58, unfinished=2), summary("c", unfinished=1)],
        [],
        published={"a": [Published(50.5, 51.5, "three"), Published(55, 55, "one")], "c": [Published(60, 60, "one")]},
    )
    table = section.body()[0]
    assert [row[0] for row in table.rows] == ["label of a", "label of a", "label of b", "label of c"]
    assert [row[2] for row in table.rows] == ["2", "2", "1 of 3", "0 of 1"]
    assert [tuple(row[-3:]) for row in table.rows] == [
        ("50.50 to 51.50", "three", "+0.00"),
        ("55.00", "one", "-4.00"),
        ("", "", ""),
        ("60.00", "one", ""),
    ]
    again = script.ComparedSection.from_document(section.document())
    assert again.body() == section.body() and again.document() == section.document()
    alone = script.ComparedSection("heading", [summary("b", 0.5)], [])
    assert "published (%)" in table.header and "published (%)" not in alone.body()[0].header


def test_a_figure_is_an_outlier_where_one_more_run_would_hardly_be(script):
    stats = pytest.importorskip("scipy.stats")
    values = np.array([0.50, 0.51, 0.53])
    reach = stats.t.ppf(0.975, 2) * values.std(ddof=1) * np.sqrt(1 + 1 / 3)
    low, high = 100 * (values.mean() - reach), 100 * (values.mean() + reach)
    figures = [
        Published(high - 0.01, high + 9, "inside"),
        Published(low - 9, low + 0.01, "inside"),
        Published(high + 0.01, high + 1, "above"),
        Published(low - 1, low - 0.01, "below"),
    ]
    rows = [summary("a", *values), summary("alone", 0.5)]
    said = script.describe_outliers(rows, {"a": figures, "alone": figures})
    assert "of 4 published figures, 2 lie outside: " in said and "inside" not in said
    assert f"({figures[2].text}, above)" in said and f"({figures[3].text}, below)" in said
    assert "of 1 published figure, none lies outside." in script.describe_outliers(rows, {"a": figures[:1]})
    assert script.describe_outliers(rows, {"alone": figures}) == script.describe_outliers(rows, {}) == ""
    table, *sentences = script.ComparedSection("heading", rows, []).body()
    assert table.rows[0][-1] == f"{low:.2f} to {high:.2f}"
    assert sentences == [f"{script.ONE_MORE_RUN}."] and said.startswith(script.ONE_MORE_RUN)
    assert len(script.ComparedSection("heading", rows[1:], []).body()) == 1  # there is no such interval


def test_the_conclusion_agrees_with_the_numbers(script):
    figures = {"doubling-f2-nf3": [Published(51.8, 51.8, "one")], "doubling-f4-nf10": [Published(58.6, 58.6, "one")]}
    rows = [summary("doubling-f2-nf3", 0.51, 0.53), summary("doubling-f4-nf10", 0.58, 0.59)]
    means = {"doubling-f2-nf3": 52.0, "doubling-f4-nf10": 58.5}
    assert script.conclude(rows, means, figures) == (
        "Ours minus published, 0 within a range: +0.05 points on average, from -0.10 to +0.20."
    )
    assert script.conclude(rows, means, {}) == script.conclude(rows, {}, figures) == ""
    means = {run.name: 50.0 for run in script.EQUAL} | {run.name: 60.0 for run in script.DOUBLING}
    said = script.conclude([summary("doubling-f2-nf3", 0.6)], means, PUBLISHED)
    away = [abs(60 - figure) for figure in (51.8, 58.6, 62.0, 59.5)]
    assert (
        f"these figures are {sum(away) / 4:.2f} points from ours with doubling cycles on average, and 7.97 from" in said
    )
    assert "equal ones" not in script.conclude([summary("equal-f2-nf3", 0.6)], means, PUBLISHED)


def test_an_interrupted_table_can_be_resumed(script, run_script, tmp_path, monkeypatch, capsys):
    import cyconv

    fit, calls = cyconv.CyclicTrainer.fit, []

    def stop_at_third(self, *arguments, **options):
        calls.append(None)
        if len(calls) == 3:
            error = cyconv.Interrupted("interrupted")
            error.signum = 2
            raise error
        return fit(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(cyconv.CyclicTrainer, "fit", stop_at_third)
        assert run_script(script, "--quick", "--output", "out") == 128 + 2
    partial = strict_json(tmp_path / "out" / "results.json")
    assert not partial["complete"] and [run["state"] for run in partial["runs"]].count("complete") == 2
    assert run_script(script, "--quick", "--output", "out", "--resume") == 0
    assert strict_json(tmp_path / "out" / "results.json")["complete"]


def test_one_batch_is_another_configuration(script, run_script, capsys):
    assert run_script(script, "--quick", "--output", "out") == 0
    assert run_script(script, "--quick", "--output", "out", "--protocol", "batch1") == 2
    assert "another configuration" in capsys.readouterr().err
    assert run_script(script, "--quick", "--output", "other", "--protocol", "batch1") == 0
    assert "No published figures are known for training on one batch" in capsys.readouterr().out
