"""Who may publish: signatures over manifests, by keys that are pinned in the settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from minisign import KeyPair

from model_store.adapters import load_adapter
from model_store.backbone import load_backbone
from model_store.backbone_ref import SHIPPED_ROOT
from model_store.errors import AdapterRefused, BackboneRefused, DamagedFile, PublishRefused, SigningRefused
from model_store.manifest import BACKBONE_FILE, MANIFEST_FILE, WEIGHTS_FILE
from model_store.publish import publish
from model_store.registry import AdapterRegistry
from model_store.signatures import TrustedKeys, read_secret_key, signature_path
from model_store.signing import sign_adapter, sign_backbone
from tests.model_store.adapter_parts import stage
from tests.tiny_backbone import write_tiny_backbone

OURS, THEIRS = KeyPair.generate(), KeyPair.generate()
TRUSTED = TrustedKeys((OURS.public_key,))

# Made with the minisign tool: minisign -S -s key -m manifest -t "adapter traffic/1"
TOOL_KEY = "RWRUDy4Us/mKlIasnMMB8EU0haHGPOtZfmJOTu7A2Iw6+Zoc0I9QcfAb"
TOOL_MESSAGE = b'{"signed": "by the minisign tool"}\n'
TOOL_SIGNATURE = """\
untrusted comment: signature from minisign secret key
RURUDy4Us/mKlCOzqBHMvrjvoqgU+g2azbHDmTEG8cxgDsMxwLoU7ASStMw6Y2n/9hy222bb7UoRIS632KGziimh1gVrL1HAQwQ=
trusted comment: adapter traffic/1
Ut8XLNj4QxFpB/Vy8i8gWDHtpYxAFuVHP8zFFkYv9Zg2eJKsRb+WLYD9vZ9yhyyogsw4FWjuqfjOnek5ZKCjBw==
"""


@pytest.fixture
def trusting(root: Path) -> AdapterRegistry:
    """A registry over the test's store that trusts our key alone."""
    return AdapterRegistry([root], trusted=TRUSTED)


def signed(folder: Path, keys: KeyPair, registry: AdapterRegistry, version: int | None = None) -> Path:
    staged = stage(folder)
    sign_adapter(staged, keys.secret_key, registry, version=version)
    return staged


def test_what_the_minisign_tool_signed_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    signature_path(path).write_text(TOOL_SIGNATURE)
    TrustedKeys.parse(TOOL_KEY).check(path, TOOL_MESSAGE)


def test_one_byte_more_than_was_signed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    signature_path(path).write_text(TOOL_SIGNATURE)
    with pytest.raises(DamagedFile, match="changed after it was signed"):
        TrustedKeys.parse(TOOL_KEY).check(path, TOOL_MESSAGE + b" ")


def test_a_comment_that_was_not_signed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    signature_path(path).write_text(TOOL_SIGNATURE.replace("traffic/1", "traffic/2"))
    with pytest.raises(DamagedFile, match="no trusted key"):
        TrustedKeys.parse(TOOL_KEY).check(path, TOOL_MESSAGE)


@pytest.mark.parametrize("damage", ["", "untrusted comment: x\n", TOOL_SIGNATURE[:-40], "\x00" * 300])
def test_a_damaged_signature_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "manifest.json"
    signature_path(path).write_text(damage)
    with pytest.raises(DamagedFile, match="is no minisign signature"):
        TrustedKeys.parse(TOOL_KEY).check(path, TOOL_MESSAGE)


def test_a_signature_that_is_a_link_is_refused(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "manifest.json", tmp_path / "elsewhere"
    elsewhere.write_text(TOOL_SIGNATURE)
    signature_path(path).symlink_to(elsewhere)
    with pytest.raises(DamagedFile, match="symbolic link"):
        TrustedKeys.parse(TOOL_KEY).check(path, TOOL_MESSAGE)


def test_several_keys_may_be_trusted_at_once() -> None:
    both = f"{OURS.public_key.to_base64().decode()}, {TOOL_KEY}"
    assert len(TrustedKeys.parse(both).keys) == 2


def test_what_is_no_public_key_cannot_be_trusted() -> None:
    with pytest.raises(ValueError, match="no minisign public key"):
        TrustedKeys.parse("RWnonsense")


def test_a_signed_adapter_is_published_byte_for_byte_and_loads(
    trusting: AdapterRegistry, root: Path, tmp_path: Path
) -> None:
    staged = signed(tmp_path / "staged", OURS, trusting)
    entry = publish(trusting, root, staged)
    assert (entry.path / MANIFEST_FILE).read_bytes() == (staged / MANIFEST_FILE).read_bytes()
    assert load_adapter(trusting.latest("traffic")).manifest.version == 1


def test_an_unsigned_adapter_is_not_published(trusting: AdapterRegistry, root: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishRefused, match=r"not signed.*visum adapters sign"):
        publish(trusting, root, stage(tmp_path / "staged"))
    assert trusting.domains() == []


def test_an_adapter_that_a_stranger_signed_is_not_published(
    trusting: AdapterRegistry, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(PublishRefused, match="signed by no trusted key"):
        publish(trusting, root, signed(tmp_path / "staged", THEIRS, trusting))


def test_weights_that_were_swapped_after_signing_are_not_published(
    trusting: AdapterRegistry, root: Path, tmp_path: Path
) -> None:
    staged = signed(tmp_path / "staged", OURS, trusting)
    raw = bytearray((staged / WEIGHTS_FILE).read_bytes())
    raw[-1] ^= 1
    (staged / WEIGHTS_FILE).write_bytes(raw)
    with pytest.raises(PublishRefused, match="its sha256 is not the signed manifest's"):
        publish(trusting, root, staged)


def test_a_signed_version_that_is_taken_is_not_renumbered(
    trusting: AdapterRegistry, root: Path, tmp_path: Path
) -> None:
    publish(trusting, root, signed(tmp_path / "first", OURS, trusting))
    with pytest.raises(PublishRefused, match="version 1 of traffic, which is taken"):
        publish(trusting, root, signed(tmp_path / "second", OURS, trusting, version=1))


def test_signing_takes_the_next_free_version(trusting: AdapterRegistry, root: Path, tmp_path: Path) -> None:
    publish(trusting, root, signed(tmp_path / "first", OURS, trusting))
    assert publish(trusting, root, signed(tmp_path / "second", OURS, trusting)).version == 2


@pytest.mark.parametrize("newer", ["unsigned", "a stranger's", "edited"])
def test_a_version_that_is_not_signed_as_it_must_be_leaves_the_one_in_service(
    trusting: AdapterRegistry, root: Path, tmp_path: Path, newer: str
) -> None:
    publish(trusting, root, signed(tmp_path / "first", OURS, trusting))
    anybody = AdapterRegistry([root])
    staged = stage(tmp_path / "second")
    if newer != "unsigned":
        sign_adapter(staged, (THEIRS if newer == "a stranger's" else OURS).secret_key, anybody)
    second = publish(anybody, root, staged)
    if newer == "edited":
        path = second.path / MANIFEST_FILE
        path.chmod(0o644)
        path.write_text(path.read_text().replace('"rouge_l": 0.93', '"rouge_l": 0.99'))
    assert trusting.latest("traffic").version == 1
    assert [(one.version, "sign" in one.reason) for one in trusting.refused] == [(2, True)]
    with pytest.raises(AdapterRefused, match="traffic/2 is refused"):
        trusting.get("traffic", 2)


def test_a_version_in_the_store_can_be_signed_where_it_lies(root: Path, tmp_path: Path) -> None:
    anybody, trusting = AdapterRegistry([root]), AdapterRegistry([root], trusted=TRUSTED)
    entry = publish(anybody, root, stage(tmp_path / "staged"))
    assert trusting.domains() == []
    assert sign_adapter(entry.path, OURS.secret_key, anybody) == entry.manifest
    assert trusting.latest("traffic").version == 1


def test_a_folder_whose_files_are_not_its_manifests_is_not_signed(root: Path, tmp_path: Path) -> None:
    registry = AdapterRegistry([root])
    entry = publish(registry, root, stage(tmp_path / "staged"))
    (entry.path / WEIGHTS_FILE).chmod(0o644)
    (entry.path / WEIGHTS_FILE).write_bytes(b"other")
    with pytest.raises(SigningRefused, match="hashes are not those of the files"):
        sign_adapter(entry.path, OURS.secret_key, registry)


def test_without_trusted_keys_a_signature_is_not_asked_for(root: Path, tmp_path: Path) -> None:
    registry = AdapterRegistry([root])
    publish(registry, root, stage(tmp_path / "staged"))
    assert registry.domains() == ["traffic"]


def test_what_is_shipped_needs_no_signature() -> None:
    registry = AdapterRegistry([SHIPPED_ROOT / "adapters"], trusted=TRUSTED)
    assert registry.refused == []
    assert len(registry.domains()) == 4


def test_a_path_that_climbs_out_of_what_is_shipped_needs_one(tmp_path: Path) -> None:
    outside = (
        SHIPPED_ROOT / Path(*[".."] * len(SHIPPED_ROOT.parts)) / tmp_path.relative_to("/") / "manifest.json"
    )
    assert TRUSTED.ask_for(outside)


def test_an_encrypted_key_signs_with_its_password_alone(tmp_path: Path) -> None:
    pair = KeyPair.generate()
    pair.secret_key.encrypt("right", opslimit=32768, memlimit=2**24)
    path = tmp_path / "key"
    path.write_bytes(bytes(pair.secret_key) + b"\n")
    with pytest.raises(SigningRefused, match="needs a password"):
        read_secret_key(path, None)
    with pytest.raises(SigningRefused, match="wrong password"):
        read_secret_key(path, "wrong")
    assert not read_secret_key(path, "right").is_encrypted()


# -- backbones ----------------------------------------------------------------------------------


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return write_tiny_backbone(tmp_path / "tiny")


def test_a_signed_backbone_loads(backbone: Path) -> None:
    manifest = sign_backbone(backbone, "tiny", OURS.secret_key)
    assert load_backbone(backbone, trusted=TRUSTED).fingerprint == manifest.fingerprint


def test_a_backbone_without_a_manifest_is_refused(backbone: Path) -> None:
    (backbone / BACKBONE_FILE).unlink(missing_ok=True)
    with pytest.raises(BackboneRefused, match=r"visum\.json"):
        load_backbone(backbone, trusted=TRUSTED)


def test_a_backbone_that_a_stranger_signed_is_refused(backbone: Path) -> None:
    sign_backbone(backbone, "tiny", THEIRS.secret_key)
    with pytest.raises(BackboneRefused, match="signed by no trusted key"):
        load_backbone(backbone, trusted=TRUSTED)


def test_a_signature_over_less_than_all_files_is_refused(backbone: Path) -> None:
    sign_backbone(backbone, "tiny", OURS.secret_key)
    path = backbone / BACKBONE_FILE
    said = json.loads(path.read_text())
    del said["files"]
    path.write_text(json.dumps(said))
    from model_store.signatures import sign

    sign(path, OURS.secret_key, comment="backbone tiny")
    with pytest.raises(BackboneRefused, match="nothing else is covered"):
        load_backbone(backbone, trusted=TRUSTED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda folder: (folder / "config.json").write_text((folder / "config.json").read_text() + " "),
            "sha256",
        ),
        (
            lambda folder: (folder / "chat_template.jinja").write_text("{{ evil }}"),
            "config|chat_template|sha256",
        ),
        (lambda folder: (folder / "modeling.py").write_text("import os"), "not listed"),
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "missing"),
    ],
    ids=["edited", "template", "more", "missing"],
)
def test_a_file_of_a_signed_backbone_that_is_not_as_signed_refuses_it(
    backbone: Path, change, reason: str
) -> None:
    sign_backbone(backbone, "tiny", OURS.secret_key)
    change(backbone)
    with pytest.raises(BackboneRefused, match=reason):
        load_backbone(backbone, trusted=TRUSTED)


def test_weights_of_a_signed_backbone_that_were_swapped_refuse_it(backbone: Path) -> None:
    sign_backbone(backbone, "tiny", OURS.secret_key)
    weights = backbone / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(BackboneRefused, match="another fingerprint"):
        load_backbone(backbone, trusted=TRUSTED)


def test_the_shipped_backbone_is_taken_and_a_copy_of_it_is_not(tmp_path: Path) -> None:
    shipped = SHIPPED_ROOT / "backbones" / "visum-demo"
    load_backbone(shipped, trusted=TRUSTED)
    copy = shutil.copytree(shipped, tmp_path / "visum-demo")
    with pytest.raises(BackboneRefused, match="not signed"):
        load_backbone(copy, trusted=TRUSTED)
