"""``python -m training.experts --domain D``: train a domain's shipped experts and publish their next version."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Parse the command line, train each domain in turn, publish, and compare with what is shipped.

    1 where a figure differs from the shipped card's by more than it may.
    """
    from model_store.files import SHIPPED_ROOT
    from model_store.registry import AdapterRegistry
    from training.experts.agreement import HEAD, Compared, compare
    from training.experts.recipe import CLIPS, world_config, world_plan
    from training.trainer.run import train_and_publish
    from training.world import DOMAINS

    parser = argparse.ArgumentParser(prog="python -m training.experts", description=__doc__)
    parser.add_argument(
        "--domain", choices=DOMAINS, action="append", help="may be repeated; all four by default"
    )
    parser.add_argument("--backbone", default="visum-demo", help="a name in the store or a folder")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo-adapters"), help="folder of adapters to publish into"
    )
    parser.add_argument("--logs", type=Path, default=Path("runs/experts"), help="folder of the runs")
    parser.add_argument("--clips", type=int, default=CLIPS, help="clips a domain")
    parser.add_argument("--matrix-lr", type=float, help="peak learning rate of A and B")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the training")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of each domain")
    arguments = parser.parse_args()
    shipped = AdapterRegistry([SHIPPED_ROOT / "adapters"])
    compared: list[Compared] = []
    for domain in arguments.domain or DOMAINS:
        config = world_config(
            None,
            **{"schedule.matrix_lr": arguments.matrix_lr, "machine.threads": arguments.threads,
               "machine.loaders": 1},
        )  # fmt: skip
        plan = world_plan(
            domain,
            config,
            backbone=arguments.backbone,
            folder=arguments.logs / domain,
            roots=(arguments.out,),
            command=f"python -m training.experts --domain {domain} --threads {arguments.threads}",
            clips=arguments.clips,
            resume=arguments.resume,
        )
        entry, outcome = train_and_publish(plan, lambda line: print(line, file=sys.stderr))
        if entry is not None and outcome.quality is not None:
            print(f"published {entry.domain} version {entry.version} in {entry.path}: "
                  f"ROUGE-L {outcome.quality.rouge_l:.4f}, {outcome.seconds:.0f} s")  # fmt: skip
            if domain in shipped.domains():
                compared += compare(shipped.latest(domain).manifest, entry.manifest)
    if compared:
        print("\n".join([HEAD, *map(str, compared)]))
    else:
        print("not compared with the shipped experts: another recipe, backbone or number of clips")
    return 0 if all(one.agrees for one in compared) else 1


if __name__ == "__main__":
    sys.exit(main())
