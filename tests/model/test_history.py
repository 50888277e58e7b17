"""History: appended points can be read from memory and from files; bad files are refused."""

import copy
import csv
import json
import os
import pickle
from collections.abc import Mapping

import numpy as np
import pytest
from full_disk import disk_full

from cyconv import History
from cyconv._files import save_arrays


@pytest.fixture
def history():
    history = History()
    history.append(0, 1e-5, (2.4, 2.5, 0.1), (2.3, 2.6, 0.09))
    history.append(50, 0.1 + 0.2, (1 / 3, 5e-324, 1.0), (1e308, -0.0, 0.0))
    history.training_time, history.update_time, history.evaluation_time = 3.5, 2.25, 0.75
    return history


def same(left, right):
    return left.complete == right.complete and all(
        np.asarray(left[key]).tobytes() == np.asarray(right[key]).tobytes() for key in left
    )


def test_curves_and_times(history):
    assert history.n_points == 2 and history.last_step == 50
    assert history["update_steps"].tolist() == [0, 50] and history["update_steps"].dtype == np.int64
    assert history["loss_train"].tolist() == [2.4, 1 / 3]
    assert history["cost_train"].tolist() == [2.5, 5e-324]
    assert history["acc_train"].tolist() == [0.1, 1.0]
    assert history["loss_val"].tolist() == [2.3, 1e308]
    assert history["cost_val"].tolist() == [2.6, 0.0]
    assert history["acc_val"].tolist() == [0.09, 0.0]
    assert history["learning_rates"].tolist() == [1e-5, 0.1 + 0.2]
    assert history["training_time"] == 3.5 and history["update_time"] == 2.25
    assert set(dict(history)) == set(history.keys()) == set(history)
    assert "acc_val" in history and "accuracy" not in history
    with pytest.raises(KeyError, match="cost_train"):
        history["accuracy"]


def test_a_history_is_a_mapping(history):
    assert isinstance(history, Mapping) and len(history) == len(list(history)) == len(dict(history)) == 11
    assert [key for key, _ in history.items()] == list(history.keys()) == list(history)
    assert [np.shape(value) for value in history.values()] == 8 * [(2,)] + 3 * [()]
    assert history.get("acc_val").tolist() == [0.09, 0.0] and history.get("accuracy", 5) == 5 and 3 not in history
    assert {**history}["training_time"] == 3.5


def test_equal_histories_have_equal_curves_and_times(history):
    other = copy.copy(history)
    assert history == other == dict(history)
    assert not history != other  # noqa: SIM202 (__ne__, too)
    other.training_time = 4.0
    assert history != other
    other = copy.copy(history)
    other.append(60, 0.1, (1.0, 1.0, 0.5), (1.0, 1.0, 0.5))
    assert history != other and history != {} and history != 5


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda history: pickle.loads(pickle.dumps(history))])
def test_a_copy_does_not_follow_the_original(history, duplicate):
    other = duplicate(history)
    assert same(history, other)
    history.append(60, 0.1, (1.0, 1.0, 0.5), (1.0, 1.0, 0.5))
    assert history.n_points == 3 and other.n_points == 2


def test_json_preserves_every_bit(history):
    read = json.loads(json.dumps(history.to_dict()))
    assert read["complete"] is False and {**read, "complete": False} == history.to_dict()
    assert all(np.asarray(read[key]).tobytes() == np.asarray(history[key]).tobytes() for key in history)


@pytest.mark.optional
def test_pandas_reads_the_curves_as_columns(history):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(history)
    assert frame.shape == (2, 8) and frame["update_steps"].dtype == np.int64
    assert all(frame[key].to_numpy().tobytes() == history[key].tobytes() for key in frame)
    assert pandas.DataFrame(dict(history)).shape == (2, 11)
    assert pandas.DataFrame(History()).empty


@pytest.mark.optional
@pytest.mark.parametrize("validated", [True, False])
def test_pandas_reads_the_csv_as_it_reads_the_history(history, tmp_path, validated):
    pandas = pytest.importorskip("pandas")
    if not validated:
        history = History()
        history.append(0, 1e-5, (2.5, 2.75, 0.1))
    history.to_csv(tmp_path / "history.csv")
    read, frame = pandas.read_csv(tmp_path / "history.csv", float_precision="round_trip"), pandas.DataFrame(history)
    pandas.testing.assert_frame_equal(read[list(frame)], frame, check_exact=True)


def test_as_an_array_it_has_an_element_per_point(history):
    assert [point.acc_val for point in np.asarray(history)] == [0.09, 0.0]
    with pytest.raises(TypeError):
        np.asarray(history, dtype=float)


def test_empty_history(tmp_path):
    history = History()
    assert history.n_points == 0 and history.last_step is None and history["acc_val"].shape == (0,)
    history.save(tmp_path / "h.npz")
    assert same(History.load(tmp_path / "h.npz"), history)


def test_a_curve_is_a_copy(history):
    history["acc_val"][:] = 7
    assert history["acc_val"].tolist() == [0.09, 0.0]


@pytest.mark.parametrize("complete", [False, True])
def test_saved_history_returns_the_same_bits(history, tmp_path, complete):
    history.complete = complete
    history.save(tmp_path / "history")  # the name is taken as it stands
    assert same(History.load(tmp_path / "history"), history)
    assert os.listdir(tmp_path) == ["history"]


def test_csv_preserves_every_bit(history, tmp_path):
    history.to_csv(tmp_path / "h.csv")
    with open(tmp_path / "h.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:2] == ["update_steps", "learning_rates"]
    for key in rows[0]:
        values = np.array([float(row[key]) for row in rows])
        assert values.tobytes() == history[key].astype(np.float64).tobytes()


def test_csv_can_name_the_data_set(history, tmp_path):
    history.to_csv(tmp_path / "h.csv", data_set="shapes, drawn")
    with open(tmp_path / "h.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == history.n_points and {row.pop("data_set") for row in rows} == {"shapes, drawn"}
    assert [int(row["update_steps"]) for row in rows] == history["update_steps"].tolist()


@pytest.mark.parametrize(
    "step, train",
    [
        (50, (1.0, 1.0, 0.5)),
        (-1, (1.0, 1.0, 0.5)),
        (51.0, (1.0, 1.0, 0.5)),
        (51, (np.nan, 1.0, 0.5)),
        (51, (1.0, np.inf, 0.5)),
        (51, (1.0, 1.0, 1.5)),
        (51, (1.0, 1.0, "all")),
    ],
)
def test_a_bad_point_changes_nothing(history, step, train):
    with pytest.raises((TypeError, ValueError)):
        history.append(step, 0.1, train, (1.0, 1.0, 0.5))
    assert {len(history[key]) for key in list(history)[:8]} == {2}


def test_missing_unrelated_and_damaged_files_are_refused(history, tmp_path):
    path = tmp_path / "history.npz"
    with pytest.raises(FileNotFoundError, match="history.npz"):
        History.load(path)
    path.write_bytes(b"hello")
    with pytest.raises(ValueError, match="history.npz"):
        History.load(path)
    np.savez(path, acc_val=np.zeros(3))
    with pytest.raises(ValueError, match="history.npz"):
        History.load(path)
    history.save(path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"^path must be a cyconv history file[^\n]*$"):
            History.load(path)


def spoil(**changes):
    def apply(header, curves):
        for key, value in changes.items():
            (curves if key in curves else header)[key] = value

    return apply


@pytest.mark.parametrize(
    "change",
    [
        spoil(acc_val=np.zeros(3)),
        spoil(acc_val=np.zeros(2, np.float32)),
        spoil(acc_val=np.zeros((2, 1))),
        spoil(acc_val=np.array([0.5, np.nan])),
        spoil(update_steps=np.array([50, 0])),
        spoil(update_steps=np.zeros((2, 1), np.int64)),
        spoil(update_steps=np.zeros(2)),
        spoil(complete=1),
        spoil(training_time=-1.0),
        spoil(training_time="long"),
        spoil(more=1),
        lambda header, curves: curves.pop("acc_val"),
        lambda header, curves: header.pop("complete"),
    ],
)
def test_inconsistent_contents_are_refused(history, tmp_path, change):
    header, curves = history.header(), {key: history[key] for key in list(history)[:8]}
    change(header, curves)
    save_arrays(tmp_path / "h.npz", "history", 1, {"history": header}, curves)
    with pytest.raises(ValueError, match=r"^path must be a cyconv history file, but [^\n]*h.npz is damaged"):
        History.load(tmp_path / "h.npz")


def test_newer_format_is_refused(history, tmp_path):
    save_arrays(tmp_path / "h.npz", "history", 2, {"history": history.header()}, {})
    with pytest.raises(ValueError, match="version 1..1, but .* is of version 2"):
        History.load(tmp_path / "h.npz")


def test_a_failed_write_keeps_the_old_file(history, tmp_path, monkeypatch):
    path = tmp_path / "history.npz"
    history.save(path)
    before = path.read_bytes()

    monkeypatch.setattr(os, "fsync", disk_full)
    history.append(60, 0.1, (1.0, 1.0, 0.5), (1.0, 1.0, 0.5))
    for write in (history.save, history.to_csv):
        with pytest.raises(OSError, match="cannot write .*history.npz: No space left on device"):
            write(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["history.npz"]


def test_missing_folder(history, tmp_path):
    with pytest.raises(FileNotFoundError, match="folder"):
        history.save(tmp_path / "nowhere" / "h.npz")
