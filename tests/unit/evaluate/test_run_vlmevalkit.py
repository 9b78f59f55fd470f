"""What is added to VLMEvalKit: its answers with why they ended, and refusals of what it would do silently.

VLMEvalKit itself is not in this environment; small modules stand in for the parts of it that are called.
"""

import json
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from helpers.evaluation_inputs import benchmark_rows, write_rows
from scripts.common.errors import UserError
from scripts.common.files import md5_of_file
from scripts.common.settings import settings_from
from scripts.evaluate import run_vlmevalkit
from scripts.evaluate.answer_log import Answer, line_of
from scripts.evaluate.load_balancer import LoadBalancer
from scripts.evaluate.settings import VlmevalkitSettings
from scripts.questions.catalogue import read_catalogue

FAILURE = "Failed to obtain answer via API."


class ApiModel:
    """Like VLMEvalKit's: tries until an answer is not empty, and else gives its failure text."""

    def __init__(self, replies: list[Any]) -> None:
        self.replies = replies

    def generate_inner(self, inputs: Any, **options: Any) -> tuple[int, str, Any]:
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return (0 if reply.status_code == 200 else reply.status_code), FAILURE, reply

    def generate(self, message: Any, dataset: str) -> str:
        for _ in range(run_vlmevalkit.NUM_TRIES):
            try:
                status, answer, _ = self.generate_inner(message)
            except OSError:
                continue
            if status == 0 and answer not in ("", FAILURE):
                return answer
        return FAILURE


def reply(content: str | None, finish_reason: str = "stop", status: int = 200) -> SimpleNamespace:
    body = {"choices": [{"message": {"content": content}, "finish_reason": finish_reason}]}
    if status != 200:
        body = {"message": content}
    return SimpleNamespace(status_code=status, text=json.dumps(body), json=lambda: body)


INDICES = frozenset(str(number) for number in range(64))


def recording_model(path: Path, base: type = ApiModel, *, is_blind: bool = False) -> type:
    """With one server."""
    balancer = LoadBalancer(["http://127.0.0.1:8000/v1"])
    return run_vlmevalkit.recording_model(base, path, "key", balancer, INDICES, is_blind=is_blind)


def answered(tmp_path: Path, *replies: Any) -> dict[str, Any]:
    """The one line that is written for a question with these replies."""
    path = tmp_path / "answers.jsonl"
    model = recording_model(path)(list(replies))
    prediction = model.answer_question(index=7, message=[], dataset="Digits")
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert (row["index"], row["prediction"]) == ("7", prediction)
    return row


def test_an_answer_is_written_down_with_why_it_ended(tmp_path: Path) -> None:
    row = answered(tmp_path, reply(" B. "))
    assert (row["prediction"], row["finish_reason"], row["error"]) == ("B.", "stop", None)
    (tmp_path / "answers.jsonl").unlink()
    assert answered(tmp_path, reply("B or", "length"))["finish_reason"] == "length"


def test_an_empty_answer_is_an_answer_and_not_asked_again(tmp_path: Path) -> None:
    row = answered(tmp_path, reply(""))
    assert (row["prediction"], row["error"]) == (run_vlmevalkit.BLANK_ANSWER, None)


def test_an_answer_after_failed_tries_is_no_failure(tmp_path: Path) -> None:
    row = answered(tmp_path, OSError("refused"), reply("no memory", status=500), reply("C"))
    assert (row["prediction"], row["error"]) == ("C", None)


@pytest.mark.parametrize(
    ("last", "error"),
    [(reply("no memory", status=500), "HTTP 500"), (OSError("refused"), "OSError: refused"), (reply(None), "HTTP 200")],
)
def test_the_last_try_says_why_a_question_failed(tmp_path: Path, last: Any, error: str) -> None:
    row = answered(tmp_path, OSError("first"), OSError("second"), last)
    assert "Failed to obtain answer" in row["prediction"]
    assert error in row["error"]


def test_a_question_that_was_answered_before_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(line_of(Answer("7", "D", "stop", None), "key"))
    model = recording_model(path)([])  # a question would find no reply
    assert model.answer_question(index=7, message=[], dataset="Digits") == "D"
    assert len(path.read_text().splitlines()) == 1


def test_a_question_of_another_nodes_share_is_neither_asked_nor_written_down(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    model = recording_model(path)([])  # a question would find no reply
    assert model.answer_question(index=64, message=[], dataset="Digits") == run_vlmevalkit.BLANK_ANSWER
    assert not path.exists()


def test_an_answer_to_another_evaluation_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(line_of(Answer("7", "D", "stop", None), "another key"))
    model = recording_model(path)([reply("B")])
    assert model.answer_question(index=7, message=[], dataset="Digits") == "B"


def test_the_blind_control_sends_the_text_alone(tmp_path: Path) -> None:
    sent: list[Any] = []

    class Listening(ApiModel):
        def generate(self, message: Any, dataset: str) -> str:
            sent.append(message)
            return super().generate(message, dataset)

    message = [{"type": "image", "value": "a.png"}, {"type": "text", "value": "Which digit?"}]
    for is_blind in (True, False):
        model = recording_model(tmp_path / "a.jsonl", Listening, is_blind=is_blind)([reply("B")])
        model.answer_question(index=int(is_blind), message=message, dataset="Digits")
    assert sent == [[message[1]], message]


def test_each_request_goes_to_a_replica_that_is_free(tmp_path: Path) -> None:
    urls = ["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"]
    balancer = LoadBalancer(urls)
    sent: list[str] = []

    class Listening(ApiModel):
        def __init__(self, replies: list[Any]) -> None:
            super().__init__(replies)
            self.api_base = "http://127.0.0.1:1/v1/chat/completions"  # as VLMEvalKit's does

        def generate_inner(self, inputs: Any, **options: Any) -> tuple[int, str, Any]:
            sent.append(self.api_base)
            return super().generate_inner(inputs, **options)

    recording = run_vlmevalkit.recording_model(
        Listening, tmp_path / "a.jsonl", "key", balancer, INDICES, is_blind=False
    )
    model = recording([OSError("refused"), reply("B"), reply("B")])
    with balancer.least_busy():  # the first is busy
        model.answer_question(index=0, message=[], dataset="Digits")
    model.answer_question(index=1, message=[], dataset="Digits")
    assert sent == [f"{url}/chat/completions" for url in (urls[1], urls[1], urls[0])]


def test_answers_of_raw_bytes_survive_a_table() -> None:
    assert run_vlmevalkit.clean("a\x00\x1b\ud800b\r\nc\t") == "a���b\n\nc"


def test_each_question_is_handed_over_with_its_index() -> None:
    asked = []
    model = SimpleNamespace(answer_question=lambda **task: asked.append(task))

    class Bound:
        __self__ = model

    def track(function: Any, tasks: list[dict[str, Any]], nproc: int, keys: list[int]) -> list[Any]:
        assert (nproc, keys) == (4, [3, 5])
        return [function(**task) for task in tasks]

    run_vlmevalkit.with_index(track)(Bound(), [{"message": "x"}, {"message": "y"}], nproc=4, keys=[3, 5])
    assert asked == [{"index": 3, "message": "x"}, {"index": 5, "message": "y"}]


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    model = recording_model(path)([reply("B" * 5000) for _ in range(64)])
    threads = [threading.Thread(target=model.answer_question, args=(index, [], "D")) for index in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(int(row["index"]) for row in rows) == list(range(64))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> type:
    """VLMEvalKit's table of benchmarks, with one."""

    class Known:
        DATASET_MD5 = {"MMMU_DEV_VAL": "0" * 32}

        @classmethod
        def supported_datasets(cls) -> list[str]:
            return ["MMMU_DEV_VAL", "WithoutMd5"]

    datasets = ModuleType("vlmeval.dataset")
    datasets.DATASET_CLASSES = [Known]  # type: ignore[attr-defined]
    datasets.DATASET_TYPE = lambda name: "VQA" if "vqa" in name else "MCQ"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vlmeval", ModuleType("vlmeval"))
    monkeypatch.setitem(sys.modules, "vlmeval.dataset", datasets)
    return Known


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    return write_rows(benchmark_rows(4), tmp_path / "b.tsv")


def test_a_known_benchmark_with_its_md5_is_asked(known: Any, tsv: Path) -> None:
    known.DATASET_MD5["MMMU_DEV_VAL"] = md5_of_file(tsv)
    run_vlmevalkit.check_dataset("MMMU_DEV_VAL", tsv, is_original=True)
    assert "MMMU_DEV_VAL" in known.DATASET_MD5


def test_a_known_benchmark_with_another_md5_is_refused_with_both(known: Any, tsv: Path) -> None:
    for is_original in (True, False):
        with pytest.raises(UserError, match=f"md5 {md5_of_file(tsv)} found; VLMEvalKit expects {'0' * 32}"):
            run_vlmevalkit.check_dataset("MMMU_DEV_VAL", tsv, is_original=is_original)


def test_the_control_of_a_known_benchmark_is_not_fetched_again_for_its_pictures(known: Any, tsv: Path) -> None:
    known.DATASET_MD5["MMMU_DEV_VAL"] = md5_of_file(tsv)
    run_vlmevalkit.check_dataset("MMMU_DEV_VAL", tsv, is_original=False)
    assert "MMMU_DEV_VAL" not in known.DATASET_MD5


def test_a_benchmark_of_ones_own_needs_an_answer_among_its_options(known: Any, tmp_path: Path) -> None:
    rows = benchmark_rows(4)
    rows[2]["answer"] = "E"
    with pytest.raises(UserError, match="the answer of question 2"):
        run_vlmevalkit.check_dataset("Mine", write_rows(rows, tmp_path / "Mine.tsv"), is_original=True)


@pytest.mark.parametrize(
    ("name", "reason"), [("MMBench_DEV_EN", "groups of turned options"), ("my_vqa", "multiple-choice")]
)
def test_a_benchmark_that_is_scored_in_another_way_is_refused(known: Any, tsv: Path, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        run_vlmevalkit.check_dataset(name, tsv, is_original=True)


def test_the_published_evaluation_is_given_key_by_key(root: Path) -> None:
    published = yaml.safe_load((root / "tests/data/published_recipe.yaml").read_text())["evaluation"]
    section = yaml.safe_load((root / "config/simple_vl_8b.yaml").read_text())["evaluate"]["vlmevalkit"]
    settings = settings_from(VlmevalkitSettings, section, "evaluate.vlmevalkit")
    (benchmark,) = published["data"]
    assert benchmark == read_catalogue()["mmmu"]["vlmevalkit"]
    config = run_vlmevalkit.eval_config(benchmark, "http://127.0.0.1:1/v1", settings, seed=0)
    assert published["model"].items() <= config["model"][0].items()
    rest = {key: published[key] for key in ("data", "mode", "reuse", "nproc", "judge")}
    assert rest.items() <= config.items()
    assert config["model"][0]["api_base"] == "http://127.0.0.1:1/v1/chat/completions"


def test_each_request_of_the_evaluation_carries_the_seed_and_is_tried_three_times(root: Path) -> None:
    section = yaml.safe_load((root / "config.yaml").read_text())["evaluate"]["vlmevalkit"]
    settings = settings_from(VlmevalkitSettings, section, "evaluate.vlmevalkit")
    for seed in (0, 7):
        config = run_vlmevalkit.eval_config("b", "http://127.0.0.1:1/v1", settings, seed=seed)
        (model,) = config["model"]
        assert (model["seed"], model["retry"], model["temperature"]) == (seed, 3, settings.temperature)


def test_a_request_bears_the_servers_name_in_which_no_service_is_found() -> None:
    class Api:
        def __init__(self, model: str) -> None:
            self.model = model

    model = run_vlmevalkit.named_model(Api, "lab/gemini-o1-step")(model="Qwen3-VL")
    assert json.loads(json.dumps({"model": model.model})) == {"model": "lab/gemini-o1-step"}
    assert not any(part in model.model for part in ("gemini", "o1", "step"))
