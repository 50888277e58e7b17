"""The ladder: every rung computes the same updates, and its page and its script tell of the same rungs."""

import os
import re

import numpy as np
import pytest
from pages import ROOT, blocks
from strict import strict_json

import cyconv
from cyconv import reference
from cyconv.experiments import ladder

KERNELS = ROOT / "cyconv" / "_kernels"
PAGE = (KERNELS / "LADDER.md").read_text(encoding="utf-8")


@pytest.fixture
def split(pixels):
    return cyconv.Split(*pixels(250))


@pytest.fixture
def quick_script(load_script, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # which the script sets; restored afterwards
    return load_script("ladder", QUICK={"N_ROUNDS": 2, "SECONDS": 0.002})


@pytest.mark.parametrize("name", ladder.RUNGS)
def test_a_rung_trains_as_the_reference_does(name, split, dtype, assert_close):
    rung = ladder.RUNGS[name](split, dtype)
    start = {key: array.astype(np.float64) for key, array in rung.parameters.items()}
    rung.train(1)
    rung.train(2)  # of two batches

    expected = {key: array.copy() for key, array in start.items()}
    norm = cyconv.Normalizer.fit(split.images)
    order = reference.shuffled_order(250, seed=0, epoch=0)[:200]
    order, rates = np.concatenate([order, order[:100]]), np.full(3, ladder.LEARNING_RATE)
    statistics = {"scale": norm.scale, "offset": norm.offset, "centre": norm.centre}
    reference.train_steps(expected, split.images, split.labels, order, rates, 100, l2=0.003, **statistics)
    changes = {key: array - start[key] for key, array in rung.parameters.items()}
    wanted = {key: array - start[key] for key, array in expected.items()}
    assert_close(changes, wanted, 1e-9 if dtype == "float64" else 5e-3)


def test_too_few_images_are_refused(pixels):
    with pytest.raises(ValueError, match=r"^split must hold at least 100 images, but got .*\(99, 3, 32, 32\)"):
        ladder.PlainLoops(cyconv.Split(*pixels(99)))


def test_the_page_tells_of_the_rungs_in_their_order():
    names = list(ladder.RUNGS)
    assert re.findall(r"^\| ([\w ]+?) +\|", PAGE, re.MULTILINE) == ["rung", *names]
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert [heading.lower() for heading in headings] == [name.lower() for name in names]


def test_the_page_shows_code_that_is_compiled():
    code = "\n".join(path.read_text() for kind in ("h", "pxi", "pyx") for path in KERNELS.glob(f"*.{kind}"))
    flat = "\n".join(line.strip() for line in code.splitlines())
    shown = [*blocks("cython", PAGE), *blocks("c", PAGE)]
    assert shown
    for block in shown:
        assert "\n".join(line.strip() for line in block.strip().splitlines()) in flat


def test_the_script_measures_every_rung(quick_script, run_script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.2, 0.0, 0.0), raising=False)
    assert run_script(quick_script, "--quick", "--output", "out") == 0
    output, errors = capsys.readouterr()
    assert errors == "Other programs are running (load 3.2): times will vary.\n"
    assert [line.split("  ")[0] for line in output.splitlines() if "×" in line] == list(ladder.RUNGS)
    document = strict_json(tmp_path / "out" / "results.json")
    assert document["all_agree"] and list(document["microseconds"]) == list(ladder.RUNGS)
    assert all(len(times) == 2 and min(times) > 0 for times in document["microseconds"].values())
    summary = (tmp_path / "out" / "summary.md").read_text()
    summary = summary.partition("## Where the numbers come from")[0]
    assert re.findall(r"^\| ([\w ]+?) +\|", summary, re.MULTILINE) == ["rung", *ladder.RUNGS]
    assert run_script(quick_script, "--quick", "--output", "out") == 0
    assert "nothing was run" in capsys.readouterr().out


def test_a_wrong_rung_is_noticed(quick_script, run_script, tmp_path, capsys, monkeypatch):
    class Wrong(ladder.LoopsAlongMemory):
        def _backward(self):
            super()._backward()
            self.gradients["hidden"][1][0] *= 2

    monkeypatch.setitem(ladder.RUNGS, "loops along memory", Wrong)
    assert run_script(quick_script, "--quick", "--output", "out") == 1
    assert "differ from NumPy's, so that times mean nothing, of: loops along memory." in capsys.readouterr().out
    assert not strict_json(tmp_path / "out" / "results.json")["all_agree"]
