"""Training steps of `seeds/003`'s network beside Keras 3 with TensorFlow, one after the other.

TensorFlow is no part of this project; it needs an environment of its own, thrown away afterwards:

    python3 -m venv /tmp/keras && /tmp/keras/bin/pip install 'tensorflow-cpu>=2.18' 'keras>=3.5'
    python benchmarks/keras_steps.py --python /tmp/keras/bin/python [--rounds 5] [--out FILE]

The same network (four 3x3 convolutions, batch norm after the pool, five fully connected layers),
the same kind of noise for images, batches of 128, SGD 0.01 with momentum 0.9, as many threads.
Keras runs in a process of its own that waits while ours works: rounds alternate, so that a noisy
machine is fair to both. Keras compiles its step (`train_on_batch`, with and without XLA); ours is
`train_step`, preprocessing included, in fp32 and in bf16.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

BATCH, STEPS, CLASSES = 128, 10, 10
WORKER = "--worker"


def keras_worker(threads: int) -> None:
    """Answers each line of standard input, the name of a way, with the seconds of STEPS steps."""
    import os
    import time

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    layers = keras.layers

    def network() -> object:
        parts = [layers.Input((32, 32, 3))]
        for channels in (64, 128, 256, 512):
            parts += [layers.Conv2D(channels, 3, padding="same", activation="relu")]
            parts += [layers.MaxPooling2D(2), layers.BatchNormalization()]
        parts.append(layers.Flatten())
        for units in (128, 256, 512, 1024):
            parts += [layers.Dense(units, activation="relu"), layers.Dropout(0.3)]
            parts.append(layers.BatchNormalization())
        return keras.Sequential([*parts, layers.Dense(CLASSES, dtype="float32")])

    chance = np.random.default_rng(0)
    x = chance.normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
    y = chance.integers(0, CLASSES, BATCH)
    made = {}
    for name, policy, xla in (
        ("Keras, fp32", "float32", False),
        ("Keras, fp32, XLA", "float32", True),
        ("Keras, bf16", "mixed_bfloat16", False),
    ):
        keras.mixed_precision.set_global_policy(policy)
        model = network()
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=xla,
        )
        made[name] = model
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    count = int(sum(np.prod(w.shape) for w in made["Keras, fp32"].trainable_weights))
    print(json.dumps({"ways": list(made), "versions": versions, "parameters": count}), flush=True)
    for line in sys.stdin:
        model = made[line.strip()]
        began = time.perf_counter()
        for _ in range(STEPS):
            loss = model.train_on_batch(x, y)
        assert np.isfinite(loss)
        print(time.perf_counter() - began, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", help="of the environment that has TensorFlow")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument(WORKER, type=int, metavar="THREADS", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        keras_worker(args.worker)
        return
    if not args.python:
        parser.error("--python PATH: the head of this file says how to make that environment")

    from alexnet.support.processors import set_up_threads

    set_up_threads()  # as `alexnet train` has them

    import numpy as np
    import torch

    from alexnet.data.augment import Preprocess
    from alexnet.data.loader import Batch
    from alexnet.data.statistics import Statistics
    from alexnet.lab.benches.rounds import take_turns
    from alexnet.recipe import find_recipe
    from alexnet.runtime import environment
    from alexnet.support.memory import keep_pages
    from alexnet.training import train_step
    from alexnet.training.network import build_net
    from alexnet.training.optim import build_optimizer

    keep_pages()  # memory as `alexnet train` has it
    chance = np.random.default_rng(0)
    pixels = torch.from_numpy(chance.integers(0, 256, (BATCH, 32, 32, 3), np.uint8))
    labels = torch.from_numpy(chance.integers(0, CLASSES, BATCH))
    batch = Batch(0, 0, np.arange(BATCH), pixels, labels)
    preprocess = Preprocess(32, 32, 3, Statistics((127.0,) * 3, (64.0,) * 3, ()))

    def ours(precision: str):
        recipe = find_recipe("seed-003").replace(precision=precision)
        net = build_net(recipe, CLASSES).train()
        optimizer, sums = build_optimizer(net, recipe), torch.zeros(4, dtype=torch.float64)

        def steps() -> int:
            for _ in range(STEPS):
                train_step(net, optimizer, batch, 0.01, recipe, preprocess, sums)
            return STEPS * BATCH

        return steps

    command = [args.python, __file__, WORKER, str(torch.get_num_threads())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        first = worker.stdout.readline()
        if not first:
            raise SystemExit(f"{args.python} cannot run Keras with TensorFlow: see above")
        said = json.loads(first)
        count = sum(p.numel() for p in build_net(find_recipe("seed-003"), CLASSES).parameters())
        if said["parameters"] != count:
            raise SystemExit(f"not the same network: {said['parameters']:,} and {count:,} weights")

        def theirs(name: str):
            def steps() -> int:
                worker.stdin.write(f"{name}\n")
                worker.stdin.flush()
                if not worker.stdout.readline():
                    raise SystemExit(f"the process of {name} ended: see above")
                return STEPS * BATCH

            return steps

        ways = {name: theirs(name) for name in said["ways"]}
        ways |= {f"ours, {kind}": ours(kind) for kind in ("fp32", "bf16")}
        found = take_turns(ways, args.rounds, "training seed-003's network")
        worker.stdin.close()
    reference = max(
        (name for name in said["ways"]), key=lambda name: found[name].images_per_s
    )  # the quickest of theirs
    rows = [timed.row(name, found[reference]) for name, timed in found.items()]
    for row in rows:
        if row["name"].startswith("Keras"):
            row["extra_bytes"] = None  # another process has it
        print(f"{row['name']:>18}: {row['images_per_s']:,.0f} images/s, {row['ratio']:.2f}")
    record = {
        "what": "keras", "reference": reference, "versions": said["versions"],
        "batch_size": BATCH, "rounds": args.rounds, "rows": rows, "environment": environment(),
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
