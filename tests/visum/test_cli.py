"""The command line: answers, one-line errors, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from visum.cli import main

COMMANDS = [
    ["serve"], ["gateway"], ["worker"], ["summarize"],
    ["adapters", "list"], ["adapters", "show"], ["adapters", "publish"], ["adapters", "verify"],
    ["backbones", "list"], ["backbones", "import"], ["backbones", "verify"],
    ["keys", "create"], ["keys", "list"], ["keys", "revoke"],
    ["world", "render"], ["data", "check"], ["train"], ["evaluate"], ["ablate"],
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUM_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


def test_the_help_loads_neither_torch_nor_the_gateway() -> None:
    heavy = ("torch", "transformers", "fastapi", "av")
    code = f"import sys, visum.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["sumarize"], "No such command 'sumarize'. Did you mean 'summarize'? See: visum --help"),
        (["summarize"], "Missing argument 'FILE'. See: visum summarize --help"),
        (["summarize", "no-such.mp4"], "no-such.mp4 is not a file. Name a video file."),
        (["adapters", "show", "opera"], "no adapter for domain 'opera'"),
        (["backbones", "verify", "no-such"], "no backbone 'no-such'"),
        (["world", "render", "--domain", "opera", "--out", "clips"], "unknown domain 'opera'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_line_on_stderr(
    arguments: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) in (1, 2)
    printed = capsys.readouterr()
    assert printed.out.strip() == ""
    assert complaint in printed.err
    assert printed.err.startswith("visum: ")
    assert printed.err.strip().count("\n") == 0


def test_a_gateway_that_is_not_there_is_said_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"\0" * 64)
    assert main(["summarize", str(clip), "--url", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err == (
        "visum: Nothing answers at http://127.0.0.1:9. "
        "Start the service with `visum serve`, or name another with --url.\n"
    )


def test_a_setting_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISUM_PORT", "eighty")
    assert main(["adapters", "list"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("visum: VISUM_PORT cannot be read: ")
    assert "'eighty'" in error


def test_rendered_clips_come_with_what_is_true_in_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clips"
    assert (
        main(
            [
                "world",
                "render",
                "--domain",
                "cooking",
                "--count",
                "1",
                "--seed",
                "7",
                "--out",
                str(out),
                "--json",
            ]
        )
        == 0
    )
    line = json.loads(capsys.readouterr().out)
    script = json.loads((out / "clip-0000.json").read_text())
    assert line == {"path": str(out / "clip-0000.mp4"), **script}
    assert script["domain"] == "cooking"
    assert script["seed"] == 7
    assert script["summary"]
    assert {"subject", "colour", "count"} <= script["facts"][0].keys()
    assert (out / "clip-0000.mp4").read_bytes()[4:8] == b"ftyp"
