# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kos-image`: from a profile to media that boot."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ansible_collections.kind.kos.cli import options
from ansible_collections.kind.kos.cli.exits import Exit
from ansible_collections.kind.kos.cli.view import console, errors, faults_view
from ansible_collections.kind.kos.plugins.plugin_utils.assemble import COLLECTION
from ansible_collections.kind.kos.plugins.plugin_utils.documents import read_document
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.signing import SigningFailed

from . import answered, building, checking, definition, host, view, writer
from .asked import OUTPUTS, Asked
from .errors import ImageError, Stopped

_NO_ROOM = (
    "there is no room left on the disk; what was whole is kept, and the next run goes on from there: free some space, "
    "or set KOS_MEDIA_CACHE to a folder on a larger disk"
)

app = typer.Typer(
    name="kos-image",
    help="Turn a profile into media that boot: a stick, the disk of a machine, a card.",
    no_args_is_help=True,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Lock = Annotated[
    Path | None,
    typer.Option("--lock", envvar="KOS_MEDIA_LOCK", help="Folder of package locks; default ~/.local/share/kos/media."),
]


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        print(f"kos-image {read_document(COLLECTION / 'galaxy.yml').data['version']}")
        raise typer.Exit(Exit.OK)


@app.command()
def build(
    output: Annotated[str, typer.Option("--output", "-o", help=f"One of {', '.join(OUTPUTS)}.")],
    profile: options.Profile = None,
    arch: Annotated[str | None, typer.Option("--arch", help="amd64 or arm64; default: this machine's.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Where the result goes: a file, or a folder.")] = None,
    environment: options.Environment = None,
    site: options.Site = None,
    user: options.User = None,
    configs: options.Configs = None,
    model: Annotated[
        list[Path] | None, typer.Option("--model", exists=True, dir_okay=False, help="A language model to take along.")
    ] = None,
    secure_boot_key: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Your own Secure Boot key (PEM): a signed kernel image."),
    ] = None,
    secure_boot_certificate: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="... and its certificate (PEM).")
    ] = None,
    hostname: Annotated[str, typer.Option(help="Of a node's disk, card or seed: the machine's name.")] = "",
    ssh_key: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Of a node's disk, card or seed: a public key that may log in."),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Of a card: the installer's answers, as far as a card goes."),
    ] = None,
    no_encryption: Annotated[
        bool, typer.Option("--no-encryption", help="Of a card: its first start encrypts nothing.")
    ] = False,
    test_medium: Annotated[
        bool, typer.Option("--test-medium", help="Only for tests: it lets answers ask for a cheap argon2id.")
    ] = False,
    lock: Lock = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and why; make nothing.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Make a medium of a profile. What has not changed since the last time is not made again.

    Nothing of it depends on this machine, the folder or the time: the same inputs give the same bytes.

    Examples:

      kos-image build --profile personal_node --output usb

      kos-image build --profile personal_node --output usb --dry-run

      kos-image build --profile personal_node --output qcow2 --to node.qcow2

      kos-image build --profile personal_node --output pi --hostname shed --ssh-key ~/.ssh/id_ed25519.pub

      kos-image build --output pi --answers shed.yaml

      kos-image build --profile personal_node --output nocloud --ssh-key ~/.ssh/id_ed25519.pub --hostname attic
    """
    told = answered.load(answers, no_encryption) if answers else None
    if told and profile and told.profile not in (None, profile):
        raise typer.BadParameter(f"the answers are for {told.profile}: leave --profile away, or name that")
    profile = profile or (told.profile if told else None)
    environment = environment or (told.environment if told else None)
    if not profile:
        raise typer.BadParameter("name one: --profile personal_node")
    if bool(secure_boot_key) != bool(secure_boot_certificate):
        raise typer.BadParameter("--secure-boot-key and --secure-boot-certificate go together")
    asked = Asked(
        profile=profile, output=output, architecture=_architecture(arch, output),
        to=to, locks=lock,
        layers={"env": environment, "site": site, "user": user, "configs": str(configs) if configs else None},
        models=tuple(model or ()), secure_boot=_pair(secure_boot_key, secure_boot_certificate),
        hostname=hostname, ssh_keys=tuple(ssh_key or ()), test=test_medium,
        in_clear=no_encryption, answers=told,
    )  # fmt: skip
    if not dry_run:
        host.enter()
    planned = building.plan(asked, keep=not dry_run)
    if dry_run:
        data = building.described(planned)
        _show(data, as_json, view.dry_run(data))
        return
    with view.Progress(quiet=as_json) as progress:
        made = building.make(planned, progress.tell)
    _show(made, as_json, view.made(made))


def _architecture(given: str | None, output: str) -> definition.Architecture:
    """The one that was asked for; else this machine's, or the only one that the output is made for."""
    own = host.architecture()
    known = definition.architectures(output) if output in definition.outputs() else [own]
    return definition.architecture(given or (own if own in known else known[0]))


def _pair(key: Path | None, certificate: Path | None) -> tuple[Path, Path] | None:
    return (key, certificate) if key and certificate else None


@app.command("lock")
def lock_packages(
    arch: Annotated[str | None, typer.Option("--arch", help="amd64 or arm64; default: this machine's.")] = None,
    lock: Lock = None,
    as_json: options.AsJson = False,
) -> None:
    """Resolve the packages of every medium anew, by this machine's apt, and write down their versions and digests.

    Builds take exactly these until the next lock; a build without a lock makes one. Share the file, and others make
    the same bytes.

    Examples:

      kos-image lock

      kos-image lock --arch arm64 --lock ./locks
    """
    data = building.lock(arch or host.architecture(), lock)
    _show(data, as_json, view.locked(data))


@app.command()
def keys(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for them.")],
    name: Annotated[str, typer.Option(help="Whose they are: what a machine's firmware shows.")] = "kOS",
    lock: Lock = None,
    as_json: options.AsJson = False,
) -> None:
    """Make Secure Boot keys of your own: what you sign with them is all that your machines start.

    The private keys are for you alone (0600) and have no passphrase: keep PK.key and KEK.key off this machine, only
    db.key signs media.

    Examples:

      kos-image keys ~/.config/kos/secure-boot
    """
    host.enter()
    with view.Progress(quiet=as_json) as progress:
        data = building.keys(folder, name, lock, progress.tell)
    _show(data, as_json, view.keys(data))


@app.command()
def verify(
    medium: Annotated[Path, typer.Argument(metavar="MEDIUM", help="An image, or the device of a stick.")],
    signer: Annotated[
        Path | None, typer.Option("--signer", help="Public key of who should have made it; default: your own.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Prove every byte of a medium: who signed its manifest, and where it is not as it was made.

    Examples:

      kos-image verify kos-personal_node-usb-amd64.raw

      kos-image verify /dev/sdb --signer office.pub
    """
    checking.require_readable(medium)
    keys = checking.known(signer)
    with writer.bar(Console(quiet=True) if as_json else errors, "reading") as progress:
        report = checking.verify(medium, keys, progress)
    _show(checking.described(medium, report), as_json, view.checked(medium, report))
    if not report.ok:
        raise typer.Exit(Exit.INVALID_CONFIGURATION)


@app.command()
def write(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="What kos-image built.")],
    device: Annotated[
        str | None,
        typer.Argument(metavar="[DEVICE]", help="Path, name in /dev/disk/by-id or serial of it; without: list."),
    ] = None,
    signer: Annotated[
        Path | None, typer.Option("--signer", help="Public key of who made the image; default: your own.")
    ] = None,
    internal: Annotated[bool, typer.Option("--internal", help="A disk that is built in is meant.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Put an image on a stick or a card: proved first, read back afterwards. Everything on it is lost.

    Refused are disks that are mounted or that this system stands on, one that is built in without --internal, what is
    too small, and a name that fits two.

    Examples:

      kos-image write kos-personal_node-usb-amd64.raw

      kos-image write kos-personal_node-usb-amd64.raw /dev/sdb
    """
    if device is None:
        console.print(view.sticks(writer.offered(image)))
        return
    ask = None if yes else lambda question: console.input(Text(question))
    report = writer.put(image, device, checking.known(signer), errors, ask, internal)
    about = report.sealed.manifest.about if report.sealed else None
    console.print(Text.assemble(("✓ ", "green"), f"{device} is a {about.output if about else 'medium'} of kOS now"))


def _show(data: Any, as_json: bool, shown: Any) -> None:
    if as_json:
        print(json.dumps(data, indent=1))
    else:
        console.print(shown)


def main() -> None:
    """Run `kos-image`; every expected failure is a sentence and an exit code, never a traceback."""
    signal.signal(signal.SIGTERM, _stop)
    # The modes of files on a medium are not those of whoever makes it.
    os.umask(0o022)
    try:
        app(standalone_mode=True)
    except ConfigurationError as error:
        faults = [fault.as_dict() for fault in error.faults]
        _fail({"faults": faults}, faults_view(faults), Exit.INVALID_CONFIGURATION)
    except Stopped as error:
        _tell({"error": str(error)}, str(error))
        # Waits for no stage: what it runs ends with us, and the next build sweeps away what it leaves.
        sys.stdout.flush()
        os._exit(error.exit)
    except ImageError as error:
        _fail({"error": str(error)}, str(error), error.exit)
    except OSError as error:
        said = _NO_ROOM if error.errno == errno.ENOSPC else str(error)
        _fail({"error": said}, said, Exit.PREFLIGHT_FAILED if error.errno == errno.ENOSPC else Exit.UNEXPECTED)
    except SigningFailed as error:
        _fail({"error": str(error)}, str(error), Exit.UNEXPECTED)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(data: dict[str, Any], shown: Any, code: Exit) -> None:
    _tell(data, shown)
    sys.exit(code)


def _tell(data: dict[str, Any], shown: Any) -> None:
    if "--json" in sys.argv:
        print(json.dumps(data, indent=1))
    else:
        errors.print(shown, style="red" if isinstance(shown, str) else None, markup=False)


if __name__ == "__main__":
    main()
