"""Results for people: what each verb prints without --json."""

import shlex
from typing import Any

from alexnet.pages import LAYER_HEADS, layer_rows
from alexnet.terminal import bars, duration, escaped, percent, table


def train(r: dict[str, Any]) -> None:
    print(
        f"{r['finished']}: best validation top-1 {with_interval(r, 'top1')} at step "
        f"{r['best_step']:,}; {duration(r['wall_s'])}, {r['images_per_s']:,.0f} images/s\n"
        f"run          {r['run']}\n"
        f"curves       {r['figures'][0]}\n"
        f"test it      alexnet test {r['run']}"
    )


def doctor(r: dict[str, Any]) -> None:
    if r.get("layers"):
        print(table(LAYER_HEADS, layer_rows(r["layers"])))
        print()
    for v in r["verdicts"]:
        where = f" ({v['where']})" if v["where"] else ""
        print(f"{v['severity']}: {v['name']}{where}")
        for what in ("evidence", "cause", "advice"):
            print(f"    {what:9} {v[what]}")
    worst = r["verdicts"][0]["severity"] if not r["healthy"] else ""
    about = r.get("run") or r["recipe"]
    print(f"{about}: {'nothing wrong was found' if r['healthy'] else worst}")


def test(r: dict[str, Any]) -> None:
    rows = [
        (row["class"], f"{row['right']:,}", f"{row['n']:,}", percent(row["right"] / row["n"]))
        for row in r["per_class"]
        if row["n"]
    ]
    print(table(("class", "right", "of", "top-1"), rows))
    print(f"\n{r['split']}: {r['n']:,} images, {r['views']} view(s), loss {r['loss']:.4f}")
    print(f"top-1  {with_interval(r, 'top1')}")
    if r["top5"] is None:
        print("top-5  means nothing with five classes or fewer")
    else:
        print(f"top-5  {with_interval(r, 'top5')}")
    for path in r["figures"]:
        print(f"wrote  {path}")


def classify(r: dict[str, Any]) -> None:
    for image in r["results"]:
        print(image["path"])
        print(bars([(t["class"], t["probability"]) for t in image["top"]]))


def recipes(r: dict[str, Any]) -> None:
    if "recipes" in r:
        for kind in ("recipe", "model"):
            print(table((kind, "what it is"), [(x["name"], x["about"]) for x in r[f"{kind}s"]]))
            print()
        return
    if "differences" in r:
        for d in r["differences"]:
            print(f"{d['what']}")
            for name, value, source in (
                (r["name"], d["first"], d["first_source"]),
                (r["other"], d["second"], d["second_source"]),
            ):
                print(f"    {name}: {value}{f'  [{source}]' if source else ''}")
        print(f"{len(r['differences'])} differences between {r['name']} and {r['other']}")
        return
    layers = [
        (
            row["name"],
            "x".join(map(str, row["shape"])),
            f"{row['parameters']:,}",
            f"{row['macs']:,}",
            "" if row["std"] is None else f"{row['distribution']} {row['std']:.4g}",
            "" if row["std"] is None else "drawn" if row["bias"] is None else f"{row['bias']:g}",
            f"{row['receptive_field']}",
        )
        for row in r["layers"]
    ]
    hidden = ("layers", "parameters", "macs", "classes", "about", "sources", "input")
    print(f"{r['about']}\n")
    if "digest" in r:
        print(table(("field", "value"), [(k, str(v)) for k, v in r.items() if k not in hidden]))
        print()
    print(f"{r['model']} for {r['classes']} classes, input {'x'.join(map(str, r['input']))}:")
    heads = ("part", "output", "parameters", "multiply-adds", "first weights", "bias", "sees")
    print(table(heads, layers))
    print(f"{r['parameters']:,} parameters, {r['macs']:,} multiply-adds an image")
    for kind, source in r["sources"].items():
        print(f"{kind}: {source}")


def path(r: dict[str, Any]) -> None:
    print(r["path"])


def check(r: dict[str, Any]) -> None:
    for kind in ("repairable", "refused"):
        for entry in r[kind]:
            print(f"{kind:10}  {escaped(entry['path'])}: {escaped(entry['reason'])}")
    for kind, what in (
        ("duplicates", "the same bytes"),
        ("across", "the same bytes in two splits"),
        ("two_classes", "the same bytes under two classes"),
    ):
        for paths in r[kind]:
            print(f"{what}: {escaped(', '.join(paths))}")
    for kind, names in r["classes"].items():
        if names:
            more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
            where = "in one split only" if kind == "one_split" else kind
            print(f"classes {where}: {escaped(', '.join(names[:8]))}{more}")
    for split, counts in r["counts"].items():
        print(f"{split}: {sum(counts.values()):,} readable images, {_of(len(counts), 'class')}")
    if r["others"]:
        ends = ", ".join(f"{ending} {count:,}" for ending, count in list(r["others"].items())[:8])
        print(
            f"no images by their names, not read: {sum(r['others'].values()):,} ({escaped(ends)})"
        )
    if r["note"]:
        print(f"as it is it cannot be packed: {escaped(r['note'])}")
    print(
        f"{r['ok']:,} fine, {len(r['repairable']):,} repairable, {len(r['refused']):,} refused, "
        f"{len(r['duplicates']) + len(r['across']):,} groups of duplicates; "
        f"{r['images_per_s']:,.0f} images/s"
    )


def pack(r: dict[str, Any]) -> None:
    counts = ", ".join(f"{split} {n:,}" for split, n in r["counts"].items())
    print(f"packed       {counts}; {_of(r['classes'], 'class')}, {r['bytes'] / 1e6:,.1f} MB")
    print(f"repaired     {r['repaired']:,}")
    for entry in r["refused"]:
        print(f"refused      {escaped(entry['path'])}: {escaped(entry['reason'])}")
    if r["across"]:
        print(f"in two splits {r['across']:,} files; `alexnet data check` on the source names them")
    print(f"train on it  alexnet train RECIPE --data {shlex.quote(r['out'])}")


def _of(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "es" if what.endswith("s") else "s")


def with_interval(r: dict[str, Any], name: str) -> str:
    if r[f"{name}_ci95"] is None:
        return percent(r[name])
    low, high = r[f"{name}_ci95"]
    return f"{percent(r[name])} (95 % interval {percent(low)} to {percent(high)}, n {r['n']:,})"


def claim(r: dict[str, Any]) -> None:
    if "claims" in r:
        rows = [[c["name"], c["printed"], f"{c['minutes']:g} min", c["needs"]] for c in r["claims"]]
        print(table(("claim", "what it says", "takes", "needs"), rows))
        return
    print(f"{r['claim']}: {r['result']}")
    print(f"  the claim: {r['printed']} ({r['source']})")
    print(f"  measured:  {r['finding']} ({r['seeds']} seeds)")
    print(f"  record: {r['record']}")


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
