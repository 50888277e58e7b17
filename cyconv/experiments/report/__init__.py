"""What experiments report: tables, sentences about noise, summary and results documents.

`tables` formats numbers and rows, `summaries` collects what the runs of one
configuration gave, `documents` puts both into files, and `provenance` says
which machine and which versions the numbers come from.
"""

from .documents import (
    INCOMPLETE_REMARK,
    QUICK_REMARK,
    Section,
    describe_cycles,
    describe_origin,
    markdown_document,
    remarks,
    results_document,
    results_header,
    summary_document,
)
from .provenance import describe_machine, describe_versions, machine_sentence, provenance
from .summaries import NOISE_RULE, Summary, by_label, ensemble_row, noise_sentence, summarise, summary_table
from .tables import count, format_csv, format_each, format_mean, format_table

__all__ = [
    "INCOMPLETE_REMARK",
    "NOISE_RULE",
    "QUICK_REMARK",
    "Section",
    "Summary",
    "by_label",
    "count",
    "describe_cycles",
    "describe_machine",
    "describe_origin",
    "describe_versions",
    "ensemble_row",
    "format_csv",
    "format_each",
    "format_mean",
    "format_table",
    "machine_sentence",
    "markdown_document",
    "noise_sentence",
    "provenance",
    "remarks",
    "results_document",
    "results_header",
    "summarise",
    "summary_document",
    "summary_table",
]
