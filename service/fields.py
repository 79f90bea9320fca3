"""The text fields of `POST /summaries`: each checked the moment it is complete.

Clients may send the file before or after them; one that comes before is refused before the file is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from contract.records import AUTO_DOMAIN
from service.domains import DomainCatalog
from service.problems import InvalidField

MAX_FIELD_BYTES = 64 * 2**10
LARGEST_SEED = 2**53 - 1  # every JSON reader keeps integers up to here


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for beside the video. None leaves it to the worker."""

    domain: str = AUTO_DOMAIN
    instructions: str | None = None
    max_new_tokens: int | None = None
    seed: int | None = None
    adapter_version: int | None = None


class OptionFields:
    """Collects the fields of one form. An empty value counts as not given, as forms in browsers send it."""

    def __init__(self, catalog: DomainCatalog, *, max_instructions: int, max_new_tokens: int) -> None:
        self._catalog = catalog
        self._seen: set[str] = set()
        self._values: dict[str, str | int] = {}
        self._readers: Mapping[str, Callable[[str], str | int]] = {
            "domain": self._domain,
            "instructions": lambda text: _bounded("instructions", text, max_instructions),
            "max_new_tokens": lambda text: _integer("max_new_tokens", text, 1, max_new_tokens),
            "seed": lambda text: _integer("seed", text, 0, LARGEST_SEED),
            "adapter_version": lambda text: _integer("adapter_version", text, 1, 10**9),
        }

    def begin(self, name: str) -> None:
        """A part of this name begins. Raises InvalidField if there is no such field, or it came before."""
        if name != "file" and name not in self._readers:
            known = ", ".join(["file", *self._readers])
            raise InvalidField(name, f"there is no such field; the fields are {known}")
        if name in self._seen:
            raise InvalidField(name, "given more than once")
        self._seen.add(name)

    def put(self, name: str, raw: bytes) -> None:
        """The whole value of a field. Raises InvalidField."""
        try:
            text = raw.decode().strip()
        except UnicodeDecodeError as error:
            raise InvalidField(name, "not UTF-8 text") from error
        if text:
            self._values[name] = self._readers[name](text)

    def finish(self) -> Options:
        """All fields are in. Raises InvalidField if the file is missing or two fields don't go together."""
        if "file" not in self._seen:
            raise InvalidField("file", "missing; it holds the video")
        options = Options(**self._values)  # type: ignore[arg-type]
        if options.adapter_version is not None:
            self._catalog.check_version(options.domain, options.adapter_version)
        return options

    def _domain(self, text: str) -> str:
        self._catalog.check(text)
        return text


def _bounded(name: str, text: str, most: int) -> str:
    if len(text) > most:
        raise InvalidField(name, f"{len(text)} characters; at most {most} are taken")
    return text


def _integer(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise InvalidField(name, "not a whole number")
    digits = text.removeprefix("-").lstrip("0") or "0"
    number = int(digits[:20]) * (-1 if text.startswith("-") else 1)
    if len(digits) > 19 or not least <= number <= most:
        raise InvalidField(name, f"must be from {least} to {most}")
    return number
