"""The examples in the package's docstrings."""

import doctest
import importlib
import pkgutil

import pytest

import cyconv

MODULES = [
    "cyconv",
    *(module.name for module in pkgutil.walk_packages(cyconv.__path__, "cyconv.") if "._kernels." not in module.name),
]
OPTIONAL = {"cyconv.sklearn": "sklearn"}  # what a module needs


@pytest.mark.usefixtures("restored_num_threads")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.optional if name in OPTIONAL else ()) for name in MODULES]
)
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name])
    result = doctest.testmod(importlib.import_module(name))
    assert not result.failed
    if name.startswith("cyconv.reference."):
        assert result.attempted
