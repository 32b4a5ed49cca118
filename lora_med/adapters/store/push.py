"""Push an adapter to the Hub: its verified files, private by default; credentialed data needs a permission."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lora_med.adapters.store.card import Card
from lora_med.adapters.store.memorization_bound import accept_excess, record_acceptance
from lora_med.adapters.store.published import AdapterFiles
from lora_med.adapters.store.verify import verify
from lora_med.audit_trail import recorded
from lora_med.data.access import require_permission
from lora_med.errors import IntegrityError, LoraMedError, NotPermittedError, OutputError, SettingsError
from lora_med.signatures import SIGNATURES


def push(
    folder: Path,
    repo_id: str,
    *,
    private: bool = True,
    permission: str | None = None,
    accept_memorization: str | None = None,
) -> str:
    """Upload the adapter in `folder` and return its address on the Hub.

    Only the card and the files it lists are uploaded, as the bytes that were verified, and their signatures, if the
    signed list is still true. The token comes from `hf auth login` or HF_TOKEN; it is never written. The audit trail
    gets the attempt and its outcome.

    Args:
        accept_memorization: who accepts that the adapter exceeds the bound of its memorization audit, for the card.

    Raises:
        NotPermittedError: the data's access class, the memorization audit or the Hub forbids it.
        IntegrityError: the adapter differs from its published state.
        SettingsError: the run is offline.
        OutputError: the repository is public but `private` is true, or the Hub cannot be reached.
    """
    about = {"adapter": folder.name, "to": repo_id, "private": private, "permission": permission}
    with recorded("push", **about, accept_memorization=accept_memorization) as facts:
        adapter = _permitted_files(folder, repo_id, private, permission, accept_memorization)
        facts["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in adapter.contents.items()}
        facts["address"], facts["commit"] = _upload(adapter, repo_id, private)
    return facts["address"]


def _permitted_files(
    folder: Path, repo_id: str, private: bool, permission: str | None, accept_memorization: str | None
) -> AdapterFiles:
    """The adapter's files, verified, if its data and its audit allow the push."""
    verification = verify(folder)
    adapter = verification.files
    if adapter is not None:
        check_permitted(adapter.card, private, permission)
        acceptance = accept_excess(adapter.card, f"pushing to {repo_id}", accept_memorization)
        if acceptance is not None and verification.intact:
            record_acceptance(folder, acceptance)
            verification = verify(folder)
            adapter = verification.files
    wrong = [f"{check.what}: {check.detail}" for check in verification.checks if check.outcome == "wrong"]
    if wrong or adapter is None:
        raise IntegrityError(
            f"the adapter is not intact: {'; '.join(wrong)}", where=str(folder), fix="publish it again"
        )
    return adapter


def check_permitted(card: Card, private: bool, permission: str | None = None) -> None:
    """Refuse an upload that the data's access class forbids; `permission` names who allows it.

    Raises:
        NotPermittedError: credentialed data in public, or without a written permission; or registered data in public.
    """
    if card.data.access == "credentialed" and not private:
        raise NotPermittedError(
            f"{card.name!r} learned from credentialed data ({card.data.source}); it may hold traces of patients",
            where="card.json: data.access",
            fix="share it only where the data's own agreement allows (for PhysioNet data: on PhysioNet)",
        )
    require_permission(card.data.access, f"uploading {card.name!r}, which may hold traces of patients,", permission)
    if card.data.access == "registered" and not private:
        raise NotPermittedError(
            f"{card.name!r} learned from data that needs registration ({card.data.source}), so it cannot be public",
            where="card.json: data.access",
            fix="push without --public",
        )


def _upload(adapter: AdapterFiles, repo_id: str, private: bool) -> tuple[str, str]:
    """The address of the repository, and the id of the commit there."""
    from huggingface_hub import CommitOperationAdd, HfApi, is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if is_offline_mode():
        raise SettingsError(
            "the run is offline, so nothing can be pushed", where="HF_HUB_OFFLINE", fix="unset HF_HUB_OFFLINE"
        )
    api = HfApi(library_name="lora_med")
    files = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in adapter.contents.items()
    ]
    if (adapter.folder / SIGNATURES).is_file():
        files.append(CommitOperationAdd(path_in_repo=SIGNATURES, path_or_fileobj=adapter.folder / SIGNATURES))
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id).private:
            raise OutputError(
                f"{repo_id} exists and is public", where=repo_id, fix="choose another repository, or push with --public"
            )
        commit = api.create_commit(repo_id, files, commit_message=f"Add {adapter.card.name}, made with lora_med")
    except LoraMedError:
        raise
    except HFValidationError as error:
        raise SettingsError(f"{repo_id!r} is not a repository id", fix="for example your-name/pubmed-micro") from error
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        if code in (401, 403):
            raise NotPermittedError(
                f"the Hub refuses (HTTP {code})", where=repo_id, fix="hf auth login, with a token that may write there"
            ) from error
        raise OutputError(f"the Hub answers with HTTP {code}", where=repo_id, fix="try again later") from error
    except Exception as error:  # the HTTP client and its error classes differ between versions of the library
        if not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):
            raise
        raise OutputError(
            f"the Hub cannot be reached ({type(error).__name__})", where=repo_id, fix="check the network, try again"
        ) from error
    return str(commit.repo_url), str(commit.oid)
