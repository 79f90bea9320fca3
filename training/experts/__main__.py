"""``python -m training.experts --domain D``: train a domain's experts and publish them as its next version."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path


def main() -> None:
    """Parse the command line, train each domain in turn, publish."""
    from training.experts.recipe import ExpertRecipe
    from training.world import DOMAINS

    defaults = ExpertRecipe("traffic")
    parser = argparse.ArgumentParser(prog="python -m training.experts", description=__doc__)
    parser.add_argument(
        "--domain", choices=DOMAINS, action="append", help="may be repeated; all four by default"
    )
    parser.add_argument("--backbone", default="visum-demo", help="a name in the store or a folder")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo-adapters"), help="folder of adapters to publish into"
    )
    parser.add_argument(
        "--logs", type=Path, default=Path("runs/experts"), help="folder for the runs' CSV logs"
    )
    parser.add_argument("--clips", type=int, default=defaults.clips, help="clips a domain")
    parser.add_argument(
        "--matrix-lr", type=float, default=defaults.matrix_lr, help="peak learning rate of A and B"
    )
    parser.add_argument("--threads", type=int, default=defaults.threads, help="CPU threads of the training")
    arguments = parser.parse_args()

    from training.experts.run import make_experts

    for domain in arguments.domain or DOMAINS:
        recipe = replace(
            defaults,
            domain=domain,
            clips=arguments.clips,
            matrix_lr=arguments.matrix_lr,
            threads=arguments.threads,
        )
        entry = make_experts(recipe, arguments.backbone, arguments.out, arguments.logs)
        print(f"published {entry.domain} version {entry.version} in {entry.path}")


if __name__ == "__main__":
    main()
