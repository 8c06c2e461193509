"""The registry: what is loaded, and what a faulty plugin is told."""

import sys
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aforo.plugins import Source, load_registry
from aforo.sdk import (
    AiFeature,
    AppliedTax,
    Charge,
    ChargeState,
    Detection,
    Detector,
    InvoiceFacts,
    MarginEvidence,
    Message,
    Notification,
    Notifier,
    PaymentGateway,
    PaymentRequest,
    PluginError,
    PricedLine,
    PricingModel,
    TaxEngine,
    TaxRequest,
    Usage,
    hookimpl,
)
from aforo.sdk.kinds import KINDS

STANDARD = {"FLAT", "PER_UNIT", "GRADUATED", "VOLUME", "PERCENTAGE", "QUOTA"}


class Free(PricingModel):
    key = "acme.free"
    summary = "Everything for nothing"

    def price(self, usage: Usage) -> list[PricedLine]:
        return [PricedLine("Free", usage.quantity, Decimal(0))]


class NoTax(TaxEngine):
    key = "acme.none"
    summary = "No tax"

    async def quote(self, request: TaxRequest) -> list[AppliedTax]:  # noqa: ARG002
        return []


class Calm(Detector[MarginEvidence]):
    key = "acme.calm"
    summary = "Never fires"
    evidence = MarginEvidence

    def detect(self, evidence: MarginEvidence) -> Detection | None:  # noqa: ARG002
        return None


class Cash(PaymentGateway):
    key = "acme.cash"
    summary = "Notes and coins"

    async def charge(self, request: PaymentRequest) -> Charge:  # noqa: ARG002
        return Charge(state=ChargeState.PENDING)

    async def find(self, request: PaymentRequest) -> Charge | None:  # noqa: ARG002
        return None


class Postcard(Notifier):
    key = "acme.postcard"
    summary = "By mail"

    def compose(self, notification: Notification) -> Message:
        return Message(content_type="text/plain", body=notification.title)


class Oracle(AiFeature[InvoiceFacts]):
    key = "acme.oracle"
    summary = "Says nothing definite"
    facts = InvoiceFacts

    def instructions(self, facts: InvoiceFacts) -> str:  # noqa: ARG002
        return "Be vague."

    def answer(self, facts: InvoiceFacts) -> str:  # noqa: ARG002
        return "It may be."


class Hasty(Cash):
    key = "acme.hasty"

    def find(self, request: PaymentRequest) -> None:  # type: ignore[override]  # noqa: ARG002
        return None


class Factless(Oracle):
    key = "acme.factless"
    facts = None  # type: ignore[assignment]


class Armed(Oracle):
    key = "acme.armed"
    tools = ("delete_everything",)


class Unshown(Free):
    key = "acme.unshown"
    examples = "price"  # type: ignore[assignment]


class Unfinished(PricingModel):
    key = "acme.unfinished"
    summary = "Has no price"


class Keyless(Free):
    key = None  # type: ignore[assignment]


class Shouting(Free):
    key = "acme free!"


class Silent(Free):
    key = "acme.silent"
    summary = None  # type: ignore[assignment]


class SameKey(Free):
    pass


class Usurper(Free):
    key = "FLAT"


class Blind(Calm):
    key = "acme.blind"
    evidence = None  # type: ignore[assignment]


class Blocking(NoTax):
    key = "acme.blocking"

    def quote(self, request: TaxRequest) -> list[AppliedTax]:  # type: ignore[override]  # noqa: ARG002
        return []


class Formless(Free):
    key = "acme.formless"
    hook: Callable[[], int] = len  # type: ignore[assignment]


def plugin(**hooks: Callable[..., object]) -> ModuleType:
    module = ModuleType("acme")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def models(*components: object) -> ModuleType:
    def register_pricing_models() -> Sequence[object]:
        return components

    return plugin(register_pricing_models=register_pricing_models)


def refusal(*plugins: object) -> str:
    with pytest.raises(PluginError) as refused:
        load_registry(extra=plugins)
    return refused.value.message


def test_the_standard_components_come_through_the_entry_point() -> None:
    registry = load_registry()
    assert set(registry.pricing_models) >= STANDARD
    assert "manual" in registry.tax_engines
    assert "margin_guard" in registry.detectors
    assert "standard.manual" in registry.payment_gateways
    assert "standard.chat" in registry.notifiers
    assert "standard.explain_invoice" in registry.ai_features
    source = registry.sources[registry.pricing_models["FLAT"]]
    assert source == Source("aforo-standard", "0.1.0", "aforo_standard.pricing.flat")


def test_every_component_is_found_by_its_key_and_has_a_source() -> None:
    registry = load_registry(extra=[models(Free)])
    kinds = [registry.components(kind) for kind in KINDS.values()]
    assert all(key == component.key for kind in kinds for key, component in kind.items())
    assert set(registry.sources) == {component for kind in kinds for component in kind.values()}
    assert all(kinds), "each kind has a component"


def test_a_plugin_that_is_handed_over_joins_the_installed_ones() -> None:
    acme = plugin(
        register_pricing_models=lambda: [Free],
        register_tax_engines=lambda: (NoTax,),
        register_detectors=lambda: iter([Calm]),
        register_payment_gateways=lambda: [Cash],
        register_notifiers=lambda: [Postcard],
        register_ai_features=lambda: [Oracle],
    )
    registry = load_registry(extra=[acme])
    assert registry.pricing_models["acme.free"] is Free
    assert registry.tax_engines["acme.none"] is NoTax
    assert registry.detectors["acme.calm"] is Calm
    assert registry.payment_gateways["acme.cash"] is Cash
    assert registry.notifiers["acme.postcard"] is Postcard
    assert registry.ai_features["acme.oracle"] is Oracle
    assert registry.sources[Free] == Source(None, None, __name__)
    assert set(registry.pricing_models) >= STANDARD


def test_the_registry_is_read_only() -> None:
    registry = load_registry()
    with pytest.raises(TypeError):
        registry.pricing_models["acme.free"] = Free  # type: ignore[index]
    with pytest.raises(AttributeError):
        registry.pricing_models = {}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("component", "told"),
    [
        (NoTax, "is no subclass of PricingModel"),
        (Free(), "is no subclass of PricingModel"),
        ("acme.free", "'acme.free' is no subclass of PricingModel"),
        (None, "None is no subclass of PricingModel"),
        (Unfinished, "Unfinished is abstract: it lacks price"),
        (PricingModel, "PricingModel is abstract"),
        (Keyless, "Keyless has no key"),
        (Shouting, "Shouting has the key 'acme free!'"),
        (Silent, "Silent has no summary"),
        (Formless, "Formless has settings without a JSON schema"),
        (Usurper, "the key 'FLAT' of Usurper is taken by Flat of aforo-standard"),
    ],
    ids=str,
)
def test_a_component_that_does_not_fit_is_refused(component: object, told: str) -> None:
    message = refusal(models(component))
    assert message.startswith("plugin 'acme': ")
    assert told in message


def test_a_key_is_given_once_also_within_a_plugin() -> None:
    assert "the key 'acme.free' of SameKey is taken by Free" in refusal(models(Free, SameKey))
    assert "is taken by Free" in refusal(models(Free, Free))


@pytest.mark.parametrize(
    ("hook", "component", "told"),
    [
        ("register_detectors", Blind, "Blind does not say which evidence it wants"),
        ("register_detectors", Free, "is no subclass of Detector"),
        ("register_tax_engines", Blocking, "Blocking has a `quote` that is not `async def`"),
        ("register_payment_gateways", Hasty, "Hasty has a `find` that is not `async def`"),
        ("register_ai_features", Factless, "Factless does not say which facts it wants"),
        ("register_ai_features", Armed, "Armed names tools, of which this release has none"),
        ("register_pricing_models", Unshown, "Unshown has examples that are no sequence"),
    ],
)
def test_each_kind_has_its_own_rules(hook: str, component: object, told: str) -> None:
    assert told in refusal(plugin(**{hook: lambda: [component]}))


def test_a_misspelt_hook_is_named_with_the_one_that_was_meant() -> None:
    message = refusal(plugin(register_pricing_modells=lambda: [Free]))
    assert message == (
        "plugin 'acme' has no such hook: 'register_pricing_modells'; "
        "did you mean 'register_pricing_models'?"
    )
    assert "there are register_ai_features, " in refusal(plugin(send_money=lambda: [Free]))


def test_a_hook_with_arguments_is_refused() -> None:
    def register_pricing_models(registry: object) -> list[object]:
        return [registry]

    message = refusal(plugin(register_pricing_models=register_pricing_models))
    assert "plugin 'acme' has a hook that does not fit" in message
    assert "'registry'" in message
    assert "\n" not in message


def test_a_plugin_that_marks_nothing_is_refused() -> None:
    assert refusal(ModuleType("acme")) == (
        "plugin 'acme' registers nothing: mark its functions with @hookimpl"
    )


def test_a_plugin_is_registered_once() -> None:
    acme = models(Free)
    assert refusal(acme, acme) == "plugin 'acme' is registered twice"


def test_a_hook_that_raises_or_returns_no_list_is_refused() -> None:
    def explode() -> object:
        raise RuntimeError("no licence\nsecond line")

    message = refusal(plugin(register_pricing_models=explode))
    assert message == "plugin 'acme': explode failed: RuntimeError: no licence second line"
    assert "failed: TypeError" in refusal(plugin(register_pricing_models=lambda: None))


@pytest.fixture
def install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str, str], None]]:
    """Puts a distribution of one module where the import system finds it."""

    def put(distribution: str, module: str, source: str) -> None:
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        (info / "entry_points.txt").write_text(f"[aforo]\nmain = {module}\n")
        (tmp_path / f"{module}.py").write_text(f'aforo_sdk = "1.0"\n{source}')

    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield put
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named"),
        ("raise RuntimeError('licence expired')", "RuntimeError: licence expired"),
        ("def broken(:", "SyntaxError: "),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_with_its_distribution(
    install: Callable[..., None], source: str, told: str
) -> None:
    install("acme-pricing", "acme_broken", source)
    message = refusal()
    assert message.startswith(
        "plugin 'main' of acme-pricing 1.2 cannot be imported (acme_broken): "
    )
    assert told in message
    assert message.endswith("fix or uninstall acme-pricing")


def test_a_faulty_component_of_an_installed_plugin_is_named_with_its_distribution(
    install: Callable[..., None],
) -> None:
    install(
        "acme-pricing",
        "acme_faulty",
        "from aforo.sdk import hookimpl\n\n\n"
        "@hookimpl\ndef register_tax_engines():\n    return [int]\n",
    )
    assert refusal() == (
        "plugin 'main' of acme-pricing 1.2: <class 'int'> is no subclass of TaxEngine"
    )


def test_two_distributions_cannot_bring_the_same_key(install: Callable[..., None]) -> None:
    install(
        "zeta-pricing",
        "zeta_pricing",
        "from aforo.sdk import hookimpl\nfrom aforo_standard.pricing.flat import Flat\n\n\n"
        "class Better(Flat):\n    pass\n\n\n"
        "@hookimpl\ndef register_pricing_models():\n    return [Better]\n",
    )
    assert refusal() == (
        "plugin 'main' of zeta-pricing 1.2: the key 'FLAT' of Better is taken by Flat of "
        "aforo-standard; give it another key"
    )


def test_loading_calls_every_hook_once() -> None:
    calls: list[Any] = []

    def register_pricing_models() -> list[type[PricingModel]]:
        calls.append(1)
        return [Free]

    load_registry(extra=[plugin(register_pricing_models=register_pricing_models)])
    assert calls == [1]
