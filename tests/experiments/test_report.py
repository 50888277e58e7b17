"""Statistics over seeds and the tables made of them."""

import base64
import json
import re
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

import cyconv
from cyconv.experiments import Run, plots, report
from cyconv.history import History
from cyconv.schedules import CyclicSchedule


def fake_result(name, seed, accuracy, state="complete"):
    history = History()
    history.append(0, 1e-5, (2.3, 2.4, 0.1), (2.3, 2.4, 0.1))
    history.append(10, 1e-5, (1.3, 1.4, 0.6), (1.3, 1.4, accuracy - 0.01))
    history.training_time = 2.0 + seed
    run = Run(name, label=f"label of {name}", seed=seed)
    complete = state == "complete"
    test = {"accuracy": accuracy, "loss": 1.25} if complete else None
    return SimpleNamespace(
        run=run,
        n_parameters=1234,
        history=history,
        state=state,
        complete=complete,
        test=test,
        updates_per_second=5000.0,
        document=lambda: {"run": run.to_dict()},
    )


def test_tables_are_aligned_in_plain_text_and_markdown():
    rows = [["long name", "1"], ["x", "1,234 ± 5"]]
    plain = report.format_table(["name", "n"], rows).splitlines()
    assert [line.index("1") for line in plain[2:]] == [len(plain[3]) - 1, len("long name  ")]
    markdown = report.format_table(["name", "n"], rows, markdown=True).splitlines()
    assert len({len(line) for line in markdown}) == 1
    assert all(line.startswith("|") and line.endswith("|") for line in markdown)
    with pytest.raises(ValueError, match="rows must have 2 cells"):
        report.format_table(["a", "b"], [["only one"]])


def test_runs_are_grouped_by_name_and_unfinished_ones_counted():
    results = [
        fake_result("b", 1, 0.6),
        fake_result("a", 0, 0.3),
        fake_result("b", 0, 0.5),
        fake_result("b", 2, 0.9, state="interrupted"),
    ]
    b, a = report.summarise(results)
    assert (b.name, b.label, b.seeds, b.unfinished) == ("b", "label of b", [0, 1], 1)
    assert b.test_accuracy == [0.5, 0.6]
    assert b.validation_accuracy == pytest.approx([0.49, 0.59])
    assert a.seeds == [0] and a.ensemble_accuracy == []
    table = report.summary_table([b, a]).text()
    assert "55.00 ± 7.07" in table and "2 of 3" in table and "30.00" in table and "ensemble" not in table
    measures = b.document()["test_accuracy"]
    assert measures["mean"] == pytest.approx(0.55) and measures["each"] == [0.5, 0.6]
    assert b.loss_gap == [0.0, 0.0] and b.document()["loss_gap"]["each"] == [0.0, 0.0]
    assert "50.00, 60.00" in table and "training loss" not in table
    assert "0.000 ± 0.000" in report.summary_table([b, a], gap=True).text()
    assert "each run" not in report.summary_table([a]).text()
    many = report.summarise([fake_result("c", seed, 0.5) for seed in range(6)])
    assert "each run" not in report.summary_table(many).text()
    assert "ensemble_accuracy" not in b.document()


def test_an_ensemble_has_a_row_of_its_own():
    results = [fake_result("a", seed, 0.5) for seed in range(2)]
    for result in results:
        result.test["ensemble_accuracy"] = 0.6 + result.run.seed / 10
    (single,) = report.summarise(results)
    row = report.ensemble_row(single, 4)
    assert row.label == "label of a: ensemble of 4" and row.n_parameters == 4 * 1234
    about = {"name", "label", "architecture", "n_parameters", "seeds", "unfinished"}
    assert set(row.document()) == about | {"test_accuracy"} and row.architecture == single.architecture
    assert row.test_accuracy == pytest.approx([0.6, 0.7])
    table = report.summary_table([single, row]).text(width=200).splitlines()
    assert "65.00 ± 7.07" in table[3] and table[3].endswith("–") and "ensemble (%)" in table[0]


def markdown_of(section):
    return report.Document("Title", [], [section.part()]).markdown()


def test_a_section_of_unfinished_runs_alone_still_makes_a_table():
    section = report.Section("Part 1", report.summarise([fake_result("a", 0, 0.5, "interrupted")]), [])
    assert "0 of 1" in section.text() and "–" in markdown_of(section)
    assert "conclusion" not in section.document()


def test_a_sections_conclusion_appears_in_every_format():
    rows = report.summarise([fake_result("a", 0, 0.5)])
    section = report.Section("Part 1", rows, [], conclusion="It helps.")
    assert section.document()["conclusion"] == "It helps."
    assert section.text().endswith("\n\nIt helps.") and "\n\nIt helps.\n" in markdown_of(section)


def test_the_results_are_strict_json_with_machine_and_versions():
    results = [fake_result("a", seed, 0.5 + seed / 100) for seed in range(3)]
    section = report.Section("Part 1", report.summarise(results), ["a.png"])
    configuration = {"data": {"name": "a data set"}}
    document = report.results_document(configuration, [section], results, complete=True)
    document = json.loads(json.dumps(document, allow_nan=False))
    assert document["complete"] and document["data_set"] == "a data set" and document["seeds"] == [0, 1, 2]
    assert document["machine"]["processor"] and document["machine"]["threads"] >= 1
    assert document["machine"]["instruction_set"] and document["versions"]["numpy"] == np.__version__
    assert document["build"]["compiler"] == cyconv.show_config()["compiler"] and "-O3" in document["build"]["flags"]
    assert len(document["runs"]) == 3 and document["summary"][0]["rows"][0]["seeds"] == [0, 1, 2]


@pytest.mark.parametrize(
    "n_cycles, growth, expected",
    [
        (1, 2.0, "1 cycle"),
        (3, 1.0, "3 equal cycles"),
        (4, 2.0, "4 doubling cycles"),
        (4, 0.5, "4 halving cycles"),
        (2, 1.5, "2 cycles, each 1.5 times as long as the one before"),
    ],
)
def test_cycles_in_words(n_cycles, growth, expected):
    assert report.describe_cycles(CyclicSchedule(0, 1, 10, n_cycles, growth)) == expected


def test_results_tell_which_command_made_them_and_when(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/exercise3.py", "--seeds", "2"])
    before = datetime.now(UTC).replace(microsecond=0)
    origin = report.provenance()
    assert origin["command"] == ["exercise3.py", "--seeds", "2"]
    assert before <= datetime.fromisoformat(origin["date"]) <= datetime.now(UTC)
    assert origin["versions"]["cyconv"] in report.machine_sentence(origin)


def test_the_machine_of_a_results_file_is_told_rather_than_this_one():
    machine = {"processor": "Abacus", "threads": 1, "instruction_set": "beads"}
    told = report.machine_sentence({"machine": machine, "versions": {"cyconv": "9.9", "torch": "8"}})
    assert told == "Abacus, 1 thread, beads kernels; cyconv 9.9, torch 8."


def test_a_wide_table_is_split_to_fit_the_terminal_and_no_cell_is_lost(monkeypatch):
    header = ["architecture", "kind", *(f"a long heading {i}" for i in range(8))]
    rows = [[f"row {i}", "k", *(f"{i}.{j}" for j in range(8))] for i in range(3)]
    table = report.Table(header, rows, n_keys=2)
    for width, n_parts in ((80, 3), (60, 4), (10, 8), (1000, 1)):
        monkeypatch.setenv("COLUMNS", str(width))
        parts = table.text().split("\n\n")
        lines = [line for part in parts for line in part.splitlines()]
        assert len(parts) == n_parts and (width == 10 or max(map(len, lines)) <= width)
        assert all(part.startswith("architecture  kind  a long heading") for part in parts)
        cells = [cell for part in parts for line in part.splitlines()[2:] for cell in re.split(" {2,}", line)[2:]]
        assert sorted(cells) == sorted(f"{i}.{j}" for i in range(3) for j in range(8))
    monkeypatch.delenv("COLUMNS")
    assert max(map(len, table.text().splitlines())) <= 80  # without a terminal


def test_a_table_that_just_fits_is_not_split():
    table = report.Table(["a", "b", "c"], [["1", "2", "3"]])
    assert table.text(width=7).splitlines()[0] == "a  b  c"
    assert table.text(width=6).splitlines()[0] == "a  b"


def test_no_name_is_a_tag_or_a_line_of_its_own_in_markdown():
    name = "<script>alert(1)</script>\n# heading"
    table = report.Table([name, "n"], [[name, name]])
    picture = report.Picture("a.png", name, b"", "image/png", 1, 1)
    text = report.Document(name, [name], [(name, [table, name, picture])]).markdown()
    assert text.count(r"\<script>alert(1)\</script> # heading") == 8
    assert "<script" not in text.replace(r"\<", "") and "\n# heading" not in text


def test_a_cell_of_markdown_cannot_end_it():
    assert r"a \| b" in report.Table(["name", "n"], [["a | b", "1"]]).markdown()


class Page(HTMLParser):
    """The elements of a page, whose tags must be closed in order."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def pictures(tmp_path):
    figures = {"a": plots.plot_bars({"x < y": [1.0, 2.0]}, 'Bars & "bars"'), "b": plots.plot_bars({"z": [3.0]}, "More")}
    return report.save_pictures(figures, tmp_path)


def test_the_web_page_has_everything_inside_and_says_it_in_words(pictures, tmp_path):
    configuration = {"data": {"name": "<my> data", "n_train": 5, "n_validation": 2, "n_test": 1, "fingerprint": "f0f0"}}
    origin = report.results_header(configuration, complete=True)
    table = report.Table(["name", "n"], [["a & b", "1,234"]])
    part = ("Part <1>", [table, "A sentence: 1 < 2.", *pictures])
    document = report.report_document("Results", origin, ["Only a try."], "Introduction.", part)
    page = Page(document.html())
    assert document.html().startswith("<!DOCTYPE html>") and page.all("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in page.all("meta")
    shown = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in page.all("img")]
    assert shown == [(tmp_path / "a.png").read_bytes(), (tmp_path / "b.png").read_bytes()]
    assert [image["alt"] for image in page.all("img")] == [picture.caption for picture in pictures]
    assert pictures[0].caption == 'Bars & "bars". x < y 1.50 ± 0.71.'
    assert not any("http" in str(attributes) for _, attributes in page.found)  # it needs no network
    markdown = document.markdown()
    for text in (
        "Results: <my> data",
        "Only a try.",
        "Introduction.",
        "Part <1>",
        "1,234",
        "A sentence: 1 < 2.",
        "f0f0",
    ):
        assert text in page.text and text.replace("<my", r"\<my") in markdown
    for text in (origin["date"], origin["build"]["compiler"], origin["build"]["flags"]):
        assert text in page.text and text in markdown
    assert f"![{pictures[0].caption}](a.png)" in markdown
    assert "a & b" in page.text and len(page.all("table")) == 2


@pytest.mark.parametrize("file_format, media_type", [("svg", "image/svg+xml"), ("pdf", "image/png")])
def test_pictures_of_other_formats_are_embedded_as_what_a_browser_shows(tmp_path, file_format, media_type):
    (picture,) = report.save_pictures({"a": plots.plot_bars({"x": [1.0]}, "Bars")}, tmp_path, file_format)
    document = report.Document("Title", [], [("Part", [picture])])
    (image,) = Page(document.html()).all("img")
    assert image["src"].startswith(f"data:{media_type};base64,")
    assert (f"![{picture.caption}](a.svg)" in document.markdown()) == (file_format == "svg")
    assert f"[{picture.caption}](a.{file_format})" in document.markdown()
    assert (tmp_path / f"a.{file_format}").stat().st_size > 1000
