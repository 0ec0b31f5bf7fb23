# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers of an install: what the screens ask, and what an unattended install reads from a file.

No secret is ever in them: a passphrase is typed, or read from where `Secret` says; of passwords only hashes are kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ansible_collections.kind.kos.plugins.module_utils.node.machine import luks
from ansible_collections.kind.kos.plugins.plugin_utils import public_keys
from ansible_collections.kind.kos.plugins.plugin_utils.documents import KeyPath, read_document
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError, Fault, Place
from ansible_collections.kind.kos.plugins.plugin_utils.models import Strict, parse

from . import accounts

VERSION = 1
# What crypt(5) of Debian makes and a machine may believe: yescrypt, SHA-512, SHA-256. Never a password.
_HASH = re.compile(
    r"^\$(y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}"
    r"|[56]\$(rounds=\d+\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43,86})\Z"
)
_QUOTED = re.compile(r"'[^']*'|(?<=the tag )\S+")
_HOSTNAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_USER = r"^[a-z_][a-z0-9_-]{0,31}$"
_KEYBOARD = r"^[a-z]{2,8}(\([A-Za-z0-9_-]{1,32}\))?$"
_LOCALE = r"^(C|POSIX|[A-Za-z_]+\.UTF-8(@[a-z]+)?)$"
_ZONE = r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$"
_CIDR, _NO_CIDR = (
    r"^[0-9a-fA-F.:]+/\d{1,3}$",
    "no address with the length of its network: it looks like 192.0.2.7/24",
)
_CREDENTIAL = r"^[A-Za-z0-9_.-]{1,64}$"
_URL = r"^https?://[^\s/]+(/\S*)?$"
_THUMBPRINT = r"^[A-Za-z0-9_-]{20,100}$"
_NIC = r"^[A-Za-z0-9_.:*-]{1,32}$"
_SSID_BYTES = 32
# In place of a hash that must not lie about; well-formed, and no password has it.
FORGOTTEN = f"$6$forgotten${'.' * 86}"
# RFC 9106 and design: whoever asks for less than this gets it only on a medium that was built for tests.
ARGON2ID_FLOOR_KIB = luks.FLOOR_KIB


def hash_of_password(text: str) -> str:
    """The text, where it is one. Raises ValueError, without it."""
    if not _HASH.match(text):
        raise ValueError("no hash that Debian knows: make one with mkpasswd, or leave it away")
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it holds a line break or a control character")
    return text


def _full_name(text: str) -> str:
    # passwd(5): a colon ends the field, a comma begins the room number.
    if set(text) & set(":,"):
        raise ValueError("a full name has no colon and no comma: /etc/passwd keeps it between such")
    return _printable(text)


def _user(text: str) -> str:
    if accounts.taken(text):
        raise ValueError("it is an account or a group of the system itself: choose another name")
    return text


def _address(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        raise ValueError("no address: it looks like 192.0.2.1 or 2001:db8::1") from None
    return text


def _network(text: str) -> str:
    try:
        ip_interface(text)
    except ValueError:
        raise ValueError(_NO_CIDR) from None
    return text


def _ssid(text: str) -> str:
    # IEEE 802.11: 32 bytes, whatever the letters.
    if len(text.encode()) > _SSID_BYTES:
        raise ValueError(f"the name of a Wi-Fi network has {_SSID_BYTES} bytes at most")
    return _printable(text)


def _term(text: str) -> str:
    # Disks without a serial number, and without a model, have an empty one: it would match each of them.
    if not text.strip():
        raise ValueError("it is empty, which would be any disk that has none: leave the key away, or name another")
    return text


def _like(pattern: str, said: str) -> BeforeValidator:
    """A sentence in place of a regular expression, where a text does not fit it."""

    def fitting(value: Any) -> Any:
        if isinstance(value, str) and not re.search(pattern, value):
            raise ValueError(said)
        return value

    return BeforeValidator(fitting)


def _instead(kind: type, said: str) -> BeforeValidator:
    """A sentence in place of what pydantic says of a value that is of another kind."""

    def fitting(value: Any) -> Any:
        if not isinstance(value, kind):
            raise ValueError(said)
        return value

    return BeforeValidator(fitting)


def _mapping(said: str) -> Any:
    """A sentence in place of *a valid dictionary*, where somebody wrote a plain value."""

    def shaped(cls: type[BaseModel], value: Any) -> Any:
        if not isinstance(value, dict | cls):
            raise ValueError(said)
        return value

    return model_validator(mode="before")(shaped)


PasswordHash = Annotated[str, AfterValidator(hash_of_password)]
PublicKey = Annotated[str, AfterValidator(public_keys.checked)]
Name = Annotated[str, AfterValidator(_printable)]
Address = Annotated[str, AfterValidator(_address)]
_QUOTE = "it is no text: put it in quotes, as digits alone are a number in YAML"
Term = Annotated[str, AfterValidator(_term), _instead(str, _QUOTE)]


class DiskSelector(Strict):
    """Which disk: every key that is given must match, and exactly one disk may."""

    serial: Term | None = None
    by_id: Term | None = Field(default=None, description="a name below /dev/disk/by-id or /dev/disk/by-path")
    path: Term | None = Field(
        default=None, description="such as /dev/nvme0n1; it may be another disk at the next start"
    )
    model: Term | None = None
    bus: Literal["nvme", "sata", "usb", "virtio", "scsi", "mmc"] | None = None
    min_gb: Annotated[int, Field(ge=1)] | None = None
    max_gb: Annotated[int, Field(ge=1)] | None = None

    _shape = _mapping("say what the disk is known by, such as {serial: S6XNNG0R1} or {path: /dev/sda}")


class Storage(Strict):
    """Where the node goes, and what becomes of what is there."""

    layout: Literal["whole_disk", "free_space", "mirror"] = Field(
        default="whole_disk", description="free_space: beside what is there; mirror: two disks, the same on both"
    )
    disk: DiskSelector = Field(default_factory=DiskSelector, description="without a key: the only disk there is")
    second: DiskSelector | None = Field(default=None, description="the other half of a mirror")
    data: DiskSelector | None = Field(default=None, description="a disk of its own for /var and /home")
    swap: Literal["zram", "none"] = Field(default="zram", description="zram: in memory, compressed")

    @model_validator(mode="after")
    def _mirror(self) -> Self:
        if (self.layout == "mirror") != (self.second is not None):
            raise ValueError("a mirror, and nothing else, has a second disk: storage.second")
        return self


class Secret(Strict):
    """Where a secret comes from: a person at the screen, a credential of systemd, a file beside the answers."""

    credential: (
        Annotated[
            str, Field(pattern=_CREDENTIAL), _like(_CREDENTIAL, "the name of a credential: letters, digits and ._-")
        ]
        | None
    ) = None
    file: str | None = Field(default=None, description="beside the answers; it is never copied")
    prompt: bool = False

    _shape = _mapping(
        "no secret stands in this file: write {file: NAME} of a file beside it, {credential: NAME}, or {prompt: true}"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum((self.credential is not None, self.file is not None, self.prompt)) != 1:
            raise ValueError("exactly one of credential, file and prompt: true")
        return self


class Argon2id(Strict):
    """What one guess at the passphrase costs. Only for tests: without it the machine's memory decides."""

    memory_kib: Annotated[int, Field(ge=32, le=4 << 20)]
    iterations: Annotated[int, Field(ge=4, le=64)] = 4
    threads: Annotated[int, Field(ge=1, le=4)] = 1


class Tpm2(Strict):
    """Unlock by the machine's own chip; enrolled on the first boot on which Secure Boot is enforced."""

    pin: Secret | None = None

    _shape = _mapping("write {pin: {file: NAME}} or {pin: {prompt: true}}, or {} for a TPM that asks for no PIN")


class Tang(Strict):
    """Unlock by a server of the same network."""

    url: Annotated[str, Field(pattern=_URL), _like(_URL, "an address on the web, such as http://192.0.2.9")]
    thumbprint: Annotated[
        str, Field(pattern=_THUMBPRINT), _like(_THUMBPRINT, "what tang-show-keys prints on the server")
    ]


class RemoteUnlock(Strict):
    """An SSH server before the disk is open, for a machine without a screen."""

    ssh_keys: Annotated[list[PublicKey], Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] = 22


class Encryption(Strict):
    """How the disk is locked. A passphrase always opens it; the others open it too."""

    passphrase: Secret = Field(default_factory=lambda: Secret(prompt=True))
    recovery_key: bool = Field(
        default=True, description="shown once at the end; where nobody watches none is made, and true is refused"
    )
    argon2id: Argon2id | None = None
    tpm2: Tpm2 | None = None
    fido2: bool = False
    tang: Tang | None = None
    remote_unlock: RemoteUnlock | None = None
    secure_boot: Literal["stock", "own"] = Field(
        default="stock", description="stock: the keys computers are sold with; own: keys made on this machine"
    )


class Vlan(Strict):
    """A network within a network."""

    id: Annotated[int, Field(ge=1, le=4094)]

    _shape = _mapping("write its number as {id: 7}")


class Wifi(Strict):
    """A wireless network."""

    ssid: Annotated[str, Field(min_length=1, max_length=32), AfterValidator(_ssid)]
    passphrase: Secret


class Interface(Strict):
    """One network card, by its name or a pattern of names."""

    match: Annotated[
        str, Field(pattern=_NIC), _like(_NIC, "the name of a network card or a pattern of names, such as enp1s0 or en*")
    ] = "en*"
    dhcp: bool = Field(default=True, description="without it `addresses` has one at least")
    addresses: list[Annotated[str, Field(pattern=_CIDR), _like(_CIDR, _NO_CIDR), AfterValidator(_network)]] = Field(
        default=[], description="with the length of the network: 192.0.2.7/24"
    )
    gateway: Address | None = None
    dns: list[Address] = Field(default=[], description="name servers")
    vlan: Vlan | None = None
    wifi: Wifi | None = None

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        if not self.dhcp and not self.addresses:
            raise ValueError("without dhcp it needs addresses, such as 192.0.2.7/24")
        return self

    @model_validator(mode="after")
    def _led_out(self) -> Self:
        if self.gateway is None:
            return self
        at = ip_address(self.gateway)
        own = [one for one in map(ip_interface, self.addresses) if one.version == at.version]
        # A router of IPv6 has an address of the cable itself; by DHCP nobody knows the network yet.
        reached = at.is_link_local or (self.dhcp and not own) or any(at in one.network for one in own)
        if not reached:
            raise ValueError("its gateway is in none of its networks: give an address of the same network")
        if any(at == one.ip for one in own):
            raise ValueError("its gateway is its own address: give the router's")
        return self


class User(Strict):
    """Who may log in."""

    name: Annotated[
        str, Field(pattern=_USER), _like(_USER, "small letters, digits, - and _, such as anna"), AfterValidator(_user)
    ] = "kos"
    full_name: Annotated[str, Field(max_length=100), AfterValidator(_full_name)] = ""
    password_hash: PasswordHash | None = Field(default=None, description="what mkpasswd makes of the password")
    ssh_keys: list[PublicKey] = Field(default=[], description="lines of .pub files")

    @model_validator(mode="before")
    @classmethod
    def _no_password(cls, value: Any) -> Any:
        # Whoever is told of `password_hash` alone pastes the password there.
        if isinstance(value, dict) and "password" in value:
            raise ValueError("password: none stands in this file: put what mkpasswd makes of it at password_hash")
        return value


class Confirm(Strict):
    """Leave to destroy, for an install that nobody watches: the serial number of each disk that may be wiped."""

    wipe: Annotated[
        list[Annotated[str, _instead(str, _QUOTE)]], _instead(list, "it is a list, also of one disk: [S6XNNG0R1]")
    ] = []
    again: bool = Field(default=False, description="also a disk that these very answers have installed already")


class Answers(Strict):
    """Version 1 of the file."""

    # Somebody will write a password where a hash or a place belongs: no fault shows what it was.
    model_config = ConfigDict(hide_input_in_errors=True)

    version: Annotated[Literal[1], _instead(int, "write version: 1, without quotes")]
    profile: Annotated[str, AfterValidator(_printable)] | None = Field(
        default=None, description="a profile of the medium; default: the one it was built for"
    )
    environment: Annotated[str, AfterValidator(_printable)] | None = None
    settings: dict[str, Any] = Field(default={}, description="a layer of configuration, over the profile's own")
    accept_shortfall: list[Literal["cpu", "memory", "disk", "gpu", "network"]] = Field(
        default=[], description="of what this machine may have less than the profile asks for"
    )
    hostname: Annotated[
        str,
        Field(pattern=_HOSTNAME),
        _like(_HOSTNAME, "small letters, digits and -, such as attic; no dot, 63 at most"),
    ] = "kos"
    locale: Annotated[str, Field(pattern=_LOCALE), _like(_LOCALE, "a locale in UTF-8, such as de_DE.UTF-8")] = "C.UTF-8"
    language: Literal["en", "de"] = Field(default="en", description="what the installer's own screens speak")
    keyboard: Annotated[
        str,
        Field(pattern=_KEYBOARD, description="as XKB has it: de, ch(fr), us(dvorak)"),
        _like(_KEYBOARD, "a keyboard as XKB calls it, such as de, ch(fr) or us(dvorak)"),
    ] = "us"
    timezone: Annotated[str, Field(pattern=_ZONE), _like(_ZONE, "a time zone by its name, such as Europe/Berlin")] = (
        "UTC"
    )
    storage: Storage = Storage()
    encryption: Encryption = Encryption()
    network: list[Interface] = [Interface()]
    user: User = User()
    confirm: Confirm = Confirm()
    after: Literal["reboot", "power_off", "wait"] = Field(
        default="wait", description="what the machine does when it is installed and nobody watches"
    )

    def digest(self) -> str:
        """SHA-256 over what makes the node: neither who confirmed it, nor where its secrets come from."""
        # Of a password it is enough whether there is one: a journal keeps no more.
        asked = self.forgetful().model_dump(mode="json", exclude={"confirm", "after"})
        asked["encryption"]["passphrase"] = asked["encryption"]["recovery_key"] = None
        # A journal does not keep it.
        asked["user"]["password_hash"] = self.user.password_hash is not None
        if self.encryption.tpm2 and self.encryption.tpm2.pin:
            asked["encryption"]["tpm2"]["pin"] = None
        for interface in asked["network"]:
            if interface["wifi"]:
                interface["wifi"]["passphrase"] = None
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def forgetful(self) -> Self:
        """The same without the hash of a password: for where anybody can read. It is asked for again."""
        if not self.user.password_hash:
            return self
        return self.model_copy(update={"user": self.user.model_copy(update={"password_hash": FORGOTTEN})})

    def reminded(self, password_hash: str | None) -> Self:
        """The same with the hash that was forgotten. Raises ValueError where there is still none, or no good one."""
        if self.user.password_hash != FORGOTTEN:
            return self
        if password_hash in (None, FORGOTTEN):
            raise ValueError("the password of the user was not given again")
        return self.model_copy(
            update={"user": self.user.model_copy(update={"password_hash": hash_of_password(str(password_hash))})}
        )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if not self.user.ssh_keys and not self.user.password_hash:
            raise ValueError("nobody could log in: give user.ssh_keys or user.password_hash")
        return self

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        tags = [one.vlan.id for one in self.network if one.vlan is not None]
        if twice := sorted({tag for tag in tags if tags.count(tag) > 1}):
            raise ValueError(f"network: VLAN {twice[0]} is asked for twice: give its addresses in one entry")
        return self


def load(path: Path) -> Answers:
    """The answers in a file of YAML, JSON or TOML. Raises ConfigurationError, whose faults show no value."""
    return placed(path)[0]


def placed(path: Path) -> tuple[Answers, Callable[[KeyPath], Place]]:
    """The answers in a file, and where in it each key stands. Raises ConfigurationError as `load` does."""
    try:
        document = read_document(path)
    except ConfigurationError as error:
        raise ConfigurationError(map(_discreet, error.faults)) from None
    return parse(Answers, document.data, document.place), document.place


def _discreet(fault: Fault) -> Fault:
    """A fault of syntax without what it quotes: it may be half a password."""
    return replace(fault, message=_QUOTED.sub("…", fault.message))


def schema() -> str:
    """The JSON Schema of the file."""
    return json.dumps(Answers.model_json_schema(), indent=1, sort_keys=True) + "\n"
