"""One job: loss, speed, bottlenecks and checkpoints."""

from jobs.planning.cost import KNOWN_GPUS
from tools.generate.dashboards.grafana_json import Choice, Dashboard, Panel, panel, row

_ONE = '{namespace="$namespace",job="$job"}'


def _of(metric: str, by: str = "") -> str:
    """The job's value, once even if two replicas of the operator export it, or one per value of a label."""
    return f"max by ({by}) ({metric}{_ONE})" if by else f"max({metric}{_ONE})"


def _age(metric: str) -> str:
    return f"time() - {_of(metric)}"


def _now(title: str, words: str, expr: str, unit: str = "short") -> Panel:
    return panel(title, words, (expr, ""), unit=unit, number=True, width=4)


JOB = Dashboard(
    uid="f2llm-job",
    title="f2llm: job",
    words="One training job.",
    choices=(
        Choice("namespace", "Namespace", query="label_values(f2llm_job_phase, namespace)"),
        Choice("job", "Job", query='label_values(f2llm_job_phase{namespace="$namespace"}, job)'),
        Choice("peak", "GPU", values=tuple((name, f"{peak:g}") for name, (peak, _) in KNOWN_GPUS.items())),
    ),
    rows=(
        row(
            "Now",
            panel(
                "Phase",
                "Current phase of the job.",
                (_of("f2llm_job_phase", "phase"), "{{phase}}"),
                number=True,
                width=4,
            ),
            _now(
                "Progress",
                "Share of the steps that are done.",
                f"{_of('f2llm_job_step')} / ({_of('f2llm_job_total_steps')} > 0)",
                "percentunit",
            ),
            _now("Loss", "Loss of the last steps.", _of("f2llm_job_loss")),
            _now("Workers", "Ready worker pods.", _of("f2llm_job_workers")),
            _now(
                "Goodput",
                "Share of the training time spent on steps that were kept.",
                _of("f2llm_job_goodput"),
                "percentunit",
            ),
            _now(
                "Checkpoint", "Age of the newest checkpoint.", _age("f2llm_job_last_checkpoint_timestamp_seconds"), "s"
            ),
        ),
        row(
            "Learning",
            panel("Loss", "Loss of the last steps.", (_of("f2llm_job_loss"), "loss"), width=12, lowest=None),
            panel(
                "Loss by source",
                "Loss of each source in the last step that used it.",
                (_of("f2llm_job_source_loss", "source"), "{{source}}"),
                width=12,
                lowest=None,
            ),
            panel(
                "Score of checkpoints",
                "With evaluation.checkpoints: mean of nDCG@10 and Spearman over the held-out sets.",
                (_of("f2llm_job_score"), "newest"),
                (_of("f2llm_job_best_score"), "best"),
                width=12,
            ),
            panel(
                "Steps",
                "Done and total.",
                (_of("f2llm_job_step"), "done"),
                (_of("f2llm_job_total_steps"), "total"),
                width=12,
            ),
            panel(
                "Learning rate",
                "Learning rate of the last step.",
                (_of("f2llm_job_learning_rate"), "learning rate"),
                unit="sci",
                width=24,
            ),
        ),
        row(
            "Speed",
            panel(
                "Examples per second",
                "Mean of the last 20 steps.",
                (_of("f2llm_job_examples_per_second"), "examples/s"),
            ),
            panel(
                "Tokens per second",
                "Mean of the last 20 steps. There is no padding.",
                (_of("f2llm_job_tokens_per_second"), "tokens/s"),
            ),
            panel(
                "MFU",
                "Model FLOPs without recomputation, divided by the bf16 peak of the GPU selected above.",
                (f"{_of('f2llm_job_model_flops_per_second')} / ({_of('f2llm_job_gpus')} > 0) / ($peak * 1e12)", "MFU"),
                unit="percentunit",
            ),
            panel(
                "Waiting for data",
                "Share of the last steps' time.",
                (_of("f2llm_job_data_wait_share"), "waiting"),
                unit="percentunit",
            ),
            panel(
                "Retried reads",
                "Per minute, because the store was slow, failed, or sent damaged data.",
                (f"max(rate(f2llm_job_store_retries{_ONE}[5m])) * 60", "retried"),
            ),
            panel(
                "Goodput",
                "The rest was spent on starts, recomputed steps and waiting.",
                (_of("f2llm_job_goodput"), "goodput"),
                unit="percentunit",
            ),
        ),
        row(
            "Safety",
            panel(
                "Age of the newest checkpoint",
                "Work that a failure now would lose.",
                (_age("f2llm_job_last_checkpoint_timestamp_seconds"), "age"),
                unit="s",
            ),
            panel(
                "Cost of a checkpoint",
                "How long training paused for the copy, and how long the upload took.",
                (_of("f2llm_job_checkpoint_stall_seconds"), "training paused"),
                (_of("f2llm_job_checkpoint_save_seconds"), "written"),
                unit="s",
            ),
            panel(
                "Steps at the newest checkpoint",
                "Compared with the steps that are done.",
                (_of("f2llm_job_step"), "done"),
                (_of("f2llm_job_last_checkpoint_step"), "safe"),
            ),
            panel(
                "Workers",
                "Ready, requested, and the minimum for training.",
                (_of("f2llm_job_workers"), "ready"),
                (_of("f2llm_job_workers_wanted"), "requested"),
                (_of("f2llm_job_workers_min"), "minimum"),
            ),
            panel(
                "Restarts by reason",
                "Restarts of the workers.",
                (_of("f2llm_job_restarts_by_reason", "reason"), "{{reason}}"),
            ),
            panel(
                "Attempts and recomputed steps",
                "RayJobs so far, and steps that were computed again.",
                (_of("f2llm_job_attempts"), "attempts"),
                (_of("f2llm_job_steps_lost"), "recomputed steps"),
            ),
        ),
        row(
            "Pods, as Ray sees them",
            panel(
                "CPU",
                "Use of each pod's CPUs.",
                (_of("ray_node_cpu_utilization", "pod"), "{{pod}}"),
                unit="percent",
                width=12,
            ),
            panel(
                "Memory", "Memory of each pod.", (_of("ray_node_mem_used", "pod"), "{{pod}}"), unit="bytes", width=12
            ),
            panel(
                "GPUs",
                "Utilization of each GPU.",
                (_of("ray_node_gpus_utilization", "pod, GpuIndex"), "{{pod}} {{GpuIndex}}"),
                unit="percent",
                width=12,
            ),
            panel(
                "GPU memory",
                "Memory of each GPU.",
                (f"{_of('ray_node_gram_used', 'pod, GpuIndex')} * 1024 * 1024", "{{pod}} {{GpuIndex}}"),
                unit="bytes",
                width=12,
            ),
        ),
    ),
)
