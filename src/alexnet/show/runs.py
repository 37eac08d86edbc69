"""What train, doctor, test and classify print."""

import shlex
from typing import Any

from alexnet.pages import LAYER_HEADS, conclusion, layer_rows
from alexnet.terminal import bars, duration, escaped, format_table, percent, shows_top5, why_no_top5


def train(r: dict[str, Any]) -> None:
    views, at = "", ""
    left_out = ""
    if r.get("left_out"):
        first = r["left_out"][0]
        more = f" and {len(r['left_out']) - 1:,} more" if len(r["left_out"]) > 1 else ""
        left_out = f"left out     {escaped(first['path'])}{more}, which cannot be read\n"
    if r.get("views", 1) > 1:
        views, at = f" --views {r['views']}", f" of {r['views']} views"
    pace = r["images_per_s"]
    steps = f" in all, {pace:,.0f} images/s in training steps" if pace else ""
    print(
        f"{r['finished']}: best validation top-1 {with_interval(r, 'top1')}{at} at step "
        f"{r['best_step']:,}; {duration(r['wall_s'])}{steps}\n"
        f"run          {r['run']}\n"
        f"report       {r['report']}\n"
        f"recipe       {r['recipe_file']}\n"
        f"{left_out}"
        f"test it      alexnet test {shlex.quote(r['run'])}{views}"
    )


def completion(r: dict[str, Any]) -> None:
    print(r["script"])


def doctor(r: dict[str, Any]) -> None:
    if r.get("layers"):
        print(format_table(LAYER_HEADS, layer_rows(r["layers"])))
        print()
    for v in r["verdicts"]:
        where = f" ({v['where']})" if v["where"] else ""
        print(f"{v['severity']}: {v['name']}{where}")
        for what in ("evidence", "cause", "advice"):
            print(f"    {what:9} {v[what]}")
    print(f"{r.get('run') or r['recipe']}: {conclusion(r)}")


def test(r: dict[str, Any]) -> None:
    if "checks" in r:
        _prove(r)
        return
    rows = [
        (row["class"], f"{row['right']:,}", f"{row['n']:,}", percent(row["right"] / row["n"]))
        for row in r["per_class"]
        if row["n"]
    ]
    print(format_table(("class", "right", "of", "top-1"), rows))
    by = "" if r["engine"] == "torch" else f" of {r['engine']}"
    of = r["split"] if r["own"] else f"{r['split']} of {escaped(r['data'])}"
    if r["with_seen"]:
        of += f" (with {r['seen']:,} that it was trained or validated on)"
    print(
        f"\n{of}: {r['n']:,} images, {r['views']} view(s), loss {r['loss']:.4f}, "
        f"answers{by} in {r['precision']}"
    )
    print(f"top-1  {with_interval(r, 'top1')}")
    if shows_top5(len(r["per_class"])):
        print(f"top-5  {with_interval(r, 'top5')}")
    else:
        print(f"top-5  left out: {why_no_top5(len(r['per_class']))}")
    if r.get("unreadable"):
        count = len(r["unreadable"])
        print(f"       {count:,} of {r['n'] + count:,} images cannot be read, and are not counted")
    for path in r["figures"]:
        print(f"wrote  {path}")


def _prove(r: dict[str, Any]) -> None:
    for check in r["checks"]:
        print(f"{'holds' if check['ok'] else 'FAILS':7} {check['name']}: {check['evidence']}")
    for reason in r["skipped"]:
        print(f"not checked: {reason}")
    print(f"{r['certificate']}: {'it holds' if r['holds'] else 'it does not hold'}")


def classify(r: dict[str, Any]) -> None:
    for image in r["results"]:
        learnt = "  (the run was trained or validated on it)" if image.get("seen") else ""
        print(f"{escaped(image['path'])}{learnt}")
        names = (f"{t['class']} {t['title']}" if "title" in t else t["class"] for t in image["top"])
        print(bars(list(zip(names, (t["probability"] for t in image["top"]), strict=True))))
    if r["results"]:
        print(f"probabilities in {r['precision']}")


def with_interval(r: dict[str, Any], name: str) -> str:
    if r[f"{name}_ci95"] is None:
        return percent(r[name])
    low, high = r[f"{name}_ci95"]
    return f"{percent(r[name])} (95 % interval {percent(low)} to {percent(high)}, n {r['n']:,})"
