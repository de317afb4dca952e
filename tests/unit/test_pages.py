"""Every snippet of README and docs is run (tests/integration/test_pages.py), validated, or says why it is not."""

from pathlib import Path

import pytest

from tests.support.pages import Command, blocks, commands, differences, pages, problems

PAGE = """# Page
<!-- before: touch input -->

```yaml
# job.yaml
spec: {}
```

<!-- not run: GPU -->
```console
$ f2llm run job.yaml
```

1. A step:

   ```console
   $ echo one \\
       two
   one two
   $ echo three
   three
   ```
"""


@pytest.mark.parametrize("page", pages())
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    assert list(problems(page)) == []


def test_blocks_are_found_with_their_marks_in_their_order() -> None:
    found = blocks(PAGE)

    assert [(block.language, block.not_run, block.runs) for block in found] == [
        ("before", "", True), ("yaml", "", False), ("console", "GPU", False), ("console", "", True),
    ]  # fmt: skip
    assert commands(found[-1].text) == [Command("echo one \\\n    two", "one two\n"), Command("echo three", "three\n")]


@pytest.mark.parametrize(
    ("shown", "out", "both", "same"),
    [
        ("a\nb\n", "a\nb\n", "a\nx\nb\n", True),  # all of standard output
        ("a\nx\nb\n", "a\nb\n", "a\nx\nb\n", True),  # all that was printed
        ("a\n", "a\nb\n", "a\nb\n", False),
        ("a\n...\nc\n", "a\nb\nc\n", "a\nb\nc\n", True),
        ("c\n...\na\n", "a\nb\nc\n", "a\nb\nc\n", False),  # in another order
        ("loss 0.51\n", "loss 0.52\n", "loss 0.52\n", True),
        ("loss 0.51\n", "loss 0.53\n", "loss 0.53\n", False),
        ("step 5\n", "step 6\n", "step 6\n", False),
    ],
)
def test_output_is_compared_line_by_line(shown: str, out: str, both: str, same: bool) -> None:
    assert (differences(shown, out, both) == []) is same


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("```bash\n$ ls\n```", "a block of `bash`"),
        ("```\nf2llm run job.yaml\n```", "commands in a block of text"),
        ("```console\nf2llm run job.yaml\n```", "without a line that begins"),
        ("<!-- not run: because -->\n```console\n$ ls\n```", "not run for 'because'"),
        ("<!-- run by: tests/none.py -->\n```console\n$ ls\n```", "tests/none.py, which is not there"),
        ("```yaml\ntrain: {epoch: 1}\n```", "epoch"),
        ("```json\n{\n```", "JSONDecodeError"),
    ],
)
def test_a_block_that_cannot_work_is_a_problem(
    block: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.pages.page_text", lambda _page: f"# Page\n\n{block}\n")

    assert says in "".join(problems("page.md"))
