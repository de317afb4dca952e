"""What the pages' test compares: every command with its output, and figures up to their last digit."""

from tests.support.pages import Command, commands, differences

PAGE = """Text.

```console
$ first --option \\
    value
  one 0.315
two

$ second
```

```
$ not run
```
"""


def test_commands_come_with_their_output_and_other_blocks_are_no_commands() -> None:
    assert commands(PAGE) == [
        Command("first --option \\\n    value", "  one 0.315\ntwo\n\n"),
        Command("second", ""),
    ]


def test_outputs_differ_in_words_counts_and_more_than_the_last_digit() -> None:
    shown = "1  0.315  a text\n400 rows\n"

    assert differences(shown, shown) == []
    assert differences(shown, "1  0.316  a text\n400 rows\n") == []
    assert len(differences(shown, "1  0.317  a text\n400 rows\n")) == 1
    assert len(differences(shown, "1  0.32  a text\n400 rows\n")) == 1
    assert len(differences(shown, "1  0.315  another\n401 rows\n")) == 2
    assert len(differences(shown, "1  0.315  a text\n")) == 1
    assert len(differences(shown, f"{shown}more\n")) == 1
