"""The sources lora_med reads, each with its licence, access class and default prompt template."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lora_med.config.names import unknown
from lora_med.data.access import Access
from lora_med.data.outcome import Input, Outcome, ReadOptions
from lora_med.data.record import Pair, Passage, Question, Record
from lora_med.errors import SettingsError


@dataclass(frozen=True)
class Source:
    """One kind of input. `template` is the prompt template a run takes when it names none."""

    name: str
    summary: str
    kinds: tuple[type, ...]
    licence: str
    access: Access
    citation: str
    template: str
    module: str
    reads_hub: bool = False
    suffixes: tuple[str, ...] = ()


TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
SOURCES: dict[str, Source] = {
    "pubmed": Source(
        name="pubmed",
        summary="PubMed abstracts: baseline and update files, XML or gz",
        kinds=(Passage,),
        licence="NLM terms of use; publishers may hold copyright in abstracts",
        access="open",
        citation="Courtesy of the U.S. National Library of Medicine, https://pubmed.ncbi.nlm.nih.gov/download/",
        template="text",
        module="lora_med.data.sources.pubmed",
        suffixes=(".xml", ".xml.gz"),
    ),
    "pubmedqa": Source(
        name="pubmedqa",
        summary="PubMedQA: a question, an abstract, and yes, no or maybe",
        kinds=(Question,),
        licence="MIT",
        access="open",
        citation="Jin et al. 2019, PubMedQA: A Dataset for Biomedical Research Question Answering",
        template="pubmedqa",
        module="lora_med.data.sources.pubmedqa",
        reads_hub=True,
        suffixes=TABLES,
    ),
    "custom": Source(
        name="custom",
        summary="your own rows: JSON lines, JSON, CSV, TSV, Parquet, or a Hub data set",
        kinds=(Passage, Pair, Question),
        licence="not stated",
        access="open",
        citation="",
        template="text",
        module="lora_med.data.sources.custom",
        reads_hub=True,
        suffixes=TABLES,
    ),
}


def find_source(name: str) -> Source:
    """The source called `name`.

    Raises:
        SettingsError: there is none; the message gives the nearest name.
    """
    if name not in SOURCES:
        raise SettingsError(
            unknown("data source", name, SOURCES), where="data.source", fix="lora-med data list shows what each reads"
        )
    return SOURCES[name]


def read(source: Source, inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """What is in `inputs`, by the source's own module; each pass reads again."""
    return importlib.import_module(source.module).read(inputs, options)


def template_for(source: Source, first: Record | None) -> str:
    """The default template for what was read: `custom` takes it from the kind of its first record."""
    if source.name != "custom" or first is None:
        return source.template
    if isinstance(first, Pair):
        return "pair_chat" if first.history else "pair"
    return "question_chat" if isinstance(first, Question) else "text"
