"""MarginGuard: a customer's margin to date against three limits."""

from decimal import Decimal

from pydantic import Field, model_validator

from aforo.sdk import (
    Amount,
    Detection,
    Detector,
    Invalid,
    Level,
    MarginEvidence,
    Money,
    Rate,
    SignedRate,
    divide,
    round_half_up,
)

_LEVELS = {"L1": Level.BLOCK, "L2": Level.THROTTLE, "L3": Level.ALERT}  # Deepest first.


class MarginGuard(Detector[MarginEvidence]):
    """Margin = (revenue − COGS) / revenue. A margin below a limit breaches it, one at it does not.

    Without revenue there is no margin, and the loss decides: from `lossFloor` on it is an L1.
    """

    key = "margin_guard"
    summary = "A customer costs too large a share of what it brings in"
    evidence = MarginEvidence

    l3: SignedRate = Field(default=Decimal("0.20"), description="Below this margin: ALERT.")
    l2: SignedRate = Field(default=Decimal("0.10"), description="Below this margin: THROTTLE.")
    l1: SignedRate = Field(default=Decimal("0.00"), description="Below this margin: BLOCK.")
    loss_floor: Amount = Field(
        default=Decimal(10),
        gt=0,
        description="Without revenue: the loss from which on it is a BLOCK, in the currency.",
    )
    hysteresis: Rate = Field(
        default=Decimal("0.02"),
        description="How far above a limit the margin must return before it can fire again.",
    )

    @model_validator(mode="after")
    def _falling(self) -> "MarginGuard":
        for name, upper, lower in (("l2", self.l3, self.l2), ("l1", self.l2, self.l1)):
            if lower >= upper:
                raise Invalid(
                    f"the limits fall from l3 to l1: {name} must be below {upper:f}", field=name
                )
        return self

    def detect(self, evidence: MarginEvidence) -> Detection | None:
        margin = _margin(evidence)
        if margin is None:
            loss = evidence.cogs - evidence.revenue
            if loss < self.loss_floor:
                return None
            floor = f"{self.loss_floor:f} {evidence.currency}"
            found = (
                f"A loss of {_money(loss, evidence)} without revenue reaches the floor of {floor}"
            )
            return self._detection(evidence, "L1", self.loss_floor, found)
        for threshold in _LEVELS:
            limit = self._limit(threshold)
            if margin < limit:
                found = f"A margin of {_percent(margin)} is below {threshold}, {_percent(limit)}"
                return self._detection(evidence, threshold, limit, found)
        return None

    def is_rearmed(self, evidence: MarginEvidence, threshold: str) -> bool:
        """Whether the margin is back at the limit plus the hysteresis, or above.

        Without revenue: whether the loss is below the floor.
        """
        margin = _margin(evidence)
        if margin is None:
            return self.detect(evidence) is None
        return margin >= self._limit(threshold) + self.hysteresis

    def _limit(self, threshold: str) -> Decimal:
        return {"L1": self.l1, "L2": self.l2, "L3": self.l3}[threshold]

    def _detection(
        self, evidence: MarginEvidence, threshold: str, limit: Decimal, found: str
    ) -> Detection:
        margin = _margin(evidence)
        sentence = (
            f"{found}: revenue {_money(evidence.revenue, evidence)}, "
            f"COGS {_money(evidence.cogs, evidence)}."
        )
        if evidence.uncosted_events:
            sentence += f" {evidence.uncosted_events} events have no known cost and are not in it."
        return Detection(
            level=_LEVELS[threshold],
            threshold=threshold,
            value=margin,
            limit=limit,
            explanation=sentence,
            numbers={
                "revenue": evidence.revenue,
                "cogs": evidence.cogs,
                "margin": margin,
                "uncostedEvents": Decimal(evidence.uncosted_events),
                "l3": self.l3,
                "l2": self.l2,
                "l1": self.l1,
                "lossFloor": self.loss_floor,
            },
        )


def _margin(evidence: MarginEvidence) -> Decimal | None:
    # Credits can push revenue below 0, where the quotient would look like a profit.
    if evidence.revenue <= 0:
        return None
    return divide(evidence.revenue - evidence.cogs, evidence.revenue)


def _percent(share: Decimal) -> str:
    return f"{round_half_up(share.scaleb(2), 2):f} %"


def _money(amount: Decimal, evidence: MarginEvidence) -> str:
    return str(Money(amount, evidence.currency).rounded())
