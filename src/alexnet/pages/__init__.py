"""Self-contained HTML pages: text, tables and pictures in one file that opens anywhere."""

from alexnet.pages.doctor import LAYER_HEADS, doctor_page, layer_rows
from alexnet.pages.report import LIMIT, RunPart, report_page

__all__ = ["LAYER_HEADS", "LIMIT", "RunPart", "doctor_page", "layer_rows", "report_page"]
