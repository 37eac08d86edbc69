"""alexnet claim: what the paper claims, measured."""

from pathlib import Path
from typing import Any

from alexnet.claims.catalogue import CLAIMS, find_claim
from alexnet.claims.lab import Lab
from alexnet.errors import UsageError
from alexnet.files import write_json
from alexnet.runtime import environment


def claim(
    name: str | None = None,
    *,
    data: str | Path | None = None,
    seeds: int = 3,
    out: str | Path = "results/claims",
) -> dict[str, Any]:
    """Runs the experiment of a claim, or lists the claims there are.

    What is measured is kept in `out`/NAME, so that a run that was cut goes on. Returns `result`
    (confirmed, not confirmed at this scale, contradicted), `finding`, `figures` and `record`, the
    file that holds them; without a name `claims`.
    """
    if name is None:
        keys = ("name", "printed", "source", "needs", "minutes")
        return {"claims": [{key: getattr(c, key) for key in keys} for c in CLAIMS.values()]}
    chosen = find_claim(name)
    if seeds < 1:
        raise UsageError(f"{seeds} seeds measure nothing: give 1 or more")
    folder = Path(out).expanduser() / name
    found = chosen.measure(Lab(folder, data, seeds))
    record = {
        "claim": name,
        "printed": chosen.printed,
        "source": chosen.source,
        "result": found.result,
        "finding": found.finding,
        "seeds": seeds,
        "figures": found.figures,
        "environment": environment(),
    }
    write_json(folder / "claim.json", record)
    found.draw(folder)
    return record | {"record": str(folder / "claim.json")}
