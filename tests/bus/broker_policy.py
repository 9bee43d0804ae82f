"""The bus policy of configuration files as dbus-broker takes it, for the private brokers of tests.

dbus-broker reads no files: dbus-broker-launch, which needs systemd, hands it lists of rules for each user (launch/policy.c).
Here is as much of that as the stock system.conf and org.gpuwhyd1.conf need.
"""

import pwd
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

ANY_UID = 2**32 - 1
_ANY_COUNT = (0, 2**64 - 1)
_TYPES = {"method_call": 1, "method_return": 2, "error": 3, "signal": 4}


def open_to_all() -> list[object]:
    """Everyone may do everything."""
    anything = [True, 1, "", "", "", "", 0, 0, *_ANY_COUNT]
    return [[ANY_UID, [True, 1, [[True, 1, True, ""]], [anything], [anything]]]]


def batches(files: Sequence[Path]) -> list[object]:
    """One for each user that a file names and one for all others; of the rules that match, the last one counts."""
    policies = [policy for file in files for policy in ET.parse(file).getroot().iter("policy")]
    users = {policy.get("user") for policy in policies} - {None}
    return [
        [
            ANY_UID if user is None else pwd.getpwnam(user).pw_uid,
            _batch([policy for policy in policies if policy.get("user") in (None, user)]),
        ]
        for user in (None, *sorted(users))
    ]


def _batch(policies: Sequence[ET.Element]) -> list[object]:
    own, send, receive = [], [], []
    # Rules for a user come after those for everyone, whatever the order in the files (dbus-daemon(1)).
    ordered = sorted(policies, key=lambda policy: policy.get("user") is not None)
    for priority, rule in enumerate((rule for policy in ordered for rule in policy), start=1):
        allowed = rule.tag == "allow"
        if (name := rule.get("own")) is not None:
            own.append([allowed, priority, name == "*", "" if name == "*" else name])
        elif any(key.startswith("send_") for key in rule.keys()):  # noqa: SIM118 - not a mapping
            send.append(_message_rule(rule, "send", rule.get("send_destination", ""), allowed, priority))
        elif any(key.startswith("receive_") for key in rule.keys()):  # noqa: SIM118
            receive.append(_message_rule(rule, "receive", rule.get("receive_sender", ""), allowed, priority))
    return [True, 1, own, send, receive]


def _message_rule(rule: ET.Element, way: str, peer: str, allowed: bool, priority: int) -> list[object]:
    value = {key: rule.get(f"{way}_{key}", "") for key in ("path", "interface", "member", "type")}
    kind = _TYPES[value["type"]] if value["type"] else 0
    return [allowed, priority, peer, value["path"], value["interface"], value["member"], kind, 0, *_ANY_COUNT]
