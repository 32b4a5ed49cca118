"""The section `data` of the settings: what is read, how it is split, and what is kept out of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lora_med.config.section import Positive, Section, Share


class MixSettings(Section):
    source: str
    """The format, by its name in the catalog."""
    paths: list[str]
    """Files, folders or glob patterns."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the training rows, relative to the other weights."""
    template: str | None = None
    """The prompt template; left out, the source's own."""
    columns: dict[str, str] = Field(default_factory=dict)
    """For `custom`: our field -> your column."""
    ignore_columns: list[str] = Field(default_factory=list)
    """For `custom`: columns that are left out on purpose."""
    answer_form: Literal["text", "letter", "from_0", "from_1"] | None = None
    """For `custom`: how a column names the right option."""
    encoding: str | None = None
    """The character encoding of a text file; left out, its byte order mark's, else UTF-8."""
    delimiter: str | None = None
    """The character between the cells of a CSV, or `tab`; left out, the one that the header shows."""
    sheet: str | None = None
    """The sheet of a workbook, or the key of a list in a JSON object; left out, the only one."""
    hub_split: str = "train"
    """For a Hub data set: the split to read."""
    max_records: Positive | None = None
    """Read at most this many records."""


class DataSettings(Section):
    source: str = "pubmed"
    """The format, by its name in the catalog: `lora-med data list` shows them."""
    paths: list[str] = Field(default_factory=list)
    """Files or glob patterns, relative to the working directory; for `custom` also a Hub data set id."""
    template: str | None = None
    """The prompt template; left out, the source's own. A card names the template that trained it."""
    columns: dict[str, str] = Field(default_factory=dict)
    """For `custom`: our field -> your column, such as `prompt: question_text`. The fields are uid, group, text, title,
    label, messages, system, history, instruction, input, output, prompt, completion, chosen, rejected, question,
    answer, answer_idx, contexts, options, explanation, subject, section. `group: none` says that each text is its own
    group. For `plain_text`: `group: file` makes each file a group. For `conll`: `tag` is the number of the column of
    tags, from 1, or its name in the header."""
    ignore_columns: list[str] = Field(default_factory=list)
    """For `custom`: columns that are left out on purpose, where their names say that they hold content."""
    answer_form: Literal["text", "letter", "from_0", "from_1"] | None = None
    """For `custom` with options: the right one is given by its text, its letter, or its number from 0 or from 1; left
    out, as all rows together show."""
    encoding: str | None = None
    """The character encoding of a text file, such as `windows-1252`; left out, its byte order mark's, else UTF-8."""
    delimiter: str | None = None
    """The character between the cells of a CSV, such as `;`, or `tab`; left out, the one that the header shows."""
    sheet: str | None = None
    """The sheet of an Excel workbook, by name, or the key of a list in a JSON object; left out, the only one."""
    labels: list[str] | None = None
    """For `custom` with a label column: its classes; left out, those that occur."""
    hub_split: str = "train"
    """For a Hub data set: the split to read."""
    skip_bad: bool = False
    """Skip bad records, counted by reason, where a run would otherwise stop at the first. More than a tenth is a
    warning; an input of which no record is left is an error."""
    keep_retracted: bool = False
    """Keep retracted articles, which are dropped otherwise."""
    streaming: bool = False
    """Read again at every pass and never hold the corpus; for corpora larger than memory."""
    validation_share: Share = 0.05
    """Share of the groups held out for validation, where the source has no published split. At 0 nothing is
    validated, and the last adapter is the result."""
    test_share: Share = 0.05
    """Share of the groups held out for test, where the source has no published split. Training code never opens it."""
    fold: Annotated[int, Field(ge=0, le=9)] = 0
    """PubMedQA: which of the ten official folds is validation."""
    split_seed: int = 42
    """Seed of the split by group. Another seed is another split: change it, and old scores no longer compare."""
    max_records: Positive | None = None
    """Read at most this many records, of each split where the splits are published; for trials. PubMedQA is read
    completely, since all items together identify its split; then at most this many of each split are used."""
    leaks: Literal["error", "drop"] = "error"
    """What to do where published splits share a group, a content or near-duplicates: refuse, or remove them from the
    split nearer to training. Where lora_med makes the splits itself, near-duplicates go into one split together; with
    drop they too are removed from the split nearer to training."""
    near_duplicate_similarity: Share = 0.8
    """Texts that share this much of their runs of three words (Jaccard) count as near-duplicates; 0 turns it off."""
    decontaminate: bool = True
    """Leave out of training what is on the block-lists and what shares 13 words in a row with a test file. An
    evaluation leaves nothing of it out of the split that it scores."""
    block_lists: list[str] | None = None
    """Block-lists by name or path; left out, those that ship: the test items of PubMedQA, BC5CDR, NCBI-disease."""
    test_files: list[str] = Field(default_factory=list)
    """Files whose texts training may not share 13 words in a row with: a path, or source:path for a source's format."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """With `mix`: this source's share of the training rows, relative to the other weights."""
    mix: list[MixSettings] = Field(default_factory=list)
    """Further sources whose training splits are mixed in; what one source holds out is removed from all training."""
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = "first_exhausted"
    """Of a mixture: repeat no record, and leave some of the larger sources out; or leave none out, and repeat."""

    @model_validator(mode="after")
    def _mixture_held(self) -> DataSettings:
        if self.mix and self.streaming:
            raise ValueError("a mixture draws from complete training splits: set streaming to false, or leave mix out")
        return self

    @model_validator(mode="after")
    def _room_for_training(self) -> DataSettings:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on; their sum must be under 1")
        return self
