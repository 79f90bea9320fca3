"""Whose adapters and backbones are taken: minisign signatures (Ed25519) by keys that the operator pins. No torch here.

`<manifest>.minisig` beside a manifest signs its bytes, and the manifest holds the sha256 of every other file. What
the minisign tool signs is taken here, and it can verify what is signed here. Without trusted keys nothing is asked
for. What is shipped with the package needs no signature: whoever can change it can change this code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from minisign import Error, PublicKey, SecretKey, Signature
from pydantic import AfterValidator

from model_store.errors import DamagedFile, SigningRefused
from model_store.files import SHIPPED_ROOT, read_bytes, write_durably

SIGNATURE_SUFFIX = ".minisig"
MAX_SIGNATURE_BYTES = 16 * 2**10


@dataclass(frozen=True)
class TrustedKeys:
    """The public keys of those whose signatures count. Empty: everything is taken."""

    keys: tuple[PublicKey, ...] = ()

    @classmethod
    def parse(cls, text: str) -> TrustedKeys:
        """Public keys as minisign prints them (`RW…`), apart by spaces or commas.

        Raises:
            ValueError: one is no public key.
        """
        keys = []
        for word in text.replace(",", " ").split():
            try:
                keys.append(PublicKey.from_base64(word))
            except Error as error:
                raise ValueError(f"{word[:16]}… is no minisign public key ({error})") from error
        return cls(tuple(keys))

    def ask_for(self, path: Path) -> bool:
        """Whether this manifest must be signed."""
        return bool(self.keys) and not path.resolve().is_relative_to(SHIPPED_ROOT.resolve())

    def check(self, path: Path, raw: bytes, *, follow_links: bool = False) -> None:
        """Check the signature beside a manifest over the bytes that were read of it.

        Raises:
            DamagedFile: it must be signed, and is not, or by nobody who is trusted, or other bytes were.
        """
        if not self.ask_for(path):
            return
        place = signature_path(path)
        if not place.exists():
            raise DamagedFile(path, "is not signed, and VISUM_TRUSTED_KEYS asks for it")
        try:
            signature = Signature.from_bytes(
                read_bytes(place, limit=MAX_SIGNATURE_BYTES, follow_links=follow_links)
            )
        except Error as error:
            raise DamagedFile(place, f"is no minisign signature ({error})") from error
        if not any(_fits(key, raw, signature) for key in self.keys):
            raise DamagedFile(path, "is signed by no trusted key, or was changed after it was signed")


NOBODY = TrustedKeys()


def _parsed(text: str) -> str:
    TrustedKeys.parse(text)
    return text


TrustedKeysText = Annotated[str, AfterValidator(_parsed)]
"""A setting that `TrustedKeys.parse` takes."""


def signature_path(path: Path) -> Path:
    """Where a file's signature lies."""
    return path.with_name(path.name + SIGNATURE_SUFFIX)


def read_secret_key(path: Path, password: str | None) -> SecretKey:
    """A secret key as minisign keeps it, ready to sign.

    Raises:
        SigningRefused: it cannot be read, is none, or needs another password.
    """
    try:
        key = SecretKey.from_file(path)
        if key.is_encrypted():
            if password is None:
                raise SigningRefused(f"{path} needs a password")
            key.decrypt(password)
    except OSError as error:
        raise SigningRefused(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    except Error as error:
        raise SigningRefused(f"{path}: {error}") from error
    return key


def sign(path: Path, key: SecretKey, *, comment: str) -> Path:
    """Write the signature beside a file; its place. `comment` is signed along with it."""
    place = signature_path(path)
    signature = key.sign(path.read_bytes(), trusted_comment=comment)
    write_durably(place, bytes(signature) + b"\n")
    return place


def _fits(key: PublicKey, raw: bytes, signature: Signature) -> bool:
    try:
        key.verify(raw, signature)
    except Error:
        return False
    return True
