# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an image is built: the recipe ``services/<name>/image.yaml``, over what every image starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .documents import read_document
from .faults import ConfigurationError, Fault, nearest
from .models import Strict, parse

RECIPE = "image.yaml"
BASE = "image_base.yaml"
Inside = Annotated[str, Field(pattern=r"^/[^\x00]+$", description="a path inside the image")]
PackageName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]


class RecipeFile(Strict):
    """A file of the image: its content, or the name of a file beside the recipe."""

    path: Inside
    content: str | None = None
    source: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$")] = None
    mode: Literal["0644", "0755"] = "0644"

    @model_validator(mode="after")
    def _one_origin(self) -> RecipeFile:
        if (self.content is None) == (self.source is None):
            raise ValueError("needs either `content` or `source`")
        return self


class ImageBase(Strict):
    """What every image starts from.

    `without` names packages that others depend on and the program does not need at run time; `leave_out` holds shell
    patterns of paths.
    """

    version: Literal[1]
    packages: list[PackageName] = []
    without: list[PackageName] = []
    leave_out: list[str] = []
    files: list[RecipeFile] = []


class Recipe(ImageBase):
    """One image: packages of one Debian suite, wheels of PyPI by their hashes, and files.

    Packages are unpacked, and no program of theirs runs: a link that one would have made stands in `links`.
    """

    summary: str
    licence: Annotated[str, Field(description="SPDX expression of the program that it is built for")]
    why: Annotated[str, Field(description="why kOS builds it")]
    suite: Literal["trixie", "forky"]
    packages: list[PackageName]
    wheels: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", description="a requirements file with hashes, beside the recipe"
        ),
    ] = None
    about: Annotated[
        str | None, Field(description="the wheel that gives the image its version; default: the first package does")
    ] = None
    links: Annotated[dict[Inside, str], Field(description="path of a link -> where it leads")] = {}
    entrypoint: list[str]
    command: list[str] = []
    environment: dict[str, str] = {}
    working_directory: Inside | None = None

    def over(self, base: ImageBase) -> Recipe:
        """The recipe with what every image starts from; its own packages come first."""
        return self.model_copy(
            update={
                "packages": [*self.packages, *(name for name in base.packages if name not in self.packages)],
                "without": [*base.without, *self.without],
                "leave_out": [*base.leave_out, *self.leave_out],
                "files": [*base.files, *self.files],
            }
        )


def load_recipe(services: Path, name: str) -> Recipe:
    """The recipe of the image `name`. Raises ConfigurationError, with the names of those that there are."""
    path = services / name / RECIPE
    if name not in recipe_names(services):
        fix = nearest(name, recipe_names(services))
        raise ConfigurationError([Fault(f"kOS has no recipe for an image '{name}'", key="kai unit build", fix=fix)])
    document = read_document(path)
    return parse(Recipe, document.data, document.place).over(load_base(services))


def load_base(services: Path) -> ImageBase:
    """What every image starts from. Raises ConfigurationError."""
    document = read_document(services / BASE)
    return parse(ImageBase, document.data, document.place)


def recipe_names(services: Path) -> list[str]:
    """The images that can be built."""
    return sorted(path.parent.name for path in services.glob(f"*/{RECIPE}"))


def beside(services: Path, name: str, relative: str) -> Path:
    """A file beside the recipe of `name`; it never leaves that folder. Raises ConfigurationError."""
    folder = (services / name).resolve()
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise ConfigurationError([Fault(f"no file '{relative}' in services/{name}", key=RECIPE)])
    return path
