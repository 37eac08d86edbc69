"""Self-contained HTML pages, made from templates/: one file that opens anywhere."""

from alexnet.pages.claims import (
    CLAIM_HEADS,
    PUBLISHED_HEADS,
    ClaimPart,
    claim_row,
    claims_page,
    figure,
    published_rows,
)
from alexnet.pages.doctor import LAYER_HEADS, conclusion, doctor_page, layer_rows, name_of
from alexnet.pages.report import LIMIT, RunPart, report_page

__all__ = [
    "CLAIM_HEADS",
    "LAYER_HEADS",
    "LIMIT",
    "PUBLISHED_HEADS",
    "ClaimPart",
    "RunPart",
    "claim_row",
    "claims_page",
    "conclusion",
    "doctor_page",
    "figure",
    "layer_rows",
    "name_of",
    "published_rows",
    "report_page",
]
