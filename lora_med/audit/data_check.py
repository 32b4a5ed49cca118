"""`data check`: what a run would train and test on, reported before any cost. No model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from typing import Any

from lora_med.audit.baselines import baselines, label_counts
from lora_med.audit.fertility import Fertility, fertility
from lora_med.audit.identifiers import scan
from lora_med.config.schema import Settings
from lora_med.data.access import CREDENTIALED, NOT_STATED, Access, handled_as
from lora_med.data.corpus import Corpus, corpus_of, open_splits
from lora_med.data.outcome import Tally
from lora_med.data.record import Passage, Record, Split, each_answer, shown_uid, texts_of
from lora_med.data.splitting.build_splits import Splits
from lora_med.prompts.chat_template import tokenizer_of_run
from lora_med.prompts.fit import Refused, fit_stream, quantiles
from lora_med.prompts.render import render_stream
from lora_med.prompts.tokens_and_labels import Encoder, Tokens

BLOCK = 512
MOST_RECORDS = 10_000  # of each split: so many are tokenized and scanned
SHOWN_UIDS = 5


@dataclass(frozen=True)
class Lengths:
    """The rows of a split: their number, quantiles in tokens, how many exceed max_length, and the tokens this loses.

    `trained_share` is the share of tokens that are trained, and `by_section` that of each section of running text.
    """

    rows: int
    tokens: int
    quantiles: dict[str, int]
    too_long: int
    context_tokens_lost: int
    trained_share: float
    by_section: dict[str, float]
    histogram: list[tuple[int, int]]


@dataclass(frozen=True)
class SourceCheck:
    """One source of the run: counts, splits and how they were separated, labels and baselines by split.

    Counts are of all records; lengths, labels, baselines and identifiers of the first `looked_at` of each split.
    """

    source: str
    template: str
    access: str
    license: str
    inputs: int
    tally: Tally
    split: str
    sizes: dict[Split, int]
    looked_at: dict[Split, int]
    separation: dict[str, Any]
    columns: dict[str, Any]
    lengths: dict[Split, Lengths]
    labels: dict[Split, dict[str, int]]
    baselines: dict[Split, dict[str, float]]
    identifiers: dict[str, int]
    records_with_identifiers: int
    uids_with_identifiers: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """The results of `data check` for each source.

    Of a mixture, `between` says what left a source because another one holds it out, and `mixture` what each gives.
    `access` is None where nobody stated the class: nothing of the rows is then shown.
    """

    sources: tuple[SourceCheck, ...]
    between: dict[str, Any] | None
    mixture: list[dict[str, Any]]
    access: Access | None
    max_length: int
    fertility: Fertility

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def check_data(settings: Settings, tokenizer: Any) -> tuple[Check, Corpus]:
    """The check of the data in `settings`, with the base's tokenizer, and the corpus that a run would train on.

    Raises:
        DataError: a run would raise it too: bad input, splits that overlap, nothing to train on.
    """
    opened = open_splits(settings.data, settings.adapter.access)
    every, corpus = opened.sources, corpus_of(opened, settings.data)
    tokenizer = tokenizer_of_run(
        tokenizer,
        corpus.templates.values(),
        file=settings.model.chat_template,
        enable_thinking=settings.model.enable_thinking,
    )
    access = corpus.access
    texts = (text for splits in every for record in _some(splits.records["train"]) for text in texts_of(record))
    check = Check(
        tuple(_source(splits, corpus.templates[splits.source.name], settings, tokenizer, access) for splits in every),
        opened.between_sources.as_json() if opened.between_sources is not None else None,
        corpus.mixture,
        access,
        settings.train.max_length,
        fertility(texts, tokenizer, show=access == "open"),
    )
    return check, corpus


def _some(records: Iterable[Record]) -> Iterator[Record]:
    return islice(records, MOST_RECORDS)


def _source(splits: Splits, template: str, settings: Settings, tokenizer: Any, access: Access | None) -> SourceCheck:
    held: dict[Split, list[Record]] = {split: list(_some(records)) for split, records in splits.records.items()}
    shown = handled_as(access) != CREDENTIALED
    counts: Counter[str] = Counter()
    uids: list[str] = []
    for uid, kinds in scan(chain.from_iterable(held.values())):
        counts += kinds
        uids.append(shown_uid(uid, access))
    sizes: dict[Split, Lengths] = {}
    labels: dict[Split, dict[str, int]] = {}
    scores: dict[Split, dict[str, float]] = {}
    for split, records in held.items():
        if records:
            sizes[split] = lengths(records, template, settings, tokenizer, shown=shown)
            labels[split] = label_counts(records) if shown else _nameless(label_counts(records))
            if split != "train":
                scores[split] = baselines(held["train"], records, shown=shown)
    return SourceCheck(
        source=splits.source.name,
        template=template,
        access=splits.source.access or NOT_STATED,
        license=splits.source.license,
        inputs=len(splits.inputs),
        tally=splits.tally,
        split=splits.description,
        sizes={split: len(records) for split, records in splits.records.items()},
        looked_at={split: len(records) for split, records in held.items()},
        separation=replace(splits.decontamination, access=access).as_json(),
        columns=splits.columns,
        lengths=sizes,
        labels=labels,
        baselines=scores,
        identifiers=dict(counts.most_common()),
        records_with_identifiers=len(uids),
        uids_with_identifiers=tuple(uids[:SHOWN_UIDS]),
    )


def _nameless(counts: dict[str, int]) -> dict[str, int]:
    return {f"label {number}": count for number, count in enumerate(counts.values(), 1)}


def lengths(
    records: Sequence[Record], template: str, settings: Settings, tokenizer: Any, *, shown: bool = True
) -> Lengths:
    """The lengths of the rows that `template` makes of `records`, fitted as a run would; a preference makes two.

    Sections are named by their own headings only where text may be `shown`: a heading may name a patient.
    """
    train = settings.train
    sizes: list[int] = []
    trained = too_long = lost = 0
    rows = render_stream(each_answer(records), template, train.too_long, train.assistant_turns)
    refused = Refused(settings.data.skip_bad)
    for tokens in fit_stream(rows, tokenizer, train.max_length, refused):
        sizes.append(len(tokens.input_ids) + tokens.lost)
        trained += sum(tokens.trained)
        too_long += _too_long(tokens, train.max_length)
        lost += tokens.lost
    refused.log(template)
    ordered = sorted(sizes)
    total = sum(sizes)
    return Lengths(
        rows=len(sizes),
        tokens=total,
        quantiles=quantiles(ordered),
        too_long=too_long,
        context_tokens_lost=lost,
        trained_share=round(trained / (total - lost), 4) if total > lost else 0.0,
        by_section=_by_section(records, tokenizer, shown) if template == "text" else {},
        histogram=_histogram(ordered),
    )


def _too_long(tokens: Tokens, max_length: int) -> bool:
    return tokens.lost > 0 or len(tokens.input_ids) > max_length


def _histogram(ordered: Sequence[int], bins: int = 24) -> list[tuple[int, int]]:
    """`(upper edge in tokens, rows)` of bins of equal width up to the longest row."""
    if not ordered:
        return []
    width = max(1, -(-ordered[-1] // bins))
    counts = Counter(max(0, size - 1) // width for size in ordered)
    return [((index + 1) * width, counts[index]) for index in range(-(-ordered[-1] // width))]


def _by_section(records: Sequence[Record], tokenizer: Any, shown: bool) -> dict[str, float]:
    """The share of all section tokens in each category or label; the less frequent ones are added up."""
    names: list[str] = []
    texts: list[str] = []
    for record in records[:2000]:
        for section in record.sections if isinstance(record, Passage) else ():
            label = section.label if shown or not section.label else "heading"
            names.append((section.category or label or "no label").upper())
            texts.append(section.text)
    counts: Counter[str] = Counter()
    encoder = Encoder(tokenizer)
    for start in range(0, len(texts), BLOCK):
        block = encoder.raw(texts[start : start + BLOCK])
        for name, ids in zip(names[start : start + BLOCK], block, strict=True):
            counts[name] += len(ids)
    total = counts.total()
    top = counts.most_common(9)
    rest = total - sum(count for _, count in top)
    return {name: round(count / total, 4) for name, count in top} | ({"others": round(rest / total, 4)} if rest else {})
