"""From finished runs to rows, a table and a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.experiments.catalogue import (
    EXPERTS,
    FROZEN,
    LEARNING_RATES,
    RANKS,
    Experiment,
    Rates,
    compared_specs,
    sweep_specs,
)
from training.experiments.runner import Result
from training.experiments.spec import Size

Row = dict[str, Any]


def best_rates(
    experiments: Sequence[Experiment], size: Size, results: Mapping[str, Result]
) -> tuple[dict[tuple[str, str], float], list[Row]]:
    """(arm, domain) → the rate with the best ROUGE-L on the domain's validation clips, and the sweep's own rows."""
    scores: dict[tuple[str, str], dict[float, float]] = {}
    for arm, rate, spec in sweep_specs(experiments, size):
        scores.setdefault((arm.name, spec.domain), {})[rate] = results[spec.key]["quality"]["rouge_l"]
    rates, rows = {}, []
    for (arm, domain), by_rate in scores.items():
        chosen = rates[arm, domain] = max(by_rate, key=by_rate.__getitem__)
        rows.append(
            {"arm": arm, "domain": domain, "rouge_l": {f"{rate:g}": score for rate, score in by_rate.items()},
             "chosen": chosen, "at_the_edge": chosen in (LEARNING_RATES[0], LEARNING_RATES[-1])}
        )  # fmt: skip
    return rates, rows


def rows_of(
    experiment: Experiment, seeds: int, rates: Rates, size: Size, results: Mapping[str, Result]
) -> list[Row]:
    """One row an arm and domain; ``low`` and ``high`` are the mean over seeds less and plus their deviation."""
    grouped: dict[tuple[str, str], list[Result]] = {}
    for spec in compared_specs(experiment, seeds, rates, size):
        grouped.setdefault((spec.arm, spec.domain), []).append(results[spec.key])
    rows = []
    architectures = {arm.name: arm.architecture for arm in experiment.arms}
    for (arm, domain), runs in grouped.items():
        facts = [run["quality"]["facts"] for run in runs]
        rows.append(
            {
                "arm": arm,
                "architecture": architectures[arm],
                "domain": domain,
                "seeds": len(runs),
                "rouge_l": spread([run["quality"]["rouge_l"] for run in runs]),
                "fact_f1": spread([one["f1"] for one in facts]),
                "exact": spread([run["quality"]["exact"] for run in runs]),
                "facts": {
                    name: round(statistics.fmean(one["recall_by_attribute"][name] for one in facts), 4)
                    for name in facts[0]["recall_by_attribute"]
                },
                "trainable_share": round(statistics.fmean(run["trainable_share"] for run in runs), 5),
                "train_s": round(statistics.fmean(run["train_s"] for run in runs), 1),
                "peak_mib": round(statistics.fmean(run["peak_mib"] for run in runs)),
                "learning_rate": runs[0]["spec"]["settings"].get("schedule.matrix_lr"),
                "fusion_alpha": _mean_alpha(runs),
                "findings": sorted({code for run in runs for code in run["findings"]}),
            }
        )
    return rows


def gains(rows: Sequence[Row]) -> list[Row]:
    """What every trained arm adds to its own frozen backbone, by domain and architecture."""
    named = [(row["arm"].removesuffix(f", {row['architecture']}"), row) for row in rows]
    frozen = {(row["architecture"], row["domain"]): row for arm, row in named if arm == FROZEN.name}
    return [
        {
            "arm": arm,
            "architecture": row["architecture"],
            "domain": row["domain"],
            "seeds": row["seeds"],
            **{
                figure: {
                    bound: round(value - frozen[row["architecture"], row["domain"]][figure]["mean"], 4)
                    for bound, value in row[figure].items()
                }
                for figure in ("rouge_l", "fact_f1")
            },
        }
        for arm, row in named
        if arm != FROZEN.name
    ]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, and the mean less and plus the sample deviation (of one value: none)."""
    mean = statistics.fmean(values)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(mean, 4), "low": round(mean - deviation, 4), "high": round(mean + deviation, 4)}


def _mean_alpha(runs: Sequence[Result]) -> float | None:
    values = [run["fusion_alpha"] for run in runs if run["fusion_alpha"] is not None]
    return round(statistics.fmean(values), 4) if values else None


def write_report(
    out: Path, experiment: Experiment, command: str, size: Size, rows: Sequence[Row], sweep: Sequence[Row],
    machine: str,
) -> None:  # fmt: skip
    """``<experiment>.json``, ``.md`` and ``.svg`` under ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "experiment": experiment.name,
        "question": experiment.question,
        "command": command,
        "machine": machine,
        "size": asdict(size),
        "rows": list(rows),
        "learning_rates": list(sweep),
    }
    if len({row["architecture"] for row in rows}) > 1:
        report["gain_over_frozen"] = gains(rows)
    (out / f"{experiment.name}.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    (out / f"{experiment.name}.md").write_text(_page(report))
    plot = _grid if experiment.name == "grid" else _bars
    plot(rows, out / f"{experiment.name}.svg", experiment.question)


def _page(report: Mapping[str, Any]) -> str:
    size, name = report["size"], report["experiment"]
    table = [
        "| domain | arm | ROUGE-L | fact F1 | exact | trained | CPU s | peak MiB | rate |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(report["rows"], key=lambda row: row["domain"]):
        rate = "–" if row["learning_rate"] is None else f"{row['learning_rate']:g}"
        cells = [row["domain"], row["arm"], *(_told(row[figure]) for figure in ("rouge_l", "fact_f1", "exact")),
                 f"{row['trainable_share']:.2%}", f"{row['train_s']:.0f}", str(row["peak_mib"]), rate]  # fmt: skip
        table.append(f"| {' | '.join(cells)} |")
    sweep = ["| domain | arm | " + " | ".join(f"{rate:g}" for rate in LEARNING_RATES) + " | chosen |",
             "|---" * (len(LEARNING_RATES) + 3) + "|"]  # fmt: skip
    for row in sorted(report["learning_rates"], key=lambda row: row["domain"]):
        edge = " (at the edge)" if row["at_the_edge"] else ""
        scores = " | ".join(f"{score:.3f}" for score in row["rouge_l"].values())
        sweep.append(f"| {row['domain']} | {row['arm']} | {scores} | {row['chosen']:g}{edge} |")
    seeds = max(row["seeds"] for row in report["rows"])
    return f"""# {name}: {report["question"]}

```
{report["command"]}
```

{size["clips"]} training clips a run, each seen once ({size["new_looks"]:g} times as many where known words have new
looks, {size["new_words"]:g} times where the wording is new),
{size["test_clips"]} test clips; mean ± deviation over {seeds} seeds. {report["machine"]}.

{chr(10).join(table)}
{_gain_table(report.get("gain_over_frozen", ()))}
![{name}]({name}.svg)

Learning rates, chosen before on validation clips with a seed of its own (ROUGE-L); `laboratory` takes those of
`traffic`:

{chr(10).join(sweep)}
"""


def _gain_table(gained: Sequence[Row]) -> str:
    """Architectures side by side; nothing where there is one alone."""
    if not gained:
        return ""
    architectures = list(dict.fromkeys(row["architecture"] for row in gained))
    by_place = {(row["domain"], row["arm"], row["architecture"]): row for row in gained}
    columns = [f"{label}, {name}" for label in ("ROUGE-L", "fact F1") for name in architectures]
    lines = ["", "What an arm adds to its own frozen backbone:", "",
             f"| domain | arm | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]  # fmt: skip
    for domain, arm in dict.fromkeys((row["domain"], row["arm"]) for row in gained):
        figures = [
            by_place[domain, arm, name][key] for key in ("rouge_l", "fact_f1") for name in architectures
        ]
        cells = [f"{one['mean']:+.3f} ± {one['high'] - one['mean']:.3f}" for one in figures]
        lines.append(f"| {domain} | {arm} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _told(figure: Mapping[str, float]) -> str:
    return f"{figure['mean']:.3f} ± {figure['high'] - figure['mean']:.3f}"


def _axes(columns: int, title: str):
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "visum"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, columns, figsize=(5.5 * columns, 4), squeeze=False, layout="constrained"
    )
    figure.suptitle(title, fontsize=10)
    return figure, axes[0]


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _bars(rows: Sequence[Row], path: Path, title: str) -> None:
    """Arms side by side in each domain, with the deviation over seeds."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    figure, axes = _axes(2, title)
    for axis, figure_name, label in zip(axes, ("rouge_l", "fact_f1"), ("ROUGE-L", "fact F1"), strict=True):
        for place, arm in enumerate(arms):
            own = {row["domain"]: row[figure_name] for row in rows if row["arm"] == arm}
            xs = [index + (place - (len(arms) - 1) / 2) * 0.8 / len(arms) for index in range(len(domains))]
            means = [own[domain]["mean"] for domain in domains]
            errors = [own[domain]["high"] - own[domain]["mean"] for domain in domains]
            axis.bar(xs, means, 0.8 / len(arms), yerr=errors, label=arm, capsize=2)
        axis.set_xticks(range(len(domains)), domains)
        axis.set_ylim(0, 1)
        axis.set_ylabel(label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    _save(figure, path)


def _grid(rows: Sequence[Row], path: Path, title: str) -> None:
    """Rank by number of experts as two heat maps."""
    figure, axes = _axes(2, title)
    for axis, figure_name, label in zip(axes, ("rouge_l", "fact_f1"), ("ROUGE-L", "fact F1"), strict=True):
        by_arm = {row["arm"]: row[figure_name] for row in rows}
        table = [[by_arm[f"r={rank} K={experts}"]["mean"] for experts in EXPERTS] for rank in RANKS]
        image = axis.imshow(table, cmap="viridis", aspect="auto")
        for y, line in enumerate(table):
            for x, mean in enumerate(line):
                ink = "white" if image.norm(mean) < 0.6 else "black"
                axis.text(x, y, f"{mean:.3f}", ha="center", va="center", color=ink)
        axis.set_xticks(range(len(EXPERTS)), [f"K={experts}" for experts in EXPERTS])
        axis.set_yticks(range(len(RANKS)), [f"r={rank}" for rank in RANKS])
        axis.set_title(label)
    _save(figure, path)
