"""The graft's ledger (ledger.tsv): one row for each tensor of either donor or of the graft; written here, read here."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from scripts.common.errors import UserError
from scripts.common.reading import parse_number, read_table

LEDGER_NAME = "ledger.tsv"

# Both in the order in which the report lists them: what was kept first, what was left out last.
Policy = Literal["copied", "refitted", "initialised", "dropped"]
LedgerDonor = Literal["llm", "vl", ""]
POLICIES: tuple[Policy, ...] = get_args(Policy)
LEDGER_DONORS: tuple[LedgerDonor, ...] = get_args(LedgerDonor)


@dataclass(frozen=True)
class LedgerRow:
    """One tensor; the fields are the columns. docs/graft.md explains them."""

    name: str
    donor: LedgerDonor
    policy: Policy
    output_name: str
    dtype: str
    shape: str
    bytes: int
    sha256: str
    donor_file: str
    output_file: str
    reason: str


COLUMNS = tuple(field.name for field in fields(LedgerRow))


def shape_text(shape: Sequence[int]) -> str:
    """A shape as the ledger has it, `4096x1280`."""
    return "x".join(map(str, shape))


def ledger_text(rows: Iterable[LedgerRow]) -> str:
    """A header line, then one row a tensor, tab-separated."""
    lines = ["\t".join(COLUMNS), *("\t".join(map(str, astuple(row))) for row in rows)]
    return "\n".join(lines) + "\n"


def read_ledger(path: Path) -> list[LedgerRow]:
    """All rows; raises UserError where a row has an unknown policy or donor, or there is none."""
    rows = []
    for number, row in enumerate(read_table(path, COLUMNS, "\t", "the graft's ledger"), start=2):
        where = f"{path}: row {number}"
        if row["policy"] not in POLICIES:
            raise UserError(f"{where}: policy is {row['policy']!r}; expected one of {', '.join(POLICIES)}; graft again")
        if row["donor"] not in LEDGER_DONORS:
            raise UserError(f"{where}: donor is {row['donor']!r}; expected vl, llm or nothing; graft again")
        num_bytes = parse_number(row, "bytes", int, where)
        rows.append(LedgerRow(**{column: row[column] for column in COLUMNS} | {"bytes": num_bytes}))  # type: ignore[arg-type]
    if not rows:
        raise UserError(f"{path}: no tensor found below the header; graft again")
    return rows


@dataclass(frozen=True)
class LedgerSum:
    """The tensors with one policy from one donor: how many, how many bytes, and the kinds of reason."""

    policy: Policy
    donor: LedgerDonor
    num_tensors: int
    num_bytes: int
    reasons: list[str]


def sum_ledger(rows: Sequence[LedgerRow]) -> list[LedgerSum]:
    """The ledger summed by policy and donor, in the order of `POLICIES` and `LEDGER_DONORS`."""
    sums = []
    for policy in POLICIES:
        for donor in LEDGER_DONORS:
            part = [row for row in rows if (row.policy, row.donor) == (policy, donor)]
            if part:
                reasons = dict.fromkeys(row.reason.partition(";")[0] for row in part if row.reason)
                sums.append(LedgerSum(policy, donor, len(part), sum(row.bytes for row in part), list(reasons)))
    return sums
