"""The text of a document that a record carries within it, in base64 and with its media type: plain, HTML or a CDA.

FHIR's Attachment (https://hl7.org/fhir/R4/datatypes.html#Attachment) and CDA's nonXMLBody hold such documents.
"""

from __future__ import annotations

import base64
import binascii
import re

from lora_med.data.formats.archives import Document, xml_root
from lora_med.data.formats.documents.clinical_document import clinical_documents, sections_of
from lora_med.data.formats.documents.markup_lines import html_lines
from lora_med.data.formats.documents.text_decoding import decoded
from lora_med.data.formats.documents.unsupported_formats import (
    HTML,
    OLD_OFFICE,
    OPEN_DOCUMENT,
    PDF,
    RTF,
    WORD,
    UnsupportedFormat,
    unsupported_content,
)
from lora_med.data.record import Section
from lora_med.errors import DataError, SettingsError

OTHER = UnsupportedFormat("no text", "leave it out: --skip-bad (data.skip_bad=true) drops and counts such records")
MEDIA = {
    "application/pdf": PDF,
    "application/rtf": RTF,
    "text/rtf": RTF,
    "text/richtext": RTF,
    "application/msword": OLD_OFFICE,
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": WORD,
    "application/vnd.oasis.opendocument.text": OPEN_DOCUMENT,
}
HTML_TYPES = ("text/html", "application/xhtml+xml")
XML_TYPE = re.compile(r"(?:text|application)/(?:xml|cda|[\w.-]+\+xml)")
PLAIN_TYPE = re.compile(r"(?:text/[\w.+-]+)?")
BLANKS = re.compile(r"[ \t\r\n]+")
CHARSET = re.compile(r"""charset\s{0,9}=\s{0,9}["']?([\w.:-]{1,40})""", re.IGNORECASE)
MEDIA_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,80}|")


class NotText(Exception):
    """A document of a format that is not read; `form` says which."""

    def __init__(self, form: UnsupportedFormat):
        super().__init__(form.name)
        self.form = form


def from_base64(data: str, where: str) -> bytes:
    """The bytes of base64; blanks and line breaks in it do not count.

    Raises:
        DataError: it is not base64.
    """
    try:
        return base64.b64decode(BLANKS.sub("", data), validate=True)
    except (binascii.Error, ValueError):
        fix = "export the record again, or set data.skip_bad=true (--skip-bad)"
        raise DataError("the attached document is not base64, or is cut off", where=where, fix=fix) from None


def attached_sections(content: bytes, media_type: str, where: str, encoding: str | None = None) -> list[Section]:
    """The sections of an attached document: of plain text and HTML one without a label; none where it is empty.

    A media type that is missing, or says only that it is text, does not hide a PDF or RTF. `encoding` is that of a text
    whose media type names no charset.

    Raises:
        NotText: a format that is not read.
        DataError: it is damaged, or not in its encoding.
    """
    media, charset = _media(media_type)
    encoding = encoding if charset is None else None
    form = MEDIA.get(media) or unsupported_content(content)
    if form is not None and form is not HTML:
        raise NotText(form)
    if XML_TYPE.fullmatch(media) and media not in HTML_TYPES:
        return _of_xml(content, where)
    if form is HTML or media in HTML_TYPES:
        text = html_lines(_text(content, where, charset, encoding))
    elif PLAIN_TYPE.fullmatch(media):
        text = _text(content, where, charset, encoding).strip()
    else:
        raise NotText(UnsupportedFormat(f"{media or 'no text'}, not text", OTHER.advice))
    return [Section(text)] if text else []


def _text(content: bytes, where: str, charset: str | None, encoding: str | None) -> str:
    fix = "export the record again, or set data.skip_bad=true (--skip-bad)"
    try:
        return decoded(content, where, charset or encoding)
    except SettingsError:
        if charset is None:
            raise
        what = f"the attached document names an unknown charset, {charset!r}"
    except DataError as error:
        what = error.what.replace("the file", "the attached document", 1)
        where, fix = error.where or where, fix if charset is not None else error.fix or fix
    raise DataError(what, where=where, fix=fix)


def _media(media_type: str) -> tuple[str, str | None]:
    """`(type, charset)` of a media type with parameters; the type is in lower case, and harmless to print."""
    media = media_type.partition(";")[0].strip().lower()
    charset = CHARSET.search(media_type)
    return media if MEDIA_TYPE.fullmatch(media) else "an unknown type", charset[1] if charset else None


def _of_xml(content: bytes, where: str) -> list[Section]:
    """The sections of a CDA document; another XML document is no text."""
    documents = clinical_documents(xml_root(Document("attachment", where, content)))
    if not documents:
        raise NotText(UnsupportedFormat("XML that is no CDA document", OTHER.advice))
    return [section for document in documents for section in sections_of(document)]
