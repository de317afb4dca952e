"""`f2llm schema`: the JSON Schema of the job spec."""

from jobs.cli.options import Debug, print_json


def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of the job spec, for editors."""
    from jobs.spec.job import EmbeddingJob

    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **EmbeddingJob.model_json_schema()})
