"""How to obtain each source: what to do, and for open ones the files themselves, pinned by commit and SHA-256.

PubMed's files change every year, so theirs is the checksum published beside them. Nothing here is fetched without a
request.
"""

from __future__ import annotations

import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lora_med.errors import InputMissingError, IntegrityError
from lora_med.files import BLOCK_BYTES, atomic_stream

GITHUB = "https://raw.githubusercontent.com"
PUBMED = "https://ftp.ncbi.nlm.nih.gov/pubmed"
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Remote:
    """A file to download; `digest` is its SHA-256, or None where an .md5 file is beside it."""

    url: str
    digest: str | None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Howto:
    """How to obtain a source: in words, and the files that are open to all."""

    how: str
    files: tuple[Remote, ...] = ()


def _pinned(repository: str, commit: str, *files: tuple[str, str]) -> tuple[Remote, ...]:
    return tuple(Remote(f"{GITHUB}/{repository}/{commit}/{path}", digest) for path, digest in files)


FILES: dict[str, tuple[Remote, ...]] = {
    "bc5cdr": _pinned(
        "JHnlp/BioCreative-V-CDR-Corpus",
        "3a4ab7038d97b46ebd5298700ce4f34390c7ec82",
        ("CDR_TrainingSet.PubTator.txt", "7afcec134e3d4871e74b0398d92850d3c9ac94c0bdc780003f2d60184c012bd8"),
        ("CDR_DevelopmentSet.PubTator.txt", "9e18d8e700168887a7919e62f67ac2ce2357e3f409a48ee992906abdd80fe3e5"),
    ),
    "ncbi_disease": _pinned(
        "spyysalo/ncbi-disease",
        "5a266c6fc76fb2b5184cfa397ff0a5ecdb133aec",
        (
            "original-data/train/NCBItrainset_corpus.txt",
            "f311381b28a6d0f641f57f4a963bb83619c2bdec5cd9caabb1381f894d5db817",
        ),
        (
            "original-data/devel/NCBIdevelopset_corpus.txt",
            "02db559974624ae9cbe6cd95d64d953e6926bb63afb6b25b63e53bd8b41a4b55",
        ),
    ),
    "conll": _pinned(
        "cambridgeltl/MTL-Bioinformatics-2016",
        "df0df02fae6dbb87d88ffcf323b9096528f06f84",
        ("data/BC5CDR-IOB/train.tsv", "b731361c0ed73afd04cc5fdad39afcdfd8f325d6e46c282339185a91d1af4c14"),
        ("data/BC5CDR-IOB/devel.tsv", "b909de65c4f7e3c23bb09ad52d654cdc92e96db941abe1a5dcf6f6010c03cff5"),
    ),
    "medmcqa": _pinned(
        "Teddy-XiongGZ/MIRAGE",
        "392943af99cd94cafd50a0de2e7fca24bbf65494",
        ("rawdata/medmcqa/dev.json", "a2b5f53890f4e742b728378fb847bc5338088d48ea01218676379f587270af31"),
    ),
    "meqsum": _pinned(
        "abachaa/MeQSum",
        "51e36cf65c12602333b6fdc3ae8ecf10430529f7",
        (
            "MeQSum_ACL2019_BenAbacha_Demner-Fushman.xlsx",
            "abedd939d5014306ca576522416bf69103e85dc8fcf1668a4099e8b84a39eeea",
        ),
    ),
    "mts_dialog": _pinned(
        "abachaa/MTS-Dialog",
        "3ff0801933608d6f570468c13125125fb5cabdea",
        ("Main-Dataset/MTS-Dialog-TrainingSet.csv", "65a28681dd59fc159681ea026e44610f2af7bc64a0e7f892d763eb03d9f503dc"),
        (
            "Main-Dataset/MTS-Dialog-ValidationSet.csv",
            "227206520c4534381c0d7fba6d3f09319a9af5a6d9603a93c0341af1198e3958",
        ),
    ),
    "aci_bench": _pinned(
        "wyim/aci-bench",
        "b909b2bb9cf1d19de08df15cddde7bd0179665e4",
        ("data/challenge_data/train.csv", "6c778d4ac5e6cc6f1964786f9286e8d765c210f22ed6b57f83aff8497409cea4"),
        ("data/challenge_data/valid.csv", "6629e89e3fb409d2b3eceab60dc7b32fe1d3fb8d4e07795039284965522aa4d0"),
    ),
}
HOWTOS: dict[str, Howto] = {
    "pubmed": Howto(
        f"Baseline files (one a year, some 1,300 of about 30,000 records): {PUBMED}/baseline; updates, every day: "
        f"{PUBMED}/updatefiles. Give them all at once, or any of them; the order of their numbers is kept. "
        "A search on PubMed, saved with Send to, Citation manager, is read too (.nbib). "
        "Terms: https://www.nlm.nih.gov/databases/download/terms_and_conditions.html",
        (Remote(f"{PUBMED}/baseline/pubmed26n0001.xml.gz", None),),
    ),
    "pmc": Howto(
        "JATS of any publisher is read. Articles of the Open Access Subset as tar.gz packages, by license: "
        "https://ftp.ncbi.nlm.nih.gov/pub/pmc/oa_bulk. oa_comm may be used commercially, oa_noncomm may not."
    ),
    "clinicaltrials": Howto(
        "One study: https://clinicaltrials.gov/api/v2/studies/NCT01234567. A search: "
        "https://clinicaltrials.gov/api/v2/studies?query.cond=asthma&pageSize=1000, page by page with nextPageToken. "
        "All: https://clinicaltrials.gov/api/v2/studies/download?format=json.zip, or Download on any search."
    ),
    "mimic3": Howto(
        "NOTEEVENTS.csv.gz of https://physionet.org/content/mimiciii/1.4, for credentialed users who signed the data "
        "use agreement and completed its training. Keep it on an encrypted disk, and never send it to a service that "
        "keeps or reads it."
    ),
    "mimic4_note": Howto(
        "discharge.csv.gz and radiology.csv.gz of https://physionet.org/content/mimic-iv-note, for credentialed users "
        "who signed the data use agreement and completed its training. Keep them on an encrypted disk."
    ),
    "plain_text": Howto(
        "Your own notes, a text a file: `lora-med data read plain_text FOLDER --access CLASS --out F.jsonl` tries them "
        "out. The class is open, registered or credentialed. RTF, PDF and Word are saved as text first."
    ),
    "fhir": Howto(
        "A hospital's bulk export (https://hl7.org/fhir/uv/bulkdata): DocumentReference, DiagnosticReport and "
        "Composition as NDJSON, or bundles. For trials without patients: https://github.com/synthetichealth/synthea "
        "makes bundles."
    ),
    "cda": Howto(
        "C-CDA documents as an electronic health record exports them. Samples without patients: "
        "https://github.com/HL7/C-CDA-Examples."
    ),
    "pubmedqa": Howto(
        "data/ori_pqal.json of https://github.com/pubmedqa/pubmedqa (1,000 labeled questions), or on the Hub "
        "qiaojin/PubMedQA:pqa_labeled.",
    ),
    "medqa": Howto("On the Hub GBaker/MedQA-USMLE-4-options, or data_clean.zip of https://github.com/jind11/MedQA."),
    "medmcqa": Howto(
        "On the Hub openlifescienceai/medmcqa (cop counts from 0), or the makers' files (cop counts from 1): "
        "https://github.com/medmcqa/medmcqa. The 4,183 validation questions are what everybody scores.",
        FILES["medmcqa"],
    ),
    "mmlu": Howto(
        "On the Hub cais/mmlu, or data.tar of https://github.com/hendrycks/test: <subject>_dev, _val and _test.csv. "
        "The medical subjects are anatomy, clinical_knowledge, college_biology, college_medicine, medical_genetics and "
        "professional_medicine."
    ),
    "general": Howto("It ships with lora_med: assets/probe/general.jsonl; `lora-med eval --task general` finds it."),
    "medquad": Howto("The folders of https://github.com/abachaa/MedQuAD; 10 to 12 hold no answers, for copyright."),
    "bc5cdr": Howto(
        "CDR_*.PubTator.txt of the BioCreative V CDR corpus: https://biocreative.bioinformatics.udel.edu/tasks/"
        "biocreative-v/track-3-cdr.",
        FILES["bc5cdr"],
    ),
    "ncbi_disease": Howto(
        "NCBI*set_corpus.txt of https://www.ncbi.nlm.nih.gov/research/bionlp/Data/disease.", FILES["ncbi_disease"]
    ),
    "conll": Howto(
        "Any file of a token and a tag a line, such as https://github.com/cambridgeltl/MTL-Bioinformatics-2016 has "
        "(its BC5CDR is downloaded).",
        FILES["conll"],
    ),
    "bioc": Howto(
        "PMC and PubTator give articles in BioC: https://www.ncbi.nlm.nih.gov/research/bionlp/APIs/BioC-PMC."
    ),
    "brat": Howto(
        "Your own folders, or a corpus in brat's format: each text has its annotations beside it (.txt, .ann)."
    ),
    "n2c2": Howto(
        "Request the challenges at https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp and sign the data use "
        "agreement. Keep the files on an encrypted disk."
    ),
    "mts_dialog": Howto("Main-Dataset of https://github.com/abachaa/MTS-Dialog.", FILES["mts_dialog"]),
    "aci_bench": Howto("data/challenge_data of https://github.com/wyim/aci-bench.", FILES["aci_bench"]),
    "meqsum": Howto("The workbook of https://github.com/abachaa/MeQSum.", FILES["meqsum"]),
    "custom": Howto(
        "Your own rows: `lora-med data read custom FILE --column text=note --access CLASS --out F.jsonl` tries them "
        "out. The class is open, registered or credentialed; until you state it, rows are handled as credentialed."
    ),
}


def download(remote: Remote, folder: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """The file in `folder`, complete and with the right checksum; an existing one is only checked.

    Args:
        progress: called with the bytes so far and the bytes in all (0 if not known).

    Raises:
        InputMissingError: the host cannot be reached or has no such file.
        IntegrityError: the download has another checksum; nothing is written.
        OutputError, DiskError: it cannot be written.
    """
    target = folder / remote.name
    algorithm = "md5" if remote.digest is None else "sha256"
    wanted = remote.digest or _md5_beside(remote)
    if target.is_file() and _digest(target, algorithm) == wanted:
        return target
    checksum = hashlib.new(algorithm)
    try:
        with urllib.request.urlopen(remote.url, timeout=TIMEOUT_SECONDS) as answer, atomic_stream(target) as stream:
            size, done = int(answer.headers.get("Content-Length") or 0), 0
            while block := answer.read(BLOCK_BYTES):
                stream.write(block)
                checksum.update(block)
                done += len(block)
                if progress is not None:
                    progress(done, size)
            if checksum.hexdigest() != wanted:
                raise IntegrityError(
                    f"{remote.name} came with another checksum: {checksum.hexdigest()[:16]}..., not {wanted[:16]}...",
                    where=remote.url,
                    fix="try again; if it stays so, the file there has changed",
                )
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise _unreachable(remote.url, error) from error
    return target


def _md5_beside(remote: Remote) -> str:
    try:
        with urllib.request.urlopen(f"{remote.url}.md5", timeout=TIMEOUT_SECONDS) as answer:
            text = answer.read(1024).decode("ascii", "replace")
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise _unreachable(f"{remote.url}.md5", error) from error
    match = re.search(r"\b[0-9a-f]{32}\b", text)
    if match is None:
        raise IntegrityError("the checksum beside the file is none", where=f"{remote.url}.md5", fix="try again later")
    return match[0]


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


def _unreachable(url: str, error: Exception) -> InputMissingError:
    reason = getattr(error, "reason", None) or error
    return InputMissingError(
        f"cannot be downloaded ({reason})", where=url, fix="check the network, or fetch it yourself and name its path"
    )
