"""Keys, base URLs and proxies: where they are found, and what is refused."""

import pickle

import pytest

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.openai_chat.adapter import OpenAIChat
from lm_deluge.api_requests.credentials import (
    authorization,
    check_headers,
    find_base_url,
    find_key,
    has_key,
    hide,
    secrets_of,
)
from lm_deluge.config import Secret
from lm_deluge.errors import APIError, ConfigurationError, ContentTypeError, MissingAPIKeyError
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import ModelRow, ProviderRow, UrlVariable
from lm_deluge.prompt.conversation import Conversation

ACME = ProviderRow(
    id="acme",
    otel_name="acme",
    adapter="openai-chat",
    base_url="https://acme.test/v1",
    key_env=("ACME_KEY", "ACME_TOKEN"),
    base_url_env=("ACME_URL", "ACME_HOST"),
)
OPEN = ProviderRow(id="open", otel_name="open", adapter="openai-chat", base_url="", auth="none", key_env=("ACME_KEY",))
MODEL = ModelRow(id="acme:m", name="m", provider="acme")


def key_of(explicit: str | None = None, base_url: str = ACME.base_url, provider: ProviderRow = ACME) -> str | None:
    key = find_key(provider, MODEL, base_url, explicit)
    return None if key is None else key.reveal()


def test_the_first_variable_that_says_something_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_key(ACME)
    monkeypatch.setenv("ACME_TOKEN", "second")
    assert has_key(ACME)
    assert key_of() == "second"
    monkeypatch.setenv("ACME_KEY", "  ")
    assert key_of() == "second"
    monkeypatch.setenv("ACME_KEY", " first\n")
    assert key_of() == "first"
    assert key_of(" own ") == "own"


def test_without_a_key_nothing_is_asked_of_the_provider_itself() -> None:
    with pytest.raises(MissingAPIKeyError) as caught:
        key_of()
    assert "Set ACME_KEY or ACME_TOKEN" in str(caught.value)
    assert (caught.value.provider, caught.value.model) == ("acme", "acme:m")
    for blank in ("", "  "):
        with pytest.raises(MissingAPIKeyError):
            key_of(blank)


def test_a_host_of_one_s_own_may_need_none() -> None:
    assert key_of(base_url="http://localhost:8000/v1") is None
    assert key_of(provider=OPEN) is None
    assert authorization(OPEN, Secret("x")) == {}
    assert authorization(ACME, None) == {}
    assert authorization(ACME, Secret("x")) == {"authorization": "Bearer x"}


@pytest.mark.parametrize("key", ["a b", "a\nb", "a\0b", "é", "a\tb", "\u200ba"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        key_of(key)
    assert key not in str(caught.value)


def test_where_the_provider_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_base_url(ACME, None) == "https://acme.test/v1"
    monkeypatch.setenv("ACME_HOST", " http://h:1/v1// ")
    assert find_base_url(ACME, None) == "http://h:1/v1"
    assert find_base_url(ACME, "https://own/") == "https://own"
    with pytest.raises(ConfigurationError, match="the base URL of open is not known"):
        find_base_url(OPEN, None)


LOCAL = ProviderRow(
    id="local",
    otel_name="local",
    adapter="openai-chat",
    base_url="http://localhost:11434",
    base_url_env=("LOCAL_HOST",),
    key_env=("LOCAL_KEY",),
    auth="optional",
)


def test_a_key_may_be_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of(base_url=LOCAL.base_url, provider=LOCAL) is None
    monkeypatch.setenv("LOCAL_KEY", "own")
    assert key_of(base_url=LOCAL.base_url, provider=LOCAL) == "own"
    assert authorization(LOCAL, Secret("x")) == {"authorization": "Bearer x"}
    assert authorization(LOCAL, None) == {}


@pytest.mark.parametrize(
    ("said", "url"),
    [
        ("0.0.0.0:8000", "http://localhost:8000"),
        ("0.0.0.0", "http://localhost:11434"),  # noqa: S104 - nothing is bound here
        ("box", "http://box:11434"),
        ("box:80/ollama/", "http://box:80/ollama"),
        (":8000", "http://localhost:8000"),
        ("[::1]", "http://[::1]:11434"),
        ("https://ollama.com", "https://ollama.com"),
    ],
)
def test_a_host_alone_is_completed_for_a_local_server(monkeypatch: pytest.MonkeyPatch, said: str, url: str) -> None:
    monkeypatch.setenv("LOCAL_HOST", said)
    assert find_base_url(LOCAL, None) == url


@pytest.mark.parametrize("said", ["u:canary@box", "box?key=canary", "box:x", "[::1", "box#canary"])
def test_a_host_that_is_none_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("LOCAL_HOST", said)
    with pytest.raises(ConfigurationError) as caught:
        find_base_url(LOCAL, None)
    assert said not in str(caught.value)


BAD_URLS = ["ftp://h", "http://", "http:///v1", "http://h:x", "http://h:99999", "http://[::1", "http://u:canary@h"]
BAD_URLS += ["http://@h", "http://h/v1?key=canary", "http://h/v1#canary", "h:80", "//h"]


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_is_no_base_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_base_url(ACME, url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "headers", [{"a": "b\r\nc: d"}, {"a\n": "b"}, {"": "b"}, {" ": "b"}, {"a b": "c"}, {"a:": "b"}, {"é": "b"},
                {"a": "\0"}, {"a": "\udc80"}, {1: "b"}, {"a": 1}, {"a": None}, {"(": "b"}]
)  # fmt: skip
def test_headers_that_could_smuggle_others_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        check_headers(headers)


def test_other_headers_pass() -> None:
    check_headers({"X-Title": "snow \u2603", "a.b_c~": "", "cookie": "a=b; c=d"})


def test_a_secret_shows_nothing() -> None:
    secret = Secret("canary")
    assert "canary" not in f"{secret} {secret!r} {[secret]} {vars(type(secret)).keys()}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_secrets_are_blotted_out_of_errors() -> None:
    proxy = Secret("http://user:pass-of-the-proxy@p:1")
    secrets = secrets_of(Secret("key-1234"), {"x": "Basic word-of-the-user", "y": "short"}, proxy)
    error = APIError(
        "key-1234 word-of-the-user short",
        code="key-1234",
        body="pass-of-the-proxy key-1234",
        type="Basic",
        status_code=400,
    )
    hide(error, secrets)
    assert (error.message, error.code, error.body) == ("... ... short", "...", "... ...")
    assert error.args == (error.message,)
    assert error.type == "Basic"
    page = ContentTypeError("m", excerpt=b"<p>key-1234")
    hide(page, secrets)
    assert page.excerpt == b"<p>..."
    assert secrets_of(None, {}, None) == ()
    assert secrets_of(Secret("none"), {}, Secret("http://p:1")) == ()


REGIONAL = ProviderRow(
    id="cloud",
    otel_name="cloud",
    adapter="openai-chat",
    base_url="https://{host}/v1/projects/{project}/locations/{location}",
    key_env=("CLOUD_KEY",),
    auth="header",
    key_header="api-key",
    places={
        "location": UrlVariable(env=("CLOUD_LOCATION",), default="global"),
        "project": UrlVariable(env=("CLOUD_PROJECT",)),
        "host": UrlVariable(of="location", values={"global": "cloud.test"}, default="{location}-cloud.test"),
    },
)


def test_a_base_url_may_have_places_that_the_customer_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"the project is not known.* Set CLOUD_PROJECT\."):
        find_base_url(REGIONAL, None)
    assert find_base_url(REGIONAL, "http://localhost:1") == "http://localhost:1"
    monkeypatch.setenv("CLOUD_PROJECT", "p-1")
    assert find_base_url(REGIONAL, None) == "https://cloud.test/v1/projects/p-1/locations/global"
    with pytest.raises(MissingAPIKeyError):
        key_of(base_url=find_base_url(REGIONAL, None), provider=REGIONAL)
    monkeypatch.setenv("CLOUD_LOCATION", "eu-west1")
    assert find_base_url(REGIONAL, None) == "https://eu-west1-cloud.test/v1/projects/p-1/locations/eu-west1"


@pytest.mark.parametrize("word", ["a/b", "evil.test/?", "a b", "-a", "@evil.test", "{project}"])
def test_a_place_cannot_change_the_rest_of_the_url(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("CLOUD_PROJECT", "p-1")
    monkeypatch.setenv("CLOUD_LOCATION", word)
    with pytest.raises(ConfigurationError, match="the location has characters that do not fit into a URL"):
        find_base_url(REGIONAL, None)


def test_a_key_may_have_a_header_of_its_own() -> None:
    assert authorization(REGIONAL, Secret("x")) == {"api-key": "x"}


def test_a_place_may_be_said_as_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    row = find_provider("databricks")
    for said in ("acme.cloud.databricks.com", "https://acme.cloud.databricks.com/"):
        monkeypatch.setenv("DATABRICKS_HOST", said)
        assert find_base_url(row, None) == "https://acme.cloud.databricks.com/ai-gateway/mlflow/v1"


def test_the_older_path_of_databricks_stays_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", "acme.cloud.databricks.com")
    older = "https://acme.cloud.databricks.com/serving-endpoints"
    assert find_base_url(find_provider("databricks-serving"), None) == older
    monkeypatch.setenv("DATABRICKS_API_BASE", older)
    assert find_base_url(find_provider("databricks"), None) == older


@pytest.mark.parametrize(
    ("provider", "token", "key", "header"),
    [
        ("anthropic", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "x-api-key"),
        ("azure", "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY", "api-key"),
        ("azure-responses", "AZURE_OPENAI_AD_TOKEN", "AZURE_API_KEY", "api-key"),
    ],
)
def test_a_token_is_sent_as_a_bearer_token(
    provider: str, token: str, key: str, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = find_provider(provider)
    model = ModelRow(id="m", name="m", provider=provider)

    def sent(explicit: str | None = None) -> dict[str, str]:
        return authorization(row, find_key(row, model, "https://gateway.test", explicit))

    monkeypatch.setenv(token, " token-of-a-gateway ")
    assert sent() == {"authorization": "Bearer token-of-a-gateway"}
    assert sent("explicit") == {header: "explicit"}
    monkeypatch.setenv(key, "the-key")
    assert sent() == {header: "the-key"}


@pytest.mark.parametrize(
    ("provider", "variables"),
    [
        ("gemini", "GOOGLE_API_KEY GEMINI_API_KEY GOOGLE_GENERATIVE_AI_API_KEY"),
        ("azure", "AZURE_OPENAI_API_KEY AZURE_API_KEY"),
        ("zai", "ZAI_API_KEY ZHIPU_API_KEY"),
        ("nvidia", "NVIDIA_API_KEY NVIDIA_NIM_API_KEY"),
        ("together", "TOGETHER_API_KEY TOGETHERAI_API_KEY TOGETHER_AI_API_KEY TOGETHER_AI_TOKEN"),
        ("fireworks", "FIREWORKS_API_KEY FIREWORKS_AI_API_KEY FIREWORKSAI_API_KEY"),
        ("perplexity", "PERPLEXITY_API_KEY PERPLEXITYAI_API_KEY PPLX_API_KEY"),
        ("huggingface", "HF_TOKEN HUGGINGFACE_API_KEY HUGGING_FACE_HUB_TOKEN"),
        ("databricks", "DATABRICKS_TOKEN DATABRICKS_API_KEY"),
        ("alibaba", "DASHSCOPE_API_KEY ALIBABA_API_KEY"),
        ("moonshot", "MOONSHOT_API_KEY MOONSHOTAI_API_KEY"),
        ("openrouter", "OPENROUTER_API_KEY OR_API_KEY"),
        ("meta", "META_API_KEY META_MODEL_API_KEY"),
        ("vercel", "AI_GATEWAY_API_KEY VERCEL_AI_GATEWAY_API_KEY VERCEL_OIDC_TOKEN"),
        ("xiaomi", "XIAOMI_API_KEY XIAOMI_MIMO_API_KEY"),
        ("friendli", "FRIENDLI_TOKEN FRIENDLIAI_API_KEY"),
        ("scaleway", "SCW_SECRET_KEY SCALEWAY_API_KEY"),
    ],
)
def test_the_variables_of_other_libraries_hold_the_key_too(
    provider: str, variables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = find_provider(provider)
    model = ModelRow(id="m", name="m", provider=provider)
    for name in variables.split():
        with monkeypatch.context() as patch:
            patch.setenv(name, f"from-{name}")
            found = find_key(row, model, "https://host.test", None)
            assert found is not None
            assert found.reveal() == f"from-{name}"


def test_a_host_may_take_a_key_and_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    row = find_provider("vllm")
    model = ModelRow(id="vllm:m", name="m", provider="vllm")
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    assert find_key(row, model, row.base_url, None) is None
    monkeypatch.setenv("VLLM_API_KEY", "token-1")
    found = find_key(row, model, row.base_url, None)
    assert found is not None
    assert authorization(row, found) == {"authorization": "Bearer token-1"}


@pytest.mark.parametrize(
    ("name", "variables", "url"),
    [
        ("azure", {"AZURE_OPENAI_RESOURCE": "acme"}, "https://acme.openai.azure.com/openai/v1/chat/completions"),
        (
            "azure-deployment",
            {"AZURE_OPENAI_ENDPOINT": "https://acme.openai.azure.com/"},
            "https://acme.openai.azure.com/openai/deployments/m%2F1/chat/completions?api-version=2024-10-21",
        ),
        (
            "cloudflare",
            {"CLOUDFLARE_ACCOUNT_ID": "a1"},
            "https://api.cloudflare.com/client/v4/accounts/a1/ai/v1/chat/completions",
        ),
        (
            "snowflake",
            {"SNOWFLAKE_ACCOUNT": "acme-1"},
            "https://acme-1.snowflakecomputing.com/api/v2/cortex/v1/chat/completions",
        ),
        ("writer", {}, "https://api.writer.com/v1/chat"),
        ("litellm", {}, "http://localhost:4000/chat/completions"),
    ],
)
def test_where_requests_to_a_host_go(
    monkeypatch: pytest.MonkeyPatch, name: str, variables: dict[str, str], url: str
) -> None:
    row = find_provider(name)
    for variable in row.address_env:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    call = Call(
        model=ModelRow(id="m/1", name="m/1", provider=name),
        provider=row,
        conversation=Conversation.user("Hi"),
        base_url=find_base_url(row, None),
    )
    assert OpenAIChat().build_request(call).url == url
