"""Whether the text of data may be shown: open and registered data's, and credentialed data's with a permission."""

from __future__ import annotations

from lora_med.data.access import handled_as, require_permission
from lora_med.data.record import SHOWN_CLASSES


def may_show(access: str | None, what: str, permission: str | None) -> bool:
    """Whether text of this class is shown; `what` is named in the log where a permission is used.

    Without a permission the text of credentialed data, and of data without a stated class, is left out.

    Raises:
        NotPermittedError: a permission is stated, and is too short to be one.
    """
    if access in SHOWN_CLASSES:
        return True
    if permission is None:
        return False
    require_permission(handled_as(None), what, permission)
    return True
