# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decrypt the operator's secrets on the controller, with the passwords that Ansible was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

from ..plugin_utils import events, vaults
from ..plugin_utils.assemble import COLLECTION
from ..plugin_utils.catalogue import load_catalogue
from ..plugin_utils.faults import ConfigurationError, Fault, Place, shown_path

_OPTIONS = {"environment": {"type": "str", "required": True}, "configs": {"type": "path"}}
_FIX = "give its password with --vault-password-file, ANSIBLE_VAULT_PASSWORD_FILE or --ask-vault-pass"


class ActionModule(ActionBase):
    """The secrets of one environment; no connection is opened."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the secrets by ``service.name``."""
        super().run(tmp, task_vars)
        if not self._task.no_log:
            raise AnsibleActionFail("this task returns secrets: give it no_log: true")
        _validation, options = self.validate_argument_spec(argument_spec=_OPTIONS)
        configs = Path(options["configs"]) if options["configs"] else COLLECTION / "configs"
        try:
            secrets = self._secrets(configs, options["environment"])
        except ConfigurationError as error:
            host = (task_vars or {}).get("inventory_hostname", "localhost")
            events.emit("configuration.invalid", host, faults=[fault.as_dict() for fault in error.faults])
            raise AnsibleActionFail(f"the secrets cannot be used:\n{error}") from None
        return {"changed": False, "secrets": secrets}

    def _secrets(self, configs: Path, environment: str) -> dict[str, str]:
        path = vaults.vault_of(configs, environment)
        if path is None:
            return {}
        text = self._decrypted(vaults.refuse_plain(path), path)
        return vaults.secrets_in(text, path, load_catalogue(COLLECTION / "services"))

    def _decrypted(self, text: str, path: Path) -> str:
        vault, place = self._loader._vault, Place(shown_path(path))
        if not vault.secrets:
            raise ConfigurationError([Fault("is encrypted, and no password was given", place, fix=_FIX)])
        try:
            plain: bytes = vault.decrypt(text.encode())
            return plain.decode()
        except UnicodeDecodeError:
            raise ConfigurationError([Fault("its decrypted text is not UTF-8", place)]) from None
        except AnsibleError:
            message = "cannot be opened with the password that was given"
            raise ConfigurationError([Fault(message, place, fix=_FIX)]) from None
