"""Asks a payment gateway what a customer has to do, inside a guard, and checks what it says."""

from collections.abc import Sequence

from aforo.plugins import FAILURES, bounded, is_printable, told
from aforo.sdk import Instruction, PaymentGateway, PaymentRequest, PluginError

INSTRUCTIONS_MAX = 50
TEXT_CHARACTERS_MAX = 500


def instructions_of(gateway: PaymentGateway, request: PaymentRequest) -> tuple[Instruction, ...]:
    """What the customer can do to pay, line by line; empty if there is nothing.

    Raises: `PluginError`, which names the gateway, where it fails or answers anything else.
    """
    what = f"the payment gateway {gateway.key!r}"
    try:
        answer: object = bounded(gateway.instructions, request, what=what)
    except FAILURES as error:  # A plugin may raise anything at all.
        raise PluginError(f"{what} failed: {told(error)}") from error
    if not isinstance(answer, Sequence) or isinstance(answer, str | bytes):
        raise PluginError(f"{what} gave a {type(answer).__name__}, which is no sequence")
    if len(answer) > INSTRUCTIONS_MAX:
        raise PluginError(f"{what} gave more than {INSTRUCTIONS_MAX} instructions")
    for each in answer:
        if not isinstance(each, Instruction) or not all(
            is_printable(text, length_max=TEXT_CHARACTERS_MAX) for text in (each.label, each.text)
        ):
            raise PluginError(
                f"{what} gave an instruction that is not two texts of 1 to {TEXT_CHARACTERS_MAX} "
                "printable characters"
            )
    return tuple(answer)
