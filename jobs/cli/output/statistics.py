"""The text of `f2llm data stats`."""

from typing import TYPE_CHECKING

from data_io.wording import counted
from jobs.cli.output.text import aligned, size_text

if TYPE_CHECKING:
    from data_io.inspection.statistics import DatasetStatistics, LengthStatistics, SourceStatistics


DROPPED = {
    "repeated": ("repeated row", ""),
    "held_out": ("row", " with held-out texts"),
    "dropped": ("row", " with too few negatives"),
}


def print_statistics(found: "DatasetStatistics") -> None:
    """Print the sources with the lengths of their texts, the evaluation sets and the licenses."""
    print(
        f"{found.uri}: {counted(found.rows, 'row')} in {counted(len(found.sources), 'source')}, "
        f"{size_text(found.bytes)}"
    )
    print(f"version {found.version}")
    for source in found.sources:
        print()
        for line in _source_lines(source):
            print(line)
    if found.evaluations:
        print("\nevaluation sets")
    for each in found.evaluations:
        what = (
            counted(each.pairs, "pair")
            if each.type == "sts"
            else f"{counted(each.queries, 'query')}, {counted(each.documents, 'document')}"
        )
        print(f"  {each.name} ({each.type}): {what}")
    print(f"\nlicenses: {', '.join(found.licenses) or 'not recorded'}")


def _source_lines(source: "SourceStatistics") -> list[str]:
    read = (
        "" if source.rows_read == source.rows else f"; statistics of {source.rows_read:,} rows (--all reads all rows)"
    )
    negatives = f"{counted(source.negatives, 'hard negative')} per row"
    if source.unmined:
        negatives = f"up to {negatives}, to be mined"
    lines = [f"{source.name} ({source.kind}): {counted(source.rows, 'row')}, {negatives}{read}"]
    if source.instruction:
        lines.append(f"  instruction: {source.instruction}")
    table = [["", "characters", "tokens" if source.tokens else ""]]
    for role, lengths in source.characters.items():
        tokens = source.tokens.get(role)
        table.append([role, _lengths(lengths), _lengths(tokens) if tokens else ""])
    lines += [f"  {line}" for line in aligned(table)]
    lines.append(
        f"  repeated: {counted(source.repeated_queries, 'query')}, {counted(source.repeated_positives, 'positive')}, "
        f"{counted(source.repeated_pairs, 'pair')}"
    )
    dropped = [
        counted(source.prepared[name], noun) + why for name, (noun, why) in DROPPED.items() if source.prepared.get(name)
    ]
    if dropped:
        lines.append(f"  dropped by the preparation: {', '.join(dropped)}")
    return lines


def _lengths(lengths: "LengthStatistics") -> str:
    return f"{lengths.mean:.0f} (p50 {lengths.p50:.0f}, p90 {lengths.p90:.0f}, max {lengths.max:,})"
