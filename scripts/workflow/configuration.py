"""Validates a configuration before anything runs; each finding is one line that starts with the key.

The shape comes from config/schema.yaml, the flags of ms-swift from config/known_flags.json. Contradictions between keys are
found by the settings of each subject and, across subjects, here.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from scripts.common.errors import UserError
from scripts.common.secret_values import secret_findings
from scripts.common.settings import settings_from
from scripts.demo.settings import DemoSettings
from scripts.donors.settings import DonorSource
from scripts.environments.settings import WITH_FLASH_ATTENTION, EnvironmentSettings
from scripts.evaluate.settings import HARNESS_SETTINGS
from scripts.graft.settings import GraftSettings
from scripts.questions.catalogue import benchmark_findings
from scripts.serve.settings import ServeSettings
from scripts.train import settings as stage_settings

# Published spellings that ms-swift 4 replaced (its base_args.py and rlhf_trainers/args_mixin.py).
RENAMED_FLAGS = {
    "train_type": "tuner_type",
    "gpu_memory_utilization": "vllm_gpu_memory_utilization",
    "max_model_len": "vllm_max_model_len",
    "limit_mm_per_prompt": "vllm_limit_mm_per_prompt",
}


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, or nothing when no known word is near."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {matches[0]}?)" if matches else ""


def key_path(parts: Iterable[str | int]) -> str:
    """`stage1.flags.learning_rate`, `stage1.datasets[0]`."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def schema_findings(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Unknown and missing keys, wrong types, values out of range."""
    for error in sorted(jsonschema.Draft202012Validator(schema).iter_errors(config), key=lambda e: list(e.path)):
        where = key_path(error.absolute_path)
        if error.validator == "additionalProperties" and isinstance(error.instance, dict):
            known = error.schema.get("properties", {})
            for key in error.instance.keys() - known.keys():
                yield f"{key_path([*error.absolute_path, key])}: unknown key{nearest(key, known)}"
        elif error.validator == "required":
            missing = [key for key in error.validator_value if key not in error.instance]
            # jsonschema yields one error per missing key, naming it first in the message
            key = next(key for key in missing if error.message.startswith(repr(key)))
            yield f"{key_path([*error.absolute_path, key])}: missing; each configuration file is complete in itself"
        elif error.validator == "enum":
            choices = ", ".join(json.dumps(choice) for choice in error.validator_value)
            yield f"{where}: {json.dumps(error.instance)} found, one of {choices} expected"
        elif error.validator == "type":
            expected = error.validator_value
            names = " or ".join(expected) if isinstance(expected, list) else expected
            hint = ""
            if isinstance(error.instance, str) and names in ("number", "integer"):
                hint = " (YAML reads 1e-3 as text: write 1.0e-3)"
            yield f"{where}: {json.dumps(error.instance)} found, {names} expected{hint}"
        else:
            yield f"{where}: {error.message}"


def flag_type_agrees(value: Any, type_name: str) -> bool:
    """Whether a YAML value fits a flag of this type; types that are not simple are left to ms-swift."""
    simple: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}
    if type_name not in simple:
        return True
    if isinstance(value, bool):
        return type_name in ("bool", "str")
    return isinstance(value, simple[type_name])


def flag_findings(where: str, flags: Mapping[str, Any], command: str, known_flags: Mapping[str, Any]) -> Iterator[str]:
    """Flags that the locked ms-swift does not know, or that were renamed."""
    known = known_flags[command]
    for flag, value in flags.items():
        if flag in RENAMED_FLAGS:
            yield f"{where}.{flag}: renamed in ms-swift 4; write {RENAMED_FLAGS[flag]}"
        elif flag not in known:
            yield f"{where}.{flag}: unknown flag of `swift {command}`{nearest(flag, known)}"
        elif not flag_type_agrees(value, known[flag]["type"]):
            yield f"{where}.{flag}: {json.dumps(value)} found, {known[flag]['type']} expected"


def section_findings(cls: type, section: Mapping[str, Any], where: str) -> Iterator[str]:
    """The error with which a program would refuse its section."""
    try:
        settings_from(cls, section, where)
    except UserError as error:
        yield from str(error).splitlines()


def donor_findings(config: Mapping[str, Any]) -> Iterator[str]:
    """Donors whose keys do not go with their kind, and a demo donor beside another one."""
    for role, donor in config["donors"].items():
        where = f"donors.{role}"
        yield from settings_from(DonorSource, donor, where).findings(where)
    kinds = {role: donor["kind"] for role, donor in config["donors"].items()}
    if "demo" in kinds.values():
        for role, kind in kinds.items():
            if kind != "demo":
                yield f"donors.{role}.kind: {kind} contradicts the other donor's demo; they fit only each other"
        if "demo" not in config:
            yield "demo: missing; donors of kind demo are made from its settings"


def demo_findings(config: Mapping[str, Any]) -> Iterator[str]:
    """The first wrong key of the section `demo`, which may be absent; its shape is not in the schema."""
    if "demo" in config:
        yield from section_findings(DemoSettings, config["demo"], "demo")


def calibration_findings(config: Mapping[str, Any]) -> Iterator[str]:
    """A refit where nothing is lost, or one that would be checked on the text that it was fitted on."""
    graft = settings_from(GraftSettings, config["graft"], "graft")
    yield from graft.findings("graft")
    if graft.is_refitted and config["calibration"]["text"] == config["fidelity"]["text"]:
        yield (
            f"fidelity.text: {config['fidelity']['text']} is also calibration.text; the gate would be measured on the text "
            "that was fitted; name another one"
        )


def stage_findings(config: Mapping[str, Any]) -> Iterator[str]:
    """Options of the two stages that contradict each other."""
    for stage in ("stage1", "stage2"):
        yield from stage_settings.findings(stage, settings_from(stage_settings.StageSettings, config[stage], stage))


def evaluation_findings(config: Mapping[str, Any]) -> Iterator[str]:
    """Options of the evaluation that contradict each other."""
    evaluate = config["evaluate"]
    yield from settings_from(ServeSettings, evaluate["serve"], "evaluate.serve").findings("evaluate.serve")
    for backend, cls in HARNESS_SETTINGS.items():
        where = f"evaluate.{backend}"
        yield from settings_from(cls, evaluate[backend], where).findings(where)
    if config["donors"]["vl"]["kind"] == "demo" and any(m.startswith("parent") for m in evaluate["models"]):
        yield "evaluate.models: parent contradicts donors.vl.kind demo: the demo's vision donor has no trained language model"
    if evaluate["num_seeds"] > 1 and evaluate[evaluate["backend"]]["temperature"] == 0:
        yield (
            f"evaluate.num_seeds: {evaluate['num_seeds']} contradicts evaluate.{evaluate['backend']}.temperature: 0, which gives "
            "one answer whatever the seed; write num_seeds: 1, or a temperature"
        )
    yield from benchmark_findings(config)


def environment_findings(config: Mapping[str, Any]) -> Iterator[str]:
    """FlashAttention where the environment, or the image, does not have it."""
    environments = settings_from(EnvironmentSettings, config["environments"], "environments")
    yield from environments.findings()
    if environments.has_flash_attention:
        return
    flags_by_key = {f"{stage}.flags": config[stage]["flags"] for stage in ("stage1", "stage2")}
    if config["evaluate"]["serve"]["backend"] == "transformers":
        flags_by_key["evaluate.serve.flags"] = config["evaluate"]["serve"]["flags"]
    for where, flags in flags_by_key.items():
        if str(flags.get("attn_impl", "")).startswith("flash"):
            yield (
                f"{where}.attn_impl: {flags['attn_impl']} found, but environments.train: {environments.train} does not hold it; "
                f"write sdpa, or environments.train: {WITH_FLASH_ATTENTION}"
            )


def findings(config: Mapping[str, Any], schema: Mapping[str, Any], known_flags: Mapping[str, Any]) -> list[str]:
    """All findings, one line each; contradictions are checked only when the shape is right.

    Secrets are the only ones where there are any, because others show values.
    """
    if secrets := secret_findings(config):
        return secrets
    lines = list(schema_findings(config, schema))
    for path in (("stage1", "flags"), ("stage2", "flags"), ("evaluate", "serve", "flags")):
        section: Any = config
        for part in path:
            section = section.get(part) if isinstance(section, Mapping) else None
        if isinstance(section, Mapping):
            command = "deploy" if path[0] == "evaluate" else "sft"
            said = {line.partition(": ")[0] for line in lines}
            flag_lines = flag_findings(".".join(path), section, command, known_flags)
            lines += [line for line in flag_lines if line.partition(": ")[0] not in said]
    if not lines:
        for contradictions in (
            environment_findings,
            donor_findings,
            demo_findings,
            calibration_findings,
            stage_findings,
            evaluation_findings,
        ):
            lines += contradictions(config)
    return lines


def validate(config: Mapping[str, Any], config_dir: Path) -> None:
    """Raises UserError listing every finding, one line each, against the schema and flags in `config_dir`."""
    schema = yaml.safe_load((config_dir / "schema.yaml").read_text(encoding="utf-8"))
    known_flags = json.loads((config_dir / "known_flags.json").read_text(encoding="utf-8"))
    if lines := findings(config, schema, known_flags):
        raise UserError("configuration:\n" + "\n".join(f"  {line}" for line in lines))
