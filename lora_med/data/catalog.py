"""The sources lora_med reads, each with its license, access class and default prompt template."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence

from lora_med.config.near_names import unknown
from lora_med.data.outcome import Input, Outcome, ReadOptions
from lora_med.data.passage_sources import PASSAGE_SOURCES
from lora_med.data.record import Annotated, Pair, Passage, Question
from lora_med.data.source import ROW_SETTINGS, Source
from lora_med.data.splitting.pubmedqa_folds import GROUND_TRUTH, official_splits
from lora_med.errors import SettingsError

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
SOURCES: dict[str, Source] = {
    **PASSAGE_SOURCES,
    "pubmedqa": Source(
        name="pubmedqa",
        summary="PubMedQA: a question, an abstract, and yes, no or maybe",
        kinds=(Question,),
        license="MIT",
        access="open",
        citation="Jin et al. 2019, PubMedQA: A Dataset for Biomedical Research Question Answering",
        template="pubmedqa",
        module="lora_med.data.sources.pubmedqa",
        reads_hub=True,
        suffixes=TABLES,
        table_settings=ROW_SETTINGS,
        official_split=official_splits,
        companion_files=(GROUND_TRUTH,),
        limit_before_split=False,
        groups_are_pmids=True,
    ),
    "medqa": Source(
        name="medqa",
        summary="MedQA (USMLE): a vignette, four or five options, one right",
        kinds=(Question,),
        license="MIT",
        access="open",
        citation="Jin et al. 2020, What Disease does this Patient Have?",
        template="medqa",
        module="lora_med.data.sources.medqa",
        reads_hub=True,
        suffixes=TABLES,
        table_settings=ROW_SETTINGS,
    ),
    "medmcqa": Source(
        name="medmcqa",
        summary="MedMCQA: questions of medical entrance exams, four options",
        kinds=(Question,),
        license="MIT",
        access="open",
        citation="Pal et al. 2022, MedMCQA",
        template="medmcqa",
        module="lora_med.data.sources.medmcqa",
        reads_hub=True,
        suffixes=TABLES,
        table_settings=ROW_SETTINGS,
    ),
    "mmlu": Source(
        name="mmlu",
        summary="MMLU: exam questions by subject, four options, CSV without a header",
        kinds=(Question,),
        license="MIT",
        access="open",
        citation="Hendrycks et al. 2021, Measuring Massive Multitask Language Understanding",
        template="mmlu",
        module="lora_med.data.sources.mmlu",
        reads_hub=True,
        suffixes=TABLES,
        table_settings=ROW_SETTINGS,
        dev="train",
    ),
    "general": Source(
        name="general",
        summary="the general probe that ships here: sentences to be ended, of language and everyday knowledge",
        kinds=(Question,),
        license="as lora_med's",
        access="open",
        citation="lora_med",
        template="ending",
        module="lora_med.data.sources.general",
        suffixes=(".jsonl",),
        table_settings=ROW_SETTINGS,
    ),
    "medquad": Source(
        name="medquad",
        summary="MedQuAD: consumer questions and answers from NIH sites, XML",
        kinds=(Question,),
        license="CC BY 4.0",
        access="open",
        citation="Ben Abacha and Demner-Fushman 2019, A question-entailment approach to question answering",
        template="question_chat_v2",
        module="lora_med.data.sources.medquad",
        suffixes=(".xml",),
    ),
    "bc5cdr": Source(
        name="bc5cdr",
        summary="BC5CDR: abstracts with chemicals and diseases marked, PubTator",
        kinds=(Annotated,),
        license="not stated; published for research",
        access="open",
        citation="Li et al. 2016, BioCreative V CDR task corpus",
        template="entities",
        module="lora_med.data.sources.bc5cdr",
        suffixes=(".pubtator.txt", ".pubtator", ".txt"),
        table_settings=("encoding",),
        groups_are_pmids=True,
    ),
    "ncbi_disease": Source(
        name="ncbi_disease",
        summary="NCBI disease corpus: abstracts with diseases marked, PubTator",
        kinds=(Annotated,),
        license="public domain (work of the US government)",
        access="open",
        citation="Dogan et al. 2014, NCBI disease corpus",
        template="entities",
        module="lora_med.data.sources.ncbi_disease",
        suffixes=(".pubtator.txt", ".pubtator", ".txt"),
        table_settings=("encoding",),
        groups_are_pmids=True,
    ),
    "conll": Source(
        name="conll",
        summary="CoNLL: one token and tag a line, IOB, IOBES or BILOU; CoNLL-U",
        kinds=(Annotated,),
        license="that of the corpus; not stated in the file",
        access=None,
        citation="",
        template="entities",
        module="lora_med.data.sources.conll",
        suffixes=(".tsv", ".conll", ".iob", ".iob2", ".txt", ".conllu", ".bio"),
        table_settings=("encoding",),
    ),
    "bioc": Source(
        name="bioc",
        summary="BioC: documents with annotations, XML or JSON; PubTator 3",
        kinds=(Annotated,),
        license="that of the corpus; not stated in the file",
        access=None,
        citation="Comeau et al. 2013, BioC",
        template="entities",
        module="lora_med.data.sources.bioc",
        suffixes=(".xml", ".json", ".jsonl", ".ndjson"),
        groups_are_pmids=True,
    ),
    "brat": Source(
        name="brat",
        summary="brat: folders of texts (.txt), each with its annotations beside it (.ann)",
        kinds=(Annotated,),
        license="that of the corpus; not stated in the file",
        access=None,
        citation="Stenetorp et al. 2012, brat: a Web-based Tool for NLP-Assisted Text Annotation",
        template="entities",
        module="lora_med.data.sources.brat",
        reads_beside=True,
        suffixes=(".ann", ".txt"),
        table_settings=("encoding",),
    ),
    "n2c2": Source(
        name="n2c2",
        summary="n2c2 and i2b2: clinical notes with annotations, XML, .con or .ann",
        kinds=(Annotated,),
        license="data use agreement of Harvard's DBMI portal",
        access="credentialed",
        citation="Uzuner et al. 2011, 2010 i2b2/VA challenge; Stubbs et al. 2015, 2014 i2b2/UTHealth shared task",
        template="entities",
        module="lora_med.data.sources.n2c2",
        reads_beside=True,
        suffixes=(".xml", ".con", ".ann", ".txt", ".zip", ".tar"),
        table_settings=("encoding",),
    ),
    "meqsum": Source(
        name="meqsum",
        summary="MeQSum: a consumer's health question, and its summary, Excel",
        kinds=(Pair,),
        license="CC BY 4.0",
        access="open",
        citation="Ben Abacha and Demner-Fushman 2019, On the Summarization of Consumer Health Questions",
        template="question_summary",
        module="lora_med.data.sources.meqsum",
        suffixes=TABLES,
        table_settings=ROW_SETTINGS,
    ),
    "mts_dialog": Source(
        name="mts_dialog",
        summary="MTS-Dialog: a stretch of a visit's talk, and its section of the note",
        kinds=(Pair,),
        license="CC BY 4.0",
        access="open",
        citation="Ben Abacha et al. 2023, An Empirical Study of Clinical Note Generation, EACL",
        template="note",
        module="lora_med.data.sources.mts_dialog",
        suffixes=TABLES,
        table_settings=ROW_SETTINGS,
    ),
    "aci_bench": Source(
        name="aci_bench",
        summary="ACI-Bench: the talk of a whole visit, and its note",
        kinds=(Pair,),
        license="CC BY 4.0",
        access="open",
        citation="Yim et al. 2023, Aci-bench",
        template="note",
        module="lora_med.data.sources.aci_bench",
        suffixes=TABLES,
        table_settings=ROW_SETTINGS,
    ),
    "custom": Source(
        name="custom",
        summary="your own rows: JSON lines, JSON, CSV, TSV, Parquet, Excel, or a Hub data set",
        kinds=(Passage, Pair, Question, Annotated),
        license="not stated",
        access=None,
        citation="",
        template="text",
        module="lora_med.data.sources.custom",
        reads_hub=True,
        suffixes=TABLES,
        table_settings=ROW_SETTINGS,
        split_names="complete",
        template_by_kind=True,
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
    """What is in `inputs`, by the source's own module; each pass reads again.

    Raises:
        SettingsError: an encoding, delimiter or sheet is stated for documents, which state their own.
    """
    source.check_table(options.table)
    return importlib.import_module(source.module).read(inputs, options)
