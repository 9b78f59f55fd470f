"""The graft's ledger (ledger.tsv): one row for each tensor of either donor or of the graft; written here, read here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.reading import parse_number, read_table
from scripts.graft.plan import PlannedTensor
from scripts.graft.shard_layout import Shard

LEDGER_NAME = "ledger.tsv"

LEDGER_COLUMNS = (
    "name", "donor", "policy", "output_name", "dtype", "shape", "bytes", "sha256", "donor_file", "output_file", "reason",
)  # fmt: skip

# In the order of the page.
LEDGER_POLICIES = ("copied", "refitted", "initialised", "dropped")
LEDGER_DONORS = ("llm", "vl", "")


def ledger_text(plan: Sequence[PlannedTensor], digests: Sequence[str], shards: Sequence[Shard]) -> str:
    """The ledger: a header line, then one row a tensor, tab-separated, in the order of the plan."""
    output_files = {name: shard.file_name for shard in shards for name in shard.offsets}
    lines = ["\t".join(LEDGER_COLUMNS)]
    for entry, digest in zip(plan, digests, strict=True):
        row = {
            "name": entry.name,
            "donor": entry.donor,
            "policy": entry.policy,
            "output_name": entry.output_name,
            "dtype": entry.dtype,
            "shape": "x".join(map(str, entry.shape)),
            "bytes": str(entry.num_bytes),
            "sha256": digest,
            "donor_file": entry.source.path.name if entry.source else "",
            "output_file": output_files.get(entry.output_name, ""),
            "reason": entry.reason,
        }
        lines.append("\t".join(row[column] for column in LEDGER_COLUMNS))
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class LedgerSum:
    """The tensors with one policy from one donor: how many, how many bytes, and the kinds of reason."""

    policy: str
    donor: str
    num_tensors: int
    num_bytes: int
    reasons: list[str]


def read_ledger(path: Path) -> list[LedgerSum]:
    """The graft's ledger, summed by policy and donor: what was kept first, what was left out last."""
    rows_of: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for number, row in enumerate(read_table(path, LEDGER_COLUMNS, "\t", "the graft's ledger"), start=2):
        where = f"{path}: row {number}"
        if row["policy"] not in LEDGER_POLICIES:
            raise UserError(
                f"{where}: policy is {row['policy']!r}; expected one of {', '.join(LEDGER_POLICIES)}; graft again"
            )
        if row["donor"] not in LEDGER_DONORS:
            raise UserError(f"{where}: donor is {row['donor']!r}; expected vl, llm or nothing; graft again")
        num_bytes = parse_number(row, "bytes", int, where)
        rows_of.setdefault((row["policy"], row["donor"]), []).append((num_bytes, row["reason"]))
    if not rows_of:
        raise UserError(f"{path}: no tensor found below the header; graft again")
    return [
        LedgerSum(
            policy,
            donor,
            num_tensors=len(rows),
            num_bytes=sum(num_bytes for num_bytes, _ in rows),
            reasons=list(dict.fromkeys(reason.partition(";")[0] for _, reason in rows if reason)),
        )
        for (policy, donor), rows in sorted(rows_of.items(), key=lambda item: _ledger_order(*item[0]))
    ]


def _ledger_order(policy: str, donor: str) -> tuple[int, int]:
    return LEDGER_POLICIES.index(policy), LEDGER_DONORS.index(donor)
