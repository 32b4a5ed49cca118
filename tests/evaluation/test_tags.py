"""Taggers scored by hand, beside what writes, and on published files: the gold tags are as good as tags can be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_med.data.outcome import ReadOptions
from lora_med.data.record import Annotated, Pair, Span
from lora_med.data.sources import bc5cdr, ncbi_disease
from lora_med.errors import DataError, SettingsError
from lora_med.evaluation.scorers.entity_answers import entity_items, entity_measures, entity_table
from lora_med.evaluation.scorers.tag_answers import answer_tags, tag_items, tag_measures, tag_table
from lora_med.metrics import spans
from lora_med.prompts.entity_tags import read_tags, tag_labels, write_tags
from tests.data.real_files import REAL, needs_real
from tests.tiny import make_model, make_tokenizer

TEXT = "No zinc, no flu. Then colon cancer and flu."
LABELS = ("O", "B-Chemical", "I-Chemical", "B-Disease", "I-Disease")
TYPES = ("Chemical", "Disease")


def spanned(*found: tuple[int, int, str]) -> tuple[Span, ...]:
    return tuple(Span(a, b, kind, TEXT[a:b]) for a, b, kind in found)


RECORD = Annotated("1", "g", "s", TEXT, spanned((3, 7, "Chemical"), (12, 15, "Disease"), (22, 34, "Disease")))
SAID = spanned((3, 7, "Disease"), (12, 15, "Disease"), (28, 34, "Disease"), (39, 42, "Disease"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def measured(table: Any, *, with_unseen: bool = False) -> dict[str, float]:
    return {m.name: float(m.of_sums(table.sum(axis=0))) for m in tag_measures(TYPES, with_unseen=with_unseen)}


def test_measures_are_those_worked_out_by_hand(tokenizer: Any) -> None:
    items = tag_items([RECORD], tokenizer, 64)
    found = measured(tag_table(items, [SAID], TYPES, frozenset({"flu"})), with_unseen=True)
    assert found == {
        "micro_f1": pytest.approx(2 * 1 / (3 + 4)),
        "precision": pytest.approx(1 / 4),
        "recall": pytest.approx(1 / 3),
        "macro_f1": pytest.approx((0 + 2 * 1 / (2 + 4)) / 2),
        "f1_Chemical": 0.0,
        "f1_Disease": pytest.approx(2 * 1 / (2 + 4)),
        "unseen_f1": 0.0,  # gold zinc, colon cancer; said zinc, cancer
        "relaxed_f1": pytest.approx(2 * 2 / (3 + 4)),
        "collapsed_f1": pytest.approx(2 * 1 / (3 + 3)),  # said flu once, cancer, zinc as a disease
    }


def test_the_same_mentions_score_the_same_written_and_tagged(tokenizer: Any) -> None:
    model = make_model("llama")
    written = '[{"type": "Disease", "text": "zinc"}, {"type": "Disease", "text": "flu"}]'
    table = entity_table(entity_items([RECORD], "entities", model, tokenizer), [written], TYPES)
    other = tag_table(tag_items([RECORD], tokenizer, 64), [SAID[:2]], TYPES)
    assert (table == other).all()
    names = [one.name for one in entity_measures(TYPES, with_unseen=True)]
    assert [one.name for one in tag_measures(TYPES, with_unseen=True)] == names[:-2]


class Painter(torch.nn.Module):
    """A tagger that calls every letter u the beginning of a chemical, and what follows it its rest."""

    device = torch.device("cpu")
    config = SimpleNamespace(_attn_implementation="sdpa")

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.letter = tokenizer("u", add_special_tokens=False)["input_ids"][0]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        begins = (input_ids == self.letter) & (attention_mask == 1)
        goes_on = torch.roll(begins, 1, dims=1)
        tags = torch.where(begins, 1, torch.where(goes_on, 2, 0))
        return SimpleNamespace(logits=torch.nn.functional.one_hot(tags, len(LABELS)).float())


def test_answers_are_at_their_offsets_for_any_batches_and_pieces(tokenizer: Any) -> None:
    texts = ["cut bug.", "un", "no", "a long text about guns and mud. More u here."]
    items = tag_items(
        [Annotated(str(n), "g", "s", text, (Span(0, 2, "Chemical", text[:2]),)) for n, text in enumerate(texts)],
        tokenizer,
        24,
    )
    assert len(items[3].pieces) > 1
    done: list[int] = []
    for size in (1, 30, 8192):
        found = answer_tags(Painter(tokenizer), tokenizer, items, LABELS, batch_tokens=size, advance=done.append)
        said = [[(span.start, span.text) for span in spans] for spans in found]
        assert said[:3] == [[(0, "cut"), (4, "bug")], [(0, "un")], []]  # the words that the tagged letters are in
        assert said[3] == [(12, "about"), (18, "guns"), (27, "mud"), (37, "u")]
    assert len(done) == 12


def test_what_has_no_gold_is_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="none of 1 records"):
        tag_items([Annotated("1", "g", "s", TEXT, ())], tokenizer, 64)
    with pytest.raises(SettingsError, match="annotated texts"):
        tag_items([Pair("p", "p", "s", "in", "out")], tokenizer, 64)


@needs_real
@pytest.mark.parametrize(
    ("module", "name"),
    [
        (bc5cdr, "bc5cdr/CDR_DevelopmentSet.PubTator.txt"),
        (ncbi_disease, "ncbi_disease/original-data/devel/NCBIdevelopset_corpus.txt"),
    ],
)
def test_gold_tags_of_published_files_are_nearly_perfect(module: Any, name: str, tokenizer: Any) -> None:
    evaluator = pytest.importorskip("nervaluate").Evaluator
    path: Path = REAL / name
    records = [one for one in module.read([path], ReadOptions()) if isinstance(one, Annotated)][:60]
    labels = tag_labels(records)
    types = tuple(sorted({label[2:] for label in labels[1:]}))
    items = tag_items(records, tokenizer, 256)
    answers = []
    for record, item in zip(records, items, strict=True):
        marked = [(piece, write_tags(piece, record.spans, labels)) for piece in item.pieces]
        answers.append([span for piece, tags in marked for span in read_tags(piece, tags, labels, record.text)])
    sums = tag_table(items, answers, types).sum(axis=0)
    found = {m.name: float(m.of_sums(sums)) for m in tag_measures(types, with_unseen=False)}
    assert 0.97 < found["micro_f1"] <= 1
    assert 0.97 < found["recall"] <= found["relaxed_f1"] <= 1
    # The same spans to nervaluate, whose strict reading this is.
    gold = [_plain(item.gold) for item in items]
    said = [[{"start": s.start, "end": s.end, "label": s.type} for s in spans] for spans in answers]
    theirs = evaluator(gold, said, tags=list(types), loader="dict").evaluate()["overall"]["strict"]
    assert found["micro_f1"] == pytest.approx(theirs.f1)


def _plain(gold: tuple[spans.Mention, ...]) -> list[dict[str, Any]]:
    offsets = {(one.offsets, one.type) for one in gold if one.offsets is not None}
    return [{"start": start, "end": end, "label": kind} for (start, end), kind in sorted(offsets)]
