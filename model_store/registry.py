"""The adapters on disk, read afresh whenever they change. No torch here: the gateway lists them too.

Layout of a root: `<root>/<domain>/<version>/manifest.json` and the files it names. A version never changes
once it is there, so a look costs one listing per domain and two `stat` per version; only manifests not seen
before are parsed. Who asks for one domain looks at that domain alone, however many others there are. A damaged
version is set aside by name and the others go on.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import AdapterNotFound, AdapterRefused, DamagedFile
from model_store.files import file_sha256
from model_store.manifest import DOMAIN_PATTERN, MANIFEST_FILE, AdapterManifest, read_manifest
from model_store.signatures import NOBODY, TrustedKeys, signature_path

VERSION_NAME = re.compile(r"[1-9][0-9]{0,8}\Z")
DOMAIN_NAME = re.compile(DOMAIN_PATTERN.removesuffix("$") + r"\Z")
DOMAIN_RULE = "a letter of a-z, then at most 62 of a-z, 0-9, _ and -"
"""`DOMAIN_NAME` in words."""

SIGNATURE_FILE = signature_path(Path(MANIFEST_FILE)).name

Key = tuple[str, int]
Stamp = tuple[int, int, int, int]
"""(inode, size, mtime in ns) of a manifest, mtime of its folder: equal stamps mean that it was already read."""


@dataclass(frozen=True)
class AdapterEntry:
    """One published adapter: what it says of itself and where it lies."""

    manifest: AdapterManifest
    path: Path

    @property
    def domain(self) -> str:
        return self.manifest.domain

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def key(self) -> Key:
        return (self.manifest.domain, self.manifest.version)


@dataclass(frozen=True)
class _Seen:
    """One version folder as last read: an entry, or the reason why not."""

    stamp: Stamp | None
    entry: AdapterEntry | None
    refusal: AdapterRefused | None


class AdapterRegistry:
    """Every adapter of several roots, by domain and version. Safe to share between threads.

    Where two roots hold the same version of a domain, the earlier root wins and the later one is refused.
    With `backbone_fingerprint`, adapters of any other backbone are refused as well; with `trusted` keys, those that
    are not signed by one of them.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        backbone_fingerprint: str | None = None,
        trusted: TrustedKeys = NOBODY,
    ) -> None:
        self.roots = tuple(Path(root) for root in roots)
        self.trusted = trusted
        self._fingerprint = backbone_fingerprint
        self._lock = threading.Lock()
        self._seen: dict[Path, _Seen] = {}

    def domains(self) -> list[str]:
        """Names of the domains that have at least one sound version, sorted."""
        return sorted({domain for domain, _ in self._scan()[0]})

    def versions(self, domain: str) -> list[int]:
        """The sound versions of a domain, ascending; empty for an unknown domain."""
        return sorted(version for _, version in self._scan(domain)[0])

    def entries(self) -> list[AdapterEntry]:
        """Every sound adapter, by domain and then version."""
        entries, _ = self._scan()
        return [entries[key] for key in sorted(entries)]

    @property
    def refused(self) -> list[AdapterRefused]:
        """The versions that are set aside, each with its reason, by domain and version."""
        return sorted(self._scan()[1], key=lambda refusal: (refusal.domain, refusal.version or 0))

    def latest(self, domain: str) -> AdapterEntry:
        """The newest sound version of a domain.

        Raises:
            AdapterRefused: the domain has versions, none of them sound (the newest one's reason).
            AdapterNotFound: there is no such domain.
        """
        entries, refusals = self._scan(domain)
        if entries:
            return entries[max(entries)]
        if refusals:
            raise max(refusals, key=lambda refusal: refusal.version or 0)
        raise AdapterNotFound(domain, None, self.domains())

    def get(self, domain: str, version: int | None = None) -> AdapterEntry:
        """One version of a domain, the newest sound one where none is named.

        Raises:
            AdapterRefused: that version exists but is set aside.
            AdapterNotFound: there is no such domain or version.
        """
        if version is None:
            return self.latest(domain)
        entries, refusals = self._scan(domain)
        if (domain, version) in entries:
            return entries[domain, version]
        for refusal in refusals:
            if refusal.version == version:
                raise refusal
        if entries:
            raise AdapterNotFound(domain, version, sorted(number for _, number in entries))
        raise AdapterNotFound(domain, None, self.domains())

    def refuse(self, entry: AdapterEntry, reason: str) -> AdapterRefused:
        """Set a version aside in this process, as found unsound while loading; `latest` then passes it over.

        It is looked at again when its manifest or the list of its files changes. Returns the refusal, to be
        raised by the caller.
        """
        refusal = AdapterRefused(entry.domain, entry.version, reason)
        with self._lock:
            self._seen[entry.path] = _Seen(_stamp(entry.path), None, refusal)
        return refusal

    def verify(self, entry: AdapterEntry) -> None:
        """Hash every file of an adapter against its manifest.

        Raises:
            AdapterRefused: a file is missing, a link, changed, or not listed.
        """
        try:
            check_listing(entry.path, entry.manifest)
            for name, expected in sorted(entry.manifest.files.items()):
                if file_sha256(entry.path / name) != expected:
                    raise DamagedFile(entry.path / name, "its sha256 is not the manifest's")
        except DamagedFile as error:
            raise AdapterRefused(entry.domain, entry.version, str(error)) from error

    def _scan(self, domain: str | None = None) -> tuple[dict[Key, AdapterEntry], list[AdapterRefused]]:
        """What is there and what is refused, of one domain or of all."""
        entries: dict[Key, AdapterEntry] = {}
        refusals: list[AdapterRefused] = []
        with self._lock:
            seen: dict[Path, _Seen] = {}
            for root in self.roots:
                for folder in version_folders(root, domain):
                    found = seen[folder] = self._look(folder)
                    if found.refusal is not None:
                        refusals.append(found.refusal)
                    elif found.entry is not None and found.entry.key in entries:
                        reason = f"the same version is already in {entries[found.entry.key].path}"
                        refusals.append(AdapterRefused(*found.entry.key, reason))
                    elif found.entry is not None:
                        entries[found.entry.key] = found.entry
            if domain is None:
                self._seen = seen
            else:
                self._seen |= seen  # what is gone is forgotten by the next look at all of them
        return entries, refusals

    def _look(self, folder: Path) -> _Seen:
        stamp = _stamp(folder)
        before = self._seen.get(folder)
        if before is not None and before.stamp == stamp:
            return before
        domain, version = folder.parent.name, int(folder.name)
        try:
            entry = read_entry(folder, self.trusted)
            self._check_backbone(entry)
        except AdapterRefused as refusal:
            return _Seen(stamp, None, refusal)
        except DamagedFile as error:
            return _Seen(stamp, None, AdapterRefused(domain, version, str(error)))
        return _Seen(stamp, entry, None)

    def _check_backbone(self, entry: AdapterEntry) -> None:
        made_for = entry.manifest.backbone
        if self._fingerprint is not None and made_for.fingerprint != self._fingerprint:
            raise AdapterRefused(*entry.key, foreign_backbone(entry.manifest, self._fingerprint))


def foreign_backbone(manifest: AdapterManifest, fingerprint: str) -> str:
    """The reason given when an adapter meets a backbone that it was not trained on."""
    made_for = manifest.backbone
    return (
        f"it was trained on backbone {made_for.name} ({made_for.fingerprint[:12]}…), "
        f"not on the one in service ({fingerprint[:12]}…)"
    )


def read_entry(folder: Path, trusted: TrustedKeys = NOBODY) -> AdapterEntry:
    """Read the manifest of one version folder and check it against the folder, without hashing.

    Raises:
        DamagedFile: the manifest or a listed file is missing, a link or malformed, or its signature is not trusted.
        AdapterRefused: the manifest speaks of another domain or version than its folder.
    """
    domain, version = folder.parent.name, int(folder.name)
    if folder.is_symlink() or folder.parent.is_symlink():
        raise AdapterRefused(domain, version, "its folder is a symbolic link")
    manifest = read_manifest(folder / MANIFEST_FILE, AdapterManifest, trusted=trusted)
    if (manifest.domain, manifest.version) != (domain, version):
        raise AdapterRefused(domain, version, f"its manifest says {manifest.domain}/{manifest.version}")
    check_listing(folder, manifest)
    return AdapterEntry(manifest, folder)


def check_listing(folder: Path, manifest: AdapterManifest) -> None:
    """The folder holds the listed regular files and, hidden ones apart, nothing else.

    Raises:
        DamagedFile: naming the file.
    """
    listed = set(manifest.files) | {MANIFEST_FILE}
    try:
        with os.scandir(folder) as there:
            present = {item.name: item.is_file(follow_symlinks=False) for item in there}
    except OSError as error:
        raise DamagedFile(folder, (error.strerror or "cannot be read").lower()) from error
    for name in sorted(listed):
        if name not in present:
            raise DamagedFile(folder / name, "is missing")
        if not present[name]:
            raise DamagedFile(folder / name, "is not a regular file (links are refused)")
    for name in sorted(present):
        if name not in {*listed, SIGNATURE_FILE} and not name.startswith("."):
            raise DamagedFile(folder / name, "is not listed in the manifest")


def version_folders(root: Path, only: str | None = None) -> Iterator[Path]:
    """Every `<root>/<domain>/<version>` folder of a root in order, of one domain or of all; names that are neither are
    passed over."""
    for domain in _names(root, DOMAIN_NAME) if only is None else filter(DOMAIN_NAME.match, [only]):
        for version in sorted(_names(root / domain, VERSION_NAME), key=int):
            yield root / domain / version


def _names(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    try:
        with os.scandir(folder) as there:
            return sorted(item.name for item in there if pattern.match(item.name) and item.is_dir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _stamp(folder: Path) -> Stamp | None:
    try:
        manifest = os.stat(folder / MANIFEST_FILE, follow_symlinks=False)
        listing = os.stat(folder, follow_symlinks=False)
    except OSError:
        return None
    return (manifest.st_ino, manifest.st_size, manifest.st_mtime_ns, listing.st_mtime_ns)
