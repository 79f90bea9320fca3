"""The media corpus, short: every attack and a few hundred damaged files; and that its traps would spring."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pytest

from contract.errors import Code
from resilience import media
from resilience.media import ANY_VERDICT, Belongings, Case, Findings, Judge, Outcome
from resilience.media_attacks import FRAMES, concat, elsewhere, hls
from resilience.media_boxes import alias
from resilience.media_clips import Clip, clips, write
from resilience.media_mutations import PLACES, mutations
from resilience.media_traps import COLOUR, Traps, set_traps, shows_the_secret
from tests.workers.decoders import stand_in
from workers.decode_process import DecodeServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

MUTATIONS = 300


@pytest.fixture(scope="module")
def found() -> Findings:
    # In a process of its own: what this one has waited for before would count into its children's peak of memory.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
        return own.submit(media.run, MUTATIONS, media.SEED).result()


@pytest.fixture(scope="module")
def corpus() -> list[Clip]:
    return list(clips())


@pytest.fixture
def traps(tmp_path: Path) -> Iterator[Traps]:
    with set_traps(tmp_path) as traps:
        yield traps


def test_every_damaged_and_hostile_file_gets_a_clean_verdict(found: Findings) -> None:
    assert found.failures == []
    assert sum(found.table.values()) == MUTATIONS + found.figures["attacks"]
    assert found.figures["attacks"] > 150


@pytest.mark.parametrize(
    "figure",
    [
        "worker_deaths",
        "secrets_read",
        "connections",
        "children_left",
        "descriptors_leaked",
        "shared_memory_leaked",
    ],
)
def test_hostile_files_cost_nothing(found: Findings, figure: str) -> None:
    assert found.figures[figure] == 0


def test_the_table_has_a_line_for_every_container_and_kind_of_attack(
    found: Findings, corpus: list[Clip]
) -> None:
    lines = {line.split("  ")[0] for line in media.table(found).splitlines()}
    assert {clip.container for clip in corpus} <= lines
    kinds = {
        "playlist",
        "reference",
        "large picture",
        "too long",
        "bomb",
        "timestamps",
        "duration",
        "structure",
    }
    assert {f"attack: {kind}" for kind in kinds} <= lines


def test_the_command_ends_in_one_line_of_json(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "resilience.media", "--files", "0"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    line = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == 0, run.stderr
    assert line["ok"]
    assert line["failures"] == []


# -- the files ------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_files(corpus: list[Clip]) -> None:
    first, second, other = (
        [mutation.data for mutation in mutations(corpus, 200, seed)] for seed in (1, 1, 2)
    )
    assert first == second != other


def test_every_place_of_every_container_is_damaged(corpus: list[Clip]) -> None:
    damaged = {(mutation.clip.container, mutation.place) for mutation in mutations(corpus, 200, 1)}
    assert damaged == {(clip.container, place) for clip in corpus for place in PLACES}


def test_mutations_are_damaged(corpus: list[Clip]) -> None:
    made = list(mutations(corpus, 500, 1))
    assert sum(mutation.data == mutation.clip.data for mutation in made) < 25


# -- the traps ------------------------------------------------------------------------------------------------


def test_a_player_that_trusts_a_playlist_reads_the_secret(traps: Traps, tmp_path: Path) -> None:
    for name, playlist in (("a.m3u8", hls), ("a.ffconcat", concat)):
        (tmp_path / name).write_bytes(playlist(str(traps.bait.secret)))
    before = traps.reads
    with av.open(str(tmp_path / "a.m3u8"), container_options={"extension_picky": "0"}) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert shows_the_secret(frames)
    assert traps.reads > before
    with av.open(str(tmp_path / "a.ffconcat"), container_options={"safe": "0"}) as container:
        assert shows_the_secret(next(container.decode(video=0)).to_ndarray(format="rgb24")[None])


def test_a_player_that_follows_references_opens_the_secret(traps: Traps, tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    path.write_bytes(elsewhere(write("mov", "h264"), alias(str(traps.bait.secret).encode())))
    options = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(path), container_options=options) as container:
        assert list(container.demux(video=0))
    assert traps.reads


def test_the_port_counts_who_connects_and_who_sends(traps: Traps) -> None:
    address = ("127.0.0.1", traps.bait.port)
    socket.create_connection(address).close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(b"x", address)
    deadline = time.monotonic() + 10
    while traps.connections < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert traps.connections == 2


def test_the_secrets_own_frames_are_known() -> None:
    grey = np.full((2, 8, 8, 3), 128, np.uint8)
    assert not shows_the_secret(grey)
    grey[1] = COLOUR
    assert shows_the_secret(grey)


# -- the judge ------------------------------------------------------------------------------------------------


@pytest.fixture
def case() -> Case:
    return Case("mp4", "clip", write("mp4", "h264"), ANY_VERDICT)


def _judged(tmp_path: Path, case: Case, program: str | None = None) -> Outcome:
    if program is None:
        server = DecodeServer()
        try:
            return Judge(server, tmp_path).judge(case)
        finally:
            server.close()
    with stand_in(tmp_path, program) as server:
        return Judge(server, tmp_path, replace(media.LIMITS, wall_s=0.5)).judge(case)


def test_a_sound_file_is_frames(tmp_path: Path, case: Case) -> None:
    outcome = _judged(tmp_path, case)
    assert (outcome.verdict, outcome.broken) == (FRAMES, "")


def test_a_verdict_that_an_attack_may_not_have_breaks_a_promise(tmp_path: Path, case: Case) -> None:
    outcome = _judged(tmp_path, replace(case, verdicts=frozenset({Code.VIDEO_TOO_LONG})))
    assert outcome.broken == "ended as frames"


def test_frames_that_show_the_secret_break_a_promise(tmp_path: Path, traps: Traps, case: Case) -> None:
    outcome = _judged(tmp_path, replace(case, data=traps.bait.secret.read_bytes()))
    assert outcome.broken == "shows the secret"


def test_a_message_that_tells_the_secret_breaks_a_promise(tmp_path: Path, case: Case) -> None:
    outcome = _judged(
        tmp_path,
        case,
        "import socket; from workers.decode_wire import Kind, send_json\n"
        "told = {'code': 'video.undecodable', 'message': 'it says visum-planted-4b1d5c0ffee'}\n"
        "send_json(socket.socket(fileno=1), Kind.ERROR, told)\n",
    )
    assert outcome.broken == "told the secret"


def test_a_crash_is_counted_by_its_signal(tmp_path: Path, case: Case) -> None:
    outcome = _judged(tmp_path, case, "import os; os.kill(os.getpid(), 11)")
    found = Findings(seed=0)
    found.add(outcome)
    assert outcome.verdict == Code.DECODE_CRASHED
    assert found.crashes == {"SIGSEGV": 1}
    assert found.failures == []


def test_what_is_left_open_is_seen() -> None:
    before = Belongings.now()
    with open("/dev/null", "rb"), subprocess.Popen(["sleep", "60"]) as child:
        now = Belongings.now()
        child.kill()
    assert (now.descriptors, now.children) == (before.descriptors + 1, before.children + 1)
    assert Belongings.now() == before
