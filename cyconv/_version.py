"""The version, which pyproject.toml and CITATION.cff also name."""

__version__ = "0.1.0"
