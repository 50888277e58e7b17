"""scripts/compare_schedules.py in miniature: a table of all schedules and optimisers."""

import json

import pytest


@pytest.fixture
def script(load_script):
    return load_script("compare_schedules", QUICK={"n_filters": 2, "n_hidden": 4, "step_size": 2, "log_every": 4})


def test_every_schedule_stands_beside_every_optimizer(script, run_script, tmp_path, capsys):
    assert run_script(script, "--quick", "--output", "out") == 0
    printed = capsys.readouterr().out
    for what in script.SCHEDULES.values():
        for optimizer in script.OPTIMIZERS:
            assert f"{optimizer}, {what}" in printed
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["complete"] and len(document["runs"]) == 6
    steps = {result["history"]["update_steps"][-1] for result in document["runs"]}
    assert steps == {28}, "all have the same number of updates"
    assert {"curves-sgd.png", "curves-adamw.png", "accuracy.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_the_full_runs_are_valid(script):
    assert [run.check().schedule().total_steps for run in script.templates({})] == [11200] * 6
