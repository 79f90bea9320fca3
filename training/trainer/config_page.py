"""Writes docs/training.md from the config's classes: ``python -m training.trainer.config_page > docs/training.md``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from training.trainer.config import TrainConfig

HEAD = """# Training

Step by step, from ten videos to a service that answers: [train-a-domain.md](train-a-domain.md).

```
visum train --domain traffic --config train.toml        # publishes the domain's next version at the end
visum train --domain traffic --config train.toml --resume    # goes on where a killed run was
visum train --domain street --data videos/pairs.jsonl   # your own videos and summaries
accelerate launch -m visum train --domain traffic       # several GPUs
```

A run writes `log.csv`, TensorBoard events and checkpoints into its folder (`--run`). A checkpoint is safetensors and
JSON and appears whole: whatever ends a run, the last one is good. A resumed run gives the weights and the log of one
that was never interrupted: order, dropout and noise follow from the seed and the step alone. Only A, B, G and a receive
gradients; that is checked at the start, and the share that is trained is printed and kept in the manifest.

While it learns the trainer says what looks wrong, on stderr, in the manifest and on the card:

| code | seen | what to do |
|---|---|---|
| `experts_collapsed` | in over a tenth of a group's layers an expert gets under 1/(4K) | more `loss.balance` |
| `experts_alike` | experts of a layer change the same directions (principal angles) | fewer experts of a higher rank |
| `lambda_too_strong` | the loss stalls while the experts' norms shrink | a tenth of `loss.frobenius` |
| `order_not_learned` | objects are told rightly, their order is not | more temporal rank or rate, more frames |
| `no_gain` | no better than the frozen backbone | look at the data, then at the rates |

## The config

One TOML file; a key that it does not know is an error that names it. Sections are tables, `[temporal]` and `[spatial]`
have the same keys. With `--data` a file that leaves them open means 20 epochs, a measurement and a checkpoint in each,
and a patience of 3. This part is written from the classes by `python -m training.trainer.config_page`.

| key | default | what |
|---|---|---|
"""
FOOT = """
The defaults scale experts as the paper does: gates that sum to one divide their update by K. With few clips a larger
scale learned more on all four domains that were tried ([scale](results/scale.md)): `lora_alpha` times the square root
of the sum of the ranks, 90.5 for four experts of rank 8, with `matrix_lr` at 0.004.

## Experiments

What they show is told in [results](results/README.md).

`visum ablate all --plan` says what would run and how long it takes here; `visum ablate all` runs it, two runs at a
time, one CPU thread each. A finished run is a JSON file in `<out>/runs` and is never run again: a killed command,
called again, goes on. Every experiment becomes `<name>.json`, `.md` and `.svg` in `--out`. Learning rates are swept
for every arm and domain on validation clips with a seed of its own before arms are compared on test clips; the domain
`laboratory` is in no sweep and takes the rates of `traffic`.

`architectures` asks whether what holds for `visum-demo` holds for a backbone of another architecture. `make
second-backbone` trains that one first: VideoLLaMA2 in the demo's size, 5.5 million parameters, by the demo backbone's
own recipe on the same clips and tokens. It goes on where it was stopped.
`visum ablate architectures` then trains the same arms on both and says what each adds to its own frozen backbone;
runs on `visum-demo` that other experiments made are not made again. `visum ablate all` leaves it out where there is no
second backbone.
"""


def page() -> str:
    """The whole page."""
    rows = (f"| `{key}` | `{default}` | {what} |" for key, default, what in keys(TrainConfig))
    return HEAD + "\n".join(rows) + "\n" + FOOT


def keys(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted key, default, description) of every setting; the two groups' once."""
    for name, info in section.model_fields.items():
        default: Any = info.default
        if isinstance(default, BaseModel):
            if name != "spatial":
                yield from keys(type(default), f"{prefix}{name}.")
            continue
        text = str(list(default) if isinstance(default, tuple) else default)
        yield f"{prefix}{name}", text, info.description or ""


if __name__ == "__main__":
    print(page(), end="")
