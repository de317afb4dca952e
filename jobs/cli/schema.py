"""`f2llm schema`: the document's JSON Schema."""

from jobs.cli.options import Debug, print_json


def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of the document, for editors."""
    from jobs.spec.job import EmbeddingJob

    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **EmbeddingJob.model_json_schema()})
