"""What bench prints."""

from typing import Any

from alexnet.terminal import percent, table


def bench(r: dict[str, Any]) -> None:
    train = "parts" in r
    rows = [
        (
            row["name"],
            f"{row['images_per_s']:,.1f}" if train else f"{row['images_per_s']:,.0f}",
            f"{row['range'][0]:,.0f} to {row['range'][1]:,.0f}",
            f"{row['ratio']:.2f}",
            "" if row["extra_bytes"] is None else f"{row['extra_bytes'] / 2**20:,.0f} MiB",
            *([percent(row["share"], 0)] if train else []),
        )
        for row in r["rows"]
    ]
    heads = ("", "images/s", "range", "ratio", "memory", *(["of the limit"] if train else []))
    print(table(heads, rows))
    if not train:
        _bench_input(r)
        return
    limits = ", ".join(f"{kind} {limit / 1e9:,.0f} GFLOP/s" for kind, limit in r["limits"].items())
    print(f"{r['model']}, batches of {r['batch_size']}; medians of {r['rounds']} rounds")
    print(f"limit: a square matrix multiply, {limits}; {r['flops'] / 1e9:.2f} GFLOP an image")
    parts = [
        (p["part"], f"{1e3 * p['forward']:,.1f}", f"{1e3 * p['backward']:,.1f}") for p in r["parts"]
    ]
    print(table(("part, ours in bf16", "forward, ms", "backward, ms"), parts))


def _bench_input(r: dict[str, Any]) -> None:
    print(
        f"medians of {r['rounds']} rounds of {r['batches']} batches of {r['batch_size']}; "
        f"{r['images']:,} JPEGs of {r['jpeg_bytes']:,} bytes on average"
    )
    for encoding, wait in r["waits"].items():
        print(
            f"{r['model']} from {encoding}: {wait['images_per_s']:,.1f} images/s, "
            f"{percent(wait['share'])} of the time waiting for data ({wait['steps']} steps)"
        )
