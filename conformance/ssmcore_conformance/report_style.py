"""The look of the HTML report: light or dark as the reader's system is."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #57606a;
  --line: #d0d7de; --band: #f4f6f8; --good: #116329; --bad: #b3261e; --known: #7a4b00;
  --link: #0550ae; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --paper: #14171b; --soft: #a3adb8; --line: #3a424b; --band: #1d2228;
    --good: #6fdc8c; --bad: #ff9a92; --known: #f0b95a; --link: #8ab8ff; } }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 4rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
h4 { font-size: .9rem; margin: .75rem 0 .25rem; overflow-wrap: anywhere; }
p { margin: .25rem 0 .75rem; }
a { color: var(--link); }
small, dt, dd { font-size: .875rem; }
small, dt, .none, th p { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 1rem 0; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .925rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem .4rem 0;
  border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 600; min-width: 14rem; overflow-wrap: anywhere; }
th p { font-weight: 400; margin: 0; }
th small { font-weight: 400; }
pre { background: var(--band); border: 1px solid var(--line); border-radius: .25rem;
  padding: .6rem .8rem; overflow: auto; max-height: 26rem; margin: .25rem 0 .75rem; }
code, pre { font: .85rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
.why { white-space: pre-wrap; overflow-wrap: anywhere; }
article { border-left: 4px solid var(--bad); padding-left: 1rem; margin: 1rem 0; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--link); }
.passed { color: var(--good); }
.failed { color: var(--bad); font-weight: 700; }
.xfailed { color: var(--known); }
.skipped { color: var(--soft); }
li { margin: .4rem 0; overflow-wrap: anywhere; }
"""
