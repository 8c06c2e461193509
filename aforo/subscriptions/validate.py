"""What customers, their keys and their subscriptions must look like."""

import re
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import available_timezones

from aforo.catalog.validate import check_text
from aforo.sdk import Invalid
from aforo.stages.registry import GRACE_SECONDS_MAX

EXTERNAL_ID_LENGTH_MAX = 255
DETAIL_LENGTH_MAX = 64
EMAIL_LENGTH_MAX = 254
KEY_LENGTH_MIN = 16
KEY_LENGTH_MAX = 255
SHIFT_MAX = timedelta(days=400)

_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")
_KEY = re.compile(r"[!-~]+")

_ISO_3166 = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS
BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE
EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM
HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC
LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA
NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW
SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO
TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_ISO_3166.split())
"""The officially assigned codes of two letters."""


def check_external_id(external_id: str) -> str:
    """The tenant's own id of a customer, exactly as events will name it."""
    return check_text(external_id, field="externalId", length_max=EXTERNAL_ID_LENGTH_MAX)


def check_time_zone(time_zone: str) -> str:
    """An IANA zone; raises `Invalid`, code `UNKNOWN_TIME_ZONE`."""
    if time_zone not in _time_zones():
        raise Invalid(
            f"{time_zone[:80]!r} is no IANA time zone; use a name such as 'UTC' or 'Asia/Kolkata'",
            code="UNKNOWN_TIME_ZONE",
            field="timeZone",
        )
    return time_zone


def check_country(country: str | None) -> str | None:
    """An ISO 3166 country of two letters; raises `Invalid`, code `UNKNOWN_COUNTRY`."""
    if country is not None and country not in COUNTRIES:
        raise Invalid(
            f"{country[:80]!r} is no ISO 3166 country; use two letters such as 'US' or 'DE'",
            code="UNKNOWN_COUNTRY",
            field="country",
        )
    return country


def check_email(email: str | None) -> str | None:
    """An address with one @ and something on both sides of it; whether it works, mail tells."""
    if email is not None:
        check_text(email, field="email", length_max=EMAIL_LENGTH_MAX)
        if not _EMAIL.fullmatch(email):
            raise Invalid(f"{email!r} is no e-mail address", field="email")
    return email


def check_detail(text: str | None, *, field: str) -> str | None:
    """A short optional text such as a region or a tax number."""
    if text is not None:
        check_text(text, field=field, length_max=DETAIL_LENGTH_MAX)
    return text


def check_key(key: str) -> str:
    """A customer's key as events send it; the message of `Invalid` never shows it."""
    if not KEY_LENGTH_MIN <= len(key) <= KEY_LENGTH_MAX or not _KEY.fullmatch(key):
        raise Invalid(
            f"a key has {KEY_LENGTH_MIN} to {KEY_LENGTH_MAX} visible ASCII characters and no space",
            field="key",
        )
    if key.startswith("afo_"):
        raise Invalid(
            "this looks like your own key for this API; register the key that your customer uses "
            "with you, and revoke this one if it was shown to anybody",
            field="key",
        )
    return key


def check_near(moment: datetime, *, now: datetime, field: str) -> datetime:
    """A moment at most 400 days before or after now."""
    if abs(moment - now) > SHIFT_MAX:
        raise Invalid(
            f"{field} is {moment.isoformat()}, give a moment within {SHIFT_MAX.days} days of now",
            field=field,
        )
    return moment


def check_terms(*, anchor_day: int | None, grace_seconds: int) -> None:
    """The day on which periods start, and how long an invoice stays a draft."""
    if anchor_day is not None and not 1 <= anchor_day <= 31:
        raise Invalid(f"a month has no day {anchor_day}, give 1 to 31", field="anchorDay")
    if not 0 <= grace_seconds <= GRACE_SECONDS_MAX:
        raise Invalid(
            f"graceSeconds is {grace_seconds}, give 0 to {GRACE_SECONDS_MAX} (30 days)",
            field="graceSeconds",
        )


@cache
def _time_zones() -> frozenset[str]:
    # These two are files of the system's database, but no zones that anything else would know.
    return frozenset(available_timezones() - {"Factory", "localtime"})
