"""A served model, one copy alone and two on real Ray Serve, over real HTTP: correct vectors, clear errors, and no lost
requests when it stops.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import openai
import pytest
from sentence_transformers import SentenceTransformer

from data_io.demo.docstrings import Deduplicator, Limits, read_package
from data_io.demo.packages import installed_packages
from tests.support.command import f2llm
from tests.support.exported import INSTRUCTION, export_small_model
from tests.support.serving import Service, serving

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]
MAX_TOKENS = 48
LIMITS = ("--max-inputs", "64", "--max-body-mib", "1", "--name", "demo")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Docstrings from this machine, short and long."""
    (package,) = installed_packages(("networkx",))
    docs = read_package(package.name, package.root, limits=Limits(per_package=60, body_max=120), seen=Deduplicator())
    return [text for doc in docs for text in (doc.summary, doc.body)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    return export_small_model(tmp_path_factory.mktemp("serve") / "model", texts, max_tokens=MAX_TOKENS)


@pytest.fixture(scope="module")
def plain(model: Path) -> SentenceTransformer:
    return SentenceTransformer(str(model), device="cpu")


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "on Ray"])
def service(model: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    copies = str(request.param)
    with serving(model, *LIMITS, "--replicas", copies, log=model.parent / f"log-{copies}") as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)


def vectors(answer: Any) -> npt.NDArray[np.float32]:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data], dtype=np.float32)


def test_the_openai_client_gets_the_vectors_of_sentence_transformers(
    client: openai.OpenAI, plain: SentenceTransformer, texts: list[str]
) -> None:
    asked = texts[:64]
    cut = plain.encode(asked)

    as_base64 = client.embeddings.create(model="demo", input=asked, extra_body={"truncate": True})
    as_float = client.embeddings.create(
        model="demo", input=asked, encoding_format="float", extra_body={"truncate": True}
    )

    np.testing.assert_allclose(vectors(as_base64), cut, atol=1e-5)
    np.testing.assert_array_equal(vectors(as_base64), vectors(as_float))
    assert as_base64.usage.total_tokens == sum(len(ids) for ids in plain.tokenizer(asked, truncation=True)["input_ids"])


def test_a_prompt_an_instruction_and_fewer_dimensions_are_those_of_sentence_transformers(
    client: openai.OpenAI, plain: SentenceTransformer
) -> None:
    def ask(**extra: Any) -> npt.NDArray[np.float32]:
        return vectors(client.embeddings.create(model="demo", input="join paths", extra_body=extra))[0]

    np.testing.assert_allclose(ask(prompt_name="query"), plain.encode_query("join paths"), atol=1e-5)
    np.testing.assert_allclose(ask(instruction=INSTRUCTION), plain.encode_query("join paths"), atol=1e-5)
    np.testing.assert_allclose(ask(prompt_name="document"), plain.encode_document("join paths"), atol=1e-5)
    short = plain.encode("join paths", truncate_dim=8, normalize_embeddings=True)
    np.testing.assert_allclose(ask(dimensions=8), short, atol=1e-5)


def test_the_models_endpoint_reports_its_limits(client: openai.OpenAI, service: Service) -> None:
    (found,) = client.models.list().data

    assert found == client.models.retrieve("demo")
    assert found.created > 0
    assert found.model_dump(exclude_unset=True, exclude={"created"}) == {
        "id": "demo",
        "object": "model",
        "owned_by": "f2llm-ray",
        "max_model_len": MAX_TOKENS,
        "dimensions": 48,
        "prompts": {
            "docs": f"Instruct: {INSTRUCTION}\nQuery: ",
            "query": f"Instruct: {INSTRUCTION}\nQuery: ",
            "document": "",
        },
    }
    with pytest.raises(openai.NotFoundError, match="This server serves 'demo'"):
        client.models.retrieve("other")
    assert service.get("/v1/chat/completions")[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"model": "other", "input": "a"}, 404, "model_not_found", "'other' is not served here. This server serves"),
        ({"model": "demo", "input": ""}, 400, "empty_input", "empty string"),
        ({"model": "demo", "input": []}, 400, "empty_input", "empty array"),
        ({"model": "demo", "input": ["a"] * 65}, 400, "too_many_inputs", "65 texts; the limit is 64"),
        ({"model": "demo", "input": ["a", "word " * 500]}, 400, "context_length_exceeded",
         f"input[1] is longer than the model's limit of {MAX_TOKENS} tokens"),
        ({"model": "demo", "input": [1, 2]}, 400, "tokens_not_taken", "Token ids"),
        ({"model": "demo", "input": "a", "dimensions": "8"}, 400, None, "must be an integer"),
        (b"input=a", 400, "invalid_json", "not JSON"),
        (b'{"model": "demo", "input": "' + b"a" * 10_000_000 + b'"}', 413, "body_too_large", "the limit is 1,048,576"),
    ],
    ids=["model", "empty", "no text", "too many", "too long", "tokens", "type", "not JSON", "10 MB"],
)  # fmt: skip
def test_a_bad_request_is_refused_in_openais_form(
    service: Service, body: bytes | dict[str, Any], status: int, code: str | None, says: str
) -> None:
    found, answer = service.post(body)

    assert (found, answer["error"]["code"]) == (status, code)
    assert says in answer["error"]["message"]
    assert answer["error"].keys() == {"message", "type", "param", "code"}


def test_concurrent_clients_get_their_own_vectors(
    client: openai.OpenAI, plain: SentenceTransformer, texts: list[str], service: Service
) -> None:
    expected = plain.encode(texts)

    def ask(place: int) -> npt.NDArray[np.float32]:
        asked = texts[place : place + 1 + place % 5]
        return vectors(client.embeddings.create(model="demo", input=asked, extra_body={"truncate": True}))

    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(ask, range(len(texts) - 5)))

    for place, each in enumerate(found):
        np.testing.assert_allclose(each, expected[place : place + 1 + place % 5], atol=1e-5)
    status, metrics = service.get("/metrics")
    samples = Counter[str]()
    for line in metrics.splitlines():
        if line[0] != "#":
            samples[line.partition("{")[0]] += float(line.split()[-1])  # type: ignore[assignment]
    assert status == 200
    assert 'f2llm_serve_requests_total{replica="' in metrics
    assert samples["f2llm_serve_texts_total"] >= sum(map(len, found))


@pytest.mark.parametrize("copies", ["1", "2"], ids=["alone", "on Ray"])
def test_a_request_sent_before_a_stop_is_answered_and_later_ones_are_refused(
    model: Path, plain: SentenceTransformer, texts: list[str], tmp_path: Path, copies: str
) -> None:
    """Clients send requests until the server no longer accepts connections."""
    expected = plain.encode(texts)
    answers: list[tuple[int, int, Any]] = []
    lost: list[tuple[float, OSError]] = []
    with serving(model, *LIMITS, "--replicas", copies, log=tmp_path / "log") as service:

        def ask(place: int) -> None:
            while True:
                place = (place + 1) % len(texts)
                began = monotonic()
                try:
                    status, answer = service.post({"model": "demo", "input": texts[place], "truncate": True})
                except OSError as error:
                    lost.append((began, error))
                    return
                answers.append((status, place, answer))

        with ThreadPoolExecutor(12) as clients:
            asking = [clients.submit(ask, client) for client in range(12)]
            service.running.wait_until(lambda: len(answers) > 100)
            stopped = monotonic()
            code = service.running.terminate()
            for each in asking:
                each.result()

    assert code == 143
    assert [error for began, error in lost if began < stopped] == []
    assert {status for status, _, _ in answers} == {200, 503}
    for status, place, answer in answers:
        if status == 200:
            np.testing.assert_allclose(answer["data"][0]["embedding"], expected[place], atol=1e-5)
        else:
            assert answer["error"]["code"] == "stopping"


def test_a_used_port_and_a_missing_model_are_reported_before_anything_starts(
    service: Service, model: Path, tmp_path: Path
) -> None:
    taken = f2llm("serve", model, "--port", service.url.rpartition(":")[2])
    missing = f2llm("serve", tmp_path)

    assert (taken.returncode, missing.returncode) == (3, 8)
    assert "Address already in use" in taken.stderr
    assert f"{tmp_path} has no model" in missing.stderr
