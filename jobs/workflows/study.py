"""Run an ablation study: find the finished runs, start the others, and write the results.

    <base's storage.uri>/<study's name>/
        runs/<variant>-seed-<n>/   one run directory per run, as written by `f2llm run`
        results.json, study.html   written again after each run
        driver.json                the lease of the process that runs the study

A study has no state except its run directories, so it can be killed at any moment.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from data_io.errors import StorageError
from data_io.storage.store import Store, open_store
from data_io.wording import counted
from jobs.errors import ConfigError
from jobs.formatting import PHASE_WORDS, duration
from jobs.planning.estimate import DataSize
from jobs.spec.diff import all_differences_from, may_change
from jobs.spec.study import RUNS, Study, StudyRun
from jobs.workflows.child_processes import Command, Ended, run_commands
from jobs.workflows.data import data_size
from ray_app.errors import RunConflict
from ray_app.reporting.run_record import RunRecord, read_run
from ray_app.reporting.study_page import render_study
from ray_app.reporting.study_report import StudyResults
from ray_app.reporting.study_results import VariantFacts, measures_of, save_results, study_results
from ray_app.run_directory.directory import read_status
from ray_app.run_directory.driver_lease import DriverLease
from ray_app.run_directory.exit_record import read_exit_record
from ray_app.run_directory.status import RunStatus

PAGE = "study.html"
_LINE_SECONDS = 15.0
# Exit codes of a run that a signal stopped, before and after it installed its signal handlers.
_STOPPED = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)
# A resumed run may change these fields, but they decide on which queries it is evaluated.
_MEASURED_BY = ("evaluation.max_queries", "evaluation.enabled")


@dataclass(frozen=True)
class StudyEnd:
    """The results after all runs ended, or were stopped by `signal`. `failed` are the runs that failed this time."""

    results: StudyResults
    failed: tuple[tuple[Ended, str], ...]
    """Each with its error."""
    signal: int | None


class StudyRecords:
    """The state of a study, read from its run directories."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.store = open_store(study.uri, study.s3)
        self.problems: dict[str, str] = {}
        self._records: dict[str, RunRecord] = {}
        for run in study.runs:
            self.look(run.name)

    def look(self, name: str) -> None:
        """Read a run again."""
        store = self._store_of(name)
        if not store.exists("job.yaml"):
            return
        self._records[name] = read_run(store)
        failure = read_exit_record(store)
        self.problems.pop(name, None)
        if failure is not None:
            self.problems[name] = failure.message

    def status(self, name: str) -> RunStatus | None:
        """The status of a run now; None if it has no readable status."""
        try:
            return read_status(self._store_of(name))
        except StorageError:
            return None

    def state(self, run: StudyRun) -> str:
        """`finished`, `begun`, `new`, or `not evaluated` for a trained run without a readable evaluation."""
        record = self._records.get(run.name)
        if record is None:
            return "new"
        if measures_of(record):
            return "finished"
        return "not evaluated" if record.status and record.status.phase.value == "Succeeded" else "begun"

    def refuse_others(self, data: DataSize) -> None:
        """Raises RunConflict if a run directory belongs to another job spec or other data, so not to this study."""
        for run in self.study.runs:
            record = self._records.get(run.name)
            if record is None or not (record.steps or self.state(run) == "finished"):
                continue
            remedy = f"use another metadata.name for the study, or remove {record.uri}"
            found = [
                str(each)
                for each in all_differences_from(record.job_spec, run.job)
                if not may_change(each.path) or each.path in _MEASURED_BY
            ]
            if record.data is not None and record.data.version != data.version:
                found.append(f"data set: version {record.data.version} in the run, {data.version} here")
            if found:
                raise RunConflict(
                    f"{record.uri}: this run belongs to another study:\n  " + "\n  ".join(found), remedy=remedy
                )

    def results(self) -> StudyResults:
        study = self.study
        runs: dict[str, list[str]] = {variant.name: [] for variant in study.variants}
        for run in study.runs:
            runs[run.variant].append(run.name)
        variants = [VariantFacts(each.name, each.changes, runs[each.name]) for each in study.variants]
        return study_results(study.name, study.uri, study.metric, study.seeds, variants, self._records, self.problems)

    def write(self) -> StudyResults:
        """Write results.json and the page."""
        found = self.results()
        save_results(self.store, found)
        self.store.put(PAGE, render_study(found, self._records).encode())
        return found

    def _store_of(self, name: str) -> Store:
        return self.store.child(RUNS).child(name)


def study_data(study: Study) -> DataSize:
    """The data set that all runs share. Raises ConfigError if no held-out set gives the metric of the study."""
    spec = study.base.spec
    data = data_size(spec.data.uri, spec.storage.s3)
    if not data.evaluations:
        raise ConfigError(
            f"{spec.data.uri} has no held-out set, so the runs cannot be compared",
            remedy="prepare it with a held-out set: `f2llm data prepare --help`",
        )
    if study.metric not in data.metrics:
        raise ConfigError(
            f"{spec.data.uri} has no held-out set with the metric {study.metric}; it has {', '.join(data.metrics)}",
            remedy=f"write `metric: {data.metrics[0]}`, or prepare the data set with another held-out set",
        )
    return data


def run_study(study: Study, *, parallel: int, say: Callable[[str], None]) -> StudyEnd:
    """Do the remaining runs of a study, `parallel` at once. If a run fails, the others continue.

    Raises RunConflict if another process runs the study, or if a run directory belongs to another study.
    """
    data = study_data(study)
    store = open_store(study.uri, study.s3)
    with DriverLease(store, say=say):
        records = StudyRecords(study)
        records.refuse_others(data)
        todo = [run for run in study.runs if records.state(run) != "finished"]
        pace = _Pace(records, len(todo), parallel, say)
        failed: list[tuple[Ended, str]] = []

        def on_end(ended: Ended) -> None:
            records.look(ended.name)
            if ended.exit_code != 0:
                why = records.problems.get(ended.name) or ended.error or f"exit code {ended.exit_code}"
                failed.append((ended, why))
                if ended.exit_code not in _STOPPED:
                    records.problems[ended.name] = why
            pace.ended(ended)
            records.write()

        stopped = run_commands(
            [_command(run, records.state(run)) for run in todo], parallel=parallel, on_end=on_end, on_look=pace.look
        )
        if stopped is not None:
            failed = [(ended, why) for ended, why in failed if ended.exit_code not in _STOPPED]
        return StudyEnd(records.write(), tuple(failed), stopped)


def _command(run: StudyRun, state: str) -> Command:
    if state != "not evaluated":
        return Command(run.name, ("run", "-", "--quiet"), run.job.to_yaml())
    s3 = run.job.spec.storage.s3
    given = (("--endpoint-url", s3.endpoint_url), ("--region", s3.region))
    options = [part for name, value in given if value for part in (name, value)]
    return Command(
        run.name, ("evaluate", run.job.run_uri, "--quiet", *options, *(["--allow-http"] if s3.allow_http else []))
    )


class _Pace:
    """Reports the running runs, and the remaining time, estimated from the finished runs."""

    def __init__(self, records: StudyRecords, todo: int, parallel: int, say: Callable[[str], None]) -> None:
        self._records, self._todo, self._parallel, self._say = records, todo, parallel, say
        self._total = len(records.study.runs)
        self._due = monotonic() + _LINE_SECONDS
        self._began: dict[str, float] = {}
        self._took: list[float] = []
        self._done = 0
        if todo < self._total:
            say(f"{self._total - todo} of {counted(self._total, 'run')} finished already")

    def look(self, running: Sequence[str]) -> None:
        now = monotonic()
        for name in running:
            self._began.setdefault(name, now)
        if running and now >= self._due:
            self._say(self._line(running))
            self._due = now + _LINE_SECONDS

    def ended(self, ended: Ended) -> None:
        self._done += 1
        spent = monotonic() - self._began.get(ended.name, monotonic())
        if ended.exit_code == 0:
            self._took.append(spent)
        problem = self._records.problems.get(ended.name)
        what = f"failed: {problem}" if problem else "done" if ended.exit_code == 0 else "stopped"
        self._say(f"{ended.name}: {what} ({duration(spent)}; {self._count()} of {counted(self._total, 'run')})")

    def _count(self) -> int:
        return self._total - self._todo + self._done

    def _line(self, running: Sequence[str]) -> str:
        left = ""
        if self._took:
            rounds = -(-(self._todo - self._done) // self._parallel)
            left = f", about {duration(rounds * sum(self._took) / len(self._took))} left"
        where = ", ".join(f"{name} {self._where(name)}" for name in running)
        return f"{self._count()} of {counted(self._total, 'run')}{left}: {where}"

    def _where(self, name: str) -> str:
        status = self._records.status(name)
        if status is None:
            return "starting"
        if status.phase.value == "Training" and status.loss is not None:
            return f"step {status.step}/{status.total_steps}, loss {status.loss:.3f}"
        return PHASE_WORDS[status.phase.value]
