"""scripts/write_results.py: the page of results is what the published files give, and nothing else gets there."""

import json
import re
import sys

import pytest
from pages import ROOT
from strict import strict_json

PUBLISHED = sorted((ROOT / "scripts" / "published").glob("*.json"))


@pytest.fixture
def script(load_script, tmp_path):
    return load_script("write_results", PUBLISHED=tmp_path / "published", PAGE=tmp_path / "RESULTS.md")


@pytest.fixture
def write(script):
    """write(*arguments) -> exit code, of a page and published files in an empty folder."""
    from cyconv.experiments import cli

    return lambda *arguments: cli.run_script(script.main, [str(argument) for argument in arguments])


@pytest.fixture
def results(tmp_path):
    """results(name, **changes): an output folder like those of scripts that train, told to be of CIFAR-10."""

    def make(name, **changes):
        measures = {"test_accuracy": [0.51, 0.53], "validation_accuracy": [0.5, 0.6], "training_time": [77.5, 78.5]}
        row = {measure: {"mean": 0.0, "standard_deviation": None, "each": each} for measure, each in measures.items()}
        row |= {"name": "narrow", "label": "narrow", "n_parameters": 1234, "seeds": [0, 1], "unfinished": 0}
        wide = {**row, "name": "wide", "label": "wide", "test_accuracy": {"each": [0.61, 0.64]}}
        data = {"name": "CIFAR-10", "n_train": 49000, "n_validation": 1000, "n_test": 10000, "fingerprint": "f" * 64}
        document = {
            "complete": True,
            "data_set": "CIFAR-10",
            "configuration": {"script": "exercise3", "quick": False, "protocol": "full", "data": data, "runs": []},
            "command": ["exercise3.py", "--data", "/secret", "--seeds", "2", "--output=/secret", "--resume"],
            "date": "2031-02-03T04:05:06+00:00",
            "versions": {"cyconv": "9.9"},
            "machine": {"processor": "Abacus", "threads": 2, "instruction_set": "beads"},
            "summary": [{"heading": "Part 1: CIFAR-10", "rows": [row, wide], "noise": "stale", "differences": []}],
            "runs": [{"history": {"cost_train": [1.0]}}],
        }
        configuration = {**document["configuration"], **changes.pop("configuration", {})}
        folder = tmp_path / name
        folder.mkdir()
        document = {**document, "configuration": configuration, **changes}
        (folder / "results.json").write_text(json.dumps(document), encoding="utf-8")
        return folder

    return make


def test_the_page_is_what_the_published_files_give(load_script):
    assert PUBLISHED
    assert load_script("write_results").main(["--check"]) == 0


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_files_are_small_and_tell_where_they_come_from(path):
    document = strict_json(path)
    assert document["complete"] and document["data_set"].startswith("CIFAR-10")
    assert {"command", "date", "versions", "machine"} <= document.keys()
    assert len(document["configuration"]["data"]["fingerprint"]) == 64
    assert path.stat().st_size < 30_000


def test_a_check_of_gradients_is_published_with_its_errors(write, results, tmp_path):
    held = strict_json(next(path for path in PUBLISHED if path.stem == "verify-gradients"))
    folder = results(
        "checked", configuration={"script": "verify_gradients"}, comparisons=held["comparisons"], all_agree=True
    )
    assert write(folder) == 0
    assert strict_json(tmp_path / "published" / "checked.json")["comparisons"] == held["comparisons"]
    assert f"All {len(held['comparisons'])} comparisons agree" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")


def test_what_a_folder_holds_is_published_and_told(write, results, tmp_path):
    folder = results("exercise3")
    (folder / "part2-cycles.png").write_bytes(b"picture")
    assert write(folder) == 0
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    told = (
        "CIFAR-10: 49,000 training, 1,000 validation and 10,000 test images (binomial standard error of an accuracy: "
        "0.48 to 0.50 points). "
        "`python scripts/exercise3.py --seeds 2` on 2031-02-03, Abacus, 2 threads, beads kernels; cyconv 9.9."
    )
    assert told in page and "/secret" not in page
    assert re.search(
        r"\| narrow +\| +1,234 \| +2 \| +52.00 ± 1.41 \| +39.29 to 64.71 \| 51.00, 53.00 \| +55.00 ± 7.07 \|", page
    )
    assert (
        "The difference in test accuracy, 10.50 points for wide minus narrow, is" in page and "Welch's t test)" in page
    )
    assert "stale" not in page
    kept = (tmp_path / "published" / "exercise3.json").read_text(encoding="utf-8")
    assert (tmp_path / "published" / "exercise3-cycles.png").read_bytes() == b"picture"
    assert "training_time" not in kept and "differences" not in kept and "history" not in kept and "/secret" not in kept


def test_a_command_of_cyconv_is_told_as_such(write, results, tmp_path):
    write(results("exercise3", command=["cyconv", "exercise3", "--data", "/secret", "--seeds", "2"]))
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "`cyconv exercise3 --seeds 2` on" in page


def test_accuracies_stand_beside_published_ones(write, results, tmp_path):
    measured = {"mean": 0.52, "standard_deviation": 0.014, "each": [0.51, 0.53]}
    row = {
        "name": "a",
        "label": "narrow",
        "n_parameters": 1234,
        "seeds": [0, 1],
        "unfinished": 0,
        "test_accuracy": measured,
    }
    figures = [{"low": 50.0, "high": 51.0, "source": "three"}, {"low": 53.5, "high": 53.5, "source": "one"}]
    section = {
        "heading": "Exercise 3: settings",
        "rows": [row | {"published": figures}, row | {"name": "b", "label": "unknown", "published": []}],
        "differences": [],
        "conclusion": "They fit.",
    }
    configuration = {"script": "course_tables"}
    jpeg, alone = "CIFAR-10 (not the original files)", section | {"rows": section["rows"][1:]}
    for folder, data, shown in (("jpeg", jpeg, section), ("original", "CIFAR-10", section), ("batch", jpeg, alone)):
        write(results(folder, configuration=configuration, summary=[shown], data_set=data))
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert re.search(
        r"\| narrow +\| +1,234 \|.* 52.00 ± 1.41 \| 51.00, 53.00 \|.*\| +50.00 to 51.00 \| three \| +\+1.00 \|", page
    )
    assert re.search(r"\| narrow +\|.* 53.50 \| +one \| +-1.50 \|", page)
    assert re.search(r"\| unknown +\|.* 51.00, 53.00 \|.*\| +\| +\| +\|", page)
    assert page.count("No published figures are known for these training images.") == 1
    assert page.count("Not every source tells all its settings") == 2
    assert page.count("one pass through JPEG.") == 1 and page.count("They fit.") == 3


def test_check_finds_a_page_and_a_published_file_that_were_edited(write, results, tmp_path, capsys):
    write(results("exercise3"))
    page, published = tmp_path / "RESULTS.md", tmp_path / "published" / "exercise3.json"
    assert write("--check") == 0
    for path, old, new in ((page, "51.00", "61.00"), (published, "0.51", "0.61")):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(old, new), encoding="utf-8")
        assert write("--check") == 1
        assert "RESULTS.md differs" in capsys.readouterr().err
        path.write_text(text, encoding="utf-8")
    assert write("--check") == 0
    page.unlink()
    assert write("--check") == 1 and not page.exists()


def test_later_results_of_a_folder_take_the_place_of_earlier_ones(write, results, tmp_path):
    write(results("exercise3"))
    (tmp_path / "exercise3").rename(tmp_path / "before")
    write(results("exercise3", date="2032-01-01T00:00:00+00:00"))
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "2032-01-01" in page and "2031-02-03" not in page


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"complete": False}, "FOLDER must hold complete results"),
        ({"configuration": {"quick": True}}, "FOLDER must hold complete results"),
        ({"data_set": "shapes (synthetic)"}, "FOLDER must hold results on CIFAR-10, but"),
        ({"data_set": "CIFAR-100, coarse labels"}, "FOLDER must hold results on CIFAR-10, but"),
        ({"configuration": {"script": "benchmark"}}, "FOLDER must hold results of"),
    ],
)
def test_what_is_not_published(write, results, tmp_path, capsys, changes, sentence):
    assert write(results("good"), results("bad", **changes)) == 2
    error = capsys.readouterr().err
    assert sentence in error and str(tmp_path / "bad") in error and error.count("\n") == 1
    assert not (tmp_path / "published").exists() and not (tmp_path / "RESULTS.md").exists()


def test_the_page_needs_scipy(write, results, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert write(results("exercise3")) == 2
    assert "SciPy must be installed to write the page" in capsys.readouterr().err
    assert not (tmp_path / "RESULTS.md").exists()


def test_folders_without_results_are_told_in_a_sentence(write, tmp_path, capsys):
    (tmp_path / "alien").mkdir()
    for content in (None, "precious", "[]", "{}"):
        if content is not None:
            (tmp_path / "alien" / "results.json").write_text(content, encoding="utf-8")
        assert write(tmp_path / "alien") == 2
        error = capsys.readouterr().err
        assert "results.json" in error and error.count("\n") == 1
