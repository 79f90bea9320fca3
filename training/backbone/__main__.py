"""``python -m training.backbone --out DIR``: make the demo backbone, or go on with an interrupted run in DIR."""

import argparse
from pathlib import Path


def main() -> None:
    """Parse the command line, train, export."""
    parser = argparse.ArgumentParser(prog="python -m training.backbone", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run: log, checkpoint, finished backbone"
    )
    parser.add_argument("--architecture", default="video_llama_3", help="or videollama2")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="length of the training on the clock")
    length.add_argument(
        "--clips", type=int, help="length of the training in clips; makes the run exactly repeatable"
    )
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile, for short runs")
    parser.add_argument("--export-only", action="store_true", help="export the checkpoint as it is")
    arguments = parser.parse_args()

    # Imported late: renderer processes start from this file and need none of it.
    from training.backbone.budget import Budget
    from training.backbone.design import DESIGNS
    from training.backbone.recipe import Recipe
    from training.backbone.run import make_backbone

    if arguments.architecture not in DESIGNS:
        parser.error(f"there is no architecture {arguments.architecture!r}: one of {', '.join(DESIGNS)}")
    minutes = arguments.minutes if arguments.minutes or arguments.clips else 35.0
    make_backbone(
        Recipe(compiled=not arguments.no_compile),
        Budget(minutes=minutes, clips=arguments.clips),
        arguments.out,
        DESIGNS[arguments.architecture],
        export_only=arguments.export_only,
    )


if __name__ == "__main__":
    main()
