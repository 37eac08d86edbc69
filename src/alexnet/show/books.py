"""What recipes and claim print."""

from typing import Any

from alexnet.pages import figure
from alexnet.terminal import format_table


def recipes(r: dict[str, Any]) -> None:
    if "recipes" in r:
        for kind in ("recipe", "model"):
            print(
                format_table((kind, "what it is"), [(x["name"], x["about"]) for x in r[f"{kind}s"]])
            )
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
        print(
            format_table(("field", "value"), [(k, str(v)) for k, v in r.items() if k not in hidden])
        )
        print()
    print(f"{r['model']} for {r['classes']} classes, input {'x'.join(map(str, r['input']))}:")
    heads = ("part", "output", "parameters", "multiply-adds", "first weights", "bias", "sees")
    print(format_table(heads, layers))
    print(f"{r['parameters']:,} parameters, {r['macs']:,} multiply-adds an image")
    for kind, source in r["sources"].items():
        print(f"{kind}: {source}")


def claim(r: dict[str, Any]) -> None:
    if "claim" not in r:
        rows = [(c["name"], c["paper"], figure(c), c["verdict"], c["needs"]) for c in r["claims"]]
        print(format_table(("claim", "what is printed", "measured", "verdict", "needs"), rows))
    else:
        print(f"{r['claim']}: {r['verdict']}")
        print(f"  the claim: {r['paper']} ({r['source']})")
        seeds = f", {r['seeds']} seeds" if r["seeds"] else ""
        print(f"  measured:  {figure(r)} {r['unit']}{seeds}")
        print(f"  found:     {r['finding']}")
        print(f"  record:    {r['record']}")
    for entry in r.get("left", ()):
        print(f"not measured: {entry['name']}: {entry['why']}")
