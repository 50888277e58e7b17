"""Optimisers: what becomes of a gradient.

The classes here are settings and names; what they say is computed by
``_kernels/update.pyx``, and in plain NumPy by ``reference/updates.py``.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ._checks import check_flag, check_real, describe
from ._typing import JsonDict


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """What all optimisers have: `SGD` and `AdamW` are those that there are.

    Attributes
    ----------
    state_names : tuple of str
        What is kept for each parameter between two updates, in the kernel's order.
    nonnegative_states : tuple of str
        Those of them that are never below 0.
    """

    state_names: ClassVar[tuple[str, ...]] = ()
    nonnegative_states: ClassVar[tuple[str, ...]] = ()

    @property
    def settings(self) -> JsonDict:
        """dict: the class's name and the constructor's arguments as JSON values."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return {"class": type(self).__name__, **values}

    @property
    def keeps_state(self) -> bool:
        """bool: whether one update depends on those before."""
        return True


@dataclasses.dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum where asked.

    With the gradient g of the cost, its penalty included, and the learning
    rate η, an update is ``w ← w − η g``; with momentum μ, ``v ← μ v + g`` and
    ``w ← w − η v``; with Nesterov's, ``w ← w − η (g + μ v)`` after the same v,
    as Sutskever et al. 2013 ("On the importance of initialization and momentum
    in deep learning") and PyTorch write it. v starts from zero.

    Parameters
    ----------
    momentum : float, default 0.0
        μ, in [0, 1).
    nesterov : bool, default False
        Only with momentum.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or range.

    Examples
    --------
    >>> SGD(momentum=0.9, nesterov=True).settings
    {'class': 'SGD', 'momentum': 0.9, 'nesterov': True}
    """

    momentum: float = 0.0
    nesterov: bool = False

    state_names: ClassVar[tuple[str, ...]] = ("velocity",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", check_real("momentum", self.momentum, 0, 1, "[)"))
        object.__setattr__(self, "nesterov", check_flag("nesterov", self.nesterov))
        if self.nesterov and self.momentum == 0:
            raise ValueError("momentum must be greater than 0 with nesterov, but got 0")

    @property
    def keeps_state(self) -> bool:
        """bool: whether there is momentum."""
        return self.momentum > 0


@dataclasses.dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019).

    With the gradient g of the cost, its penalty included, the learning rate η
    and the number t of the update, from 1::

        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
        w ← (1 − η·weight_decay) w − η · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + eps)

    m and v start from zero. Biases do not decay, as they are not in the
    penalty either. Without ``weight_decay`` it is Adam, and an ``l2`` of the
    cost is the penalty that Adam has in most libraries.

    Parameters
    ----------
    betas : pair of float, default (0.9, 0.999)
        β₁ and β₂, each in [0, 1).
    eps : float, default 1e-8
        At least 1e-30, which single precision can hold.
    weight_decay : float, default 0.0
        Not negative.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or range.

    Examples
    --------
    >>> AdamW(weight_decay=0.01)
    AdamW(betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    state_names: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")
    nonnegative_states: ClassVar[tuple[str, ...]] = ("exp_avg_sq",)

    def __post_init__(self) -> None:
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise TypeError(f"betas must be a pair of numbers, but got {describe(self.betas)}")
        betas = tuple(check_real(f"betas[{i}]", beta, 0, 1, "[)") for i, beta in enumerate(self.betas))
        object.__setattr__(self, "betas", betas)
        object.__setattr__(self, "eps", check_real("eps", self.eps, 1e-30))
        object.__setattr__(self, "weight_decay", check_real("weight_decay", self.weight_decay, 0))


OPTIMIZERS: dict[str, type[Optimizer]] = {each.__name__: each for each in (SGD, AdamW)}


def optimizer_from(settings: Mapping[str, Any]) -> Optimizer:
    """The optimiser of which these are the `Optimizer.settings`.

    Parameters
    ----------
    settings : dict

    Returns
    -------
    Optimizer

    Raises
    ------
    TypeError, ValueError
        If they are those of none.
    """
    if not isinstance(settings, Mapping):
        raise TypeError(f"the settings of an optimiser must be a dict, but got {describe(settings)}")
    arguments = dict(settings)
    kind = optimizer_class(arguments.pop("class", None))
    try:
        return kind(**arguments)
    except TypeError as error:
        raise TypeError(f"the settings of {kind.__name__} must be its arguments, but {error}") from None


def optimizer_class(name: object) -> type[Optimizer]:
    """The class of this name, or ValueError."""
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise ValueError(f"the optimiser must be one of {', '.join(OPTIMIZERS)}, but got {describe(name)}")
    return OPTIMIZERS[name]


def check_optimizer(optimizer: Optimizer | None, momentum: float = 0.0) -> Optimizer:
    """The optimiser of a call that takes ``optimizer``, and ``momentum`` as the short way.

    Parameters
    ----------
    optimizer : Optimizer or None
    momentum : float, default 0.0

    Returns
    -------
    Optimizer
        `SGD` with this momentum where there is no optimiser.

    Raises
    ------
    TypeError, ValueError
        If either is wrong, or both are given.
    """
    short = SGD(momentum)
    if optimizer is None:
        return short
    if type(optimizer) not in OPTIMIZERS.values():
        raise TypeError(f"optimizer must be one of {', '.join(OPTIMIZERS)} or None, but got {describe(optimizer)}")
    if short.momentum > 0:
        raise ValueError(
            f"momentum must be left out where an optimizer is given, which has its own, but got {short.momentum}"
        )
    return optimizer
