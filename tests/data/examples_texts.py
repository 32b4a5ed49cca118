"""Examples whose records are passages: articles, studies, notes."""

from __future__ import annotations

import json

from lora_med.data.record import Annotated, Bibliography, Passage, Section, Span, Term
from tests.data.example import Example

PUBMED = Example(
    "pubmed26n0001.xml",
    """<?xml version="1.0"?><!DOCTYPE PubmedArticleSet SYSTEM "http://localhost:1/x.dtd"><PubmedArticleSet>
<PubmedArticle><MedlineCitation><PMID Version="1">21</PMID><Article><Journal><JournalIssue>
<PubDate><Year>2001</Year><Month>May</Month></PubDate></JournalIssue><Title>Blood &amp; iron</Title></Journal>
<ArticleTitle>Iron <i>in</i> blood.</ArticleTitle>
<Abstract><AbstractText Label="AIM" NlmCategory="OBJECTIVE">To see &lt;iron&gt;.</AbstractText>
<AbstractText Label="RESULTS">H<sub>2</sub>O
 rose.</AbstractText></Abstract><Language>eng</Language><Language>fre</Language><PublicationTypeList>
<PublicationType UI="D016428">Journal Article</PublicationType></PublicationTypeList></Article><MeshHeadingList>
<MeshHeading><DescriptorName UI="D007501" MajorTopicYN="Y">Iron</DescriptorName><QualifierName UI="Q000097"
MajorTopicYN="N">blood</QualifierName></MeshHeading></MeshHeadingList></MedlineCitation></PubmedArticle>
<PubmedArticle><MedlineCitation><PMID Version="2">22</PMID><Article><Journal><JournalIssue>
<PubDate><MedlineDate>1998 Dec-1999 Jan</MedlineDate></PubDate></JournalIssue></Journal>
<ArticleTitle>[Old].</ArticleTitle>
<Abstract><AbstractText>New. (ABSTRACT TRUNCATED AT 250 WORDS)</AbstractText></Abstract></Article>
</MedlineCitation></PubmedArticle>
<PubmedArticle><MedlineCitation><PMID Version="1">22</PMID><Article><Abstract><AbstractText>Old.</AbstractText>
</Abstract></Article></MedlineCitation></PubmedArticle>
<PubmedArticle><MedlineCitation><PMID Version="1">23</PMID><Article><Abstract><AbstractText>Gone.</AbstractText>
</Abstract></Article></MedlineCitation></PubmedArticle><DeleteCitation><PMID Version="1">23</PMID></DeleteCitation>
</PubmedArticleSet>
""",
    (
        Passage(
            "pmid:21",
            "21",
            "pubmed",
            "AIM: To see <iron>.\nRESULTS: H2O rose.",
            "Iron in blood.",
            (Section("To see <iron>.", "AIM", "OBJECTIVE"), Section("H2O rose.", "RESULTS")),
            Bibliography(
                1,
                2001,
                "Blood & iron",
                ("eng", "fre"),
                (Term("D016428", "Journal Article"),),
                (Term("D007501", "Iron"),),
            ),
        ),
        Passage("pmid:22", "22", "pubmed", "New.", "Old", (Section("New."),), Bibliography(2, 1998)),
    ),
    {"deleted": 1, "superseded": 1},
)

PMC = Example(
    "a.nxml",
    """<?xml version="1.0"?><article xml:lang="en"><front><article-meta>
<article-id pub-id-type="pmid">31</article-id><article-id pub-id-type="pmc">PMC7</article-id>
<title-group><article-title>Iron<xref ref-type="fn" rid="f">*</xref> and <italic>E. coli</italic></article-title>
</title-group><abstract><p>Short.</p></abstract><abstract abstract-type="graphical"><p>Picture.</p></abstract>
</article-meta></front><body><p>Iron is old [<xref ref-type="bibr" rid="1">1</xref>-<xref ref-type="bibr" rid="3"
>3</xref>], bound<sup><xref ref-type="bibr" rid="4">4</xref></sup> and known (<xref ref-type="bibr" rid="5">Roe
<italic>et al</italic>, 1995</xref>; <xref ref-type="bibr" rid="6">Doe 2001</xref>). <xref ref-type="bibr" rid="6">Doe
(2001)</xref> saw it (Figure <xref ref-type="fig" rid="g">1</xref>).</p>
<sec sec-type="methods"><title>Methods:</title><sec><title>Cells</title><p>Two:<list><list-item><p>one</p></list-item>
<list-item><p>two</p></list-item></list></p><fig><label>1</label><caption><p>Seen.</p></caption></fig></sec></sec>
<sec><title>Competing interests</title><p>None.</p></sec></body>
<back><ack><p>Thanks.</p></ack></back></article>
""",
    (
        Passage(
            "pmc:PMC7",
            "31",
            "pmc",
            "Abstract\nShort.\n\nIron is old, bound and known. Doe (2001) saw it (Figure 1).\n\nCells\nTwo:\none\ntwo",
            "Iron* and E. coli",
            (
                Section("Short.", "Abstract", "ABSTRACT"),
                Section("Iron is old, bound and known. Doe (2001) saw it (Figure 1)."),
                Section("Two:\none\ntwo", "Cells", "METHODS"),
            ),
        ),
    ),
    {},
)

STUDY = {
    "protocolSection": {
        "identificationModule": {"nctId": "NCT00000001", "briefTitle": "Iron  at Night"},
        "descriptionModule": {"briefSummary": "Iron \\[Fe\\] at 5 \\* 2 mg."},
        "conditionsModule": {"conditions": ["Anemia", "Fatigue"]},
        "armsInterventionsModule": {"interventions": [{"name": "Iron", "description": "by mouth"}]},
        "outcomesModule": {"primaryOutcomes": [{"measure": "Ferritin", "timeFrame": "4 weeks"}]},
        "eligibilityModule": {
            "eligibilityCriteria": "Inclusion Criteria:\n\n* Age \\> 18\n\nExclusion Criteria:\n\n* None",
            "sex": "FEMALE",
            "minimumAge": "18 Years",
        },
        "contactsLocationsModule": {"centralContacts": [{"name": "Ann Roe", "email": "ann@example.org"}]},
    }
}
STUDIES = Example(
    "page.json",
    json.dumps({"studies": [{"protocolSection": {"identificationModule": {"nctId": "NCT00000002"}}}, STUDY]}),
    (
        Passage(
            "ctgov:NCT00000001",
            "NCT00000001",
            "clinicaltrials",
            "Summary: Iron [Fe] at 5 * 2 mg.\nConditions: Anemia; Fatigue\nInterventions: Iron: by mouth\n"
            "Primary outcomes: Ferritin (4 weeks)\nEligibility: Inclusion Criteria:\n\n* Age > 18\n\n"
            "Exclusion Criteria:\n\n* None\nSex: female\nMinimum age: 18 Years",
            "Iron at Night",
            (
                Section("Iron [Fe] at 5 * 2 mg.", "Summary", "SUMMARY"),
                Section("Anemia; Fatigue", "Conditions", "CONDITIONS"),
                Section("Iron: by mouth", "Interventions", "INTERVENTIONS"),
                Section("Ferritin (4 weeks)", "Primary outcomes", "PRIMARY_OUTCOMES"),
                Section(
                    "Inclusion Criteria:\n\n* Age > 18\n\nExclusion Criteria:\n\n* None", "Eligibility", "ELIGIBILITY"
                ),
                Section("female", "Sex", "SEX"),
                Section("18 Years", "Minimum age", "MINIMUM_AGE"),
            ),
        ),
    ),
    {"no_text": 1},
)

NOTEEVENTS = Example(
    "NOTEEVENTS.csv",
    '"ROW_ID","SUBJECT_ID","HADM_ID","CHARTDATE","CATEGORY","DESCRIPTION","ISERROR","TEXT"\n'
    '174,22532,167853,"2151-08-04","Discharge summary ","Report",,"Admission Date:  [**2151-7-16**]\n'
    'Service: ""MED""\n\n'
    "Seen by [**First Name8 (NamePattern2) 4**] at [**Hospital1 18**], [**Age over 90 **], "
    "call [**Telephone/Fax (1) 1**]"
    ', [**Thing**].\n"\n'
    '175,22532,167853,"2151-08-04","Nursing","Report",1,"Wrong patient."\n'
    '176,13702,107527,"2118-06-14","Echo","Report",,""\n',
    (
        Passage(
            "mimic3:174",
            "mimic3:22532",
            "mimic3",
            'Admission Date:  [DATE]\nService: "MED"\n\nSeen by [NAME] at [HOSPITAL], [AGE], call [PHONE], [REDACTED].',
            "Discharge summary",
            (
                Section("[DATE]", "Admission Date"),
                Section('"MED"\n\nSeen by [NAME] at [HOSPITAL], [AGE], call [PHONE], [REDACTED].', "Service"),
            ),
        ),
    ),
    {"marked_error": 1, "no_text": 1},
)

DISCHARGE = Example(
    "discharge.csv",
    "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n"
    '10000032-DS-21,10000032,22595853,DS,21,2180-05-07 00:00:00,,"Name:  ___\n \nHospital Course:\nMs. ___ did well.\n'
    '______\n"\n',
    (
        Passage(
            "mimic4_note:10000032-DS-21",
            "mimic4:10000032",
            "mimic4_note",
            "Name:  [REDACTED]\n \nHospital Course:\nMs. [REDACTED] did well.\n______",
            "Discharge summary",
            (Section("[REDACTED]", "Name"), Section("Ms. [REDACTED] did well.\n______", "Hospital Course")),
        ),
    ),
    {},
)

BIOC = Example(
    "set.bioc.xml",
    """<?xml version="1.0"?><!DOCTYPE collection SYSTEM "BioC.dtd"><collection><source>x</source><date></date><key/>
<document><id>41</id><passage><infon key="type">title</infon><offset>0</offset><text>On \u03b1-iron</text>
<annotation id="1"><infon key="type">Chemical</infon><location offset="3" length="6"/><text>\u03b1-iron</text>
</annotation></passage><passage><offset>11</offset><sentence><offset>11</offset><text>Iron burns.</text>
<annotation id="2"><infon key="type">Chemical</infon><location offset="11" length="4"/><text>Iron</text></annotation>
<annotation id="3"><infon key="type">Both</infon><location offset="3" length="1"/><location offset="11" length="4"/>
<text>\u03b1 Iron</text></annotation></sentence></passage></document>
<document><id>42</id><passage><offset>0</offset><text>\u03b1 iron</text><annotation id="1"><infon key="type">C</infon>
<location offset="3" length="4"/><text>iron</text></annotation></passage></document>
<document><id>43</id><passage><offset>0</offset></passage></document></collection>
""",
    (
        Annotated(
            "bioc:41",
            "41",
            "bioc",
            "On \u03b1-iron  Iron burns.",
            (Span(3, 9, "Chemical", "\u03b1-iron"), Span(11, 15, "Chemical", "Iron")),
        ),
        Annotated("bioc:42", "42", "bioc", "\u03b1 iron", (Span(2, 6, "C", "iron"),)),
    ),
    {"no_text": 1},
    parts_dropped={"discontinuous": 1},
)
