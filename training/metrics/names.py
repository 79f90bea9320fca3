"""The metrics that can be asked for and the figures they give. No import: the command line reads its choices here."""

from __future__ import annotations

from enum import StrEnum


class Metric(StrEnum):
    """What can be asked for. ``v2t`` is VideoXum's official set."""

    ROUGE = "rouge"
    BLEU = "bleu"
    METEOR = "meteor"
    CIDER = "cider"
    NIST = "nist"
    V2T = "v2t"


LABELS = {
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "bleu": "SacreBLEU",
    "meteor": "METEOR",
    "meteor_nltk": "METEOR (nltk, no synonyms)",
    "cider": "CIDEr",
    "cider_nltk_tokens": "CIDEr (nltk tokens)",
    "nist": "NIST",
    "bertscore": "BERTScore",
    **{f"v2t_bleu_{order}": f"V2T BLEU-{order}" for order in (1, 2, 3, 4)},
    "v2t_meteor": "V2T METEOR",
    "v2t_rouge_l": "V2T ROUGE-L",
    "v2t_cider": "V2T CIDEr",
}
"""Every text figure's name as data, and as people read it."""
