"""Validates a configuration before anything runs; each finding is one line that starts with the key.

The shape comes from config/schema.yaml, the flags of ms-swift from config/known_flags.json. Contradictions between keys are
found by the settings of each subject and, across subjects, here.
"""

import contextlib
import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from scripts.common.errors import UserError
from scripts.common.input_files import NOT_FOUND, file_fault
from scripts.common.secret_values import secret_findings
from scripts.common.settings import settings_from
from scripts.data.settings import DataSettings
from scripts.data.source_text import file_of_source, split_source
from scripts.demo.settings import DemoSettings, LanguageSizes, Qwen3Sizes, VisionTowerSizes
from scripts.donors.settings import DonorSource
from scripts.environments.settings import WITH_FLASH_ATTENTION, EnvironmentSettings
from scripts.evaluate.settings import HARNESS_SETTINGS
from scripts.graft.settings import GraftSettings
from scripts.questions.catalogue import OWN_SUFFIXES, benchmark_findings, listed_benchmarks
from scripts.serve.settings import ServeSettings
from scripts.train import settings as stage_settings
from scripts.train.flag_conflicts import serving_conflicts, text_conflicts
from scripts.workflow.config_files import key_path
from scripts.workflow.flag_types import flag_type_finding, type_hint
from scripts.workflow.paths import path_fault, results_findings
from scripts.workflow.plain_values import MAX_INTEGER, structure_findings, value_findings
from scripts.workflow.variables import variable_findings

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


def _path_errors(
    validator: Any, is_path: bool, instance: Any, schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """`x-path` of the schema: text that names a file of the user's."""
    if is_path and isinstance(instance, str) and (fault := path_fault(instance)):
        yield jsonschema.ValidationError(fault)


# JSON Schema takes 24.0 for an integer, and a program does not.
_STRICT_TYPES = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator, {"x-path": _path_errors}, type_checker=_STRICT_TYPES
)


def _unknown_keys(error: jsonschema.ValidationError) -> Iterator[str]:
    known = error.schema.get("properties", {})  # type: ignore[union-attr]
    for key in sorted(error.instance.keys() - known.keys()):  # type: ignore[union-attr]
        yield f"{key_path([*error.absolute_path, key])}: unknown key{nearest(key, known)}"


def _missing_key(error: jsonschema.ValidationError) -> str:
    missing = [key for key in error.validator_value if key not in error.instance]  # type: ignore[union-attr,operator]
    # jsonschema yields one error per missing key, naming it first in the message
    key = next(key for key in missing if error.message.startswith(repr(key)))
    return f"{key_path([*error.absolute_path, key])}: missing; each configuration file is complete in itself"


_NAMES_OF_TYPES = {"object": "a section with keys", "array": "a list", "string": "text"}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _wrong_value(error: jsonschema.ValidationError) -> str:
    found, schema = json.dumps(error.instance), error.schema
    if error.validator == "enum":
        choices = ", ".join(json.dumps(choice) for choice in error.validator_value)  # type: ignore[union-attr]
        return f"{found} found, one of {choices} expected{type_hint(error.instance, is_number=False)}"
    if error.validator == "type":
        types = [str(name) for name in _as_list(error.validator_value)]
        is_number = set(types) <= {"number", "integer"}
        names = " or ".join(_NAMES_OF_TYPES.get(name, name) for name in types)
        return f"{found} found, {names} expected{type_hint(error.instance, is_number=is_number)}"
    if error.validator == "pattern" and isinstance(schema, Mapping) and "x-expected" in schema:
        return f"{found} found, {schema['x-expected']} expected"
    return str(error.message)


def schema_findings(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Unknown and missing keys, wrong types, values out of range."""
    for error in sorted(_Validator(schema).iter_errors(config), key=lambda error: key_path(error.absolute_path)):
        if error.validator == "additionalProperties" and isinstance(error.instance, dict):
            yield from _unknown_keys(error)
        elif error.validator == "required":
            yield _missing_key(error)
        else:
            yield f"{key_path(error.absolute_path)}: {_wrong_value(error)}"


def flag_findings(where: str, flags: Mapping[str, Any], command: str, known_flags: Mapping[str, Any]) -> Iterator[str]:
    """Flags that the locked ms-swift does not know, or that were renamed."""
    known = known_flags[command]
    for flag, value in flags.items():
        if flag in RENAMED_FLAGS:
            yield f"{where}.{flag}: renamed in ms-swift 4; write {RENAMED_FLAGS[flag]}"
        elif flag not in known:
            yield f"{where}.{key_path([flag])}: unknown flag of `swift {command}`{nearest(flag, known)}"
        elif value is None and known[flag]["default"] is None:
            continue  # the flag is left out
        elif fault := flag_type_finding(value, known[flag]["type"]):
            yield f"{where}.{flag}: {fault}"
        elif isinstance(value, list) and any(str(each).startswith("-") for each in value):
            yield f"{where}.{flag}: {json.dumps(value)} found; expected no word that begins with -, which would be another flag"


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
    """The first wrong key of the section `demo`, which may be absent, and impossible numbers; its shape is not in the schema."""
    if "demo" in config:
        if wrong := list(section_findings(DemoSettings, config["demo"], "demo")):
            yield from wrong
        else:
            yield from _impossible_numbers(settings_from(DemoSettings, config["demo"], "demo"), ("demo",))


# Of the demo's numbers.
_BELOW_1 = ("dropout", "adam_beta2", "max_shift", "max_scale_change")


def _misfits(settings: Any) -> Iterator[str]:
    """Sizes of the demo's models that do not go together."""
    if isinstance(settings, LanguageSizes) and settings.num_attention_heads % max(1, settings.num_key_value_heads):
        yield (
            f"num_key_value_heads: {settings.num_key_value_heads} found, expected a divisor of num_attention_heads "
            f"{settings.num_attention_heads}"
        )
    if isinstance(settings, Qwen3Sizes):
        if settings.head_dim % 2:
            yield f"head_dim: {settings.head_dim} found, an even number expected"
    elif isinstance(settings, LanguageSizes) and settings.hidden_size % (2 * max(1, settings.num_attention_heads)):
        yield f"hidden_size: {settings.hidden_size} found, expected an even number for each of num_attention_heads"
    if isinstance(settings, VisionTowerSizes) and settings.hidden_size % (4 * max(1, settings.num_heads)):
        yield f"hidden_size: {settings.hidden_size} found, expected a multiple of 4 for each of num_heads"


def _impossible_numbers(settings: Any, path: tuple[str | int, ...]) -> Iterator[str]:
    """Of the demo: numbers below 0, counts of 0, accuracies above 1, empty lists. What a number counts, its field says."""
    yield from (f"{key_path(path)}.{fault}" for fault in _misfits(settings))
    for field in dataclasses.fields(settings):
        value, where = getattr(settings, field.name), (*path, field.name)
        if dataclasses.is_dataclass(value):
            yield from _impossible_numbers(value, where)
            continue
        least = 0 if field.type is float or field.name == "seed" else 1
        most = 1 if field.name.endswith("accuracy") else MAX_INTEGER
        if value == []:
            yield f"{key_path(where)}: [] found, at least one number expected"
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, int | float) and not isinstance(part, bool) and not least <= part <= most:
                yield f"{key_path(where)}: {part} found, {least} or more{' and at most 1' if most == 1 else ''} expected"
        if field.name in _BELOW_1 and value >= 1:
            yield f"{key_path(where)}: {value} found, less than 1 expected"


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
        yield from variable_findings(f"{stage}.environment", config[stage]["environment"])
        for number, source in enumerate(config[stage]["datasets"]):
            try:
                split_source(source)
            except UserError as error:
                yield f"{stage}.datasets[{number}]: {error}"


def data_findings(config: Mapping[str, Any]) -> Iterator[str]:
    """Settings of the rows that would train on nothing."""
    yield from settings_from(DataSettings, config["data"], "data").findings("data")


def speed_findings(config: Mapping[str, Any]) -> Iterator[str]:
    """Flags that would run and speed nothing up."""
    architecture = config["graft"]["architecture"]
    for stage in ("stage1", "stage2"):
        if config[stage]["flags"].get("use_liger_kernel") and architecture == "qwen3":
            yield (
                f"{stage}.flags.use_liger_kernel: true takes no effect with graft.architecture: {architecture}: liger-kernel "
                "knows models by their model_type, and not this one; remove it"
            )


def evaluation_findings(config: Mapping[str, Any]) -> Iterator[str]:
    """Options of the evaluation that contradict each other."""
    evaluate = config["evaluate"]
    serve = evaluate["serve"]
    yield from settings_from(ServeSettings, serve, "evaluate.serve").findings("evaluate.serve")
    yield from variable_findings("evaluate.serve.environment", serve["environment"])
    yield from text_conflicts("evaluate.serve.flags", serve["flags"])
    yield from serving_conflicts("evaluate.serve.flags", serve["flags"])
    longest, answer = serve["flags"].get("vllm_max_model_len"), evaluate[evaluate["backend"]]["max_tokens"]
    if longest is not None and answer >= longest:
        yield (
            f"evaluate.serve.flags.vllm_max_model_len: {longest} contradicts evaluate.{evaluate['backend']}.max_tokens: "
            f"{answer}, which leaves no room for a question; write a greater length or fewer tokens"
        )
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


def file_findings(config: Mapping[str, Any]) -> Iterator[str]:
    """Directories and pipes in the place of the user's files. A missing file is Snakemake's to name: a rule may make it."""
    paths = {f"{section}.text": config[section]["text"] for section in ("fidelity", "calibration")}
    for stage in ("stage1", "stage2"):
        for number, source in enumerate(config[stage]["datasets"]):
            with contextlib.suppress(UserError):  # `stage_findings` names it
                paths[f"{stage}.datasets[{number}]"] = file_of_source(source)
    with contextlib.suppress(UserError):  # `benchmark_findings` names it
        for name, listed in listed_benchmarks(config["evaluate"]).items():
            if listed.own_path and listed.own_path.suffix in OWN_SUFFIXES:
                paths[f"evaluate.benchmarks.{name}"] = str(listed.own_path)
    for where, path in paths.items():
        if path is not None and (fault := file_fault(path)) and fault != NOT_FOUND:
            yield f"{where}: {path} {fault}; expected a file; check the path"


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


def results_place(config: Mapping[str, Any]) -> Iterator[str]:
    """Results in a place where they would destroy something."""
    yield from results_findings(config["results"])


# Each with the sections that it reads: where the shape of one is wrong, it is left out.
CONTRADICTIONS: tuple[tuple[Callable[[Mapping[str, Any]], Iterator[str]], tuple[str, ...]], ...] = (
    (results_place, ("results",)),
    (environment_findings, ("environments", "stage1", "stage2", "evaluate")),
    (donor_findings, ("donors",)),
    (demo_findings, ("demo",)),
    (calibration_findings, ("graft", "calibration", "fidelity")),
    (stage_findings, ("stage1", "stage2")),
    (data_findings, ("data",)),
    (speed_findings, ("graft", "stage1", "stage2")),
    (evaluation_findings, ("donors", "evaluate")),
    (file_findings, ("fidelity", "calibration", "stage1", "stage2", "evaluate")),
)


def _key_of(line: str) -> str:
    return line.partition(": ")[0]


def findings(config: Any, schema: Mapping[str, Any], known_flags: Mapping[str, Any]) -> list[str]:
    """All findings, one line each. What contradicts what is asked of the sections whose shape is right.

    Secrets are the only ones where there are any, because others show values.
    """
    if secrets := secret_findings(config):
        return secrets
    if lines := list(structure_findings(config)):
        return lines
    lines = list(value_findings(config))
    said = {_key_of(line) for line in lines}
    lines += [line for line in schema_findings(config, schema) if _key_of(line) not in said]
    for path in (("stage1", "flags"), ("stage2", "flags"), ("evaluate", "serve", "flags")):
        section: Any = config
        for part in path:
            section = section.get(part) if isinstance(section, Mapping) else None
        if isinstance(section, Mapping):
            command = "deploy" if path[0] == "evaluate" else "sft"
            said = {_key_of(line) for line in lines}
            flag_lines = flag_findings(".".join(path), section, command, known_flags)
            lines += [line for line in flag_lines if _key_of(line) not in said]
    wrong_sections = {re.split(r"[.\[]", _key_of(line))[0] for line in lines}
    for contradictions, sections in CONTRADICTIONS:
        if not wrong_sections & set(sections):
            lines += contradictions(config)
    return lines


def validate(config: Any, config_dir: Path, faults_of_files: Sequence[str] = ()) -> None:
    """Raises UserError listing every finding, one line each, against the schema and flags in `config_dir`.

    `faults_of_files`: what reading the files has found already.
    """
    schema = yaml.safe_load((config_dir / "schema.yaml").read_text(encoding="utf-8"))
    known_flags = json.loads((config_dir / "known_flags.json").read_text(encoding="utf-8"))
    lines = list(faults_of_files)
    # Where nothing could be read, each key would be missing.
    if config or not lines:
        lines += findings(config, schema, known_flags)
    if lines:
        raise UserError("configuration:\n" + "\n".join(f"  {line}" for line in lines))
