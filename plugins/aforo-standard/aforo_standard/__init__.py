"""The components that come with Aforo, brought through the same hooks as any partner's."""

from typing import Any

from aforo.sdk import (
    AiFeature,
    Detector,
    Notifier,
    PaymentGateway,
    PricingModel,
    TaxEngine,
    hookimpl,
)
from aforo_standard.chat_notifier import ChatNotifier
from aforo_standard.detectors.margin_guard import MarginGuard
from aforo_standard.explain_invoice import ExplainInvoice
from aforo_standard.manual_gateway import ManualGateway
from aforo_standard.manual_tax import ManualTax
from aforo_standard.pricing.flat import Flat
from aforo_standard.pricing.graduated import Graduated
from aforo_standard.pricing.per_unit import PerUnit
from aforo_standard.pricing.percentage import Percentage
from aforo_standard.pricing.quota import Quota
from aforo_standard.pricing.volume import Volume

aforo_sdk = "1.1"


@hookimpl
def register_pricing_models() -> list[type[PricingModel]]:
    return [Flat, PerUnit, Graduated, Volume, Percentage, Quota]


@hookimpl
def register_tax_engines() -> list[type[TaxEngine]]:
    return [ManualTax]


@hookimpl
def register_payment_gateways() -> list[type[PaymentGateway]]:
    return [ManualGateway]


@hookimpl
def register_detectors() -> list[type[Detector[Any]]]:
    return [MarginGuard]


@hookimpl
def register_notifiers() -> list[type[Notifier]]:
    return [ChatNotifier]


@hookimpl
def register_ai_features() -> list[type[AiFeature[Any]]]:
    return [ExplainInvoice]
