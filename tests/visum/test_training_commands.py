"""`visum train` and `visum ablate`: what cannot be meant is one line, and a plan runs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from visum.cli import main


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VISUM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def test_an_unknown_key_of_a_config_is_named(tmp_path: Path, capsys) -> None:
    (tmp_path / "train.toml").write_text("[schedule]\nlearning_rate = 1\n")
    assert main(["train", "--domain", "traffic", "--config", "train.toml"]) == 1
    assert "unknown key schedule.learning_rate (there are: " in capsys.readouterr().err


def test_a_domain_that_the_world_does_not_have_is_a_usage_error(capsys) -> None:
    assert main(["train", "--domain", "moon"]) == 2
    assert "no domain 'moon'" in capsys.readouterr().err


def test_an_unknown_experiment_is_answered_with_those_that_there_are(capsys) -> None:
    assert main(["ablate", "everything"]) == 2
    assert (
        "groups, baselines, scale, grid, loss, fusion, architectures, cost, specialize, all"
        in capsys.readouterr().err
    )


def test_architectures_cannot_be_compared_without_the_second_backbone(capsys) -> None:
    assert main(["ablate", "architectures", "--plan"]) == 1
    assert "make second-backbone" in capsys.readouterr().err
    assert main(["ablate", "all", "--plan"]) == 0
    told = capsys.readouterr()
    assert "left out" in told.err
    assert "architectures" not in told.out


def test_a_plan_tells_the_runs_and_their_time_and_runs_nothing(tmp_path: Path, capsys) -> None:
    assert main(["ablate", "all", "--plan", "--seeds", "3", "--out", "results"]) == 0
    told = capsys.readouterr().out
    assert {line.split()[0] for line in told.splitlines()} >= {
        "sweeps",
        "groups",
        "grid",
        "specialize",
        "all",
    }
    assert not (tmp_path / "results").exists()
