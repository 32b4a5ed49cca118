"""What is trained of one record of each kind of text that people have in files: read, rendered, tokenized, decoded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.outcome import ReadOptions
from lora_med.data.reading import read_records
from lora_med.prompts.render import render
from lora_med.prompts.tokens_and_labels import tokenize_rows
from tests.data.examples_clinical import CDA, COMPOSITION, PLAIN
from tests.tiny import make_tokenizer

JATS = (
    '<article><front><article-meta><article-id pub-id-type="doi">10.1/x</article-id><title-group><article-title>Iron'
    "</article-title></title-group><abstract><p>An abstract.</p></abstract></article-meta></front><body><sec>"
    '<title>Results</title><p>It rose [<xref ref-type="bibr" rid="1">1</xref>].</p></sec></body></article>'
)
NBIB = "PMID- 21\nTI  - Iron in\n      blood.\nAB  - AIM: To see iron. RESULTS: It\n      rose.\n"
TRIAL = (
    "<clinical_study><id_info><nct_id>NCT00000005</nct_id></id_info><brief_title>Iron</brief_title><brief_summary>"
    "<textblock>\n   It is raised to 10\n   mg. Then not.\n  </textblock></brief_summary></clinical_study>"
)
TRAINED = {
    ("pmc", "a.xml", JATS): "Iron\nAbstract\nAn abstract.\n\nResults\nIt rose.",
    ("pubmed", "a.nbib", NBIB): "Iron in blood.\nAIM: To see iron.\nRESULTS: It rose.",
    ("clinicaltrials", "a.xml", TRIAL): "Iron\nSummary: It is raised to 10 mg. Then not.",
    ("plain_text", PLAIN.file, PLAIN.content): "  HISTORY: she has Ménière's disease.\n\nPlan: rest.",
    ("fhir", "a.json", json.dumps(COMPOSITION)): "Visit\nHistory\nIron low.\n\nDrugs\nDrug | Dose\nIron | 5 mg",
    (
        "cda",
        "a.xml",
        CDA.content,
    ): "Visit summary\nAllergies\n- Gold\n- Silver\nsince 2001\n\nHospital course\nIron rose.\n"
    "Laboratory\nTest | Value\nIron | 5 < 10\n\nPlan\nRest.\nWalk.",
}


@pytest.mark.parametrize(("source", "name", "content"), TRAINED, ids=[source for source, _, _ in TRAINED])
def test_every_token_of_a_text_is_trained_and_they_decode_to_it(
    source: str, name: str, content: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content.encode())
    found = find_source(source)
    records = list(read_records(found, find_inputs(found, [str(tmp_path)]), ReadOptions()))
    tokenizer = make_tokenizer(chat=True)
    (tokens,) = tokenize_rows(
        render(records, found.template_for({type(records[0])}, has_conversations=False)), tokenizer
    )
    assert all(tokens.trained[int(tokens.bos) :])
    text = tokenizer.decode(tokens.input_ids, skip_special_tokens=True)
    assert text == TRAINED[source, name, content]
