"""What lora_med knows of a source: license, access class, template, and how its files are read and split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lora_med.data.access import Access
from lora_med.data.outcome import Input, TableFormat
from lora_med.data.record import Annotated, Pair, Question, Record, Split
from lora_med.data.splitting.splits import SplitShares
from lora_med.errors import SettingsError

OfficialSplit = Callable[
    [Sequence[Record], Sequence[Input], SplitShares], tuple[dict[str, Split], str, frozenset[Split]] | None
]
JSON_FIELDS = ("name", "summary", "license", "access", "citation", "template", "module", "reads_hub", "suffixes", "dev")
ROW_SETTINGS = ("encoding", "delimiter", "sheet")  # of TableFormat


@dataclass(frozen=True)
class Source:
    """One kind of input. `template` is the prompt template a run takes when it names none.

    `split_names`: where a file's name may name its split: `anywhere` in it, as its `complete` name, or `never`. `dev`
    is the split that files named after it hold. `official_split` assigns groups to their splits, describes them, and
    names those that are published; it returns None where these records have none. `companion_files` are beside the data
    and hold no records. `limit_before_split` means that `max_records` may cut while reading; an official split is
    recognized only when all records are read. `access` is None for a format of the user's own files, whose class only
    the user can state. `template_by_kind`: what was read chooses the template. `groups_are_pmids`: a
    group of digits is a PMID. `versions_articles` means that several records may be versions of one article.
    `table_settings` are those of TableFormat that its files may need.
    `scans_files`: what a file holds depends on no other file and not on its name, and the module has `steps` and
    `in_order` (data/scanning). `reads_beside` means that reading a file also reads others that nobody named.
    """

    name: str
    summary: str
    kinds: tuple[type, ...]
    license: str
    access: Access | None
    citation: str
    template: str
    module: str
    reads_hub: bool = False
    suffixes: tuple[str, ...] = ()
    dev: Split = "validation"
    split_names: Literal["anywhere", "complete", "never"] = "anywhere"
    official_split: OfficialSplit | None = None
    companion_files: tuple[str, ...] = ()
    limit_before_split: bool = True
    template_by_kind: bool = False
    groups_are_pmids: bool = False
    versions_articles: bool = False
    table_settings: tuple[str, ...] = ()
    scans_files: bool = False
    reads_beside: bool = False

    def template_for(self, kinds: Collection[type], *, has_conversations: bool) -> str:
        """The default template for records of these kinds, whatever their order.

        Args:
            has_conversations: whether a record was given in turns; then all pairs are conversations.
        """
        if not self.template_by_kind or not kinds:
            return self.template
        if Pair in kinds:
            return "pair_chat_v2" if has_conversations else "pair"
        if Annotated in kinds:
            return "entities"
        return "question_chat_v2" if Question in kinds else "text"

    def check_table(self, table: TableFormat) -> None:
        """Refuse an encoding, delimiter or sheet that no file of this source needs: it would change nothing.

        Raises:
            SettingsError: there is one.
        """
        for name in ROW_SETTINGS:
            if getattr(table, name) is not None and name not in self.table_settings:
                about = "documents that state their own encoding" if not self.table_settings else "no tables"
                raise SettingsError(
                    f"the source {self.name!r} reads {about}: data.{name} would change nothing",
                    where=f"data.{name} (--{name})",
                    fix="leave it out, or set it to null",
                )

    def as_json(self) -> dict[str, Any]:
        """What a list of sources shows, as JSON values."""
        about = {name: getattr(self, name) for name in JSON_FIELDS}
        return {**about, "suffixes": list(self.suffixes), "kinds": [kind.__name__.lower() for kind in self.kinds]}
