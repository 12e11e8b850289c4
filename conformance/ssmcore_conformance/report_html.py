"""The report as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from html import escape
from typing import Any

from ssmcore_conformance.report import OUTCOMES
from ssmcore_conformance.report_style import STYLE
from ssmcore_conformance.worst import shown

__all__ = ["page"]

Row = dict[str, Any]
ENDINGS = {
    None: "The run did not end: its process died, or still runs. With pytest-xdist, -- -n 1, "
    "the test in which a process dies is reported and the others run on.",
    2: "The run was interrupted before its end, or tests could not be collected.",
    3: "The run ended with an internal error of pytest; see the terminal.",
    4: "Nothing was run: pytest refused its arguments; see the terminal.",
    5: "Nothing was run: no test was selected.",
}
"""What the exit codes of pytest mean that are not about the outcome of tests."""


def page(report: dict[str, Any]) -> str:
    """Return the page of a report (schema: ssmcore_conformance.report)."""
    tests: list[Row] = report["tests"]
    subjects = _grouped(tests, "subject")
    verdict = "passed" if report["passed"] else "failed"
    body = "\n".join(
        [
            f"<header><h1>ssmcore conformance: <span class={verdict}>{verdict}</span></h1>",
            _ending(report["exit_code"]),
            f"<p>{_counted(report['counts'])} of {len(tests)} tests; "
            f"{sum(row['examples'] for row in tests)} examples; {report['seconds']:.0f} s</p>",
            _environment(report),
            "</header><main>",
            _errors(report["errors"]),
            _failures([row for row in tests if row["outcome"] == "failed"]),
            _reasons(tests),
            _overview(subjects),
            *(_subject(name, rows) for name, rows in subjects.items()),
            "</main>",
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>ssmcore conformance: {verdict}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _ending(exit_code: int | None) -> str:
    """Return why the run is not a whole one, or ""."""
    return f"<p class=failed>{ENDINGS[exit_code]}</p>" if exit_code in ENDINGS else ""


def _grouped(rows: Iterable[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def _counted(counts: dict[str, int]) -> str:
    found = [
        f"<span class={outcome}>{counts[outcome]} {outcome}</span>"
        for outcome in OUTCOMES
        if counts.get(outcome)
    ]
    return ", ".join(found) or "none"


def _environment(report: Row) -> str:
    found = report["environment"]
    libraries = [
        f"{name} {library['version']} on {library['devices'][0]}"
        for name, library in found["backends"].items()
    ]
    libraries += [f"{name}: {why}" for name, why in found["unusable"].items()]
    facts = {
        "Backends": "; ".join(libraries),
        "Profile": f"{report['profile']}, {report['examples_per_test']} examples a test",
        "ssmcore": found["ssmcore"],
        "Python": f"{found['python']}, pytest {found['pytest']}, hypothesis {found['hypothesis']}",
        "Machine": f"{found['platform']}, {found['cpus']} CPUs",
        "Started": report["started"],
    }
    items = "".join(f"<dt>{key}</dt><dd>{escape(str(x))}</dd>" for key, x in facts.items())
    return f"<dl>{items}</dl>"


def _errors(errors: list[Row]) -> str:
    if not errors:
        return ""
    items = "".join(f"<h3>{escape(e['where'])}</h3>{_code(e['message'])}" for e in errors)
    return f"<section><h2>Not collected</h2>{items}</section>"


def _failures(rows: list[Row]) -> str:
    """Return what failed, by property and backend."""
    if not rows:
        return ""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["function"], row["backend"]), []).append(row)
    shown = "".join(map(_failure, groups.values()))
    return f"<section id=failures><h2>Failures</h2>{shown}</section>"


def _failure(rows: list[Row]) -> str:
    """Return one property's failures on one backend: the smallest in full, the others folded."""
    first, *others = sorted(rows, key=_size)
    where = f" on {first['backend']}" if first["backend"] else ""
    title = escape(f"{first['subject']}: {first['property']}{where}")
    statement = f"<p>{escape(first['statement'])}</p>" if first["statement"] else ""
    parts = [f"<h3>{title}</h3>{statement}", _case(first)]
    if others:
        word = "failure" if len(others) == 1 else "failures"
        parts.append(f"<details><summary>{len(others)} more {word}</summary>")
        parts += [*map(_case, others), "</details>"]
    return f"<article>{''.join(parts)}</article>"


def _size(row: Row) -> tuple[bool, bool, int]:
    """Return a key that sorts by the size of the inputs; packed ones are larger than they look."""
    snippet = row["snippet"]
    return not snippet, "packed(" in snippet, len(snippet)


def _case(row: Row) -> str:
    again = f"<h4>To see it fail</h4>{_code(row['snippet'])}" if row["snippet"] else ""
    why = f"<p class=why>{escape(row['reason'])}</p>"
    return f"<h4><code>{escape(row['test'])}</code></h4>{why}{again}"


def _code(text: str) -> str:
    return f"<pre tabindex=0><code>{escape(text)}</code></pre>"


def _reasons(rows: list[Row]) -> str:
    """Return the list of what was expected to fail or left out, tests of one reason together."""
    parts = []
    for outcome, title in (("xfailed", "Known failures"), ("skipped", "Left out")):
        grouped = _grouped((row for row in rows if row["outcome"] == outcome), "reason")
        items = "".join(
            f"<li>{escape(reason)}<br><small>{escape(_tests(members))}</small></li>"
            for reason, members in grouped.items()
        )
        parts += [f"<section><h2>{title}</h2><ul>{items}</ul></section>"] if items else []
    return "".join(parts)


def _tests(rows: list[Row]) -> str:
    """Return the tests of ``rows``, those of one function counted."""
    functions = Counter(row["function"] for row in rows)
    return ", ".join(f"{name} ({count})" for name, count in functions.items())


def _overview(subjects: dict[str, list[Row]]) -> str:
    """Return the contents: one line a subject, with each backend's tests and worst share."""
    names = _backends(row for rows in subjects.values() for row in rows)
    lines = []
    for subject, rows in subjects.items():
        by_name = _grouped(rows, "backend")
        cells = "".join(f"<td>{_cell(by_name.get(name, []))}</td>" for name in names)
        link = f"<a href='#{escape(subject)}'>{escape(subject)}</a>"
        lines.append(f"<tr><th scope=row>{link}</th>{cells}</tr>")
    return f"<section><h2>Overview</h2>{_table('subject', names, lines)}</section>"


def _backends(rows: Iterable[Row]) -> list[str]:
    """Return the backends that occur, "" (of none or several) last."""
    return sorted({row["backend"] for row in rows}, key=lambda name: (not name, name))


def _table(first: str, names: list[str], lines: list[str]) -> str:
    heads = "".join(f"<th scope=col>{escape(name or 'not of one backend')}</th>" for name in names)
    return (
        f"<div class=wide tabindex=0><table><thead><tr><th scope=col>{first}</th>{heads}</tr>"
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(rows: list[Row]) -> str:
    """Return outcomes and the worst error of the tests of one backend."""
    if not rows:
        return "<span class=none>none</span>"
    text = _counted(Counter(row["outcome"] for row in rows))
    worst = [w for row in rows for w in row["worst"]]
    if worst:
        w = max(worst, key=lambda w: w["share"])
        text += f"<br><small>{w['error']:.1e} of {w['tolerance']:.1e}, {shown(w['share'])}"
        text += "</small>"
    return text


def _subject(subject: str, rows: list[Row]) -> str:
    names = _backends(rows)
    lines = []
    for members in _grouped(rows, "function").values():
        first, by_name = members[0], _grouped(members, "backend")
        cells = "".join(f"<td>{_cell(by_name.get(name, []))}</td>" for name in names)
        examples = sum(row["examples"] for row in members)
        seconds = sum(row["seconds"] for row in members)
        claim = f"{escape(first['property'])}<p>{escape(first['statement'])}</p>"
        size = f"<small>{examples} examples, {seconds:.1f} s</small>"
        lines.append(f"<tr><th scope=row>{claim}{size}</th>{cells}</tr>")
    return (
        f"<section id='{escape(subject)}'><h2>{escape(subject)}</h2>"
        f"<p>{escape(rows[0]['about'])}</p>{_table('property', names, lines)}{_worst(rows)}"
        "</section>"
    )


def _worst(rows: list[Row]) -> str:
    """Return, folded, the worst error of each comparison, backend and dtype."""
    found: dict[tuple[str, ...], Row] = {}
    for w in (w for row in rows for w in row["worst"]):
        key = (w["what"], w["dtype"], w["backend"])
        if key not in found or w["share"] > found[key]["share"]:
            found[key] = w
    lines = [
        f"<tr><th scope=row>{escape(what)}</th><td>{dtype}</td><td>{escape(backend)}</td>"
        f"<td>{w['error']:.1e}</td><td>{w['tolerance']:.1e}</td><td>{shown(w['share'])}</td></tr>"
        for (what, dtype, backend), w in sorted(found.items())
    ]
    if not lines:
        return ""
    names = ["dtype", "backend", "error", "tolerance", "share"]
    return f"<details><summary>Worst errors</summary>{_table('comparison', names, lines)}</details>"
