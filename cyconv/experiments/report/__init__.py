"""What experiments report: tables, sentences about noise, summary and results documents.

`tables` formats numbers and rows, `summaries` collects what the runs of one
configuration gave, `pictures` writes figures, and `provenance` says which
command, machine and versions the numbers come from. `documents` puts these
into files: a report in Markdown, and the same as a web page (`web_page`).
"""

from ..._tables import Table, format_table
from .documents import (
    INCOMPLETE_REMARK,
    QUICK_REMARK,
    Block,
    Document,
    Section,
    describe_cycles,
    describe_origin,
    remarks,
    report_document,
    results_document,
    results_header,
    summary_document,
)
from .pictures import Picture, save_pictures
from .provenance import (
    describe_build,
    describe_machine,
    describe_versions,
    differing_versions,
    machine_sentence,
    provenance,
)
from .summaries import NOISE_RULE, Summary, by_label, comparison, ensemble_row, noise_sentence, summarise, summary_table
from .tables import count, format_csv, format_each, format_mean

__all__ = [
    "INCOMPLETE_REMARK",
    "NOISE_RULE",
    "QUICK_REMARK",
    "Block",
    "Document",
    "Picture",
    "Section",
    "Summary",
    "Table",
    "by_label",
    "comparison",
    "count",
    "describe_build",
    "describe_cycles",
    "describe_machine",
    "describe_origin",
    "describe_versions",
    "differing_versions",
    "ensemble_row",
    "format_csv",
    "format_each",
    "format_mean",
    "format_table",
    "machine_sentence",
    "noise_sentence",
    "provenance",
    "remarks",
    "report_document",
    "results_document",
    "results_header",
    "save_pictures",
    "summarise",
    "summary_document",
    "summary_table",
]
