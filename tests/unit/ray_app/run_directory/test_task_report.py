"""The table of an evaluation: means by category, and published scores only if they are for the same tasks."""

from ray_app.run_directory.task_report import ENGLISH_V2, PUBLISHED, TaskReport, TaskScore

# Tasks of each category of MTEB(eng, v2).
COUNTS = {
    "Classification": 8, "Clustering": 8, "PairClassification": 3, "Reranking": 2, "Retrieval": 10, "STS": 9,
    "Summarization": 1,
}  # fmt: skip


def score(name: str, type_: str, value: float | None, *, benchmark: str | None = None) -> TaskScore:
    return TaskScore(
        name=name, type=type_, metric="m", benchmark=benchmark, score=value, failure=None if value else "no network"
    )


def report(*tasks: TaskScore) -> TaskReport:
    return TaskReport(model="m", revision="r", dimensions=None, results="out", tasks=tasks)


def test_the_published_categories_make_up_the_published_mean() -> None:
    for figures in PUBLISHED.values():
        total = sum(COUNTS[category] * value for category, value in figures.items() if category != "mean")

        assert abs(total / sum(COUNTS.values()) - figures["mean"]) < 0.02


def test_a_category_is_the_mean_of_its_tasks_and_the_last_row_is_the_mean_of_all() -> None:
    found = report(score("a", "STS", 0.2), score("b", "STS", 0.4), score("c", "Retrieval", 0.6)).categories()

    assert [(row.name, row.tasks, round(row.score, 6)) for row in found] == [
        ("Retrieval", 1, 60.0),
        ("STS", 2, 30.0),
        ("mean", 3, 40.0),
    ]
    assert all(not row.published for row in found)


def test_published_scores_are_shown_only_for_complete_categories_of_their_benchmark() -> None:
    found = report(
        score("a", "STS", 0.2, benchmark=ENGLISH_V2),
        score("b", "Retrieval", 0.4, benchmark=ENGLISH_V2),
        score("c", "Retrieval", None, benchmark=ENGLISH_V2),
        score("mine", "STS", 0.9),
    ).categories()

    assert [(row.benchmark, row.name, row.published.get("F2LLM-4B")) for row in found] == [
        (ENGLISH_V2, "Retrieval", None),
        (ENGLISH_V2, "STS", 84.20),
        (ENGLISH_V2, "mean", None),
        (None, "STS", None),
        (None, "mean", None),
    ]


def test_an_earlier_score_is_shown_only_if_every_task_has_one() -> None:
    earlier = score("a", "STS", 0.2).model_copy(update={"before": 0.1})

    both = report(earlier, score("b", "STS", 0.4)).categories()
    alone = report(earlier).categories()

    assert [row.before for row in both] == [None, None]
    assert [row.before for row in alone] == [10.0, 10.0]


def test_without_evaluated_tasks_there_is_no_table() -> None:
    found = report(score("a", "STS", None))

    assert found.categories() == []
    assert [task.name for task in found.failed] == ["a"]
