"""The templates in infra/: what can be known of them without deploying them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own, which lags behind
from tree_sitter import Node

from bridges.signalr.settings import EntraSignIn
from composition import BridgeSettings
from streaming.settings import DemoModelSettings, Settings
from tests.deployment.bicep import BicepFile, properties, text, unquoted
from tests.service import ROOT, free_port, running_service

INFRA: Final = ROOT / "infra"
MAIN: Final = BicepFile(INFRA / "main.bicep")
#: What azd deploys after the main file, when it has built the image.
CONTAINER: Final = BicepFile(INFRA / "container.bicep")
MODULES: Final = [BicepFile(path) for path in sorted((INFRA / "modules").glob("*.bicep"))]
FILES: Final = [MAIN, CONTAINER, *MODULES]

#: Built-in roles by their ids: learn.microsoft.com/azure/role-based-access-control/built-in-roles.
ROLES: Final = {
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": "Storage Table Data Contributor",
    "0ad04412-c4d5-4796-b79c-f76d14c8d402": "Durable Task Data Contributor",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd": "Cognitive Services OpenAI User",
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": "AcrPull",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "fd53cd77-2268-407a-8f46-7e7863d0f521": "SignalR REST API Owner",
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": "Key Vault Secrets Officer",
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
}
_GUID: Final = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
#: Read by the platform, its extensions or the vendors' libraries rather than by our code.
OF_THE_PLATFORM: Final = {
    *("APPLICATIONINSIGHTS_AUTHENTICATION_STRING", "APPLICATIONINSIGHTS_CONNECTION_STRING"),
    *("AzureWebJobsStorage__accountName", "AzureWebJobsStorage__clientId", "AzureWebJobsStorage__credential"),
    *("AZURE_CLIENT_ID", "PYTHON_ENABLE_INIT_INDEXING", "PYTHON_ISOLATE_WORKER_DEPENDENCIES"),
    *("PYTHON_THREADPOOL_THREAD_COUNT", "TASKHUB_NAME"),
}
#: The ingress of Container Apps cuts a request that nothing was said on for so long.
INGRESS_TIMEOUT: Final = timedelta(seconds=240)
#: What stands for what is only known once it is deployed.
SAMPLES: Final = {
    "deployModel ? openai!.outputs.deployment : ''": "chat",
    "deployModel ? openai!.outputs.endpoint : ''": "https://openai-x.openai.azure.com/",
    "deploySignalR ? signalr!.outputs.connectionString : ''": (
        "Endpoint=https://signalr-x.service.signalr.net;AuthType=azure.msi;"
        "ClientId=00000000-0000-0000-0000-000000000000;Version=1.0;"
    ),
    "identity.outputs.clientId": "00000000-0000-0000-0000-000000000000",
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


def sampled(value: Node) -> str:
    """A value as a deployment would make it."""
    if value.type != "string":
        return SAMPLES[text(value)]
    return re.sub(r"\$\{([\w.]+)\}", lambda found: SAMPLES[found[1]], unquoted(value))


def settings_of_the_template() -> dict[str, str]:
    """What both hosts are set to."""
    return {name: sampled(node) for name, node in properties(MAIN.variable("settings")).items()}


def settings_of_the_platform() -> set[str]:
    """What the function app is set to besides."""
    functions = BicepFile(INFRA / "modules" / "functions.bicep")
    return {
        name
        for each in ("platformSettings", "tokenSettings")
        for name in properties(functions.variable(each))
    }


def settings_of_the_container() -> dict[str, str]:
    """What the container is set to, by way of the main file's outputs and the parameter file."""
    outputs = {name: text(node).split("=", 1)[1].strip() for name, node in MAIN.declarations("output")}
    parameters = parameters_of("container.parameters.json")
    shared = settings_of_the_template()
    found = {}
    for name, node in properties(CONTAINER.variable("settings")).items():
        value = text(node)
        if value in parameters:
            output = outputs.get(parameters[value].strip("${}"), "")
            value = shared.get(output.removeprefix("settings."), SAMPLES.get(output, ""))
        elif value == "string(port)":
            value = text(CONTAINER.variable("port").named_children[-1])
        found[name] = value.strip("'")
    return found


def parameters_of(name: str) -> dict[str, str]:
    """Names and values in a parameter file."""
    file = json.loads((INFRA / name).read_text(encoding="utf-8"))["parameters"]
    return {parameter: each["value"] for parameter, each in file.items()}


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
    secure = {each.name for each in file.parameters().values() if each.is_secure}
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
    push = BridgeSettings.from_environment(values).signalr
    assert values.keys() - values.asked - OF_THE_PLATFORM == set()
    assert push.address is not None
    assert push.address.entra == EntraSignIn(
        managed_identity=True, client_id=SAMPLES["identity.outputs.clientId"]
    )
    assert settings.redis_url is not None
    assert "rediss://redis-x.westeurope.redis.azure.net:10000" in settings.redis_url
    assert settings.scheduler is not None
    assert settings.model != DemoModelSettings()
    assert settings_of_the_platform() - OF_THE_PLATFORM == {"STREAM_TOKEN_SECRETS"}
    assert "STREAM_TOKEN_SECRETS" in values.asked


def test_without_a_model_the_demo_model_answers() -> None:
    """Where no model is deployed, its settings are empty, which the service takes for not set."""
    values = settings_of_the_template()
    values.update(AZURE_OPENAI_ENDPOINT="", AZURE_OPENAI_CHAT_DEPLOYMENT_NAME="")
    assert Settings.from_environment(values).model == DemoModelSettings()


def test_the_container_understands_its_settings() -> None:
    """The container has the function app's settings, and answers who waits before the ingress gives up."""
    values = Recording(settings_of_the_container())
    settings = Settings.from_environment(values)
    BridgeSettings.from_environment(values)
    assert values.keys() - values.asked == {"AZURE_CLIENT_ID"}
    shared = settings_of_the_template()
    assert {name: value for name, value in values.items() if name in shared} == shared
    assert settings.run_wait_timeout < INGRESS_TIMEOUT
    secret = {
        unquoted(node) for node in CONTAINER.nodes() if node.type == "string"
    } & values.asked - values.keys()
    assert secret == {"API_KEYS", "STREAM_TOKEN_SECRETS"}


def test_the_container_is_given_what_it_asks_for() -> None:
    """``azd`` knows every value that the container's parameter file refers to."""
    given = parameters_of("container.parameters.json")
    assert set(given) <= set(CONTAINER.parameters())
    assert {each.name for each in CONTAINER.parameters().values() if not each.has_default} <= set(given)
    names = {value.strip("${}") for value in given.values()}
    of_azd = {"AZURE_ENV_NAME", "AZURE_LOCATION", "SERVICE_CONTAINER_IMAGE_NAME"}
    assert names - of_azd <= MAIN.outputs()
    assert "AZURE_CONTAINER_REGISTRY_ENDPOINT" in MAIN.outputs(), "azd builds the image there"


def test_probes_are_within_the_platform_limits() -> None:
    """Probes ask what needs no key, and are as patient as Container Apps allows and no more."""
    probes = [node for node in CONTAINER.nodes() if node.type == "object" and "type: 'Startup'" in text(node)]
    content = text(CONTAINER.root)
    assert probes
    for limit, most in (("failureThreshold", 10), ("initialDelaySeconds", 60), ("timeoutSeconds", 240)):
        values = [int(value) for value in re.findall(rf"{limit}: (\d+)", content)]
        assert values
        assert all(1 <= value <= most for value in values), limit
    assert set(re.findall(r"path: '([^']+)'", content)) == {"/api/health/ready", "/api/health/live"}
    # Health is 503 while Redis is away: to end replicas for that would take their streams and runs with them.
    assert content.count("'/api/health/live'") == 1


def test_the_host_settings_are_met() -> None:
    """Every setting that host.json refers to is one that the template makes."""
    host = (ROOT / "host.json").read_text(encoding="utf-8")
    durable = json.loads(host)["extensions"]["durableTask"]
    referred = {*re.findall(r"%(\w+)%", host), durable["storageProvider"]["connectionStringName"]}
    assert referred <= settings_of_the_platform() | settings_of_the_template().keys()


def test_the_host_takes_what_the_template_sends() -> None:
    """The Functions host refuses no request that an instance is given, and has a thread for each run."""
    extensions = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))["extensions"]
    http = extensions["http"]
    # A 429 of the host's ends a browser's EventSource for good; the app's own limits tell it to come again.
    assert (http["maxConcurrentRequests"], http["maxOutstandingRequests"]) == (-1, -1)
    assert http["dynamicThrottlesEnabled"] is False
    functions = BicepFile(INFRA / "modules" / "functions.bicep")
    threads = unquoted(properties(functions.variable("platformSettings"))["PYTHON_THREADPOOL_THREAD_COUNT"])
    assert extensions["durableTask"]["maxConcurrentEntityFunctions"] == int(threads)
    local = json.loads((ROOT / "local.settings.template.json").read_text(encoding="utf-8"))["Values"]
    assert local["PYTHON_THREADPOOL_THREAD_COUNT"] == threads


def test_parameters_of_the_deployment() -> None:
    """The parameter file sets what has to be set and nothing else; nobody is asked for a secret."""
    given = parameters_of("main.parameters.json")
    parameters = MAIN.parameters()
    assert set(given) <= set(parameters)
    assert {each.name for each in parameters.values() if not each.has_default} <= set(given)
    assert [
        each.name for each in (*parameters.values(), *CONTAINER.parameters().values()) if each.is_secure
    ] == []


def test_secrets_are_made_once() -> None:
    """What a deployment makes up is kept secret; the first one makes the secrets, later ones leave them."""
    secrets = BicepFile(INFRA / "modules" / "secrets.bicep")
    made_up = re.findall(r"param (\w+) string = newGuid\(\)", text(secrets.root))
    assert made_up
    assert all(secrets.parameters()[name].is_secure for name in made_up)
    values = re.findall(r"(\S+)\s+resource \w+ 'Microsoft\.KeyVault/vaults/secrets@", text(secrets.root))
    assert values == ["@onlyIfNotExists()"] * 2
    # Each part is used in one secret: who knows one knows nothing of the other.
    used = re.findall(r"\$\{(chance\d)\}", text(secrets.root))
    assert sorted(used) == sorted(made_up)


def test_azure_developer_cli() -> None:
    """``azd`` finds the templates and the apps, and deploys what the templates are told to make."""
    project = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))
    infra = ROOT / project["infra"]["path"]
    assert (infra / f"{project['infra']['module']}.bicep").is_file()
    services = project["services"]
    assert {name: service["host"] for name, service in services.items()} == {
        "api": "function",
        "container": "containerapp",
    }
    given = parameters_of("main.parameters.json")
    assert services["api"]["condition"] == given["deployFunctions"]
    assert services["container"]["condition"] == given["deployContainer"]
    assert (ROOT / services["api"]["project"] / "function_app.py").is_file()
    assert "'azd-service-name': 'api'" in text(BicepFile(INFRA / "modules" / "functions.bicep").root)
    assert (ROOT / services["container"]["docker"]["path"]).is_file()
    # azd deploys the file that is called like the service.
    assert CONTAINER.path == infra / "container.bicep"
    assert "'azd-service-name': 'container'" in text(CONTAINER.root)


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")


def test_the_container_image() -> None:
    """The image runs as nobody in particular, and has all that the service imports."""
    [user] = re.findall(r"^USER (\S+)", dockerfile(), re.MULTILINE)
    assert user not in ("root", "0")
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "soak", "benchmarks"}
    assert [name for name in packages if f"!{name}" not in kept] == []


def is_healthy(port: int) -> bool:
    """Ask as the image's health check does."""
    [arguments] = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", dockerfile(), re.MULTILINE)
    command = json.loads(arguments)
    assert command[0] == "python"
    finished = subprocess.run(
        [sys.executable, *command[1:]], env={"PORT": str(port)}, check=False, capture_output=True
    )
    return finished.returncode == 0


@pytest.mark.parametrize("anonymous", ["true", "false"])
def test_the_image_tells_of_its_health(tmp_path: Path, anonymous: str) -> None:
    """The image's health check passes where the service is there, also if health asks for a key."""
    with running_service(tmp_path, API_KEYS="k" * 32, HEALTH_ANONYMOUS=anonymous) as service:
        assert is_healthy(service.address[1])
    assert not is_healthy(free_port())
