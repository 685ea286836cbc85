"""Times of day, and ratios such as `9:30` that may be one."""

from reasoning_lab.verify.formulas import parse_literal
from reasoning_lab.verify.parse_tree import Formula, Node, Ratio, TimeOfDay


def equal_times(gold: Node, answer: Node) -> bool:
    """Compare times of day; a missing `am` or `pm` matches both."""
    gold_time, answer_time = _parse_time(gold), _parse_time(answer)
    if gold_time is None or answer_time is None or gold_time.minute != answer_time.minute:
        return False
    if gold_time.am_pm and answer_time.am_pm:
        return gold_time == answer_time
    if gold_time.hour == answer_time.hour:
        return True
    either_has_half = bool(gold_time.am_pm or answer_time.am_pm)
    return either_has_half and _hour_of_day(gold_time) == _hour_of_day(answer_time)


def _hour_of_day(time: TimeOfDay) -> int:
    return time.hour % 12 + (12 if time.am_pm == "pm" else 0) if time.am_pm else time.hour


def _parse_time(node: Node) -> TimeOfDay | None:
    if isinstance(node, TimeOfDay):
        return node
    if isinstance(node, Ratio) and node.may_be_time:
        hour, minute = (
            parse_literal(part.text) for part in node.parts if isinstance(part, Formula)
        )
        if hour and minute:
            return TimeOfDay(int(hour.value), int(minute.value), "")
    return None
