"""`f2llm data validate`."""

import json
from pathlib import Path

from data_io.storage.store import open_store
from tests.support.calling import Run
from tests.support.datasets import write_example


def test_an_undamaged_data_set_is_valid_and_a_damaged_one_is_not(f2llm: Run, tmp_path: Path) -> None:
    write_example(open_store("data"))

    whole, out, _ = f2llm("data", "validate", "data", "--quiet")
    shard = next((tmp_path / "data").rglob("*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    damaged, nothing, err = f2llm("data", "validate", "data", "--quiet")
    _, as_json, _ = f2llm("data", "validate", "data", "--quiet", "--json")

    assert (whole, damaged) == (0, 4)
    assert "data: no problems (2 sources" in out
    assert nothing == ""
    assert shard.name in err
    assert json.loads(as_json)["ok"] is False
