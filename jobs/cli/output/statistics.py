"""What `f2llm data stats` prints for people."""

from typing import TYPE_CHECKING

from jobs.cli.output.text import size_text

if TYPE_CHECKING:
    from data_io.inspection.statistics import DatasetStatistics, LengthStatistics, SourceStatistics


LEFT_OUT = {
    "repeated": "repeated rows",
    "held_out": "rows with held-out texts",
    "dropped": "rows with too few negatives",
}


def print_statistics(found: "DatasetStatistics") -> None:
    """Sources with the lengths of their texts, evaluation sets and licenses."""
    print(f"{found.uri}: {found.rows:,} rows in {len(found.sources)} sources, {size_text(found.bytes)}")
    print(f"version {found.version}")
    for source in found.sources:
        print()
        for line in _source_lines(source):
            print(line)
    if found.evaluations:
        print("\nevaluation sets")
    for each in found.evaluations:
        what = (
            f"{each.pairs:,} pairs" if each.type == "sts" else f"{each.queries:,} queries, {each.documents:,} documents"
        )
        print(f"  {each.name} ({each.type}): {what}")
    print(f"\nlicenses: {', '.join(found.licenses) or 'none is recorded'}")


def _source_lines(source: "SourceStatistics") -> list[str]:
    read = "" if source.rows_read == source.rows else f", {source.rows_read:,} of them measured (all: --all)"
    negatives = f"{source.negatives} hard negative{'' if source.negatives == 1 else 's'} each"
    if source.unmined:
        negatives = f"up to {negatives}, to be mined"
    lines = [f"{source.name} ({source.kind}): {source.rows:,} rows, {negatives}{read}"]
    if source.instruction:
        lines.append(f"  instruction: {source.instruction}")
    lines.append(f"  {'':<10}{'characters':<33}{'tokens' if source.tokens else ''}".rstrip())
    for role, lengths in source.characters.items():
        tokens = source.tokens.get(role)
        lines.append(f"  {role:<10}{_lengths(lengths):<33}{_lengths(tokens) if tokens else ''}".rstrip())
    lines.append(
        f"  repeated: {source.repeated_queries:,} queries, {source.repeated_positives:,} positives, "
        f"{source.repeated_pairs:,} pairs"
    )
    left_out = [f"{source.prepared[name]:,} {why}" for name, why in LEFT_OUT.items() if source.prepared.get(name)]
    if left_out:
        lines.append(f"  left out when it was prepared: {', '.join(left_out)}")
    return lines


def _lengths(lengths: "LengthStatistics") -> str:
    return f"{lengths.mean:.0f} (p50 {lengths.p50:.0f}, p90 {lengths.p90:.0f}, max {lengths.max:,})"
