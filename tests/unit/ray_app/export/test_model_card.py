"""The content of the model card, and that texts of a data set cannot break it."""

from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from data_io.dataset.manifest import SourceEntry
from data_io.task import Kind
from ray_app.export.model_card import CardFacts, render_card
from ray_app.inference.model_source import make_prompts
from ray_app.job_spec import JobSpec, TrainSpec
from ray_app.run_directory.evaluation_report import EvaluationReport, RankingMetrics, RetrievalResult, StsResult
from ray_app.run_directory.task_report import TaskReport, TaskScore


def spec(**model: Any) -> JobSpec:
    return JobSpec.model_validate({"model": model or {"architecture": {}}, "data": {"uri": "data"}})


def source(name: str = "docs", **fields: Any) -> SourceEntry:
    entry = {"name": name, "kind": Kind.RETRIEVAL, "negatives": 24, "instruction": "Find it.", "rows": 12345, **fields}
    return SourceEntry.model_validate(entry)


def report(ndcg: float, *, bm25: float | None = 0.4, spearman: float | None = 0.7) -> EvaluationReport:
    baseline = None if bm25 is None else RankingMetrics(ndcg_at_10=bm25, recall_at_10=bm25)
    return EvaluationReport(
        sets=(
            RetrievalResult(
                name="held-out",
                instruction="Find it.",
                queries=100,
                documents=2000,
                model=RankingMetrics(ndcg_at_10=ndcg, recall_at_10=ndcg + 0.1),
                bm25=baseline,
                examples=(),
                seconds=1.0,
            ),
            StsResult(name="pairs", instruction="", pairs=50, spearman=spearman, seconds=1.0),
        )
    )


def facts(**fields: Any) -> CardFacts:
    standard = {"name": "demo", "job": spec(), "data_version": "0123", "sources": (), "steps": 1000, "examples": 64000}
    return CardFacts(**{**standard, **fields})


def card(about: CardFacts) -> str:
    prompts = make_prompts({"docs": "Find it."}, query_instruction="Find it.")
    return render_card(about, prompts=prompts, max_seq_length=512, embedding_dimension=64, eos_token="<|endoftext|>")


def front_matter(text: str) -> dict[str, Any]:
    matter: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return matter


def test_the_hub_reads_the_front_matter() -> None:
    about = facts(
        job=spec(name_or_path="Qwen/Qwen3-0.6B"),
        license="apache-2.0",
        sources=(source(origin="https://huggingface.co/datasets/mteb/msmarco"), source("b", origin="written by hand")),
        before=report(0.05),
        after=report(0.61),
    )

    data: Any = ModelCard(card(about)).data

    assert data.library_name == "sentence-transformers"
    assert {"sentence-transformers", "feature-extraction"} <= set(data.tags)
    assert (data.license, data.base_model, data.datasets) == ("apache-2.0", "Qwen/Qwen3-0.6B", ["mteb/msmarco"])
    figures = {(result.dataset_name, result.metric_type): result.metric_value for result in data.eval_results}
    assert figures == {
        ("held-out", "ndcg_at_10"): 0.61,
        ("held-out", "recall_at_10"): 0.71,
        ("pairs", "cosine_spearman"): 0.7,
    }


@pytest.mark.parametrize("origin", ["mteb/msmarco", "https://huggingface.co/datasets/mteb/msmarco"])
def test_a_source_from_the_hub_is_named_as_data_set(origin: str) -> None:
    assert front_matter(card(facts(sources=(source(origin=origin),))))["datasets"] == ["mteb/msmarco"]


def test_the_card_has_the_commit_of_the_base_model() -> None:
    text = card(facts(job=spec(name_or_path="Qwen/Qwen3-0.6B", revision="c" * 40)))

    assert f"[Qwen/Qwen3-0.6B](https://huggingface.co/Qwen/Qwen3-0.6B) at commit `{'c' * 40}`, trained" in text
    assert "at commit" not in card(facts(job=spec(name_or_path="Qwen/Qwen3-0.6B")))


@pytest.mark.parametrize("folder", ["/home/someone/models/qwen", "./qwen", "models/a/b"])
def test_a_local_base_model_is_not_named_by_its_path(folder: str) -> None:
    text = card(facts(job=spec(name_or_path=folder)))

    assert "base_model" not in front_matter(text)
    assert folder not in text


def tasks() -> TaskReport:
    measured = TaskScore(name="faq", type="STS", metric="cosine_spearman", benchmark=None, score=0.81234, before=0.5)
    of_mteb = TaskScore(name="SciFact", type="Retrieval", metric="ndcg_at_10", benchmark="MTEB(eng, v2)", score=0.7)
    missing = TaskScore(name="Gone", type="", metric="", benchmark=None, failure="no network")
    return TaskReport(model="demo", revision="1", dimensions=None, results="", tasks=(measured, of_mteb, missing))


def test_evaluated_tasks_are_in_the_text_and_in_the_front_matter() -> None:
    text = card(facts(tasks=tasks()))

    assert "| faq | STS | cosine\\_spearman | 0.5000 | **0.8123** |" in text
    assert "Gone" not in text
    assert "was not evaluated" not in text
    found = {(each.dataset_name, each.metric_type): each.metric_value for each in ModelCard(text).data.eval_results}
    assert found == {("faq", "cosine_spearman"): 0.8123, ("MTEB SciFact", "ndcg_at_10"): 0.7}


def test_mixed_steps_and_token_deletion_are_in_the_recipe() -> None:
    usual = card(facts())
    job = JobSpec.model_validate({**spec().model_dump(), "train": {"step_source": "mixed", "token_deletion": 0.1}})

    other = card(facts(job=job))

    assert "from one source" in usual
    assert "Deleted tokens" not in usual
    assert "from all sources" in other
    assert "| Deleted tokens | 0.1 of each text |" in other


def test_before_after_and_bm25_are_in_one_row() -> None:
    text = card(facts(before=report(0.0512), after=report(0.6134)))

    assert "| held-out | 100 | 2,000 | nDCG@10 | 0.0512 | **0.6134** | 0.4000 |" in text
    assert "| pairs | 50 | Spearman | 0.7000 | **0.7000** |" in text


def test_a_missing_metric_is_a_dash() -> None:
    text = card(facts(after=report(0.6134, bm25=None, spearman=None)))

    assert "| held-out | 100 | 2,000 | nDCG@10 | - | **0.6134** | - |" in text
    assert "| pairs | 50 | Spearman | - | **-** |" in text
    assert "This run was not evaluated." in card(facts())


def test_the_recipe_is_that_of_the_job_spec() -> None:
    job = JobSpec.model_validate(
        {
            "model": {"architecture": {}, "max_seq_length": 300},
            "data": {"uri": "data", "hard_negatives": {"retrieval": 5}},
            "train": {
                "learning_rate": 3e-4,
                "global_batch_size": 64,
                "micro_batch_size": 16,
                "in_batch": "micro_batch",
            },
        }
    )

    text = card(facts(job=job))

    assert "| Global batch size | 64, in micro-batches of 16 from one source |" in text
    assert "| Hard negatives per query | 5 (retrieval), 7 (clustering), 1 (classification) |" in text
    assert "| In-batch negatives | positives of the micro-batch (16), retrieval sources only |" in text
    assert "| Learning rate | 0.0003, 500 warm-up steps" in text


def test_texts_of_the_data_set_cannot_break_a_table_or_run_as_markup() -> None:
    hostile = source(
        instruction="a | b\n\n# heading <script>x</script> `tick` [link](x)", license="MIT | BSD", origin="*o*"
    )

    text = card(facts(sources=(hostile,)))

    (row,) = [line for line in text.splitlines() if line.startswith("| docs | retrieval")]
    assert row == (
        r"| docs | retrieval | 12,345 | MIT \| BSD | \*o\* | "
        r"a \| b # heading \<script\>x\</script\> \`tick\` \[link\](x) |"
    )


def test_prompts_put_the_instruction_where_training_put_it() -> None:
    prompts = make_prompts({"b": "Do b.", "a": "", "query": "ignored"}, query_instruction="Do it.")

    assert prompts == {
        "a": "",
        "b": "Instruct: Do b.\nQuery: ",
        "query": "Instruct: Do it.\nQuery: ",
        "document": "",
    }


def test_trained_dims_are_shown_with_their_use_and_their_results() -> None:
    trained = spec().model_copy(update={"train": TrainSpec(matryoshka_dims=(16, 32))})
    measured = report(0.61)
    retrieval = measured.retrieval[0].model_copy(
        update={"by_dims": {16: RankingMetrics(ndcg_at_10=0.5, recall_at_10=0.55)}}
    )

    text = card(facts(job=trained, after=measured.model_copy(update={"sets": (retrieval,)})))

    assert "The first 16, 32 values of an embedding are trained so that they can be used alone" in text
    assert "truncate_dim=32" in text
    assert "| held-out | 16 | 0.5000 | 0.5500 |" in text
    assert "| Matryoshka | the losses also use the first 16, 32 values" in text
    assert "truncate_dim" not in card(facts(after=measured))
