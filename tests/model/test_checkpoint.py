"""Checkpoints: resumed runs equal uninterrupted ones bit for bit, also after failed writes; bad files are refused."""

import io
import os
import tempfile
import zipfile

import numpy as np
import pytest
from full_disk import disk_full, file_size_limit
from tiny_run import ADAMW, EVERYTHING, PLAIN, digest, fit, make_data, make_network, make_trainer, set_call_seconds

import cyconv
from cyconv._files import load_arrays, save_arrays

pytestmark = pytest.mark.usefixtures("on_one_thread")
KINDS = pytest.mark.parametrize("options", [PLAIN, EVERYTHING, ADAMW], ids=["plain", "everything", "AdamW"])


class Stop(Exception):
    """A crash between two updates."""


def fit_until_crash(trainer, step, **options):
    """Fit, but crash before the update at ``step``."""
    original = cyconv.Network.train_steps

    def train_steps(self, source, order, learning_rates, first_step, **options):
        if first_step >= step:
            raise Stop
        return original(self, source, order, learning_rates, first_step=first_step, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(cyconv.Network, "train_steps", train_steps)
        set_call_seconds(patch, 0)
        fit(trainer, **options)


@KINDS
def test_resumed_anywhere_equals_uninterrupted(options, tmp_path, monkeypatch):
    """From each step in turn: mid-epoch, mid-cycle, at and between logged points."""
    import cyconv.trainer

    write = cyconv.trainer.write_checkpoint
    uninterrupted = make_trainer(**options)
    with monkeypatch.context() as patch:
        patch.setattr("cyconv.trainer.write_checkpoint", lambda path, state: write(f"{path}-{state.step}", state))
        fit(uninterrupted, checkpoint=tmp_path / "c.npz", checkpoint_every=1)
    for step in range(1, 37):
        resumed = cyconv.CyclicTrainer.resume(tmp_path / f"c.npz-{step}")
        assert resumed.step == step
        fit(resumed)
        assert digest(resumed) == digest(uninterrupted)


@KINDS
@pytest.mark.parametrize("every, step", [(5, 13), (8, 23), (1, 6)])
def test_crashed_between_checkpoints(options, every, step, tmp_path):
    uninterrupted, trainer = make_trainer(**options), make_trainer(**options)
    fit(uninterrupted)
    path = tmp_path / "c.npz"
    fit_until_crash(trainer, step, checkpoint=path, checkpoint_every=every)
    resumed = cyconv.CyclicTrainer.resume(path)
    assert resumed.step == step - step % every
    fit(resumed)
    assert digest(resumed) == digest(uninterrupted)


def test_resumed_again_and_again(tmp_path):
    uninterrupted = make_trainer(**EVERYTHING)
    fit(uninterrupted)
    path = tmp_path / "c.npz"
    trainer = make_trainer(**EVERYTHING)
    for step in (3, 4, 11, 12, 13, 30):
        fit_until_crash(trainer, step, checkpoint=path, checkpoint_every=1)
        trainer = cyconv.CyclicTrainer.resume(path)
    fit(trainer)
    assert digest(trainer) == digest(uninterrupted)
    assert os.listdir(tmp_path) == ["c.npz"]


def test_when_checkpoints_are_written(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr("cyconv.trainer.write_checkpoint", lambda path, state: steps.append(state.step))
    for every, expected in ((None, [12, 36]), (10, [10, 20, 30, 36]), (36, [36]), (10**9, [36])):
        steps.clear()
        fit(make_trainer(), checkpoint=tmp_path / "c.npz", checkpoint_every=every)
        assert steps == expected


def test_resume_restores_settings_and_times(tmp_path):
    path = tmp_path / "c.npz"
    trainer = make_trainer(**EVERYTHING)
    history = fit(trainer, checkpoint=path)
    resumed = cyconv.CyclicTrainer.resume(path)
    assert resumed.settings == trainer.settings
    assert resumed.schedule == trainer.schedule
    assert resumed.network.architecture == trainer.network.architecture
    assert np.array_equal(resumed.network.normalizer.mean, trainer.network.normalizer.mean)
    assert np.array_equal(resumed.network.normalizer.std, trainer.network.normalizer.std)
    assert resumed.history["update_time"] == history["update_time"]
    assert 0 < resumed.history["training_time"] <= history["training_time"]


def test_training_time_adds_up(tmp_path):
    path = tmp_path / "c.npz"
    trainer = make_trainer()
    fit_until_crash(trainer, 20, checkpoint=path, checkpoint_every=1)
    resumed = cyconv.CyclicTrainer.resume(path)
    before = dict(resumed.history)
    assert before["training_time"] > 0
    fit(resumed)
    for key in ("training_time", "update_time", "evaluation_time"):
        assert resumed.history[key] > before[key]


def test_a_finished_run_resumes_to_its_history_at_once(tmp_path, monkeypatch):
    path = tmp_path / "c.npz"
    trainer = make_trainer()
    fit(trainer, checkpoint=path)
    resumed = cyconv.CyclicTrainer.resume(path)
    monkeypatch.setattr(cyconv.Network, "train_steps", None)
    monkeypatch.setattr(cyconv.Network, "evaluate", None)
    for _ in range(2):
        history = fit(resumed)
        assert history.complete and digest(resumed) == digest(trainer)


def test_resuming_writes_no_checkpoint_unless_requested(tmp_path):
    path = tmp_path / "c.npz"
    trainer = make_trainer()
    fit_until_crash(trainer, 20, checkpoint=path, checkpoint_every=5)
    before = path.read_bytes()
    fit(cyconv.CyclicTrainer.resume(path))
    assert path.read_bytes() == before
    fit(cyconv.CyclicTrainer.resume(path), checkpoint=path)
    assert cyconv.CyclicTrainer.resume(path).history.complete


@pytest.mark.parametrize("which", ["train", "validation"])
def test_other_data_are_refused(tmp_path, which):
    path = tmp_path / "c.npz"
    fit(make_trainer(), checkpoint=path)
    train, validation = make_data()
    other, _ = make_data(seed=1)
    relabelled = cyconv.Split(train.images, np.roll(train.labels, 1))
    for wrong in (other, relabelled):
        splits = (wrong, validation) if which == "train" else (train, wrong)
        with pytest.raises(ValueError, match=f"^{which} must be the data that this run began with"):
            fit(cyconv.CyclicTrainer.resume(path), data=splits)


def test_data_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "c.npz"
    fit(make_trainer(), checkpoint=path)
    wide = cyconv.Split(np.zeros((40, 3, 8, 12), np.uint8), np.zeros(40, int))
    with pytest.raises(ValueError, match="^train must hold images of the network's shape"):
        fit(cyconv.CyclicTrainer.resume(path), data=(wide, wide))


def test_another_instruction_set_warns(tmp_path):
    path = tmp_path / "c.npz"
    fit(make_trainer(), checkpoint=path)
    tamper(path, lambda header, arrays: header["versions"].update(instruction_set="abacus"))
    with pytest.warns(UserWarning, match="abacus"):
        cyconv.CyclicTrainer.resume(path)


class Cosine(cyconv.CyclicSchedule):
    """A user's own schedule: half a cosine wave."""

    def __init__(self, *arguments, lowest=0.0):
        super().__init__(*arguments)
        self.lowest = lowest

    def __call__(self, step):
        rates = self.lowest + 0.025 * (1 + np.cos(np.pi * np.asarray(step) / self.total_steps))
        return float(rates) if np.ndim(step) == 0 else rates


def test_a_custom_schedule_must_be_given_again_on_resume(tmp_path):
    def trainer():
        return cyconv.CyclicTrainer(make_network(), Cosine(1e-4, 0.05, 6, 2), batch_size=20, l2=0.01, seed=1)

    uninterrupted, cut, path = trainer(), trainer(), tmp_path / "c.npz"
    fit(uninterrupted)
    fit_until_crash(cut, 13, checkpoint=path, checkpoint_every=5)
    with pytest.raises(ValueError, match="^schedule must be given where .* 'Cosine'$"):
        cyconv.CyclicTrainer.resume(path)
    for other in (
        Cosine(1e-4, 0.05, 6, 1),
        Cosine(1e-4, 0.05, 6, 2, lowest=1e-3),
        Cosine(1e-4, 0.05, 6, 2, 1.0),
        cyconv.CyclicSchedule(1e-4, 0.05, 6, 2),
    ):
        with pytest.raises(ValueError, match="^schedule must be that of the run"):
            cyconv.CyclicTrainer.resume(path, schedule=other)
    with pytest.raises(TypeError, match="^schedule must be a CyclicSchedule or another"):
        cyconv.CyclicTrainer.resume(path, schedule=abs)
    resumed = cyconv.CyclicTrainer.resume(path, schedule=Cosine(1e-4, 0.05, 6, 2))
    assert resumed.step == 10 and resumed.settings == cut.settings
    fit(resumed)
    assert digest(resumed) == digest(uninterrupted)


def test_a_cyclic_schedule_may_be_given_again(path):
    schedule = cyconv.CyclicTrainer.resume(path).schedule
    assert cyconv.CyclicTrainer.resume(path, schedule=schedule).schedule == schedule
    with pytest.raises(ValueError, match="^schedule must be that of the run"):
        cyconv.CyclicTrainer.resume(path, schedule=cyconv.CyclicSchedule(1e-4, 0.05, 6, 1))


# Other settings from here on --------------------------------------------------------


def test_a_run_continues_with_another_schedule_and_other_settings(tmp_path):
    path = tmp_path / "c.npz"
    trainer = make_trainer(snapshots=True)
    fit(trainer, checkpoint=path)
    first = trainer.history["update_steps"].tolist()

    def continued():
        schedule = cyconv.CosineSchedule(1e-4, 0.05, 5, 2, growth=1.0)
        return cyconv.CyclicTrainer.resume_with(path, schedule, batch_size=10, l2=0.02)

    whole, cut, later = continued(), continued(), tmp_path / "later.npz"
    assert (whole.step, whole.batch_size, whole.l2, whole.seed) == (36, 10, 0.02, 1)
    fit(whole)
    assert whole.history["update_steps"].tolist() == [*first, 42, 49, 56] and whole.history.complete
    assert whole.history["learning_rates"][-3:].tolist() == [float(whole.schedule(step)) for step in (6, 13, 20)]
    assert len(whole.snapshots) == 4
    [before] = whole.settings["earlier"]
    assert (before["batch_size"], before["l2"], before["until"]) == (20, 0.01, 36)
    fit(cut, checkpoint=later, callbacks=[lambda event: event.step == 42])
    resumed = cyconv.CyclicTrainer.resume(later)
    assert resumed.settings == whole.settings
    fit(resumed)
    assert digest(resumed) == digest(whole)


def test_a_run_continues_its_schedule_with_another_batch_size(tmp_path):
    path = tmp_path / "c.npz"
    trainer = make_trainer()
    fit(trainer, checkpoint=path, callbacks=[lambda event: event.step == 7])
    wide = cyconv.CyclicTrainer.resume_with(path, batch_size=40, momentum=0.5)
    fit(wide)
    assert wide.step == 36 and wide.history.complete
    exact = cyconv.CyclicTrainer.resume(path)
    fit(exact)
    assert digest(exact) != digest(wide)


def test_a_custom_schedule_is_not_needed_to_resume_with_another(tmp_path):
    path = tmp_path / "c.npz"
    trainer = cyconv.CyclicTrainer(make_network(), Cosine(1e-4, 0.05, 6, 1), batch_size=20)
    fit(trainer, checkpoint=path)
    continued = cyconv.CyclicTrainer.resume_with(path, cyconv.ConstantSchedule(0.01, 5))
    fit(continued)
    assert continued.step == 17


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({}, "^schedule or a change must be given"),
        ({"l2": 0.1}, "^schedule must be given where that of the run has no steps left"),
        ({"l2": -1}, "^l2 must "),
        ({"schedule": abs}, "^schedule must "),
        ({"schedule": cyconv.ConstantSchedule(0.1, 5), "snapshots": True}, "^changes must be among .* 'snapshots'"),
        ({"schedule": cyconv.ConstantSchedule(0.1, 5), "rate": 1}, "^changes must be among .* 'rate'"),
    ],
)
def test_bad_changes_get_one_sentence(tmp_path, changes, sentence):
    path = tmp_path / "c.npz"
    fit(make_trainer(), checkpoint=path)
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError), match=sentence):
        cyconv.CyclicTrainer.resume_with(path, **changes)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "earlier",
    [3, [3], [{}], [{"until": 99, "batch_size": 20, "n_snapshots": 0}], [{"until": 3, "batch_size": 0}], {"until": 3}],
)
@pytest.mark.parametrize("resume", ["resume", "resume_with"])
def test_damaged_records_of_earlier_settings_are_refused(tmp_path, resume, earlier):
    path = tmp_path / "c.npz"
    fit(make_trainer(), checkpoint=path, callbacks=[lambda event: event.step == 14])
    tamper(path, lambda header, arrays: header["settings"].update(earlier=earlier, schedule_start=0))
    arguments = {"l2": 0.1} if resume == "resume_with" else {}
    with pytest.raises(ValueError, match="^path must be a cyconv checkpoint file, but .* is damaged"):
        getattr(cyconv.CyclicTrainer, resume)(path, **arguments)


def test_a_checkpoint_without_the_state_of_its_optimizer_is_refused(tmp_path):
    path = tmp_path / "c.npz"
    trainer = make_trainer(optimizer=cyconv.AdamW())
    fit(trainer, checkpoint=path, callbacks=[lambda event: event.step == 14])

    def forget(header, arrays):
        for name in [name for name in arrays if name.startswith("exp_avg")]:
            del arrays[name]
        header.pop("optimizer", None), header.pop("n_updates", None)

    tamper(path, forget)
    with pytest.raises(ValueError, match="is damaged: it has no state of its optimiser"):
        cyconv.CyclicTrainer.resume(path)


def test_a_run_whose_optimizer_was_just_changed_has_no_state_yet(tmp_path):
    path, later = tmp_path / "c.npz", tmp_path / "later.npz"
    fit(make_trainer(momentum=0.9), checkpoint=path, callbacks=[lambda event: event.step == 14])
    changed = cyconv.CyclicTrainer.resume_with(path, optimizer=cyconv.AdamW(), l2=0.0)
    fit(changed, checkpoint=later)
    assert changed.history.complete and cyconv.CyclicTrainer.resume(later).step == 36


def test_an_unknown_schedule_in_a_checkpoint(tmp_path):
    path = tmp_path / "c.npz"
    fit(make_trainer(), checkpoint=path)
    tamper(path, lambda header, arrays: header["settings"]["schedule"].update({"class": "StepSchedule"}))
    with pytest.raises(ValueError, match="its schedule is a StepSchedule, which this version of cyconv does not know"):
        cyconv.CyclicTrainer.resume(path)


# Writing that fails ------------------------------------------------------------------


def test_stale_partial_files_do_no_harm(tmp_path):
    path = tmp_path / "c.npz"
    leftover = tmp_path / ".c.npz.abcdefgh.part"
    leftover.write_bytes(b"half a checkpoint")
    fit(make_trainer(), checkpoint=path)
    assert cyconv.CyclicTrainer.resume(path).history.complete
    assert sorted(os.listdir(tmp_path)) == [leftover.name, "c.npz"]


@pytest.mark.parametrize("limit", [0, 100, 5000])
def test_disk_full_while_writing(tmp_path, limit):
    path = tmp_path / "c.npz"
    trainer = make_trainer()
    fit(trainer, checkpoint=path)
    before = path.read_bytes()
    assert len(before) > 5000
    other = make_trainer(seed=2)
    with file_size_limit(limit), pytest.raises(OSError, match="cannot write .*c.npz"):
        fit(other, checkpoint=path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["c.npz"]
    assert other.step == 12 and not other.history.complete
    fit(other, checkpoint=path)  # there is space again: the same trainer continues
    assert cyconv.CyclicTrainer.resume(path).history.complete


def test_disk_full_at_the_last_moment(tmp_path, monkeypatch):
    path = tmp_path / "c.npz"
    fit(make_trainer(), checkpoint=path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="cannot write .*c.npz: No space left on device"):
        fit(make_trainer(seed=2), checkpoint=path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["c.npz"]


def test_the_folder_is_checked_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(cyconv.Network, "prepare", None)
    with pytest.raises(FileNotFoundError, match="^checkpoint must lie in an existing folder"):
        fit(make_trainer(), checkpoint=tmp_path / "nowhere" / "c.npz")
    with pytest.raises(IsADirectoryError, match="^checkpoint must be a file"):
        fit(make_trainer(), checkpoint=tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FileExistsError, match="^checkpoint must be a regular file or a new one"):
            fit(make_trainer(), checkpoint=tmp_path / "pipe")

    def forbidden(*args, **options):  # root may write anywhere
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", forbidden)
    with pytest.raises(PermissionError, match="^checkpoint must lie in a folder that can be written"):
        fit(make_trainer(), checkpoint=tmp_path / "c.npz")


# Untrusted files ---------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "c.npz"
    fit(make_trainer(**EVERYTHING), checkpoint=path)
    return path


def tamper(path, change):
    header, arrays = load_arrays(path, "checkpoint", 1)
    change(header, arrays)
    kind, version = header.pop("kind"), header.pop("version")
    save_arrays(path, kind, version, header, arrays)


def assert_refused(path):
    with pytest.raises(ValueError) as caught:
        cyconv.CyclicTrainer.resume(path)
    message = str(caught.value)
    assert message.startswith("path must be a cyconv checkpoint file"), message
    assert str(path) in message and "\n" not in message


def test_missing_files_and_files_of_other_kinds_are_refused(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        cyconv.CyclicTrainer.resume(tmp_path / "nothing.npz")
    with pytest.raises(FileNotFoundError):
        cyconv.CyclicTrainer.resume(tmp_path)
    trainer = cyconv.CyclicTrainer.resume(path)
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    for write in (
        lambda: trainer.history.save(path),
        lambda: trainer.network.save(path),
        lambda: np.savez(path, a=np.zeros(3)),
        lambda: path.write_bytes(b""),
        lambda: path.write_text("not an archive"),
        lambda: path.write_bytes(array.getvalue()),
        lambda: zipfile.ZipFile(path, "w").close(),
    ):
        write()
        assert_refused(path)
    with pytest.raises(TypeError, match="path must be a path"):
        cyconv.CyclicTrainer.resume(3)


def test_no_pickle_is_executed(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    _, arrays = load_arrays(path, "checkpoint", 1)
    arrays["velocity.conv.bias"] = np.array([Trap()])
    np.savez(path, __header__=np.zeros(1, np.uint8), **arrays)
    assert_refused(path)
    assert not (tmp_path / "trapped").exists()


def test_truncated_anywhere(path):
    whole = path.read_bytes()
    for cut in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:cut])
        assert_refused(path)


def test_flipped_bits_are_noticed_or_harmless(path):
    whole = path.read_bytes()
    expected = digest(cyconv.CyclicTrainer.resume(path))
    rng = np.random.default_rng(0)
    noticed = 0
    for position in rng.integers(0, len(whole), 150):
        spoilt = bytearray(whole)
        spoilt[position] ^= 1 << rng.integers(8)
        path.write_bytes(spoilt)
        try:
            assert digest(cyconv.CyclicTrainer.resume(path)) == expected  # such as a date in the archive
        except ValueError:
            noticed += 1
    assert noticed > 100


def set_header(*keys, value):
    def change(header, arrays):
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    return change


def drop_header(*keys):
    def change(header, arrays):
        for key in keys[:-1]:
            header = header[key]
        del header[keys[-1]]

    return change


def set_array(name, make):
    return lambda header, arrays: arrays.__setitem__(name, make(arrays.get(name)))


@pytest.mark.parametrize(
    "change",
    [
        set_header("version", value=3),
        set_header("version", value=True),
        set_header("kind", value="network"),
        set_header("versions", "instruction_set", value="a\nb"),
        set_header("versions", "instruction_set", value="a" * 101),
        set_header("step", value=35),
        set_header("step", value=-1),
        set_header("step", value=37),
        set_header("step", value=3.0),
        set_header("settings", value=None),
        set_header("settings", value={}),
        set_header("settings", "network", value=None),
        set_header("settings", "network", "n_filters", value=4),
        set_header("settings", "network", "n_hidden", value=10**9),
        set_header("settings", "network", "n_hidden", value=10**15),
        set_header("settings", "network", "n_hidden", value=10**30),
        set_header("settings", "network", "n_classes", value="ten"),
        set_header("settings", "network", "image_shape", value=[3, 10**9, 10**9]),
        set_header("settings", "network", "dtype", value="float64"),
        set_header("settings", "network", "dtype", value="object"),
        set_header("settings", "network", "unknown", value=1),
        set_header("settings", "schedule", "n_cycles", value=1),
        set_header("settings", "schedule", "growth", value=1e300),
        set_header("settings", "schedule", "unknown", value=1),
        set_header("settings", "schedule", value=[]),
        set_header("settings", "batch_size", value=0),
        set_header("settings", "momentum", value="high"),
        set_header("settings", "augmentation", value=[1]),
        set_header("settings", "augmentation", "shift", value=-1),
        set_header("settings", "snapshots", value=False),
        set_header("settings", "unknown", value=0),
        set_header("settings", "optimizer", value="AdamW"),
        set_header("settings", "optimizer", value={"class": "Lion"}),
        set_header("settings", "optimizer", value={"class": "AdamW", "eps": 1e-8}),
        set_header("settings", "optimizer", value={"class": "SGD", "momentum": 0.9, "nesterov": True}),  # twice
        set_header("optimizer", value="Lion"),
        set_header("optimizer", value="AdamW"),
        set_header("optimizer", value=["SGD"]),
        set_header("n_updates", value=-1),
        set_header("n_updates", value=2.5),
        drop_header("n_updates"),
        set_header("settings", "network_", value=0),
        set_header("history", value={}),
        set_header("history", "complete", value="yes"),
        set_header("fingerprints", value={}),
        set_header("fingerprints", "train", value=1),
        set_header("versions", value=3),
        drop_header("settings", "schedule"),
        drop_header("settings", "network"),
        drop_header("settings", "l2"),
        drop_header("settings", "schedule", "growth"),
        drop_header("step"),
        drop_header("versions"),
        drop_header("fingerprints"),
        set_array("parameters.conv.weight", lambda a: a.astype(np.float64)),
        set_array("parameters.conv.weight", lambda a: a[:2]),
        set_array("parameters.conv.weight", lambda a: a * np.nan),
        set_array("parameters.output.more", lambda a: np.zeros(3, np.float32)),
        set_array("velocity.conv.bias", lambda a: a[:0]),
        set_array("velocity.conv.bias", lambda a: a + np.inf),
        set_array("exp_avg.conv.bias", lambda a: np.zeros(3, np.float32)),
        set_array("snapshots.conv.bias", lambda a: a[:1]),
        set_array("snapshots.conv.bias", lambda a: np.float32(0)),
        set_array("snapshots.conv.bias", lambda a: np.concatenate([a, a])),
        set_array("normalizer.std", lambda a: 0 * a),
        set_array("normalizer.std", lambda a: a[:, :4]),
        set_array("normalizer.mean", lambda a: a[:, :4]),
        set_array("history.acc_val", lambda a: a[:3]),
        set_array("history.update_steps", lambda a: a + 100),
        set_array("unknown", lambda a: np.zeros(3)),
        lambda header, arrays: arrays.pop("parameters.conv.bias"),
        lambda header, arrays: arrays.pop("history.acc_val"),
        lambda header, arrays: arrays.pop("velocity.conv.bias"),
        lambda header, arrays: [arrays.pop(name) for name in list(arrays) if name.startswith("velocity")],
        lambda header, arrays: arrays.pop("normalizer.std"),
        lambda header, arrays: [arrays.pop(name) for name in list(arrays) if name.startswith("parameters")],
        lambda header, arrays: [arrays.pop(name) for name in list(arrays) if name.startswith("snapshots")],
    ],
)
def test_inconsistent_contents_are_refused(path, change):
    tamper(path, change)
    assert_refused(path)


def test_parameters_of_another_network_are_refused(path):
    other = make_network(n_filters=4).parameters
    tamper(path, lambda header, arrays: arrays.update({f"parameters.{k}": v for k, v in other.items()}))
    assert_refused(path)


def test_checkpoint_without_an_optimizer_in_its_header_goes_on(tmp_path):
    """As 0.1.0 wrote them: a velocity, and nothing that says whose."""
    uninterrupted, trainer = make_trainer(**EVERYTHING), make_trainer(**EVERYTHING)
    fit(uninterrupted)
    fit(trainer, checkpoint=tmp_path / "c.npz", callbacks=[lambda event: event.step == 14])

    def as_before(header, arrays):
        del header["optimizer"], header["n_updates"]

    tamper(tmp_path / "c.npz", as_before)
    resumed = cyconv.CyclicTrainer.resume(tmp_path / "c.npz")
    fit(resumed)
    assert resumed.network.optimizer_state["n_updates"] == 36 - 14
    for name, values in uninterrupted.network.parameters.items():
        assert np.array_equal(resumed.network.parameters[name], values)
