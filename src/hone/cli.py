"""The command `hone`: the only reader of the command line.

What needs torch is imported inside the commands, so that help, plan and status answer at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hone import __version__
from hone.tasks.split import Split
from hone.types import HoneError, RunError

if TYPE_CHECKING:
    from hone.config import Recipe, Study
    from hone.evals.outputs import Decoding, Source
    from hone.types import Problem

app = typer.Typer(
    name="hone",
    help="DeepSeek-R1's recipe end to end: from a base model to a reasoner.\n\nExample: hone run r1-zero-tiny",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
sandbox_app = typer.Typer(help="Run untrusted programs in isolation.", no_args_is_help=True)
app.add_typer(sandbox_app, name="sandbox")
PREFLIGHT_ROWS = 20
out_console = Console(width=None if sys.stdout.isatty() else 190, soft_wrap=not sys.stdout.isatty())

RecipeName = Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.", metavar="RECIPE")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting: seed=1 or STAGE.key=value. May be repeated.", metavar="KEY=VALUE"),
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="DIR")]
OutFolder = Annotated[Path | None, typer.Option("--out", help="The folder of the run; by default runs/RECIPE.")]


class Interrupted(Exception):
    """Ctrl-C while a run was under way."""


def main() -> None:
    """Run the command line. Exit 0 for success, 1 for a failed run, 2 for a usage or recipe error, 130 for Ctrl-C."""
    errors = Console(stderr=True, soft_wrap=True)
    try:
        app()
    except RunError as error:
        errors.print(f"[bold red]failed:[/] {_plain(error)}", highlight=False)
        sys.exit(1)
    except HoneError as error:
        errors.print(f"[bold red]error:[/] {_plain(error)}", highlight=False)
        sys.exit(2)
    except Interrupted as error:
        errors.print(str(error), highlight=False)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        out_console.print(f"hone {__version__}", highlight=False)
        raise typer.Exit


@app.command()
def run(
    recipe: RecipeName,
    settings: Settings = None,
    out: OutFolder = None,
    from_stage: Annotated[
        str | None, typer.Option("--from", help="Run this stage, and what depends on it, again.", metavar="STAGE")
    ] = None,
) -> None:
    """Run a recipe; after a crash or Ctrl-C the same command goes on where it stopped.

    Example: hone run r1-zero-tiny --set seed=1 --out runs/seed-1
    """
    from hone.config import load_recipe, load_study

    if study := load_study(recipe, tuple(settings or ())):
        if from_stage:
            raise HoneError(f"--from {from_stage}: {recipe} is a study; give it to hone run with one seed's folder")
        folder = out or Path("runs") / study[0].name
        _print_summary(_uninterrupted(lambda console: _run_study(*study, folder, console)))
        return
    loaded = load_recipe(recipe, tuple(settings or ()))
    folder = out or Path("runs") / loaded.name
    _print_summary(_carry_out(loaded, folder, from_stage))
    if find_spec("plotly"):
        _print_report(folder)
    else:
        out_console.print("no report: it needs plotly (pip install 'hone-r1[report]')", markup=False)


@app.command()
def plan(recipe: RecipeName, settings: Settings = None, out: OutFolder = None) -> None:
    """Show a recipe's stages, what they start from, what is done and what they take; refuse a wrong recipe.

    Nothing is fetched. Tokens, memory and operations are upper bounds, ? where they are not known: every output as long
    as it may be; weights, gradients, AdamW's moments, reference and (of models that are here) keys and values in
    float32. Held-out evaluations, prompts, activations, judges and reward models come on top.

    Example: hone plan r1-zero-tiny --set r1_zero.steps=100
    """
    from hone.config import load_recipe, load_study

    if study := load_study(recipe, tuple(settings or ())):
        folder = out or Path("runs") / study[0].name
        for loaded in study[1]:
            _print_plan(loaded, folder / f"seed-{loaded.seed}")
    else:
        loaded = load_recipe(recipe, tuple(settings or ()))
        _print_plan(loaded, out or Path("runs") / loaded.name)
    out_console.print("tokens, memory and operations at most; ? is not known (hone plan --help)", highlight=False)


def _print_plan(loaded: Recipe, folder: Path) -> None:
    from hone.pipeline.estimate import estimates
    from hone.pipeline.run import make_plan

    made = make_plan(loaded, folder)
    table = Table(title=f"{loaded.name} in {folder}, seed {loaded.seed}", title_justify="left")
    for column in ("stage", "kind", "reads", "state", "hash", "sampled", "trained", "memory", "operations"):
        table.add_column(column, overflow="fold")
    takes = estimates(loaded, made.models)
    for stage in loaded.stage:
        record, take = made.manifest.stages[stage.name], takes[stage.name]
        state = "made with other settings" if stage.name in made.changed else record.state
        amounts = (_about(take.sampled), _about(take.trained), _about(take.memory, "B"), _about(take.operations))
        reads = ", ".join(dict.fromkeys(stage.inputs)) or "nothing"
        table.add_row(stage.name, stage.kind, reads, state, record.hash, *amounts)
    out_console.print(table)


def _about(amount: float | None, unit: str = "") -> str:
    """Write an amount with two digits and a letter for its size."""
    if not amount:
        return "?" if amount is None else ""
    power = next((power for power in (24, 21, 18, 15, 12, 9, 6, 3) if amount >= 10**power), 0)
    value = amount / 10**power
    letter = {0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E", 21: "Z", 24: "Y"}[power]
    return f"{value:.{0 if value >= 10 else 1}f} {letter}{unit}".rstrip()


@app.command()
def status(folder: RunFolder) -> None:
    """Show where a run stands, or each run of a study.

    Example: hone status runs/r1-zero-tiny
    """
    from hone.pipeline.study import runs_in

    for run in runs_in(folder):
        _print_status(run)


def _print_status(folder: Path) -> None:
    from hone.pipeline.manifest import read_manifest
    from hone.record.files import read_rows

    manifest = read_manifest(folder)
    table = Table(title=f"{manifest.recipe['name']} in {folder}", title_justify="left")
    for column in ("stage", "kind", "state", "seconds", "step", "last figures"):
        table.add_column(column)
    for name, record in manifest.stages.items():
        last = (read_rows(folder / name / "metrics.jsonl") or [{}])[-1]
        shown = [key for key in ("loss", "reward/mean", "completion/length_mean") if key in last]
        figures = record.error or "  ".join(f"{key} {last[key]:.3g}" for key in shown)
        seconds = "" if record.seconds is None else f"{record.seconds:.0f}"
        table.add_row(name, record.kind, record.state, seconds, str(last.get("step", "")), figures)
    out_console.print(table)


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="The folder of a run; with --compare, evaluations.", metavar="DIR")
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="A leaderboard of the evaluations in these folders.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; by default DIR/report.html.")] = None,
) -> None:
    """Write the HTML report of a run, finished or not, or compare evaluations: one file that opens without a network.

    Example: hone report runs/r1-zero-tiny

    Example: hone report --compare runs/eval-a runs/eval-b --out leaderboard.html
    """
    from hone.pipeline.manifest import read_manifest
    from hone.pipeline.study import runs_in

    if compare:
        from hone.report.leaderboard import write_leaderboard

        place = write_leaderboard(folders, out or Path("leaderboard.html"))
        out_console.print(f"leaderboard: {place}", highlight=False, markup=False)
        return
    if len(folders) > 1:
        raise HoneError(f"{len(folders)} folders: a report is of one run; evaluations are compared with --compare")
    for run in runs_in(folders[0]):
        read_manifest(run)
    _print_report(folders[0], out)


@app.command("eval")
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model folder or name, a stage of a run, or an endpoint, http://.../v1.", metavar="MODEL"
        ),
    ] = None,
    benchmark: Annotated[
        str, typer.Option(help="math500, aime2024, gsm8k, ifeval, countdown ... or a file of problems.", metavar="NAME")
    ] = "countdown",
    data: Annotated[
        str | None, typer.Option(help="A file with the benchmark's rows, in the place of the hub.", metavar="FILE")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Outputs a problem; by default the benchmark's.")] = None,
    count: Annotated[int, typer.Option(min=0, help="How many problems; 0: all, of a built-in task 200.")] = 0,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="Draw from this share of the probability.")] = 0.95,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="The longest output; by default 32768, or what the model has room for.")
    ] = None,
    template: Annotated[str, typer.Option(help="chat (the model's own) or r1-zero (the paper's).")] = "chat",
    split: Annotated[
        Split, typer.Option(help="Of a built-in task: validation for choices, test for figures.")
    ] = "test",
    since: Annotated[str | None, typer.Option(help="LiveCodeBench: from this day on, 2024-08-01.")] = None,
    until: Annotated[str | None, typer.Option(help="LiveCodeBench: up to this day.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses what is sampled.")] = 0,
    generations: Annotated[
        Path | None,
        typer.Option(help="Score outputs made elsewhere, rows {id, problem, answer, responses}.", metavar="FILE"),
    ] = None,
    verifier: Annotated[str, typer.Option(help="Of --generations: math, number, choice, expression.")] = "math",
    extract: Annotated[str, typer.Option(help="Of --generations: auto, boxed, tags, phrase, choice.")] = "auto",
    served_model: Annotated[
        str | None, typer.Option(help="The model's name at the endpoint, where it serves several.", metavar="NAME")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar=["HONE_API_KEY", "OPENAI_API_KEY"], help="The endpoint's key.", metavar="KEY")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight at an endpoint.")] = 64,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a request has failed.")] = 600.0,
    out: Annotated[Path | None, typer.Option(help="The evaluation's folder; by default in runs/.")] = None,
) -> None:
    """Measure a model by the paper's protocol: pass@1, pass@k, cons@k with 95% intervals. Every output is kept.

    After a crash or Ctrl-C the same command goes on and draws nothing twice.

    Example: hone eval base-tiny --benchmark countdown --count 50 --samples 8

    Example: hone eval http://127.0.0.1:8000/v1 --benchmark math500

    Example: hone eval --generations outputs.jsonl --out my-scores
    """
    from hone.evals.run import score_file
    from hone.record.progress import make_console

    if generations:
        if model:
            raise HoneError(f"MODEL {model} and --generations {generations}: give one of them")
        folder = out or Path("runs") / f"eval-{generations.stem}"
        console = make_console()
        _scored(
            lambda: score_file(generations, folder=folder, verifier=verifier, extraction=extract, console=console),
            folder,
        )
        return
    if split == "train":
        raise HoneError("--split train: figures on problems to train on say nothing; there are validation and test")
    if not model:
        raise HoneError("a MODEL is wanted, or --generations FILE with outputs made elsewhere")
    _sample_and_score(
        model, benchmark, data, samples=samples, count=count, seed=seed, split=split, since=since, until=until,
        temperature=temperature, top_p=top_p, max_tokens=max_tokens, template=template, out=out,
        endpoint={"model": served_model, "api_key": api_key, "concurrency": concurrency, "timeout": timeout},
    )  # fmt: skip


def _sample_and_score(
    model: str, benchmark: str, data: str | None, *, samples: int | None, count: int, seed: int, split: Split,
    since: str | None, until: str | None, temperature: float, top_p: float, max_tokens: int | None, template: str,
    out: Path | None, endpoint: dict[str, Any],
) -> None:  # fmt: skip
    from hone.evals.run import describe, folder_name
    from hone.evals.run import evaluate as carry_out
    from hone.record.progress import make_console
    from hone.tasks.benchmarks import load_benchmark

    named, problems, place = load_benchmark(
        benchmark, data, count=count, seed=seed, split=split, since=since, until=until
    )
    source, decoding = _source(model, problems, endpoint, temperature, top_p, max_tokens, template)
    k = samples or (1 if temperature == 0 else named.samples)
    choices = {"data": place, "count": count, "seed": seed, "samples": k, "split": split, "window": [since, until]}
    folder = out or Path("runs") / folder_name(
        named.name, source.model, decoding=repr(decoding), hash=source.model_hash, **choices
    )
    console = make_console()
    console.print(
        f"{named.title}: {len(problems)} problems ({place}), {describe(decoding, k)}; in {folder}", highlight=False
    )
    _scored(
        lambda: carry_out(
            source, problems, benchmark=named.name, data=place, prompt=named.prompt, decoding=decoding, samples=k,
            seed=seed, folder=folder, console=console,
        ),
        folder,
    )  # fmt: skip


def _source(
    model: str, problems: Sequence[Problem], endpoint: dict[str, Any], temperature: float, top_p: float,
    max_tokens: int | None, template: str,
) -> tuple[Source, Decoding]:  # fmt: skip
    """Return the model to be asked, and how its outputs are drawn."""
    from hone.evals.outputs import Decoding

    decoding = Decoding(
        temperature=temperature, top_p=top_p, max_tokens=max_tokens or Decoding().max_tokens, template=template
    )  # fmt: skip
    if model.startswith(("http://", "https://")):
        from hone.evals.endpoint import Endpoint

        return Endpoint(model, **endpoint), decoding
    from hone.evals.local import LocalModel

    local = LocalModel(model)
    return local, decoding if max_tokens else local.fitted(problems, decoding)


def _scored(score: Callable[[], dict[str, Any]], folder: Path) -> None:
    """Carry out an evaluation and print what it came to."""
    try:
        scores = score()
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; nothing is lost: the same command goes on with what is in {folder}") from None
    _print_scores(scores)
    out_console.print(f"scores, verdicts and outputs: {folder}", highlight=False, markup=False)


@app.command()
def regrade(
    folder: Annotated[Path, typer.Argument(help="The folder of an evaluation.", metavar="DIR")],
    verifier: Annotated[str | None, typer.Option(help="Another verifier: math, number, choice, ...")] = None,
    extract: Annotated[
        str | None, typer.Option(help="Another place of the answer: auto, boxed, tags, phrase, choice.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write verdicts and scores; by default to DIR.")] = None,
) -> None:
    """Score the stored outputs of an evaluation again; no model is asked.

    Example: hone regrade runs/eval-math500 --extract auto --out runs/eval-math500-auto
    """
    from hone.evals.run import regrade as carry_out
    from hone.record.progress import make_console

    place, console = out or folder, make_console()
    _scored(lambda: carry_out(folder, verifier=verifier, extraction=extract, out=place, console=console), place)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="The folder of an evaluation.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="The folder of another one on the same problems.", metavar="B")],
    rows: Annotated[int, typer.Option(min=0, help="How many problems to show, the most different first.")] = 20,
) -> None:
    """Compare two evaluations problem by problem: the difference, its interval and p-value, and what would tell more.

    Example: hone compare runs/eval-before runs/eval-after
    """
    from hone.evals.compare import compare as carry_out

    found = carry_out(a, b)
    for line in found.describe():
        out_console.print(line, highlight=False, markup=False)
    table = Table(title="share right by problem", title_justify="left")
    for column in ("problem", "A", "B", "B - A"):
        table.add_column(column, justify="left" if column == "problem" else "right", overflow="fold")
    for problem in found.problems[:rows]:
        table.add_row(_plain(problem.id), f"{problem.a:.3f}", f"{problem.b:.3f}", f"{problem.difference:+.3f}")
    if rows:
        out_console.print(table)
        if len(found.problems) > rows:
            out_console.print(f"and {len(found.problems) - rows} more (--rows)", highlight=False)


@app.command()
def preflight(recipe: RecipeName, settings: Settings = None) -> None:
    """Try the rewards of a recipe's RL stages on their own problems, before anything is trained.

    The reference answers must score right, answers near them and known attacks wrong; training problems must not stand
    in evaluation sets. Exits 1 where a threshold is broken.

    Example: hone preflight r1-zero-tiny
    """
    from hone.config import RlStage, load_recipe
    from hone.record.progress import make_console
    from hone.stages.judge import install
    from hone.stages.preflight import describe, watch_preflight

    stages = [stage for stage in load_recipe(recipe, tuple(settings or ())).stage if isinstance(stage, RlStage)]
    if not stages:
        raise HoneError(f"recipe {recipe}: it has no stage of kind rl, so there are no rewards to try")
    failures = 0
    for stage in stages:
        try:
            install(stage.judge, None)
            found = watch_preflight(stage, make_console())
        except KeyboardInterrupt:
            raise Interrupted("stopped; nothing was trained or written") from None
        out_console.print(f"{stage.name}: {describe(found)}", highlight=False)
        for finding in found.findings[:PREFLIGHT_ROWS]:
            out_console.print(f"  {finding.problem}  {finding.check}: {finding.detail}", highlight=False, markup=False)
        if len(found.findings) > PREFLIGHT_ROWS:
            out_console.print(f"  and {len(found.findings) - PREFLIGHT_ROWS} more", highlight=False)
        for failure in found.failures:
            out_console.print(f"[bold red]no[/]  {_plain(failure)}", highlight=False)
        failures += len(found.failures)
    raise typer.Exit(1 if failures else 0)


@app.command()
def drill(
    recipe: RecipeName,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where to do it; by default runs/drill-RECIPE.")] = None,
    stages: Annotated[
        list[str] | None, typer.Option("--stage", help="Kill in this stage alone. May be repeated.", metavar="STAGE")
    ] = None,
) -> None:
    """Kill a run at every point, go on each time, and compare bit for bit with an undisturbed run; exits 1 on a fault.

    The points of each stage: as it starts, at half of its work, in the midst of saving, before the next stage.

    Example: hone drill r1-zero-tiny --set r1_zero.steps=4 --out runs/drill
    """
    from hone.config import load_recipe
    from hone.pipeline.drill import POINTS
    from hone.pipeline.drill import drill as carry_out
    from hone.record.progress import make_console

    loaded = load_recipe(recipe, tuple(settings or ()))
    folder = out or Path("runs") / f"drill-{loaded.name}"
    try:
        found = carry_out(loaded, folder, make_console(), tuple(stages or ()))
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; the same command goes on; what the runs said is in {folder}") from None
    table = Table(title=f"{loaded.name} killed and resumed, against undisturbed", title_justify="left")
    for column in ("stage", *POINTS, "differs"):
        table.add_column(column)
    for stage in found:
        more = f" and {len(stage.differs) - 1} more" if len(stage.differs) > 1 else ""
        table.add_row(stage.stage, *stage.cells(), _plain(stage.differs[0] + more) if stage.differs else "")
    out_console.print(table)
    raise typer.Exit(0 if all(stage.held for stage in found) else 1)


@app.command()
def verify(
    rows: Annotated[Path, typer.Option("--in", help="JSON lines, each with id, gold and pred.", metavar="FILE")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the verdicts.", metavar="FILE")],
    extract: Annotated[
        str, typer.Option(help="Where in pred the answer stands: auto, boxed, tags, phrase, choice.")
    ] = "auto",
) -> None:
    """Check answers: rows {id, gold, pred} in, {id, verdict, why, seconds} out; right, wrong or unscorable.

    Example: hone verify --in answers.jsonl --out verdicts.jsonl
    """
    from hone.checks import answer_rows, verify_rows

    cases = answer_rows(rows)
    _write_verdicts("verify", verify_rows(cases, extract), len(cases), rows, out)


@app.command()
def decontaminate(
    train: Annotated[str, typer.Option("--train", help="Training rows: a file or hub:owner/name.", metavar="ROWS")],
    evaluations: Annotated[
        list[str],
        typer.Option("--eval", help="A benchmark, or its rows as a file. May be repeated.", metavar="ROWS"),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where to write the pairs, as JSON lines.", metavar="FILE")],
    clean: Annotated[
        Path | None, typer.Option("--clean", help="Where to write the training rows in no pair.", metavar="FILE")
    ] = None,
    field: Annotated[str, typer.Option(help="What holds the texts, a|b; by default problem, question, ...")] = "",
    min_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="A pair needs this share of the evaluation text's 13-grams.")
    ] = 0.0,
) -> None:
    """Find evaluation texts in training rows: the same text, normalised, or the same 13 words in a row.

    Example: hone decontaminate --train train.jsonl --eval math500 --out pairs.jsonl --clean clean.jsonl
    """
    from hone.decontaminate import count_rows
    from hone.decontaminate import decontaminate as find
    from hone.record.progress import StageProgress, make_console

    with StageProgress(make_console(), "decontaminate", count_rows(train)) as progress:

        def on_rows(done: int) -> None:
            progress.total = max(progress.total, done)
            progress.update(done)

        try:
            found = find(train, evaluations, out, clean, field=field, min_share=min_share, on_rows=on_rows)
        except KeyboardInterrupt:
            raise Interrupted("stopped; nothing was written") from None
    out_console.print(
        f"{found.num_train:,} training rows, {found.num_eval:,} evaluation rows: {found.exact:,} pairs exact, "
        f"{found.ngram:,} by 13-grams; in {out}\n"
        f"{found.num_train_held:,} training rows hold something of {found.num_eval_held:,} evaluation rows"
        + (f"; the other {found.num_train - found.num_train_held:,} are in {clean}" if clean else ""),
        highlight=False, markup=False,
    )  # fmt: skip


@sandbox_app.command("run")
def sandbox_run(
    rows: Annotated[Path, typer.Option("--in", help="JSON lines, each with id, program and tests.", metavar="FILE")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the verdicts.", metavar="FILE")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Wall time of a test.")] = 6.0,
    memory_mb: Annotated[int, typer.Option(min=32, help="Memory of a program and all that it starts.")] = 512,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run without isolation: only programs that you trust.")
    ] = False,
) -> None:
    """Check programs in a sandbox: rows {id, program, tests} in; {id, verdict, why, seconds, peak_mb, ...} out.

    A test is an assert, {stdin, stdout} or {function, args, expected}. A verdict is passed, failed, timeout, memory,
    output, error or refused.

    Example: hone sandbox run --in programs.jsonl --out verdicts.jsonl
    """
    from hone.checks import program_rows, run_programs
    from hone.record.progress import make_console
    from hone.sandbox import Limits

    cases = program_rows(rows)
    limits = Limits(seconds=seconds, memory_mb=memory_mb)
    if unsafe:
        make_console().print("without isolation: these programs can do all that you can", style="bold red")
    _write_verdicts("sandbox", run_programs(cases, limits, unsafe=unsafe), len(cases), rows, out)


@sandbox_app.command("selftest")
def sandbox_selftest() -> None:
    """Try to escape from the sandbox: one line an attempt; exits 1 where one got through.

    Example: hone sandbox selftest
    """
    from hone.sandbox.selftest import selftest

    probes = selftest()
    for probe in probes:
        mark = "[green]held[/]" if probe.held else "[bold red]ESCAPED[/]"
        out_console.print(f"{mark}  {_plain(probe.name)}: {_plain(probe.seen)}", highlight=False)
    raise typer.Exit(0 if all(probe.held for probe in probes) else 1)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A model folder or name, or a GGUF file.", metavar="MODEL")],
    prompt: Annotated[str | None, typer.Option(help="Answer this one message and exit.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="R1's advice is 0.6; 0 takes the likeliest token.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="R1's advice is 0.95.")] = 0.95,
    max_tokens: Annotated[int, typer.Option(min=1, help="An answer is cut after this many tokens.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="Chooses what is sampled.")] = 0,
    fold: Annotated[bool, typer.Option("--fold", help="Begin with the thinking folded away.")] = False,
) -> None:
    """Talk to a model in the terminal; its thinking is dimmed, or folded away by /think. Ctrl-C stops an answer.

    No system prompt is given, and earlier thinking is left out of the conversation, as R1 advises.

    Example: hone chat runs/r1-zero-tiny/r1_zero/checkpoint --prompt "use 3 8 5 make 43"
    """
    from hone.chat import Chat
    from hone.types import SamplingParams

    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p)
    session = Chat(model, params, seed, out_console, folded=fold)
    if prompt is None:
        session.loop()
    elif not session.answer(prompt):
        raise Interrupted("stopped")


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A model folder or name, or a GGUF file.", metavar="MODEL")],
    host: Annotated[str, typer.Option(help="The address to listen at; where others reach it, give a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="HONE_API_KEY", help="What clients must send as their key.", metavar="KEY")
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Completions under way at a time.")] = 64,
    queue: Annotated[int, typer.Option(min=0, help="Completions that may wait; more are refused (429).")] = 256,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest completion.")] = 4096,
    name: Annotated[str | None, typer.Option(help="What clients call the model; by default MODEL.")] = None,
) -> None:
    """Serve a model by OpenAI's chat and completions API; the thinking is `reasoning_content`. Ctrl-C ends.

    Example: hone serve base-tiny --port 8000
    """
    if not find_spec("starlette") or not find_spec("uvicorn"):
        raise HoneError("hone serve needs starlette and uvicorn: pip install 'hone-r1[serve]'")
    from hone.engine.local.engine import LocalEngine
    from hone.models.folders import find_model
    from hone.serve import ServeSettings
    from hone.serve import serve as answer

    settings = ServeSettings(
        name=name or model, host=host, port=port, api_key=api_key, max_rows=max_rows, max_waiting=queue,
        max_tokens=max_tokens,
    )  # fmt: skip
    engine = LocalEngine.open(find_model(model))
    answer(engine, settings, lambda line: out_console.print(line, highlight=False, markup=False))


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(help="A model folder or name, a GGUF file, or a stage of a run.", metavar="MODEL")
    ],
    form: Annotated[str, typer.Option("--format", help="hf (transformers, vLLM) or gguf (llama.cpp).")] = "hf",
    out: Annotated[Path | None, typer.Option("--out", help="The folder or file; by default in exports/.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; by default as the weights are stored.")
    ] = None,
) -> None:
    """Write a model as a folder with its card and licences, or as one GGUF file; nothing is written over.

    Example: hone export runs/r1-tiny/all_scenario_rl --format hf --out my-model
    """
    from hone.export import export as write
    from hone.record.progress import make_console

    out_console.print(f"export: {write(model, form, out, dtype, make_console())}", highlight=False, markup=False)


@app.command()
def doctor() -> None:
    """Check this machine: one line for each thing that is missing or wrong, and its mend.

    Example: hone doctor
    """
    from hone.doctor import diagnose

    problems = 0
    for finding in diagnose():
        mark = "[green]ok[/]" if finding.mend is None else "[yellow]--[/]" if not finding.needed else "[bold red]no[/]"
        mend = "" if finding.mend is None else f"; mend: {_plain(finding.mend)}"
        out_console.print(f"{mark}  {_plain(finding.what)}{mend}", highlight=False)
        problems += finding.mend is not None and finding.needed
    raise typer.Exit(1 if problems else 0)


def _carry_out(recipe: Recipe, folder: Path, from_stage: str | None = None) -> dict[str, Any]:
    """Run a recipe and return its summary."""
    from hone.pipeline.run import run_recipe

    return _uninterrupted(lambda console: run_recipe(recipe, folder, console, from_stage=from_stage))


def _run_study(study: Study, recipes: list[Recipe], folder: Path, console: Console) -> Path:
    from hone.pipeline.study import run_study

    summary = run_study(study, recipes, folder, console)
    if find_spec("plotly"):
        for seed in study.seeds:
            _print_report(folder / f"seed-{seed}")
        _print_report(folder)
    return summary


def _uninterrupted(run: Callable[[Console], Path]) -> dict[str, Any]:
    """Return the summary of what `run` carries out."""
    from hone.record.progress import make_console

    try:
        summary = run(make_console())
    except KeyboardInterrupt:
        # Caught here, since typer would answer it with an exit of its own.
        raise Interrupted("stopped; nothing is lost: the same command goes on from the last checkpoint") from None
    return json.loads(summary.read_text("utf-8"))  # type: ignore[no-any-return]


def _write_verdicts(name: str, verdicts: Iterator[dict[str, Any]], total: int, rows: Path, out: Path) -> None:
    from hone.checks import write_verdicts
    from hone.record.progress import StageProgress, make_console

    if out.exists() and rows.exists() and out.samefile(rows):
        raise HoneError(f"--out {out} is the file of --in, which would be lost; name another")
    try:
        with StageProgress(make_console(), name, total) as progress:
            counts = write_verdicts(verdicts, out, progress.update)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; the verdicts up to here are in {out}") from None
    shares = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    out_console.print(f"{total} rows: {shares or 'nothing'}; in {out}", highlight=False)


def _print_report(folder: Path, out: Path | None = None) -> None:
    from hone.report.html import write_report

    out_console.print(f"report: {write_report(folder, out)}", highlight=False)


def _print_scores(scores: dict[str, Any]) -> None:
    """Print what was measured, how, and what it came to."""
    sizes = f"{scores['num_problems']} problems x {scores['samples']} outputs, with 95% intervals"
    table = Table(title=_plain(f"{scores['benchmark']}: {scores['model']}, {sizes}"), title_justify="left")
    for column in ("figure", "value", "interval"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for label, key in _EVAL_ROWS:
        value, interval = scores.get(key), scores.get(f"{key}_ci95")
        if value is None or (key == "pass_at_k" and scores["samples"] == 1):
            continue
        digits = 1 if "length" in key else 3
        bounds = "" if interval is None else rf"\[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
        table.add_row(label.replace("@k", f"@{scores['samples']}"), f"{value:.{digits}f}", bounds)
    out_console.print(table)
    for tag, groups in scores["groups"].items():
        shares = ", ".join(
            f"{name} {group['pass_at_1']:.3f} ({group['num_problems']})"
            for name, group in groups.items()
            if group["pass_at_1"] is not None
        )
        out_console.print(f"pass@1 by {tag}: {shares}", highlight=False, markup=False)
    if scores["num_unscorable"]:
        out_console.print(f"left out: {scores['num_unscorable']} outputs that could not be scored", highlight=False)
    settings = scores["settings"]
    prompt = f"; prompt {settings['prompt']!r}" if settings["prompt"] else ""
    out_console.print(f"measured: {settings['protocol']}{prompt}; {scores['verifier']}", highlight=False, markup=False)


_EVAL_ROWS = (
    ("pass@1", "pass_at_1"),
    ("standard error of pass@1", "pass_at_1_standard_error"),
    ("pass@k", "pass_at_k"),
    ("cons@k", "cons_at_k"),
    ("right with the form ignored", "lenient_pass_at_1"),
    ("instructions followed", "instruction_accuracy"),
    ("instructions followed, loosely", "instruction_accuracy_loose"),
    ("mean length, tokens", "completion_length_mean"),
    ("cut", "truncated_share"),
    ("in the form", "format_share"),
    ("in the question's language", "language_consistency"),
    ("reflects", "reflection_rate"),
    ("verifies", "verification_rate"),
    ("repeats itself", "repetition_share"),
)

_COLUMNS = (
    ("cons@k", "cons_at_k", "{:.3f}"),
    ("lenient", "lenient_pass_at_1", "{:.3f}"),
    ("length", "completion_length_mean", "{:.1f}"),
    ("finished", "completion_length_finished_mean", "{:.1f}"),
    ("reflects", "reflection_rate", "{:.2f}"),
    ("verifies", "verification_rate", "{:.2f}"),
    ("language", "language_consistency", "{:.2f}"),
    ("repeats", "repetition_share", "{:.2f}"),
    ("format", "format_share", "{:.2f}"),
    ("cut", "truncated_share", "{:.2f}"),
)


def _print_summary(summary: dict[str, Any]) -> None:
    seeds = f"seeds {' '.join(map(str, summary['seeds']))}" if "seeds" in summary else f"seed {summary['seed']}"
    out_console.print(f"{summary['recipe']}, {seeds}, {summary['seconds']:.0f} s", highlight=False)
    for benchmark in dict.fromkeys(model["benchmark"] for model in summary["models"]):
        models = [model for model in summary["models"] if model["benchmark"] == benchmark]
        sizes = f"{models[0]['num_problems']} problems x {models[0]['samples']} samples"
        table = Table(title=f"{benchmark}, {sizes}, with 95% intervals", title_justify="left")
        for column in ("model", "pass@1", *(header for header, _, _ in _COLUMNS)):
            table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
        for model in models:
            low, high = model["pass_at_1_ci95"]
            cells = ["" if model[key] is None else form.format(model[key]) for _, key, form in _COLUMNS]
            name = f"{model['stage']} ({model['title']})" if model["title"] else model["stage"]
            table.add_row(name, rf"{model['pass_at_1']:.3f} \[{low:.3f}, {high:.3f}]", *cells)
        out_console.print(table)
    for claim in summary["claims"]:
        out_console.print(
            f"{claim['verdict']:>14}  {claim['claim']}: {claim['evidence']}", highlight=False, markup=False
        )


def _plain(text: object) -> str:
    """Escape what rich would read as markup."""
    return str(text).replace("[", r"\[")


if __name__ == "__main__":
    main()
