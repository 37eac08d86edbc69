"""What export, import and proving print."""

from typing import Any

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


def prove(r: dict[str, Any]) -> None:
    for check in r["checks"]:
        print(f"{'holds' if check['ok'] else 'FAILS':7} {check['name']}: {check['evidence']}")
    for reason in r["skipped"]:
        print(f"not checked: {reason}")
    print(f"{r['certificate']}: {'it holds' if r['holds'] else 'it does not hold'}")
