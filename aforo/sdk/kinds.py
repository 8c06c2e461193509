"""The kinds of components: the word for each, its hook, and its base."""

from dataclasses import dataclass
from types import MappingProxyType

from aforo.sdk.ai import AiFeature
from aforo.sdk.component import Component
from aforo.sdk.detection import Detector
from aforo.sdk.notification import Notifier
from aforo.sdk.payment import PaymentGateway
from aforo.sdk.pricing import PricingModel
from aforo.sdk.tax import TaxEngine


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of component."""

    word: str
    """As `aforo plugins new --kind` takes it."""
    title: str
    hook: str
    base: type[Component]

    @property
    def collection(self) -> str:
        """Where the registry keeps them: the hook's name without its verb."""
        return self.hook.removeprefix("register_")


KINDS = MappingProxyType(
    {
        kind.word: kind
        for kind in (
            Kind("pricing", "pricing model", "register_pricing_models", PricingModel),
            Kind("tax", "tax engine", "register_tax_engines", TaxEngine),
            Kind("gateway", "payment gateway", "register_payment_gateways", PaymentGateway),
            Kind("detector", "detector", "register_detectors", Detector),
            Kind("notifier", "notifier", "register_notifiers", Notifier),
            Kind("ai", "AI feature", "register_ai_features", AiFeature),
        )
    }
)
"""Every kind by its word."""


def kind_of(component: type[Component]) -> Kind:
    """The kind of a component; raises `TypeError` for a class that is of none."""
    for kind in KINDS.values():
        if issubclass(component, kind.base):
            return kind
    raise TypeError(f"{component.__qualname__} is of no kind that Aforo knows")
