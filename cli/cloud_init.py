# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai cloud-init`: what a virtual machine is told at its first start so that it becomes a node."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from enum import StrEnum
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Annotated, Any

import typer

from ..plugins.module_utils.node import trust
from ..plugins.module_utils.node.files import NodeError
from ..plugins.plugin_utils import apt, cloud_init, layers, public_keys, signing
from ..plugins.plugin_utils.assemble import COLLECTION
from ..plugins.plugin_utils.cloud_init import Collection, Layer, Machine, Network, Node
from ..plugins.plugin_utils.documents import read_text
from ..plugins.plugin_utils.faults import ConfigurationError, Fault
from . import ansible, options
from .exits import Exit
from .view import errors

app = typer.Typer(
    help="Write what cloud-init reads, so that a virtual machine becomes a node at its first start.",
    no_args_is_help=True,
)

# What of a host's variables says something of the machine; all others stay where they are.
_PROFILE, _ENVIRONMENT, _SITE, _USER = "kos_profile", "kos_environment", "kos_site_layer", "kos_user_layer"
_ACCEPTED, _LOGIN = "kos_accept_shortfall", "ansible_user"
_TAKEN = (_PROFILE, _ENVIRONMENT, _SITE, _USER, _ACCEPTED, _LOGIN)

# Of the collection, what a node needs. A checkout holds what is nobody else's business: inventories, seeds, media.
_PUBLISHED = (
    *("LICENSE", "README.md", "galaxy.yml", "site.yml"),
    *("cli", "configs", "lab", "meta", "playbooks", "plugins", "roles", "services"),
)


class Shape(StrEnum):
    """How the machine becomes a node."""

    pull = "pull"
    push = "push"
    seeded = "seeded"


@app.command()
def render(
    profile: options.Profile = None,
    shape: Annotated[
        Shape,
        typer.Option(
            "--shape",
            help="pull: it fetches the signed collection and deploys itself. push: a controller does. "
            "seeded: it is made of an image of kos-image, and fetches nothing.",
        ),
    ] = Shape.pull,
    ssh_key: Annotated[
        list[Path] | None, typer.Option("--ssh-key", metavar="FILE", help="A public key that may log in.")
    ] = None,
    collection: Annotated[
        str, typer.Option("--collection", metavar="URL", help="pull: where the file of kai cloud-init publish lies.")
    ] = "",
    sha256: Annotated[
        str, typer.Option("--sha256", help="pull: take this version alone, as kai cloud-init publish printed it.")
    ] = "",
    signer: Annotated[
        Path | None,
        typer.Option("--signer", metavar="FILE", help="Public key of who signs for it; default: this controller's."),
    ] = None,
    hostname: Annotated[str | None, typer.Option("--hostname", help="Its name; default: the inventory's.")] = None,
    login: Annotated[str | None, typer.Option("--login", help="Who may log in; default: kos.")] = None,
    inventory: options.Inventory = None,
    limit: options.Limit = None,
    environment: options.Environment = None,
    site: options.Site = None,
    user: options.User = None,
    accept_shortfall: options.AcceptShortfall = None,
    mirror: Annotated[
        str, typer.Option("--apt-mirror", envvar=apt.MIRROR, help="Its mirror of Debian; default: its image's.")
    ] = "",
    security_mirror: Annotated[
        str, typer.Option("--apt-security-mirror", envvar=apt.SECURITY_MIRROR, help="The same for security updates.")
    ] = "",
    interface: Annotated[
        str,
        typer.Option(
            "--interface", help="Its card: a name or a MAC; default: the first one that is connected, by DHCP."
        ),
    ] = "",
    address: Annotated[
        str, typer.Option("--address", help="With --interface: its address, such as 192.0.2.7/24; default: DHCP.")
    ] = "",
    gateway: Annotated[str, typer.Option("--gateway", help="With --address: the way out.")] = "",
    nameserver: Annotated[
        list[str] | None, typer.Option("--nameserver", help="With --address: who knows names.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for all of its files; default: print user-data.")
    ] = None,
) -> None:
    """Write user-data (with --output also meta-data, network-config and vendor-data) of one machine, without secrets.

    With an inventory, profile, layers, name and login are those of its host; what is given here wins.

    Examples:

      kai cloud-init render --profile personal_node --ssh-key me.pub --collection https://kos.example/kind-kos-0.1.0.tar.gz

      kai cloud-init render --shape push -i inventories/home --limit attic --ssh-key me.pub --output attic

      kai cloud-init render --shape seeded --profile personal_node --ssh-key me.pub > user-data
    """
    host, known = _host(inventory, limit)
    machine = _machine(
        ssh_key or [], hostname or host or cloud_init.HOSTNAME, login or known.get(_LOGIN) or cloud_init.LOGIN,
        mirror, security_mirror, _network(interface, address, gateway, nameserver or []),
    )  # fmt: skip
    _refuse_others(shape, {"--collection": collection, "--sha256": sha256}, Shape.pull)
    _refuse_others(shape, {"--signer": signer}, Shape.pull, Shape.push)
    if shape is Shape.push:
        documents = cloud_init.push(machine, _signer(signer))
    else:
        accepted = options.accepted_shortfalls(accept_shortfall) or known.get(_ACCEPTED, ())
        node = _node(
            profile or known.get(_PROFILE), environment or known.get(_ENVIRONMENT), site or known.get(_SITE),
            user or known.get(_USER), tuple(accepted),
        )  # fmt: skip
        if shape is Shape.pull:
            documents = cloud_init.pull(machine, node, _collection(collection, sha256, signer))
        else:
            _refuse_layers(node)
            documents = cloud_init.seeded(machine, node)
    _deliver(documents, output)


@app.command()
def publish(
    to: Annotated[Path, typer.Option("--to", help="Folder for the collection and its signature.")],
) -> None:
    """Pack this collection and sign it, for machines that fetch it (kai cloud-init render --shape pull).

    Put both files on any web server, side by side. This controller's key signs: machines believe it alone.

    Examples:

      kai cloud-init publish --to public
    """
    try:
        own = signing.signer()
        packed = _packed(to)
        content = packed.read_bytes()
        signature = own.sign_content(content, cloud_init.NAMESPACE)
    except (signing.SigningFailed, OSError) as error:
        errors.print(str(error), style="red", markup=False)
        raise typer.Exit(Exit.UNEXPECTED) from error
    beside = packed.with_name(f"{packed.name}.sig")
    beside.write_text(signature, encoding="utf-8")
    print(packed)
    print(beside)
    found = hashlib.sha256(content).hexdigest()
    errors.print(
        "put both on a web server, then: kai cloud-init render --profile NAME --ssh-key FILE"
        f" --collection https://SERVER/{packed.name} --sha256 {found}",
        style="dim", markup=False, soft_wrap=True,
    )  # fmt: skip


def _packed(folder: Path) -> Path:
    """The collection as ansible-galaxy packs it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".packing-") as name:
        work, tree = Path(name), Path(name) / "tree"
        tree.mkdir()
        for source in (COLLECTION / one for one in _PUBLISHED):
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, tree / source.name)
        argv = [ansible.program("ansible-galaxy"), "collection", "build", "--output-path", str(work), str(tree)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"the collection cannot be packed: {done.stderr.strip().splitlines()[-1]}")
        (made,) = work.glob("*.tar.gz")
        return made.rename(folder / made.name)


def _host(inventory: str | None, limit: str | None) -> tuple[str, dict[str, Any]]:
    """The one host that is meant, by its short name, and what the inventory says of it. Raises ConfigurationError."""
    if inventory is None:
        return "", {}
    target = ansible.Target(inventory, limit)
    names = ansible.chosen(target)
    if len(names) != 1:
        said = ansible.nobody(target) if not names else f"{inventory} has {len(names)} hosts, and this is of one"
        raise ConfigurationError([Fault(said, key="--inventory", fix="name it with --limit")])
    found = ansible.hosts(target)[names[0]]
    known = {name: found[name] for name in _TAKEN if found.get(name)}
    faults = [
        Fault("is a template, which only Ansible reads", key=f"{name} of {names[0]}", fix="write its value")
        for name, value in known.items()
        if "{{" in str(value) or "{%" in str(value)
    ]
    faults += [
        Fault("must be text", key=f"{name} of {names[0]}", fix="put it in quotes")
        for name, value in known.items()
        if name != _ACCEPTED and not isinstance(value, str)
    ]
    if faults:
        raise ConfigurationError(faults)
    known[_ACCEPTED] = options.accepted_shortfalls(",".join(_words(known.get(_ACCEPTED))))
    return names[0].partition(".")[0], known


def _words(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)] if value else []


def _machine(
    keys: list[Path], hostname: str, login: str, mirror: str, security: str, network: Network | None
) -> Machine:
    machine = Machine(tuple(map(_ssh_key, keys)), hostname, login, mirror, security, network)
    if said := cloud_init.fault(machine):
        raise ConfigurationError([Fault(said)])
    return machine


def _ssh_key(path: Path) -> str:
    try:
        return public_keys.checked(read_text(path))
    except ValueError as error:
        raise ConfigurationError([Fault(str(error), key=f"--ssh-key {path}")]) from error


def _network(interface: str, address: str, gateway: str, nameservers: list[str]) -> Network | None:
    if (gateway or nameservers) and not address:
        raise typer.BadParameter("--gateway and --nameserver go with --address; without it they come from DHCP")
    if address and not interface:
        raise typer.BadParameter("--address is of a card: name it with --interface, such as enp1s0 or its MAC")
    for option, value in (("--gateway", gateway), *(("--nameserver", one) for one in nameservers)):
        _address(option, value) if value else None
    try:
        given = str(ip_interface(address)) if address else ""
    except ValueError as error:
        fix = "with its prefix length, as in 192.0.2.7/24"
        raise ConfigurationError([Fault(f"'{address[:80]}' is no address", key="--address", fix=fix)]) from error
    return Network(interface, given, gateway, tuple(nameservers)) if interface else None


def _address(option: str, value: str) -> None:
    try:
        ip_address(value)
    except ValueError as error:
        raise ConfigurationError([Fault(f"'{value[:80]}' is no address", key=option)]) from error


def _node(profile: str | None, environment: Any, site: Any, user: Any, accepted: tuple[str, ...]) -> Node:
    """What it deploys, proved to be valid here, before a machine on the other side of the world says that it is not."""
    if not profile:
        raise typer.BadParameter("name one: --profile personal_node")
    asked = options.request(str(profile), environment, site, user)
    layers.load_deployment(asked.configs, asked.name, asked.environment, asked.site, asked.user)
    return Node(asked.name, asked.environment, _layer(asked.site), _layer(asked.user), tuple(sorted(accepted)))


def _layer(path: Path | None) -> Layer | None:
    return Layer(read_text(path), path.suffix) if path else None


def _collection(url: str, sha256: str, signer: Path | None) -> Collection:
    if not url:
        raise typer.BadParameter("name where the collection lies: --collection URL (kai cloud-init publish makes it)")
    found = Collection(url, _signer(signer), sha256)
    if said := cloud_init.collection_fault(found):
        raise ConfigurationError([Fault(said)])
    return found


def _signer(path: Path | None) -> str:
    """The public key whose signatures count. Raises ConfigurationError, typer.Exit."""
    try:
        line = read_text(path) if path else signing.signer().public
        return trust.parse_key(line)[0]
    except NodeError as error:
        raise ConfigurationError([Fault(str(error), key=f"--signer {path}")]) from error
    except signing.SigningFailed as error:
        errors.print(str(error), style="red", markup=False)
        raise typer.Exit(Exit.UNEXPECTED) from error


def _refuse_others(shape: Shape, given: dict[str, Any], *shapes: Shape) -> None:
    for option, value in given.items():
        if value and shape not in shapes:
            raise typer.BadParameter(f"{option} is for --shape {' and '.join(shapes)}: leave it out")


def _refuse_layers(node: Node) -> None:
    if node.site or node.user:
        raise typer.BadParameter("the image has no layers of a site or user: use --shape push, or pull")


def _deliver(documents: dict[str, str], output: Path | None) -> None:
    if output is None:
        print(documents[cloud_init.USER_DATA], end="")
        return
    output.mkdir(parents=True, exist_ok=True)
    for name in cloud_init.NAMES:
        # Of an earlier run; and what is there keeps its mode.
        (output / name).unlink(missing_ok=True)
    for name, text in documents.items():
        path = output / name
        # Layers are nobody else's business.
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
    errors.print(f"wrote {len(documents)} files to {output}", style="dim", markup=False)
