"""Results for people: what each verb prints without --json."""

from alexnet.show.benches import bench
from alexnet.show.books import claim, recipes
from alexnet.show.data import check, pack, path
from alexnet.show.inside import inspect, report
from alexnet.show.interchange import export, imported, served
from alexnet.show.runs import classify, completion, doctor, test, train

__all__ = [
    "bench",
    "check",
    "claim",
    "classify",
    "completion",
    "doctor",
    "export",
    "imported",
    "inspect",
    "pack",
    "path",
    "recipes",
    "report",
    "served",
    "test",
    "train",
]
