"""The project's pages and settings agree with each other and with the source tree."""

import re
import sysconfig
import tomllib
from pathlib import Path

import pytest
from pages import ROOT, blocks

import cyconv
from cyconv._kernels import processor
from cyconv.backend import dispatch

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="a free-threaded Python has no stable ABI"
)
@pytest.mark.parametrize("module", [processor, dispatch.kernels])
def test_the_kernels_keep_to_the_stable_abi(module):
    assert Path(module.__file__).name.partition(".")[2] in ("abi3.so", "pyd")


def test_one_version():
    assert PROJECT["project"]["version"] == cyconv.__version__
    assert re.search(r"^version: (.*)$", read("CITATION.cff"), re.MULTILINE)[1] == cyconv.__version__


def test_the_layers_on_the_page_match_the_enforced_contract():
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    enforced = [set(re.split(r" [:|] ", layer)) for layer in contract["layers"]]
    rows = re.findall(r"^\| \d \| (.*?) \|", read("CONTRIBUTING.md"), re.MULTILINE)
    assert [set(re.findall(r"`(\w+)/?`", row)) for row in rows] == [{"scripts"}, *enforced]


PAGES = [
    "CONTRIBUTING.md",
    "README.md",
    "scripts/CLUSTERS.md",
    "scripts/README.md",
    "scripts/RESULTS.md",
    "cyconv/_kernels/PERFORMANCE.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_only_existing_files_groups_and_extras(page):
    text = read(page)
    for name in re.findall(r"\b(?:cyconv|scripts|tests)/[\w./]*\w\.\w+\b", text):
        assert (ROOT / name).is_file(), name
    commands = "\n".join(blocks("sh", text))
    assert {*re.findall(r'"\.\[(\w+)\]"', commands)} <= {*PROJECT["project"]["optional-dependencies"]}
    assert {*re.findall(r"--group (\w+)", text)} <= {*PROJECT["dependency-groups"]}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", read(page)):
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), name
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
