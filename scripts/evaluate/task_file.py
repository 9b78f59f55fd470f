"""task.json: what a run of EvalScope is to do. question_loop.py writes it; run_vlmevalkit.py and run_native.py read it."""

from dataclasses import dataclass

from scripts.evaluate.settings import HarnessSettings


@dataclass(frozen=True)
class Round:
    """The questions for one seed."""

    seed: int
    key: str  # of the lines in the file of answers
    answers: str  # path: each answer is added as it comes; those that it holds already are not asked for
    judgements: str  # path: written at the end
    run_dir: str  # EvalScope's own files


@dataclass(frozen=True)
class HarnessTask:
    """One run of EvalScope. Paths are texts, as in the file."""

    dataset: str  # EvalScope's name of the benchmark
    tsv: str  # the benchmark as the user has it
    asked_tsv: str  # as it is asked: the shuffled control has other pictures
    is_original: bool  # whether both are the same
    is_blind: bool  # asked without pictures
    served_name: str
    settings: HarnessSettings
    indices: list[str]  # of the questions to ask: all, or one node's share
    begun: str  # path of a file that is made when the first question is asked
    rounds: list[Round]
