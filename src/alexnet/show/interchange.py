"""What export, import and serve print."""

from typing import Any

from alexnet.show.runs import with_interval
from alexnet.terminal import percent


def export(r: dict[str, Any]) -> None:
    v = r["verified"]
    print(
        f"verified  {v['largest_difference']:.1e} apart at most, outputs up to "
        f"{v['largest_output']:.3g}; batches of 1, 5 and 64; images: {v['images']}"
    )
    if "int8" in r:
        for kind in ("fp32", "int8"):
            m = r["int8"][kind]
            low, high = map(percent, m["top1_ci95"])
            print(
                f"{kind:8}  top-1 {percent(m['top1'])} ({low} to {high}, n {m['n']:,}), "
                f"{m['bytes'] / 1e6:,.1f} MB"
            )
        print(f"speed     {r['int8']['speed_ratio']:.2f} times fp32's, one image at a time")
    for path in r["files"]:
        print(f"wrote     {path}")
    if "pushed" in r:
        print(f"pushed    {r['pushed']}")


def imported(r: dict[str, Any]) -> None:
    print(f"matched   {len(r['matched'])} tensors of {r['model']}, {r['classes']:,} classes")
    if r["left"]:
        print(f"left      {', '.join(r['left'])}")
    print(f"expects   {r['expects']}")
    print(f"weights   {r['judged']['verdict']}: {r['judged']['why']}")
    if "top1" in r:
        print(f"top-1     {with_interval(r, 'top1')}, in {r['precision']}")
    print(f"run       {r['run']}")


def served(r: dict[str, Any]) -> None:
    print(f"served {r['run']} at {r['host']}:{r['port']}; stopped")
