"""The scikit-learn classifier: what it trains, scikit-learn's own checks, searches with workers, and its errors."""

import inspect
import pickle
import sys

import numpy as np
import pytest
from builds import run_program
from tiny_run import make_data

import cyconv
from cyconv.experiments import Run

TRAIN, TEST = make_data()
NAMES = np.array([f"class {k}" for k in range(10)])
SETTINGS = {
    "n_filters": 3,
    "n_hidden": 6,
    "step_size": 6,
    "n_cycles": 2,
    "batch_size": 20,
    "l2": 0.01,
    "momentum": 0.9,
    "augmentation": cyconv.Augmentation(flip=True, shift=1),
}


def test_without_scikit_learn_a_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "cyconv.sklearn", raising=False)
    with pytest.raises(ImportError, match=r"cyconv.sklearn needs scikit-learn 1\.6 or newer, but"):
        import cyconv.sklearn  # noqa: F401


try:
    import joblib
    from sklearn.base import clone
    from sklearn.exceptions import NotFittedError
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils.estimator_checks import parametrize_with_checks

    from cyconv.sklearn import PatchifyClassifier
except ImportError:
    needs_scikit_learn = pytest.mark.skip(reason="scikit-learn is not installed")
    PatchifyClassifier = object

    def parametrize_with_checks(estimators, **options):
        return pytest.mark.parametrize("estimator, check", [(None, None)])

else:
    needs_scikit_learn = pytest.mark.usefixtures("on_one_thread")


class OfRows(PatchifyClassifier):
    """For scikit-learn's checks, whose data are no images: a row is one pixel with many channels."""

    def _shape_of(self, n_values):
        return n_values, 1, 1


def optional(test):
    return pytest.mark.optional(needs_scikit_learn(test))


@pytest.fixture
def classifier():
    return PatchifyClassifier(**SETTINGS)


EXPECTED_TO_FAIL = {
    "check_class_weight_classifiers": "weights are relative within a batch, and one without the class that weighs most "
    "counts as much as the others",
}


@optional
@parametrize_with_checks(
    [OfRows(filter_size=1, n_filters=8, n_hidden=10, batch_size=10, step_size=50, n_cycles=1)]
    if PatchifyClassifier is not object
    else [None],
    expected_failed_checks=lambda estimator: EXPECTED_TO_FAIL,
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # their floats look like pixels
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@optional
def test_a_fit_has_the_bits_of_a_trainer(classifier):
    classifier.fit(TRAIN.images, NAMES[TRAIN.labels])
    network = cyconv.Network(4, 3, 6, image_shape=(3, 8, 8))
    schedule = cyconv.CyclicSchedule(1e-5, 0.1, 6, 2)
    options = {name: SETTINGS[name] for name in ("batch_size", "l2", "momentum", "augmentation")}
    trainer = cyconv.CyclicTrainer(network, schedule, **options)
    history = trainer.fit(TRAIN, log_every=36, progress=False)
    assert np.array_equal(classifier.predict_proba(TEST.images), network.predict_proba(TEST))
    assert classifier.classes_.tolist() == NAMES.tolist()
    assert classifier.predict(TEST.images).tolist() == NAMES[network.predict(TEST)].tolist()
    accuracy = float(np.mean(network.predict(TEST) == TEST.labels))
    assert classifier.score(TEST.images, NAMES[TEST.labels]) == pytest.approx(accuracy)
    assert classifier.n_iter_ == trainer.step == 36 and classifier.n_features_in_ == 192
    assert classifier.history_["loss_train"].tolist() == history["loss_train"].tolist()


@optional
def test_flattened_images_and_integers_of_any_kind_train_the_same(classifier):
    expected = classifier.fit(TRAIN.images, TRAIN.labels).predict_proba(TEST.images)
    flat = clone(classifier).set_params(image_shape=(3, 8, 8))
    X = TRAIN.images.reshape(107, -1)
    for kind in (np.asarray, np.int64, lambda X: X.tolist(), np.asfortranarray):
        flat.fit(kind(X), TRAIN.labels)
        assert np.array_equal(flat.predict_proba(TEST.images.reshape(31, -1)), expected)
        assert np.array_equal(flat.predict_proba(TEST.images.tolist()), expected)


@optional
def test_a_data_frame_gives_the_columns_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(TRAIN.images.reshape(107, -1)).add_prefix("pixel ")
    classifier = PatchifyClassifier(**SETTINGS, image_shape=(3, 8, 8)).fit(frame, pandas.Series(NAMES[TRAIN.labels]))
    assert classifier.feature_names_in_[:2].tolist() == ["pixel 0", "pixel 1"]
    with pytest.raises(ValueError, match="feature names should match"):
        classifier.predict(frame.add_prefix("a "))


@optional
def test_the_defaults_are_those_of_the_classes():
    """Of each parameter of the same name; what has no default there has the one of `Run`."""
    own = inspect.signature(PatchifyClassifier).parameters
    others = {}
    for each in (Run, cyconv.Network, cyconv.CyclicSchedule, cyconv.CyclicTrainer):
        found = inspect.signature(each).parameters.items()
        others |= {name: p.default for name, p in found if p.default is not inspect.Parameter.empty}
    own = {name: p.default for name, p in own.items() if name not in ("image_shape", "log_every", "random_state")}
    assert own.pop("verbose") is False and own == {name: others[name] for name in own}


@optional
def test_a_grid_search_with_workers_finds_what_one_without_them_finds(classifier):
    grid = {"eta_max": [0.0001, 0.1], "n_filters": [2, 3]}
    X, y = TRAIN.images // 2, NAMES[TRAIN.labels % 3]
    X[y == NAMES[1]] += 60
    searches = [GridSearchCV(classifier, grid, cv=2, n_jobs=n_jobs).fit(X, y) for n_jobs in (1, 2)]
    scores = [search.cv_results_["mean_test_score"].tolist() for search in searches]
    assert scores[0] == scores[1] and len(set(scores[0])) > 1
    assert np.array_equal(*(search.predict(TEST.images) for search in searches))


@optional
def test_workers_share_the_processors():
    found = run_program("sklearn_workers.py", OMP_NUM_THREADS=None)
    assert found["workers"] == [max(1, found["alone"] // 2)] * 2


@optional
def test_a_fitted_classifier_is_copied_and_kept(classifier, tmp_path):
    classifier.fit(TRAIN.images, NAMES[TRAIN.labels])
    joblib.dump(classifier, tmp_path / "classifier.joblib")
    for copy in (pickle.loads(pickle.dumps(classifier)), joblib.load(tmp_path / "classifier.joblib")):
        assert np.array_equal(copy.predict_proba(TEST.images), classifier.predict_proba(TEST.images))
    fresh = clone(classifier)
    assert fresh.get_params() == classifier.get_params() and not hasattr(fresh, "network_")


@optional
def test_floats_are_normalised_by_the_pipeline(classifier):
    X = TRAIN.images.reshape(107, -1).astype(np.float64)
    pipeline = make_pipeline(StandardScaler(), classifier.set_params(image_shape=(3, 8, 8)))
    pipeline.fit(X, TRAIN.labels)
    assert classifier.network_.normalizer is None
    pixels = clone(classifier).fit(TRAIN.images, TRAIN.labels)
    assert np.mean(pipeline.predict(X) == pixels.predict(TRAIN.images)) > 0.9


@optional
def test_class_weights_go_by_label(classifier):
    y = np.where(np.arange(107) % 5, "often", "seldom")
    classifier.set_params(batch_size=107, l2=0.0)
    predicted = {
        name: np.mean(classifier.set_params(class_weight=weight).fit(TRAIN.images, y).predict(TRAIN.images) == "seldom")
        for name, weight in (("none", None), ("balanced", "balanced"), ("dict", {"seldom": 100.0, "often": 0.01}))
    }
    assert predicted["none"] < predicted["balanced"] < predicted["dict"] == 1
    with pytest.raises(ValueError, match="class_weight"):
        classifier.set_params(class_weight="heavy").fit(TRAIN.images, y)


@optional
def test_random_states():
    def fit(state):
        classifier = PatchifyClassifier(**SETTINGS, random_state=state).fit(TRAIN.images, TRAIN.labels)
        return classifier.predict_proba(TEST.images).tobytes()

    assert fit(0) == fit(np.int64(0)) != fit(1) and fit(np.random.RandomState(3)) == fit(np.random.RandomState(3))
    state = np.random.RandomState(3)
    assert fit(state) != fit(state) and fit(None) != fit(None)


@optional
@pytest.mark.parametrize(
    "changes, X, y, error, words",
    [
        ({}, TRAIN.images[:, 0], None, ValueError, "Found array with dim 3"),
        ({}, TRAIN.images.reshape(107, -1), None, ValueError, r"image_shape must be \(channels.* 192.* but got None"),
        ({"image_shape": (3, 8, 9)}, TRAIN.images.reshape(107, -1), None, ValueError, r"product of 192.*\(3, 8, 9\)"),
        ({"image_shape": (3, 4, 16)}, TRAIN.images, None, ValueError, r"X must have shape \(n, 3, 4, 16\)"),
        ({}, TRAIN.images.transpose(0, 2, 3, 1), None, ValueError, "X .* whose channels come last"),
        ({}, TRAIN.images.astype(int) + 1, None, ValueError, r"X must hold pixels in 0\.\.255 .* but got 256"),
        ({}, np.full(TRAIN.images.shape, np.nan), None, ValueError, "Input X contains NaN"),
        ({}, TRAIN.images[:5], np.arange(5), ValueError, "batch_size must be at most the number of images, 5, but"),
        ({}, TRAIN.images, np.zeros(107), ValueError, "y must hold at least two classes, but got one class, 0.0"),
        ({}, TRAIN.images, np.linspace(0, 1, 107), ValueError, "Unknown label type: continuous"),
        ({}, TRAIN.images, TRAIN.labels[:9], ValueError, "inconsistent numbers of samples"),
        ({"batch_size": 0}, TRAIN.images, None, ValueError, "batch_size must be an integer at least 1, but got 0"),
        ({"filter_size": 3}, TRAIN.images, None, ValueError, "filter_size must divide the image's height 8"),
        ({"eta_max": "0.1"}, TRAIN.images, None, TypeError, "eta_max must be a real number"),
        ({"random_state": -1}, TRAIN.images, None, ValueError, "random_state must be an integer in"),
        ({"random_state": "one"}, TRAIN.images, None, ValueError, "'one' cannot be used to seed"),
        ({"log_every": 0}, TRAIN.images, None, ValueError, "log_every must be an integer at least 1"),
    ],
)
def test_mistakes_are_told_in_a_sentence(classifier, changes, X, y, error, words):
    with pytest.raises(error, match=words):
        classifier.set_params(**changes).fit(X, TRAIN.labels if y is None else y)
    with pytest.raises(NotFittedError):
        classifier.predict(TRAIN.images)


@optional
def test_what_is_predicted_must_be_of_the_kind_of_what_was_fitted(classifier):
    classifier.fit(TRAIN.images, TRAIN.labels)
    with pytest.raises(ValueError, match="X must be integers, pixels from 0 to 255, as in the call of fit, but got"):
        classifier.predict(TRAIN.images / 255)
    with pytest.raises(ValueError, match=r"X must have shape \(n, 3, 8, 8\)"):
        classifier.predict(TRAIN.images[:, :1])
    with pytest.raises(ValueError, match="X has 191 features, but PatchifyClassifier is expecting 192"):
        classifier.predict(TRAIN.images.reshape(107, -1)[:, 1:])
    classifier.fit(classifier.network_.normalizer(TRAIN.images), TRAIN.labels)
    with pytest.raises(ValueError, match="X must be floats as in the call of fit, but got"):
        classifier.predict(TRAIN.images)
