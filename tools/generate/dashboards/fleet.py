"""All jobs of a cluster: their number, GPUs, goodput and cost."""

from tools.generate.dashboards.grafana_json import Choice, Dashboard, Panel, panel, row

_MINE = '{namespace=~"$namespace"}'
_EACH = "max by (namespace, job)"
_NAMED = "{{namespace}}/{{job}}"
_ACTIVE = f'on (namespace, job) {_EACH} (f2llm_job_phase{{phase=~"Queued|Starting|Training|Evaluating|Retrying"}})'
_GOODPUT = (
    f"sum({_EACH} (f2llm_job_goodput{_MINE}) * on (namespace, job) {_EACH} (f2llm_job_workers))"
    f" / sum({_EACH} (f2llm_job_workers{_MINE}) and on (namespace, job) f2llm_job_goodput)"
)
_RECONCILES = "sum by (le) (rate(f2llm_reconcile_seconds_bucket[5m]))"


def _sum(metric: str) -> str:
    return f"sum({_EACH} ({metric}{_MINE}))"


def _count(phases: str) -> str:
    return f'count({_EACH} (f2llm_job_phase{{namespace=~"$namespace",phase=~"{phases}"}})) or vector(0)'


def _now(title: str, words: str, expr: str, unit: str = "short") -> Panel:
    return panel(title, words, (expr, ""), unit=unit, number=True, width=4)


def _jobs(title: str, words: str, metric: str, unit: str = "short", lowest: float | None = 0) -> Panel:
    return panel(title, words, (f"{_EACH} ({metric}{_MINE})", _NAMED), unit=unit, width=12, lowest=lowest)


FLEET = Dashboard(
    uid="f2llm-fleet",
    title="f2llm: fleet",
    words="All training jobs of the cluster.",
    choices=(Choice("namespace", "Namespace", query="label_values(f2llm_job_phase, namespace)", several=True),),
    rows=(
        row(
            "Now",
            _now("Training", "Jobs that are training.", _count("Training")),
            _now(
                "Waiting",
                "Jobs that are queued, starting, or waiting for a retry.",
                _count("Pending|Queued|Starting|Retrying"),
            ),
            _now("GPUs", "GPUs of ready worker pods.", _sum("f2llm_job_gpus")),
            _now(
                "Requested GPUs",
                "GPUs in the job specs of active jobs.",
                f"sum({_EACH} (f2llm_job_gpus_wanted{_MINE}) and {_ACTIVE}) or vector(0)",
            ),
            _now("Goodput", "Share of the training time spent on steps that were kept.", _GOODPUT, "percentunit"),
            _now(
                "Cost in 30 days",
                "GPU hours at the price in the chart's values.",
                f"sum(f2llm:namespace_cost:sum30d{_MINE})",
            ),
        ),
        row(
            "Jobs",
            panel("Jobs by phase", "In all namespaces.", ("max by (phase) (f2llm_jobs) > 0", "{{phase}}"), width=12),
            _jobs("Examples per second", "By job.", "f2llm_job_examples_per_second"),
            _jobs("Loss", "By job.", "f2llm_job_loss", lowest=None),
            _jobs(
                "Goodput",
                "The rest was spent on starts, recomputed steps and waiting.",
                "f2llm_job_goodput",
                "percentunit",
            ),
        ),
        row(
            "GPUs and cost",
            panel("GPUs", "GPUs of ready worker pods.", (f"f2llm:namespace_gpus{_MINE}", "{{namespace}}")),
            panel(
                "GPU hours in 30 days",
                "By namespace.",
                (f"f2llm:namespace_gpu_hours:sum30d{_MINE}", "{{namespace}}"),
                unit="h",
            ),
            panel(
                "Cost in 30 days and budget",
                "At the price in the chart's values.",
                (f"f2llm:namespace_cost:sum30d{_MINE}", "{{namespace}}"),
                (f"f2llm:namespace_budget{_MINE}", "{{namespace}}, budget"),
            ),
            panel(
                "Worker pods",
                "Ready and requested worker pods.",
                (_sum("f2llm_job_workers"), "ready"),
                (_sum("f2llm_job_workers_wanted"), "requested"),
            ),
            panel(
                "Restarts",
                "Restarts of workers in the last hour.",
                (f"sum by (namespace) ({_EACH} (increase(f2llm_job_restarts{_MINE}[1h])))", "{{namespace}}"),
            ),
            panel("Recomputed steps", "Since each run began.", (f"{_EACH} (f2llm_job_steps_lost{_MINE}) > 0", _NAMED)),
        ),
        row(
            "Operator",
            panel(
                "Jobs waiting for reconciliation",
                "If more than a few wait for a long time, the operator or the API server is slow.",
                ("max(f2llm_queue_length)", "waiting"),
            ),
            panel(
                "Reconcile duration",
                "Median and 99th percentile.",
                (f"histogram_quantile(0.5, {_RECONCILES})", "median"),
                (f"histogram_quantile(0.99, {_RECONCILES})", "99%"),
                unit="s",
            ),
            panel(
                "Failed reconciles",
                "Per minute, by error.",
                ("sum by (error) (rate(f2llm_reconcile_failures_total[5m])) * 60", "{{error}}"),
            ),
        ),
    ),
)
