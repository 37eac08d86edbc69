"""The matrix: faults x data x networks x seeds, and every recipe unbroken.

    python -m benchmarks.doctor [before during healthy] [--data digits cifar imagenette]
    python -m benchmarks.doctor report

`digits` ships with the extra `demo`; cifar and imagenette are folders named by --cifar and
--imagenette (CLASS folders in train and test or val), mnist and fashion-mnist ones of IDX files. A
case that stands in --out already is not run again. Thresholds are decided on seeds under 100
(--first 0 --out results/doctor.jsonl); reported ones are above.
"""

import argparse
from pathlib import Path

from benchmarks.doctor import matrix, report
from benchmarks.doctor.cases import NETS

REPORTED = 100  # the first seed of those that are reported
FOLDERS = ("cifar", "imagenette", "mnist", "fashion-mnist")
ROWS = Path(__file__).resolve().parents[2] / "results" / "doctor-reported.jsonl"


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=["before", "during", "healthy", "report"])
    parser.add_argument("--data", nargs="+", default=["digits"], choices=sorted(NETS))
    for name in FOLDERS:
        parser.add_argument(f"--{name}", metavar="DIR")
    parser.add_argument("--faults", nargs="*", default=(), help="only these, before training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=REPORTED)
    parser.add_argument("--out", type=Path, default=ROWS)
    args = parser.parse_args()
    folders = {name: getattr(args, name.replace("-", "_")) for name in FOLDERS}
    seeds = list(range(args.first, args.first + args.seeds))
    what = args.what or ["before", "during"]
    if "before" in what:
        matrix.before(args.data, folders, seeds, args.out, args.faults)
    if "during" in what:
        matrix.during(seeds, args.out)
    if "healthy" in what:
        matrix.healthy(folders, seeds, args.out)
    rows = report.read(args.out)
    report.summarize(rows)
    if "report" in what:
        report.write_docs(rows)


if __name__ == "__main__":
    main()
