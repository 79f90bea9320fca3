"""The model card that goes with the exported backbone."""

from dataclasses import asdict, dataclass

from training.backbone.recipe import Recipe


@dataclass(frozen=True)
class Card:
    """What is said of one architecture: in its manifest, and in the README of its folder."""

    description: str
    notice: str
    shape: str
    loading: str
    seen: str
    made_by: str


VIDEO_LLAMA_3_CARD = Card(
    description="A 4.7 million parameter video_llama_3 trained on the procedural demo world.",
    notice="visum-demo is a small model of a synthetic world of pictograms. It knows nothing else and is there to run "
    "the whole system without a GPU; set VISUM_BACKBONE to a VideoLLaMA3 checkpoint for real videos.",
    shape="""\
A `video_llama_3` (vision tower of 4 layers and 128 channels, patches of 8; Qwen2 text model of 4 layers and 256
channels; own byte-level tokenizer)""",
    loading="""It loads with the stock classes of `transformers`:

```python
from transformers import AutoProcessor, VideoLlama3ForConditionalGeneration

processor = AutoProcessor.from_pretrained("visum-demo")
model = VideoLlama3ForConditionalGeneration.from_pretrained("visum-demo")
```""",
    seen="Frames are 64x48 pixels, one a second, 4 to 16 of them; a frame is 12 tokens.",
    made_by="`python -m training.backbone --out DIR` (`make demo-backbone`)",
)
VIDEOLLAMA2_CARD = Card(
    description="A 5.5 million parameter videollama2 trained on the procedural demo world.",
    notice="visum-demo-videollama2 is a small model of a synthetic world of pictograms. It is there to show what "
    "carries over from visum-demo to another architecture; the service does not run it.",
    shape="""\
A `videollama2` (CLIP tower of 4 layers and 128 channels, patches of 8; STC connector with one block a stage;
Mistral text model of 4 layers and 256 channels; the tokenizer of `visum-demo`)""",
    loading="""It loads with classes of this package:

```python
from training.backbone.loading import load_trained

loaded = load_trained("visum-demo-videollama2")
```""",
    seen="Frames are 64x48 pixels on a square of 64x64, one a second, 4 to 16 of them; two frames are 16 tokens.",
    made_by="`python -m training.backbone --architecture videollama2 --out DIR` (`make second-backbone`)",
)


def model_card(name: str, card: Card, recipe: Recipe, facts: dict[str, float | int | str]) -> str:
    """The README of the folder, in Markdown."""
    measured = "\n".join(f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in facts.items())
    numbers = "\n".join(f"| {name} | `{value}` |" for name, value in asdict(recipe).items())
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: video-text-to-text
---

# {name}

{card.notice}

{card.shape}, trained from random weights on clips of the `{recipe.domain}` part of the
procedural demo world (`training/world`). {card.loading}

{card.seen}

## Training

Made by {card.made_by}. First the vision tower alone learns to name
what every patch shows (dense pre-training, its heads are dropped), then the whole model learns summaries, short clips
first. The loss counts the summary's tokens only. No clip is shown twice; the train, validation and test splits share
no seeds, and the test split holds combinations of object and colour that training never shows. Beside the clips the
language model sees text: every sixth step it repeats random phrases of about 1,100 everyday English words, which the
tokenizer was learned from as well, so that every token has a trained embedding. Words of later domains are among them.

| measured | |
|---|---|
{measured}

| setting | |
|---|---|
{numbers}

## Limits

It describes pictograms over painted backgrounds in fixed phrases. A video of anything else gets a fluent summary that
is wrong.
"""


def _shown(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
