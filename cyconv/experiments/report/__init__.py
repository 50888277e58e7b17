"""What experiments report: tables, sentences about differences, summary and results documents.

`tables` formats numbers and rows, `summaries` collects what the runs of one
configuration gave, `significance` says which differences between
configurations are significant, `pictures` writes figures, and `provenance` says which
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
from .significance import (
    COMPARISON_RULE,
    comparison_rule,
    describe_differences,
    differences_table,
    sampling_remark,
    standard_errors,
    untested,
    verdict,
)
from .summaries import Summary, by_label, comparison, ensemble_row, summarise, summary_table, view_row
from .tables import (
    ACCURACIES,
    count,
    format_change,
    format_csv,
    format_each,
    format_ends,
    format_interval,
    format_mean,
    format_p,
)

__all__ = [
    "ACCURACIES",
    "COMPARISON_RULE",
    "INCOMPLETE_REMARK",
    "QUICK_REMARK",
    "Block",
    "Document",
    "Picture",
    "Section",
    "Summary",
    "Table",
    "by_label",
    "comparison",
    "comparison_rule",
    "count",
    "describe_build",
    "describe_cycles",
    "describe_differences",
    "describe_machine",
    "describe_origin",
    "describe_versions",
    "differences_table",
    "differing_versions",
    "ensemble_row",
    "format_change",
    "format_csv",
    "format_each",
    "format_ends",
    "format_interval",
    "format_mean",
    "format_p",
    "format_table",
    "machine_sentence",
    "provenance",
    "remarks",
    "report_document",
    "results_document",
    "results_header",
    "sampling_remark",
    "save_pictures",
    "standard_errors",
    "summarise",
    "summary_document",
    "summary_table",
    "untested",
    "verdict",
    "view_row",
]
