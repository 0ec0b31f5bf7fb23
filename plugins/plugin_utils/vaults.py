# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's own secrets: one Ansible Vault file an environment, ``configs/secrets/<environment>.vault``.

Which file, and what its decrypted text means. Pure: an adapter decrypts. No fault here holds a value.
"""

from __future__ import annotations

from pathlib import Path

from .catalogue import Catalogue
from .documents import parse_document, read_text
from .faults import ConfigurationError, Fault, Place, nearest, shown_path
from .syntax import dotted

HEADER = "$ANSIBLE_VAULT;"
KEY = "kos_secrets"

# The specification's tree calls the environment of a developer's machine `local`, and its vault `development`.
_ALSO = {"local": "development"}


def vault_of(configs: Path, environment: str | None) -> Path | None:
    """The vault of an environment, where it has one. Raises ConfigurationError for one that is not encrypted."""
    if not environment:
        return None
    names = [environment, _ALSO.get(environment)]
    found = [path for name in names if name and (path := configs / "secrets" / f"{name}.vault").exists()]
    if len(found) > 1:
        message = " and ".join(path.name for path in found) + f" are both of the environment {environment}"
        raise ConfigurationError([Fault(message, Place(shown_path(found[0].parent)), fix="keep one of them")])
    for path in found:
        refuse_plain(path)
    return found[0] if found else None


def refuse_plain(path: Path) -> str:
    """The encrypted text of a vault. Raises ConfigurationError when it is not encrypted, or cannot be read."""
    text = read_text(path)
    if not text.startswith(HEADER):
        shown = shown_path(path)
        fix = f"ansible-vault encrypt {shown}; if it was ever committed, change what it holds"
        raise ConfigurationError([Fault("is not encrypted", Place(shown, 1), fix=fix)])
    return text


def secrets_in(text: str, path: Path, catalogue: Catalogue) -> dict[str, str]:
    """The secrets by ``service.name`` that a decrypted vault holds. Raises ConfigurationError."""
    shown = shown_path(path)
    try:
        document = parse_document(text, shown)
    except ConfigurationError as error:
        # What a parser says may quote what it read.
        places = [Fault("its decrypted text is not valid YAML", fault.place) for fault in error.faults]
        raise ConfigurationError(places) from None
    secrets = document.data.get(KEY)
    if list(document.data) != [KEY] or not isinstance(secrets, dict):
        example = f"{KEY}: {{valkey.password: …}}"
        raise ConfigurationError([Fault(f"must hold {KEY} and nothing else", Place(shown), fix=example)])
    known = {f"{name}.{secret.name}" for name, service in catalogue.services.items() for secret in service.secrets}
    faults = []
    for name, value in secrets.items():
        place, key = document.place((KEY, name)), dotted((KEY, name))
        if name not in known:
            faults.append(Fault("no service has a secret of this name", place, key, nearest(name, known)))
        elif not isinstance(value, str) or not value:
            faults.append(Fault("must be text", place, key, "put it in quotes"))
        elif not value.isprintable() or "@kos:" in value:
            faults.append(Fault("must be one line of plain text", place, key))
    if faults:
        raise ConfigurationError(faults)
    return {name: str(value) for name, value in secrets.items()}
