"""Solvers of small graphs: families, paths and schedules."""

import re
from collections import defaultdict, deque

from reasoning_lab.data.teachers.solvers.scratchpad import Scratchpad
from reasoning_lab.types import Problem

# The links from one person to another, and what he or she then is to the other.
_RELATIONS = {
    ("parent",): ("father", "mother"),
    ("child",): ("son", "daughter"),
    ("spouse",): ("husband", "wife"),
    ("child", "parent"): ("brother", "sister"),
    ("parent", "parent"): ("grandfather", "grandmother"),
    ("child", "child"): ("grandson", "granddaughter"),
    ("child", "parent", "parent"): ("uncle", "aunt"),
    ("child", "child", "parent"): ("nephew", "niece"),
    ("spouse", "child"): ("son-in-law", "daughter-in-law"),
    ("parent", "spouse"): ("father-in-law", "mother-in-law"),
}
_NO_NAME = ("relative", "relative")
_LINKS = ("parent", "child", "spouse")
_PRONOUNS = ("he", "she")
_COUPLE = re.compile(
    r"(\w+) is married to (\w+)\.(?: They have (?:a child|children) called ([^.]+)\.)?"
)
_EDGE = re.compile(r"\|(\d+) (\d+)")


def family_relationships(problem: Problem, pad: Scratchpad) -> str:
    """Walk from the first person to the second by parents, children and spouses; name the way."""
    from reasoning_gym.graphs.family_relationships import FamilyRelationshipsConfig

    first, second = problem.metadata["person1"], problem.metadata["person2"]
    links = tuple(
        pad.step(f"{one} is {{}} of {other}", link, _LINKS)
        for one, link, other in _shortest_way(problem.prompt, first, second)
    )
    is_male = first in FamilyRelationshipsConfig().male_names
    pronoun = pad.step(f"{first}: {{}}", _PRONOUNS[0 if is_male else 1], _PRONOUNS)
    gender = _PRONOUNS.index(pronoun)
    names = [relation[gender] for relation in _RELATIONS.values()]
    relation = _RELATIONS.get(links, _NO_NAME)[gender]
    return pad.step(f"{pronoun} {' '.join(links)} = {{}}", relation, names)


def _shortest_way(story: str, start: str, end: str) -> list[tuple[str, str, str]]:
    """The steps from `start` to `end`, each as (one, what the one is of the other, other)."""
    links: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for one, other, children in _COUPLE.findall(story):
        for parent, spouse in ((one, other), (other, one)):
            links[parent].append(("spouse", spouse))
            for child in re.findall(r"\w+", children.replace(" and ", ", ")):
                links[parent].append(("parent", child))
                links[child].append(("child", parent))
    way_to: dict[str, list[tuple[str, str, str]]] = {start: []}
    queue = deque([start])
    while queue and end not in way_to:
        one = queue.popleft()
        for link, other in links[one]:
            if other not in way_to:
                way_to[other] = [*way_to[one], (one, link, other)]
                queue.append(other)
    return way_to.get(end, [])


def path_star(problem: Problem, pad: Scratchpad) -> str:
    """From the goal back to the center, one edge at a time."""
    goal, center = problem.metadata["goal"], problem.metadata["center"]
    task = problem.prompt.rpartition("\n")[2]
    before = {int(node): int(source) for source, node in _EDGE.findall(task)}
    nodes = [center, *before]
    path = [goal]
    # After a slip the way may lead elsewhere; it has no more steps than there are edges.
    for _ in before:
        if path[-1] == center or path[-1] not in before:
            break
        path.append(pad.step(f"{path[-1]} from {{}}", before[path[-1]], nodes))
    is_reversed = f"/{goal} {center} " in task
    return " ".join(map(str, path if is_reversed else reversed(path)))


def course_schedule(problem: Problem, pad: Scratchpad) -> str:
    """What each course needs; then take a course whose needs are met, again and again."""
    needed_by: dict[int, list[int]] = {course: [] for course in problem.metadata["courses"]}
    for course, prerequisite in problem.metadata["prerequisites"]:
        needed_by[course].append(prerequisite)
    needs: dict[int, set[str]] = {}
    for course in sorted(needed_by):
        names = [str(needed) for needed in sorted(needed_by[course])]
        slips = [" ".join([*names[:at], *names[at + 1 :]]) or "none" for at in range(len(names))]
        others = [str(other) for other in needed_by if other not in {course, *needed_by[course]}]
        written = pad.step(f"{course} needs {{}}", " ".join(names) or "none", [*slips, *others])
        needs[course] = {name for name in written.split() if name != "none"}
    while needs:
        ready = [course for course, open_needs in needs.items() if not open_needs]
        names = [*map(str, needs), "none"]
        taken = pad.step("take {}", str(ready[0]) if ready else "none", names)
        if taken == "none":
            return "False"
        del needs[int(taken)]
        for open_needs in needs.values():
            open_needs.discard(taken)
    return "True"
