"""The templates in infra/: what can be known of them without deploying them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own, which lags behind

from streaming.settings import Settings
from tests.deployment.bicep import BicepFile, properties, text, unquoted
from tests.service import ROOT

INFRA: Final = ROOT / "infra"
MAIN: Final = BicepFile(INFRA / "main.bicep")
MODULES: Final = [BicepFile(path) for path in sorted((INFRA / "modules").glob("*.bicep"))]
FILES: Final = [MAIN, *MODULES]

#: Built-in roles by their ids: learn.microsoft.com/azure/role-based-access-control/built-in-roles.
ROLES: Final = {
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": "Storage Table Data Contributor",
    "0ad04412-c4d5-4796-b79c-f76d14c8d402": "Durable Task Data Contributor",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd": "Cognitive Services OpenAI User",
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": "AcrPull",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
}
_GUID: Final = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
#: Read by the platform, its extensions or the vendors' libraries rather than by our code.
OF_THE_PLATFORM: Final = {
    *("APPLICATIONINSIGHTS_AUTHENTICATION_STRING", "APPLICATIONINSIGHTS_CONNECTION_STRING"),
    *("AzureWebJobsStorage__accountName", "AzureWebJobsStorage__clientId", "AzureWebJobsStorage__credential"),
    *("AZURE_CLIENT_ID", "PYTHON_THREADPOOL_THREAD_COUNT", "TASKHUB_NAME"),
}
#: What stands for what is only known once it is deployed.
SAMPLES: Final = {
    "identity.outputs.clientId": "00000000-0000-0000-0000-000000000000",
    "openai.outputs.deployment": "chat",
    "openai.outputs.endpoint": "https://openai-x.openai.azure.com/",
    "redis.outputs.hostName": "redis-x.westeurope.redis.azure.net",
    "redis.outputs.port": "10000",
    "scheduler.outputs.endpoint": "https://dts-x.westeurope.durabletask.io",
    "scheduler.outputs.taskHub": "default",
}


class Recording(dict[str, str]):
    """An environment that knows what was asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a name, which is written down."""
        self.asked.add(name)
        return super().get(name, default)


def sampled(value: str) -> str:
    """A value as a deployment would make it."""
    plain = SAMPLES.get(value, value)
    return re.sub(r"\$\{([\w.]+)\}", lambda found: SAMPLES[found[1]], plain)


def settings_of_the_template() -> dict[str, str]:
    """What both hosts are set to."""
    return {name: sampled(unquoted(node)) for name, node in properties(MAIN.variable("settings")).items()}


def settings_of_the_platform() -> set[str]:
    """What the function app is set to besides."""
    functions = BicepFile(INFRA / "modules" / "functions.bicep")
    return {
        *properties(functions.variable("platformSettings")),
        *properties(functions.variable("tokenSettings").named_children[-1].named_children[-1]),
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path.name)
def test_it_is_bicep(file: BicepFile) -> None:
    """Every file parses, and each parameter says what it is for."""
    assert file.faults() == []
    assert [each.name for each in file.parameters().values() if "description" not in each.decorators] == []


def modules_used() -> Iterator[tuple[BicepFile, set[str]]]:
    """Each module of the main file with the names of the parameters that it is given."""
    for _, node in MAIN.declarations("module"):
        path = INFRA / unquoted(node.named_children[1])
        yield BicepFile(path), set(properties(properties(node)["params"]))


def test_modules_are_given_what_they_ask_for() -> None:
    """Each module gets every parameter that has no default, and none that it doesn't have."""
    used = list(modules_used())
    assert {module.path for module, _ in used} == {module.path for module in MODULES}
    for module, given in used:
        parameters = module.parameters()
        required = {each.name for each in parameters.values() if not each.has_default}
        assert required <= given <= set(parameters), module.path.name


def test_outputs_that_are_used_exist() -> None:
    """What the main file takes from a module is one of the module's outputs."""
    outputs = {
        name: BicepFile(INFRA / unquoted(node.named_children[1])).outputs()
        for name, node in MAIN.declarations("module")
    }
    taken = re.findall(r"\b(\w+)!?\.outputs\.(\w+)", text(MAIN.root))
    assert taken
    assert [(module, name) for module, name in taken if name not in outputs[module]] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path.name)
def test_nobody_signs_in_with_a_key(file: BicepFile) -> None:
    """No key is asked for, put out or written down, and what could be opened with one can't."""
    content = text(file.root)
    assert (
        re.findall(
            r"list\w*(?:Keys|Sas|Credentials|Secrets)\s*\(|AccountKey=|(?i:password|sharedKey)\s*:", content
        )
        == []
    )
    secure = {each.name for each in file.parameters().values() if "@secure()" in each.decorators}
    for name, node in file.declarations("output"):
        value = text(node).split("=", 1)[1]
        assert not [secret for secret in secure if re.search(rf"(?<!\()\b{secret}\b(?!\))", value)], name


def test_local_authentication_is_off() -> None:
    """Storage, Redis, the model, the registry and telemetry take identities only."""
    everything = "".join(text(module.root) for module in MODULES)
    for line in (
        "allowSharedKeyAccess: false",
        "accessKeysAuthentication: 'Disabled'",
        "disableLocalAuth: true",
        "DisableLocalAuth: true",
        "adminUserEnabled: false",
        "enableRbacAuthorization: true",
    ):
        assert line in everything


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.path.name)
def test_roles_are_what_they_are_called(module: BicepFile) -> None:
    """Each role is given by the id of the built-in role that the file names."""
    content = text(module.root)
    for guid in _GUID.findall(content):
        assert ROLES[guid] in content


def test_the_service_understands_its_settings() -> None:
    """The template's settings are read by the service, and mean what they should."""
    values = Recording(settings_of_the_template())
    settings = Settings.from_environment(values)
    assert values.keys() - values.asked - OF_THE_PLATFORM == set()
    assert settings.redis_url is not None
    assert "rediss://redis-x.westeurope.redis.azure.net:10000" in settings.redis_url
    assert settings.scheduler is not None
    assert settings.model is not None
    assert settings_of_the_platform() - OF_THE_PLATFORM == {"STREAM_TOKEN_SECRETS"}
    assert "STREAM_TOKEN_SECRETS" in values.asked


def test_the_host_settings_are_met() -> None:
    """Every setting that host.json refers to is one that the template makes."""
    host = (ROOT / "host.json").read_text(encoding="utf-8")
    json.loads(host)
    durable = json.loads(host)["extensions"]["durableTask"]
    referred = {*re.findall(r"%(\w+)%", host), durable["storageProvider"]["connectionStringName"]}
    assert referred <= settings_of_the_platform() | settings_of_the_template().keys()


def test_parameters_of_the_deployment() -> None:
    """The parameter file sets parameters that there are, and holds no secret itself."""
    file = json.loads((INFRA / "main.parameters.json").read_text(encoding="utf-8"))["parameters"]
    parameters = MAIN.parameters()
    assert set(file) <= set(parameters)
    assert {each.name for each in parameters.values() if not each.has_default} <= set(file)
    for each in parameters.values():
        if "@secure()" in each.decorators:
            assert re.fullmatch(r"\$\{[A-Z_]+\}", file[each.name]["value"])


def test_azure_developer_cli() -> None:
    """``azd`` finds the templates, and the app that it deploys to."""
    project = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))
    assert (ROOT / project["infra"]["path"] / f"{project['infra']['module']}.bicep").is_file()
    [(name, service)] = project["services"].items()
    assert (ROOT / service["project"] / "function_app.py").is_file()
    assert (service["host"], service["language"]) == ("function", "python")
    assert f"'azd-service-name': '{name}'" in text(BicepFile(INFRA / "modules" / "functions.bicep").root)


def test_the_container_image() -> None:
    """The image runs as nobody in particular, tells of its health, and has all that the service imports."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    [user] = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert user not in ("root", "0")
    assert [line for line in lines if line.startswith("HEALTHCHECK ")]
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "soak", "benchmarks"}
    assert [name for name in packages if f"!{name}" not in kept] == []
