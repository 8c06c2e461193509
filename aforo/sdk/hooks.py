"""The hooks through which a plugin registers its components, called once at start-up."""

from collections.abc import Sequence
from typing import Any

import pluggy

from aforo.sdk.ai import AiFeature
from aforo.sdk.detection import Detector
from aforo.sdk.notification import Notifier
from aforo.sdk.payment import PaymentGateway
from aforo.sdk.pricing import PricingModel
from aforo.sdk.tax import TaxEngine

hookspec = pluggy.HookspecMarker("aforo")
hookimpl = pluggy.HookimplMarker("aforo")


@hookspec
def register_pricing_models() -> Sequence[type[PricingModel]]:
    """Ways to turn usage into money, chosen per rate plan line by `key`."""
    raise NotImplementedError  # For type checkers; pluggy never calls a spec.


@hookspec
def register_tax_engines() -> Sequence[type[TaxEngine]]:
    """Ways to find the taxes of an invoice, chosen per tenant by `key`."""
    raise NotImplementedError


@hookspec
def register_payment_gateways() -> Sequence[type[PaymentGateway]]:
    """Ways to get paid, chosen per tenant by `key`."""
    raise NotImplementedError


@hookspec
def register_detectors() -> Sequence[type[Detector[Any]]]:
    """Judges of usage, cost and revenue; every one that is registered is asked."""
    raise NotImplementedError


@hookspec
def register_notifiers() -> Sequence[type[Notifier]]:
    """Forms in which the people of a tenant are told of signals; each tenant turns them on."""
    raise NotImplementedError


@hookspec
def register_ai_features() -> Sequence[type[AiFeature[Any]]]:
    """Questions to a model, chosen by `key` where they are asked."""
    raise NotImplementedError
