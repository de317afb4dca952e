"""An ablation study under way: which of its runs are done, starting the others, and writing down what they found.

    <base's storage.uri>/<study's name>/
        runs/<variant>-seed-<n>/   a run directory each, as `f2llm run` leaves it
        results.json, study.html   written again whenever a run has ended
        driver.json                which process is at it

The run directories are the truth: a study has no state of its own, so it may be killed at any moment.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from data_io.errors import StorageError
from data_io.storage.store import Store, open_store
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
# How a run ends that a signal has stopped, before it listens and later.
_STOPPED = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)
# May change in a run that goes on, and decides what it is measured on.
_MEASURED_BY = ("evaluation.max_queries", "evaluation.enabled")


@dataclass(frozen=True)
class StudyEnd:
    """What there is once a study's runs have ended, or were stopped by `signal`; `failed` are those that failed now."""

    results: StudyResults
    failed: tuple[tuple[Ended, str], ...]
    """Each with why."""
    signal: int | None


class StudyRecords:
    """What the run directories of a study say."""

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
        """Where a run stands now; None while nothing says so."""
        try:
            return read_status(self._store_of(name))
        except StorageError:
            return None

    def state(self, run: StudyRun) -> str:
        """`finished`, `begun`, `new`, or `not measured` for one that is trained and has no evaluation to read."""
        record = self._records.get(run.name)
        if record is None:
            return "new"
        if measures_of(record):
            return "finished"
        return "not measured" if record.status and record.status.phase.value == "Succeeded" else "begun"

    def refuse_others(self, data: DataSize) -> None:
        """Raises RunConflict where a run was made of another document or other data, so that it is none of this
        study's.
        """
        for run in self.study.runs:
            record = self._records.get(run.name)
            if record is None or not (record.steps or self.state(run) == "finished"):
                continue
            remedy = f"give the study another metadata.name, or remove {record.uri}"
            found = [
                str(each)
                for each in all_differences_from(record.job_spec, run.job)
                if not may_change(each.path) or each.path in _MEASURED_BY
            ]
            if record.data is not None and record.data.version != data.version:
                found.append(f"data set: version {record.data.version} there, {data.version} here")
            if found:
                raise RunConflict(f"{record.uri} is the run of another study:\n  " + "\n  ".join(found), remedy=remedy)

    def results(self) -> StudyResults:
        study = self.study
        runs: dict[str, list[str]] = {variant.name: [] for variant in study.variants}
        for run in study.runs:
            runs[run.variant].append(run.name)
        variants = [VariantFacts(each.name, each.changes, runs[each.name]) for each in study.variants]
        return study_results(study.name, study.uri, study.metric, study.seeds, variants, self._records, self.problems)

    def write(self) -> StudyResults:
        """Write results.json and the page anew."""
        found = self.results()
        save_results(self.store, found)
        self.store.put(PAGE, render_study(found, self._records).encode())
        return found

    def _store_of(self, name: str) -> Store:
        return self.store.child(RUNS).child(name)


def study_data(study: Study) -> DataSize:
    """The data set that all runs share. Raises ConfigError where it has nothing to measure the study's metric on."""
    spec = study.base.spec
    data = data_size(spec.data.uri, spec.storage.s3)
    if not data.evaluations:
        raise ConfigError(
            f"{spec.data.uri} has no held-out set, so there is nothing to compare runs by",
            remedy="prepare it with one: `f2llm data prepare --help`",
        )
    if study.metric not in data.metrics:
        raise ConfigError(
            f"{spec.data.uri} has no held-out set that gives {study.metric}; it has {', '.join(data.metrics)}",
            remedy=f"compare by that, `metric: {data.metrics[0]}`, or prepare the data set with another held-out set",
        )
    return data


def run_study(study: Study, *, parallel: int, say: Callable[[str], None]) -> StudyEnd:
    """Do what is left of a study, `parallel` runs at once. A run that fails is named, and the others go on.

    Raises RunConflict where another process is at it, or a run there is of another study.
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
                why = records.problems.get(ended.name) or ended.error or f"it ended with exit code {ended.exit_code}"
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
    if state != "not measured":
        return Command(run.name, ("run", "-", "--quiet"), run.job.to_yaml())
    s3 = run.job.spec.storage.s3
    given = (("--endpoint-url", s3.endpoint_url), ("--region", s3.region))
    options = [part for name, value in given if value for part in (name, value)]
    return Command(
        run.name, ("evaluate", run.job.run_uri, "--quiet", *options, *(["--allow-http"] if s3.allow_http else []))
    )


class _Pace:
    """Says what is under way, and how long it will still take by what runs have taken so far."""

    def __init__(self, records: StudyRecords, todo: int, parallel: int, say: Callable[[str], None]) -> None:
        self._records, self._todo, self._parallel, self._say = records, todo, parallel, say
        self._total = len(records.study.runs)
        self._due = monotonic() + _LINE_SECONDS
        self._began: dict[str, float] = {}
        self._took: list[float] = []
        self._done = 0
        if todo < self._total:
            say(f"{self._total - todo} of {self._total} runs are done already")

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
        self._say(f"{ended.name}: {what} ({duration(spent)}; {self._count()} of {self._total} runs)")

    def _count(self) -> int:
        return self._total - self._todo + self._done

    def _line(self, running: Sequence[str]) -> str:
        left = ""
        if self._took:
            rounds = -(-(self._todo - self._done) // self._parallel)
            left = f", about {duration(rounds * sum(self._took) / len(self._took))} left"
        where = ", ".join(f"{name} {self._where(name)}" for name in running)
        return f"{self._count()} of {self._total} runs{left}: {where}"

    def _where(self, name: str) -> str:
        status = self._records.status(name)
        if status is None:
            return "starting"
        if status.phase.value == "Training" and status.loss is not None:
            return f"step {status.step}/{status.total_steps}, loss {status.loss:.3f}"
        return PHASE_WORDS[status.phase.value]
