"""Which extra brings a module that is not installed."""

from __future__ import annotations

EXTRAS = {
    "worker": {
        "av",
        "huggingface_hub",
        "numpy",
        "peft",
        "PIL",
        "safetensors",
        "torch",
        "torchvision",
        "transformers",
    },
    "train": {
        "accelerate",
        "bert_score",
        "matplotlib",
        "nltk",
        "pycocoevalcap",
        "rouge_score",
        "sacrebleu",
        "tensorboard",
    },
}


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """What to install, where the missing module belongs to an extra of ours."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return f"This needs {module}, which is not installed. Run: pip install 'milora-visum[{extra}]'"
    return None
