"""GraphQL of the stages: their settings with every version, and how an event passed them."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self

import strawberry

from aforo.api.parts import relay
from aforo.api.parts.context import Info
from aforo.api.parts.fields import field, mutation, publish_enum
from aforo.api.parts.pages import ByAge, rows_in_pages
from aforo.api.parts.problems import ConflictProblem, InvalidProblem
from aforo.api.parts.relay import After, Connection, First, Node
from aforo.api.parts.scalars import JSON
from aforo.metering.passing import Step
from aforo.sdk.errors import Forbidden, Invalid
from aforo.stages import commands, models, queries
from aforo.stages.registry import STAGES, InForce, SettingForm, StageName, forms, written
from aforo.storage.listing import PAGE_DEFAULT, AgeOrder
from aforo.tenants.permissions import Permission

publish_enum(
    StageName,
    "The stages that an event passes, in their order.",
    **{name.name: stage.description for name, stage in STAGES.items()},
)
_OF_BILLING = frozenset({StageName.TAXATION, StageName.SETTLEMENT})


@strawberry.type(description="A setting of a stage, as a form shows it, with its value.")
class StageSetting:
    name: str = strawberry.field(description="Its name, as `changeStageSettings` takes it.")
    description: str = strawberry.field(description="What it does.")
    type: str = strawberry.field(description="`BOOLEAN`, `INTEGER` or `TEXT`.")
    default: JSON = strawberry.field(description="What it is as it is delivered.")
    minimum: int | None = strawberry.field(description="Of an INTEGER, the least.")
    maximum: int | None = strawberry.field(description="Of an INTEGER, the most.")
    values: list[str] = strawberry.field(description="Of a TEXT, all that it can be; else empty.")
    value: JSON = strawberry.field(description="What it is set to.")

    @classmethod
    def of(cls, form: SettingForm, value: object) -> Self:
        return cls(
            name=form.name,
            description=form.description,
            type=form.type,
            default=JSON(form.default),
            minimum=form.minimum,
            maximum=form.maximum,
            values=list(form.values),
            value=JSON(value),
        )


@relay.fetched_by(queries.stage_versions_by_id)
@strawberry.type(description="The settings of a stage from a moment on. It never changes.")
class StageVersion(Node):
    stage: StageName = strawberry.field(description="The stage.")
    version: int = strawberry.field(description="From 1 on.")
    settings: JSON = strawberry.field(description="All settings of the stage, by name.")
    reason: str = strawberry.field(description="Why they were changed.")
    changed_by: str = strawberry.field(
        description="By whom: the public id of a key, or an address."
    )
    changed_at: datetime = strawberry.field(description="When.")

    @classmethod
    def from_row(cls, row: models.StageVersion) -> Self:
        return cls(
            id=relay.global_id("StageVersion", row.id),
            stage=row.stage,
            version=row.version,
            settings=JSON(row.settings),
            reason=row.reason,
            changed_by=row.changed_by,
            changed_at=row.created_at,
        )


@strawberry.type(description="A stage with the settings that are in force.")
class Stage:
    name: StageName = strawberry.field(description="Which one.")
    position: int = strawberry.field(description="Its place among the ten, from 1.")
    description: str = strawberry.field(description="What it does.")
    uses: str = strawberry.field(description="What it goes by, beside its settings.")
    version: int = strawberry.field(
        description="Of the settings in force; 0: as they are delivered."
    )
    settings: list[StageSetting] = strawberry.field(
        description="Its settings; empty where there is nothing to choose."
    )

    @classmethod
    def of(cls, name: StageName, in_force: InForce) -> Self:
        values = written(in_force.of(name))
        stage = STAGES[name]
        return cls(
            name=name,
            position=list(STAGES).index(name) + 1,
            description=stage.description,
            uses=stage.uses,
            version=in_force.version(name),
            settings=[StageSetting.of(form, values[form.name]) for form in forms(stage.settings)],
        )

    @field("Every version of its settings.")
    async def versions(
        self,
        info: Info,
        order_by: ByAge = AgeOrder.NEWEST_FIRST,
        first: First = PAGE_DEFAULT,
        after: After = None,
    ) -> Connection[StageVersion]:
        listing = queries.stage_versions(stage=self.name, order=order_by)
        return await rows_in_pages(
            info.context, listing, first=first, after=after, of=StageVersion.from_row
        )


@strawberry.type(description="What one stage decided about an event.")
class TraceStep:
    stage: StageName = strawberry.field(description="The stage.")
    passed: bool | None = strawberry.field(
        description="Whether it went on from there; null where the stage has not come to it, or "
        "not to an end."
    )
    decision: str = strawberry.field(description="A stable name of it, such as `COUNTED`.")
    reason: str = strawberry.field(description="Why, for a person.")
    settings_version: int | None = strawberry.field(
        description="Of the settings of the stage, 0 as they are delivered; null where it is not "
        "known, or the stage has not come to it."
    )
    at: datetime | None = strawberry.field(description="When it was decided.")
    meter: str | None = strawberry.field(description="Code of the meter that it is about.")
    quantity: Decimal | None = strawberry.field(
        description="What the event brings to that meter; null where it is not counted."
    )
    invoice_line_id: strawberry.ID | None = strawberry.field(
        description="The `InvoiceLine` that it is about."
    )

    @classmethod
    def of(cls, step: Step) -> Self:
        line_id = step.invoice_line_id
        return cls(
            stage=step.stage,
            passed=step.passed,
            decision=step.decision,
            reason=step.reason,
            settings_version=step.settings_version,
            at=step.at,
            meter=step.meter,
            quantity=step.quantity,
            invoice_line_id=None if line_id is None else relay.global_id("InvoiceLine", line_id),
        )


TRACE = (
    "The stages that it passed, what each decided and why. What a stage decides by meter or by "
    "line is a step for each."
)
TRACE_COST = 10


@strawberry.interface(description="An event that was taken, wherever it is by now.")
class TakenEvent:
    event_id: strawberry.ID = strawberry.field(description="As in the answer to its batch.")
    idempotency_key: str = strawberry.field(description="The key that makes a retry harmless.")
    type: str = strawberry.field(
        description="What meters select it by: as sent, unless it was corrected."
    )
    received_at: datetime = strawberry.field(description="When it arrived.")

    @field(TRACE, cost=TRACE_COST)
    async def trace(self, info: Info) -> list[TraceStep]:
        raise NotImplementedError("each kind of event says where its trace is")


@strawberry.input(description="Settings of a stage to change.")
class ChangeStageSettingsInput:
    stage: StageName = strawberry.field(description="The stage.")
    settings: JSON = strawberry.field(
        description="The settings to change, as an object by name; the others stay as they are."
    )
    reason: str = strawberry.field(description="Why, for people: 1 to 500 characters.")
    expected_version: int = strawberry.field(
        description="The version that is in force as far as you know: `Stage.version`."
    )


ChangeStageSettingsResult = Annotated[
    StageVersion | InvalidProblem | ConflictProblem,
    strawberry.union(
        "ChangeStageSettingsResult", description="The new version, or why nothing was changed."
    ),
]


@strawberry.type
class StageQuery:
    @field("The ten stages that an event passes, in their order.", needs=Permission.USAGE_READ)
    async def stages(self, info: Info) -> list[Stage]:
        async with info.context.scope() as scope:
            in_force = await queries.in_force(scope)
        return [Stage.of(name, in_force) for name in STAGES]


@strawberry.type
class StageMutation:
    @mutation(
        "Change settings of a stage: a new version, by which every process goes within a second. "
        "TAXATION and SETTLEMENT need `BILLING_WRITE` as well.",
        needs=Permission.USAGE_WRITE,
    )
    async def change_stage_settings(
        self, info: Info, input: ChangeStageSettingsInput
    ) -> ChangeStageSettingsResult:
        if not isinstance(input.settings, dict):
            raise Invalid("settings are a JSON object", field="settings")
        caller = info.context.caller
        if input.stage in _OF_BILLING and Permission.BILLING_WRITE not in caller.permissions:
            raise Forbidden(f"{caller.named} lacks the permission BILLING_WRITE", field="stage")
        async with info.context.scope() as scope:
            row = await commands.change_settings(
                scope,
                input.stage,
                input.settings,
                reason=input.reason,
                expected_version=input.expected_version,
            )
        return StageVersion.from_row(row)
