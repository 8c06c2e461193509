"""GraphQL of the plugins: the components that are loaded, each with the form of its settings."""

from typing import Any, Self

import strawberry

from aforo.api.parts.context import Info
from aforo.api.parts.fields import field
from aforo.api.parts.scalars import JSON
from aforo.plugins import Registry
from aforo.sdk import Component, settings_form
from aforo.tenants.permissions import Permission


@strawberry.interface(description="What a plugin brings, chosen by its key.")
class LoadedComponent:
    key: str = strawberry.field(description="The name by which it is chosen.")
    summary: str = strawberry.field(description="What it does, in a line.")
    settings_form: JSON = strawberry.field(description="JSON Schema of its settings.")
    distribution: str | None = strawberry.field(
        description="The installed package that brings it; null if it was handed over in code."
    )
    version: str | None = strawberry.field(description="That package's version.")

    @classmethod
    def of(cls, component: type[Component], registry: Registry, **more: Any) -> Self:
        source = registry.sources[component]
        return cls(
            key=component.key,
            summary=component.summary,
            settings_form=JSON(settings_form(component)),
            distribution=source.distribution,
            version=source.version,
            **more,
        )


@strawberry.type(description="A way to turn usage into money, for a line of a rate plan.")
class PricingModel(LoadedComponent):
    needs_meter: bool = strawberry.field(
        description="Whether it charges for usage; a flat fee does not."
    )


@strawberry.type(description="A way to find the taxes of an invoice.")
class TaxEngine(LoadedComponent):
    pass


@strawberry.type(description="A judge of usage, cost and revenue, which fires signals.")
class Detector(LoadedComponent):
    pass


@strawberry.type(description="A way to get paid.")
class PaymentGateway(LoadedComponent):
    pass


@strawberry.type(description="A form in which people are told of signals.")
class Notifier(LoadedComponent):
    pass


@strawberry.type(description="A question to a model, with an answer that needs none.")
class AiFeature(LoadedComponent):
    pass


@strawberry.type
class PluginQuery:
    @field(
        "The pricing models that lines of rate plans can name, by key.",
        needs=Permission.CATALOG_READ,
    )
    async def pricing_models(self, info: Info) -> list[PricingModel]:
        plugins = info.context.runtime.plugins
        return [
            PricingModel.of(model, plugins, needs_meter=model.needs_meter)
            for _, model in sorted(plugins.pricing_models.items())
        ]

    @field(
        "The tax engines that the tenant can choose from, by key.", needs=Permission.BILLING_READ
    )
    async def tax_engines(self, info: Info) -> list[TaxEngine]:
        plugins = info.context.runtime.plugins
        return [TaxEngine.of(engine, plugins) for _, engine in sorted(plugins.tax_engines.items())]

    @field(
        "The detectors that are asked about every customer, by key.", needs=Permission.SIGNALS_READ
    )
    async def detectors(self, info: Info) -> list[Detector]:
        plugins = info.context.runtime.plugins
        return [Detector.of(each, plugins) for _, each in sorted(plugins.detectors.items())]

    @field(
        "The payment gateways that the tenant can choose from, by key.",
        needs=Permission.BILLING_READ,
    )
    async def payment_gateways(self, info: Info) -> list[PaymentGateway]:
        plugins = info.context.runtime.plugins
        return [
            PaymentGateway.of(each, plugins) for _, each in sorted(plugins.payment_gateways.items())
        ]

    @field("The notifiers that the tenant can turn on, by key.", needs=Permission.SIGNALS_READ)
    async def notifiers(self, info: Info) -> list[Notifier]:
        plugins = info.context.runtime.plugins
        return [Notifier.of(each, plugins) for _, each in sorted(plugins.notifiers.items())]

    @field("The AI features that can be asked, by key.", needs=Permission.BILLING_READ)
    async def ai_features(self, info: Info) -> list[AiFeature]:
        plugins = info.context.runtime.plugins
        return [AiFeature.of(each, plugins) for _, each in sorted(plugins.ai_features.items())]
