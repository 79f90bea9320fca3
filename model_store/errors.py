"""Everything the model store raises on purpose.

ModelStoreError
├── DamagedFile            a file that cannot be what it claims to be
├── AdapterError           carries .domain and .version
│   ├── AdapterNotFound    no such domain or version
│   └── AdapterRefused     it exists, but must not be used; carries .reason
├── PublishRefused         the staged folder is not a complete, sound adapter
├── SigningRefused         there is no key to sign with, or nothing to sign
├── BackboneError          carries .ref
│   ├── BackboneNotFound   no name, folder or hub id answers to the reference
│   └── BackboneRefused    it exists, but must not be used; carries .reason
└── ConversionRefused      an original checkpoint does not map onto the native layout; lists the tensors
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LISTED_TENSORS = 40


class ModelStoreError(Exception):
    """Base of every error of this package; its text is a sentence for an operator."""


class DamagedFile(ModelStoreError):
    """A manifest or safetensors file that cannot be read as one."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name}: {reason}")
        self.path = path
        self.reason = reason


class AdapterError(ModelStoreError):
    """Something about one adapter; `version` is None where the whole domain is meant."""

    def __init__(self, domain: str, version: int | None, message: str) -> None:
        super().__init__(message)
        self.domain = domain
        self.version = version


class AdapterNotFound(AdapterError):
    """No adapter of that domain, or not in that version."""

    def __init__(self, domain: str, version: int | None, known: Sequence[object] = ()) -> None:
        what = f"domain '{domain}'" if version is None else f"version {version} of domain '{domain}'"
        there = ", ".join(str(item) for item in known) or "none"
        super().__init__(domain, version, f"no adapter for {what}; there are: {there}")


class AdapterRefused(AdapterError):
    """The adapter exists but is damaged, foreign or made for another backbone."""

    def __init__(self, domain: str, version: int | None, reason: str) -> None:
        name = domain if version is None else f"{domain}/{version}"
        super().__init__(domain, version, f"adapter {name} is refused: {reason}")
        self.reason = reason

    @property
    def for_tenants(self) -> str:
        """Without the reason: it tells of files, and is for whoever runs the service."""
        what = "the adapter" if self.version is None else f"version {self.version}"
        return f"{what} of '{self.domain}' can't be used"


class PublishRefused(ModelStoreError):
    """What was staged is not a complete, sound adapter; nothing became visible."""


class SigningRefused(ModelStoreError):
    """The secret key cannot be used, or what was to be signed is not there."""


class BackboneError(ModelStoreError):
    """Something about one backbone."""

    def __init__(self, ref: str, message: str) -> None:
        super().__init__(message)
        self.ref = ref


class BackboneNotFound(BackboneError):
    """The reference is no name in the store, no folder and no hub id that could be fetched."""

    def __init__(self, ref: str, tried: Sequence[str]) -> None:
        super().__init__(ref, f"no backbone '{ref}': tried {'; '.join(tried)}")


class BackboneRefused(BackboneError):
    """The backbone exists but cannot be used as it is."""

    def __init__(self, ref: str, reason: str) -> None:
        super().__init__(ref, f"backbone {ref} is refused: {reason}")
        self.reason = reason


class ConversionRefused(ModelStoreError):
    """An original checkpoint whose tensors do not map one to one onto the native layout.

    `unknown` are tensors of the source that have no place, `missing` are native tensors that nothing fills,
    `misshapen` are tensors whose shape the configuration does not allow.
    """

    def __init__(
        self,
        message: str,
        *,
        unknown: Sequence[str] = (),
        missing: Sequence[str] = (),
        misshapen: Sequence[str] = (),
    ) -> None:
        parts = [message]
        for title, names in (("unknown", unknown), ("missing", missing), ("wrong shape", misshapen)):
            if names:
                parts.append(f"{title} ({len(names)}): {_listed(names)}")
        super().__init__("; ".join(parts))
        self.unknown = tuple(unknown)
        self.missing = tuple(missing)
        self.misshapen = tuple(misshapen)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:LISTED_TENSORS])
    rest = len(names) - LISTED_TENSORS
    return f"{shown} and {rest} more" if rest > 0 else shown
