"""BERTScore with a tiny encoder of random weights equals bert-score's own function."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from tests.training.metrics.examples import REFERENCES, SUMMARIES
from training.metrics.bertscore import BertScore, Encoder
from training.metrics.errors import MetricUnavailable
from training.metrics.text import TextScorer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "red", "car", "two", "blue", "bus", "dog", "ball",
         "girl", "dances", "run", "room", "and", "at", "in", "of", ",", "."]  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as the hub has them. Its tokenizer knows no longest input, as some of the hub's do not."""
    folder = tmp_path_factory.mktemp("encoders") / "tiny"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 64,
    }
    BertModel(BertConfig(vocab_size=len(WORDS), num_hidden_layers=3, **shape)).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("layer", [1, 3])
def test_it_is_bert_scores_best_f1_over_the_references(encoder: str, layer: int) -> None:
    from bert_score import BERTScorer

    theirs = BERTScorer(model_type=encoder, num_layers=layer)
    theirs._tokenizer.model_max_length = 64
    _, _, f1 = theirs.score(SUMMARIES, REFERENCES)
    ours = BertScore(Encoder(encoder, layer)).score(SUMMARIES, REFERENCES)
    assert ours.rows[:, 0].tolist() == pytest.approx(f1.tolist(), abs=1e-6)


def test_the_last_layer_is_taken_of_an_encoder_that_bert_score_does_not_know(encoder: str) -> None:
    assert BertScore(Encoder(encoder)).name == f"{encoder}, layer 3"


def test_a_summary_without_a_word_scores_nothing_and_spoils_nothing(encoder: str) -> None:
    scorer = BertScore(Encoder(encoder))
    alone = scorer.score(SUMMARIES[:1], REFERENCES[:1]).rows[0, 0]
    rows = scorer.score(["", SUMMARIES[0], " "], [REFERENCES[1], REFERENCES[0], REFERENCES[2]]).rows
    assert rows[:, 0].tolist() == pytest.approx([0.0, alone, 0.0])


def test_a_text_longer_than_the_encoder_takes_is_cut(encoder: str) -> None:
    assert BertScore(Encoder(encoder)).score(["a red car " * 50], [["the bus"]]).rows[0, 0] < 1


def test_the_encoder_is_named_with_the_figure(encoder: str) -> None:
    with TextScorer([], Encoder(encoder, 2)) as scorer:
        assert list(scorer.statistics(SUMMARIES, REFERENCES)) == ["bertscore"]
        assert scorer.notes == (f"BERTScore's encoder: {encoder}, layer 2",)


@pytest.mark.parametrize(
    ("name", "layer"), [("./no-such-encoder", None), (None, 9)], ids=["no model", "no layer"]
)
def test_an_encoder_that_cannot_be_loaded_is_named(encoder: str, name: str | None, layer: int | None) -> None:
    with pytest.raises(MetricUnavailable, match=r"encoder \S+ cannot be loaded"):
        BertScore(Encoder(name or encoder, layer))
