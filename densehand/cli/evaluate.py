"""`densehand evaluate`: accuracy of models and of predictions on a dataset."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from densehand.cli.common import progress_bar, say
from densehand.cli.refining import refine_option
from densehand.errors import InputError
from densehand.refine.modes import MODES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from densehand.evaluation.cases import Case
    from densehand.evaluation.journal import Journal
    from densehand.evaluation.run import Measured
    from densehand.evaluation.systems import System


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)


def evaluate(
    folder: Path = typer.Argument(metavar="DIR", help="The dataset's folder, as unpacked."),
    dataset: str = typer.Option("fixtures", "--dataset", "-d", metavar="NAME", help="Which; a wrong name lists them."),
    split: str = typer.Option(None, help="The split; else the dataset's first."),
    limit: int = typer.Option(0, min=0, help="Measure so many hands from the start; 0 for all."),
    model: list[str] = typer.Option(
        None,
        help="Name of a model, a weights file, several joined by +, or mediapipe; may be repeated; default dhpe-lite.",
    ),
    predictions: list[str] = typer.Option(
        None, metavar="[NAME=]FILE", help="Predictions of another system: a file or folder; may be repeated."
    ),
    boxes: str = typer.Option("labels", help="Where models get their boxes: labels, or detect."),
    refine: str = typer.Option("off", metavar="MODE", help=f"Testing refinement: {MODES}."),
    consensus: bool = typer.Option(False, "--consensus", help="Look at each hand in four more crops, as predict does."),
    hand: str = typer.Option(None, help="Hand model of the meshes, also of densehand/1 files: open, mano or FILE.npz."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    precision: str = typer.Option("auto", help="auto: 8-bit integers on x86-64 CPUs, faster; or float32."),
    report: Path = typer.Option(None, metavar="DIR", help="Write report.json, .csv and .html there; can be continued."),
    restart: bool = typer.Option(False, help="Forget what a stopped run has left in --report."),
    correct: bool = typer.Option(
        False, "--correct", help="Also tell errors after one joint correction of each system, fitted on other hands."
    ),
    consistency: str = typer.Option(None, metavar="KIND", help="Measure consistency instead: crops or views."),
    csv_file: Path | None = typer.Option(None, "--csv", help="Add the figures as rows to this results file."),
    commit: str = typer.Option("", help="The commit that the rows of --csv name."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress bar."),
) -> None:
    """Measure models and predictions against a dataset's labels.

    Prints 2D errors (pixels of a 224-px crop; mesh_px is the mesh's projection), PA-MPJPE and root-relative error (mm),
    the share of right sides, score_ece (how far keypoints' scores are from probabilities: docs/confidence.md), and what
    else the labels allow. Without --dataset, DIR holds the measuring fixtures
    val2d.jsonl and val3d.jsonl. Hands are cropped by their labelled boxes; sides are left to the model.

    With --correct, also corrected_median_px, corrected_mean_px and corrected_pa_mm: the errors that are left where one
    linear map of the 21 joints, fitted for each system on other hands of the set, has carried them to where the labels
    have theirs (docs/evaluate.md).

    With --report, results are kept as they come: the same command continues a stopped run.

    [b]Examples:[/b] densehand evaluate fixtures --model dhpe-lite

    densehand evaluate FreiHAND_pub_v2 -d freihand --split evaluation --model dhpe-lite --predictions hamer=pred.json
    --report out
    """
    mode = refine_option(refine)
    from densehand.evaluation.cases import check_dataset, open_cases

    check_dataset(dataset)
    if consistency is not None:
        from densehand.evaluation.consistency import check_kind

        check_kind(consistency)
        if correct:
            raise typer.BadParameter("--consistency has no labels to correct to", param_hint="--correct")
    options = {"refine": mode, "consensus": consensus, "hand": hand, "device": device, "precision": precision}
    if csv_file is not None:
        from densehand.evaluate import append_rows, read_results

        if consistency:
            raise typer.BadParameter("--consistency writes its figures with --report", param_hint="--csv")
        read_results(csv_file)  # a fault is told now, not when all is measured
    systems = open_systems(folder, dataset, split, limit, model or [], predictions or [], boxes, options)
    wanted = f"consistency-{consistency}" if consistency else "hands"
    journals = open_journals(report, wanted, systems, dataset, split, restart, correct)
    try:
        with progress_bar(quiet) as progress:
            task = progress.add_task("hands", total=limit or None)
            cases = open_cases(dataset, folder, split, limit)
            if consistency:
                _consistency(consistency, cases, systems, journals, report, dataset, lambda: progress.advance(task))
                return
            from densehand.evaluation.run import run

            results = run(cases, systems, journals, lambda: progress.advance(task), correct)
    finally:
        for journal in journals:
            journal.close()
    rows = [row for result in results for row in _print(result, dataset, len(results) > 1)]
    if report is not None:
        _write_report(report, results, dataset, split, whole=not limit)
    if csv_file is not None:
        made = f"{mode} + consensus" if consensus else mode
        names = {result.system.name: made if "weights" in result.system.settings else "" for result in results}
        append_rows(csv_file, [{"model": r.pop("model"), "refine": names[n], "commit": commit, **r} for n, r in rows])


def open_systems(
    folder: Path,
    dataset: str,
    split: str | None,
    limit: int,
    models: list[str],
    files: list[str],
    boxes: str,
    options: dict[str, Any],
) -> list[System]:
    """The systems asked for; dhpe-lite where none is. Files are read, and their counts compared with the dataset's.

    options: of each model's `HandEstimator`; its `hand` is that of densehand/1 files too.
    """
    from densehand.evaluation.cases import open_cases
    from densehand.evaluation.systems import MEDIAPIPE, FileSystem, MediapipeSystem, ModelSystem, distinct

    found: list[Any] = []
    for given in files:  # first, as they fail sooner than models load
        name, path = _named_file(given)
        found.append(FileSystem(path, dataset, folder, split, options["hand"] or "open", name))
    if any(entry.ordered is not None for entry in found):
        count = sum(1 for _ in open_cases(dataset, folder, split, limit))
        for entry in found:
            entry.check_count(count, limited=limit > 0)
    opened: list[Any] = []
    for name in models or ([] if files else ["dhpe-lite"]):
        if name == MEDIAPIPE:
            opened.append(MediapipeSystem())
            continue
        from densehand.pipeline import HandEstimator

        estimator = HandEstimator(name, **options)
        opened.append(ModelSystem(estimator, boxes, estimator.name.replace(".safetensors", "")))
    systems = [*opened, *found]
    distinct(systems)
    return systems


def _named_file(given: str) -> tuple[str | None, Path]:
    """`NAME=FILE` or `FILE`."""
    name, equals, path = given.partition("=")
    if equals and name and "/" not in name and not Path(given).exists():
        return name, Path(path)
    return None, Path(given)


def open_journals(
    report: Path | None,
    what: str,
    systems: list[System],
    dataset: str,
    split: str | None,
    restart: bool,
    correct: bool,
) -> list[Journal]:
    """Where each system's results are kept; in memory without a report. Says what is continued."""
    from densehand import __version__
    from densehand.evaluation.cases import split_of
    from densehand.evaluation.journal import Journal
    from densehand.files import ensure_folder

    if report is not None:
        ensure_folder(report)
    journals: list[Journal] = []
    for system in systems:
        settings: dict[str, Any] = {"version": __version__, "what": what, "dataset": dataset}
        settings["split"] = split_of(dataset, split)
        if correct:
            settings["correct"] = True  # rows of other runs are without the points that a joint map is fitted to
        path = None
        if report is not None:
            path = report / f"{what}-{re.sub(r'[^A-Za-z0-9._-]+', '_', system.name)}.jsonl"
            while path in [journal.path for journal in journals]:  # names may differ by what is replaced
                path = path.with_stem(path.stem + "_")
        journals.append(Journal(path, {**settings, **system.settings}, restart))
        if journals[-1].rows:
            say(f"{path}: continuing after {len(journals[-1].rows)} hands")
    return journals


def _print(result: Measured, dataset: str, several: bool) -> list[tuple[str, dict[str, Any]]]:
    """Print the figures of each part and source; the same as rows, with the system's name."""
    from densehand.evaluate import grouped, score_figures, summary

    rows: list[tuple[str, dict[str, Any]]] = []
    fixtures, name = dataset == "fixtures", result.system.name
    for state, count in result.states.items():
        if state != "found":
            example = f" ({result.why[state]})" if state in result.why else ""
            say(f"{name}: {state} {count}{example}")
    for note in result.notes:
        say(f"{name}: {note}")
    if not result.rows:
        raise InputError(f"{dataset}: not one hand with labels; check it with densehand data check")
    for part in dict.fromkeys(row["part"] for row in result.rows):
        for source, hands in grouped(result.hands(part)).items():
            figures = summary(hands, more=not fixtures) | score_figures(hands)
            text = "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
            typer.echo(f"{name + '  ' if several else ''}{part:6} {source:14} {text}")
            place = {"fixture": part} if fixtures else {"dataset": dataset, "split": part}
            shown = {k: round(v, 4) for k, v in figures.items()}
            model = result.system.settings.get("model", name)
            rows.append((name, {"model": model, **place, "source": source, **shown}))
    return rows


def _write_report(report: Path, results: list[Measured], dataset: str, split: str | None, whole: bool) -> None:
    from densehand.evaluation.cases import PUBLISHED_SPLITS, split_of
    from densehand.evaluation.run import MISSES
    from densehand.report import System as Reported
    from densehand.report import write_report

    reported = []
    for result in results:
        states = result.states
        about = {
            **result.system.about,
            "hands measured": len(result.rows),
            **{f"missed: {meaning}": states[state] for state, meaning in MISSES.items() if states[state]},
            "left out: no labels that can be used": states["unlabelled"],
        }
        reported.append(Reported(result.system.name, result.hands(), about))
    part = split_of(dataset, split)
    title = f"{dataset}, {part}: {' and '.join(entry.name for entry in reported)}"
    comparable = whole and PUBLISHED_SPLITS.get(dataset) == part
    legend = "Labels green, estimates red; 2D errors in pixels of a 224-px crop."
    write_report(report, reported, title, dataset, legend, comparable)
    say(f"report: {report / 'report.html'}")


def _consistency(
    kind: str,
    cases: Iterator[Case],
    systems: list[System],
    journals: list[Journal],
    report: Path | None,
    dataset: str,
    tick: Any,
) -> None:
    from densehand.evaluation.consistency import measure, write

    found = measure(kind, cases, systems, journals, tick)
    for entry in found:
        percent = "–" if entry.percent_mean is None else f"{entry.percent_mean:.3g}"
        median = "–" if entry.percent_median is None else f"{entry.percent_median:.3g}"
        typer.echo(
            f"{entry.system:14} {kind}  hands {entry.hands} of {entry.of}  percent {percent}  median {median}  "
            f"missed {entry.missed:.3g}  skipped {entry.skipped}"
        )
    if report is not None:
        write(report, kind, dataset, found)
