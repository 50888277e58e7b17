"""A classifier for scikit-learn; this module needs it (``pip install "cyconv[sklearn]"``).

>>> from cyconv.sklearn import PatchifyClassifier
>>> from sklearn.datasets import load_digits
>>> X, y = load_digits(return_X_y=True)
>>> classifier = PatchifyClassifier(filter_size=2, n_hidden=30, image_shape=(1, 8, 8), step_size=300, n_cycles=1)
>>> classifier.fit(X.astype(int)[:1500], y[:1500]).score(X.astype(int)[1500:], y[1500:]) > 0.85
True
"""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(f"cyconv.sklearn needs scikit-learn 1.6 or newer, but {error}") from error

from ._checks import FLOATS, as_array, as_images, check_image_shape, check_integer, describe
from ._typing import AnyArray, FloatArray, ImageShape, SizesLike
from .augmentation import Augmentation
from .datasets import Split
from .history import History
from .network import Network
from .optimizers import Optimizer
from .schedules import CyclicSchedule
from .trainer import CyclicTrainer


class PatchifyClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A `Network`, a `CyclicSchedule` and a `CyclicTrainer` as one estimator of scikit-learn.

    The parameters have the names and defaults that they have there. A fit
    gives the bits of a `CyclicTrainer` with the same settings and, for
    ``random_state=0``, with ``seed=0``.

    Parameters
    ----------
    filter_size, n_filters, n_hidden : int or sequence of int
        Settings of the `Network`.
    image_shape : tuple of int, optional
        (channels, height, width); by default that of ``X``, which may then not
        be flattened.
    eta_min, eta_max, step_size, n_cycles, growth, eta_max_decay
        Settings of the `CyclicSchedule`. ``step_size`` is half the first
        cycle, in update steps.
    batch_size, l2, label_smoothing, momentum, dropout, augmentation, optimizer, whitening
        Settings of the `CyclicTrainer`.
    class_weight : dict, "balanced" or None
        Weights of the classes in the training loss, by label, as in
        scikit-learn.
    dtype : {"float32", "float64"}
    log_every : int, optional
        Update steps between points of ``history_``; by default, the first and
        the last step are logged. Each point is an evaluation of all images.
    random_state : int, RandomState or None, default 0
        Seed of initial weights, shuffles, dropout and augmentation. None or a
        RandomState draws another one in each fit.
    verbose : bool, default False
        Whether to show a progress bar.

    Attributes
    ----------
    classes_ : ndarray, (n_classes,)
        The labels, sorted.
    network_ : Network
        ``network_.predict`` returns indices into ``classes_``.
    history_ : History
        Without validation curves.
    n_iter_ : int
        Number of update steps.
    n_features_in_ : int
        channels·height·width.
    feature_names_in_ : ndarray of str
        Names of the columns, if ``X`` was a data frame.

    Notes
    -----
    ``X`` has shape (n, channels, height, width), or (n, channels·height·width).
    Integers are pixels from 0 to 255, which the network normalises; floats are
    taken to be normalised already, for example by a `StandardScaler` in
    front. In workers of joblib, such as those of `GridSearchCV`, each process
    uses its share of the CPUs.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = np.zeros((60, 3, 8, 8), np.uint8), np.array(["cat", "dog", "cow"] * 20)
    >>> X[y == "dog"], X[y == "cow"] = 100, 200
    >>> classifier = PatchifyClassifier(n_hidden=5, step_size=20, n_cycles=1, batch_size=20)
    >>> GridSearchCV(classifier, {"n_filters": [2, 5]}, cv=2).fit(X, y).predict(X[:2])
    array(['cat', 'dog'], dtype='<U3')
    """

    def __init__(
        self,
        filter_size: SizesLike = 4,
        n_filters: SizesLike = 10,
        n_hidden: SizesLike = 50,
        *,
        image_shape: Sequence[int] | None = None,
        eta_min: float = 1e-5,
        eta_max: float = 1e-1,
        step_size: int = 800,
        n_cycles: int = 3,
        growth: float = 2.0,
        eta_max_decay: float = 1.0,
        batch_size: int = 100,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        momentum: float = 0.0,
        dropout: float = 0.0,
        augmentation: Augmentation | None = None,
        optimizer: Optimizer | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        whitening: float | None = None,
        dtype: DTypeLike = "float32",
        log_every: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.filter_size = filter_size
        self.n_filters = n_filters
        self.n_hidden = n_hidden
        self.image_shape = image_shape
        self.eta_min = eta_min
        self.eta_max = eta_max
        self.step_size = step_size
        self.n_cycles = n_cycles
        self.growth = growth
        self.eta_max_decay = eta_max_decay
        self.batch_size = batch_size
        self.l2 = l2
        self.label_smoothing = label_smoothing
        self.momentum = momentum
        self.dropout = dropout
        self.augmentation = augmentation
        self.optimizer = optimizer
        self.class_weight = class_weight
        self.whitening = whitening
        self.dtype = dtype
        self.log_every = log_every
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train a new network.

        Parameters
        ----------
        X : array_like, (n, channels, height, width) or (n, channels·height·width)
            Pixels as integers, or normalised floats.
        y : array_like, (n,)
            Labels: strings or numbers.

        Returns
        -------
        PatchifyClassifier
            Itself.

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is invalid.
        """
        images, labels = self._validated(X, y, reset=True)
        check_classification_targets(labels)
        classes, indices = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y must hold at least two classes, but got one class, {describe(classes.tolist()[0])}")
        batch_size = check_integer("batch_size", self.batch_size, 1)
        if batch_size > len(images):
            raise ValueError(f"batch_size must be at most the number of images, {len(images)}, but got {batch_size}")
        weights = self.class_weight
        if weights is not None:
            weights = compute_class_weight(weights, classes=classes, y=labels)
        seed = self._seed()
        network = Network(
            self.filter_size,
            self.n_filters,
            self.n_hidden,
            seed=seed,
            dtype=self.dtype,
            image_shape=images.shape[1:],
            n_classes=len(classes),
        )
        schedule = CyclicSchedule(
            self.eta_min, self.eta_max, self.step_size, self.n_cycles, self.growth, self.eta_max_decay
        )
        trainer = CyclicTrainer(
            network,
            schedule,
            batch_size=batch_size,
            l2=self.l2,
            label_smoothing=self.label_smoothing,
            seed=seed,
            momentum=self.momentum,
            dropout=self.dropout,
            augmentation=self.augmentation,
            optimizer=self.optimizer,
            class_weight=weights,
            whitening=self.whitening,
        )
        log_every = schedule.total_steps if self.log_every is None else self.log_every
        trainer.fit(Split(images, indices), log_every=log_every, progress=bool(self.verbose))
        self.classes_: AnyArray = classes
        self.network_: Network = network
        self.history_: History = trainer.history
        self.n_iter_: int = trainer.step
        return self

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Probability of each class.

        Parameters
        ----------
        X : array_like
            As for `fit`, and as there either pixels or normalised.

        Returns
        -------
        ndarray, (n, n_classes)
            Columns in the order of ``classes_``.

        Raises
        ------
        TypeError, ValueError
            If ``X`` differs from the images of `fit` in shape or kind, or is not finite.
        sklearn.exceptions.NotFittedError
            If the classifier has not been fitted.
        """
        check_is_fitted(self, "network_")
        images, _ = self._validated(X)
        if (images.dtype == np.uint8) != (self.network_.normalizer is not None):
            wanted = "floats" if self.network_.normalizer is None else "integers, pixels from 0 to 255,"
            raise ValueError(f"X must be {wanted} as in the call of fit, but got {describe(images)}")
        return self.network_.predict_proba(images)

    def predict(self, X: ArrayLike) -> AnyArray:
        """The most probable class of each image.

        Parameters
        ----------
        X : array_like
            As for `predict_proba`.

        Returns
        -------
        ndarray, (n,)
            Elements of ``classes_``.

        Raises
        ------
        TypeError, ValueError, sklearn.exceptions.NotFittedError
            As for `predict_proba`.
        """
        indices: NDArray[np.intp] = self.predict_proba(X).argmax(axis=1)
        return self.classes_[indices]

    def _validated(self, X: Any, y: Any = None, reset: bool = False) -> tuple[AnyArray, Any]:
        """Images of shape (n, channels, height, width), pixels as uint8, and if ``reset``, as in a fit, labels."""
        fitted = None if reset else self.network_.image_shape
        if not hasattr(X, "shape"):
            X = as_array("X", X)
        shape = None
        if getattr(X, "ndim", None) == 4:
            X = as_images("X", X, fitted or self._given_shape())
            shape = X.shape[1:]
            X = X.reshape(len(X), math.prod(shape))
        if reset:
            X, y = validate_data(self, X, y, dtype="numeric")
        else:
            X = validate_data(self, X, reset=False, dtype="numeric")
        if X.dtype.kind not in "iu" and X.dtype not in FLOATS:
            X = X.astype(np.float64)
        shape = shape or fitted or self._shape_of(X.shape[1])
        return as_images("X", X.reshape(-1, *shape), shape), y

    def _given_shape(self) -> ImageShape | None:
        return None if self.image_shape is None else check_image_shape(self.image_shape)

    def _shape_of(self, n_values: int) -> ImageShape:
        """The shape of an image that is given as a row of so many values."""
        shape = self._given_shape()
        if shape is None or math.prod(shape) != n_values:
            raise ValueError(
                f"image_shape must be (channels, height, width) with a product of {n_values}, the number of columns "
                f"of X, but got {describe(self.image_shape)}"
            )
        return shape

    def _seed(self) -> int:
        if isinstance(self.random_state, numbers.Integral):
            return check_integer("random_state", self.random_state, 0, 2**64 - 1)
        return int(check_random_state(self.random_state).randint(2**31))
