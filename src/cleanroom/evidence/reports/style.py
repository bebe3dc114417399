"""The page's style sheet."""

STYLE = """
:root{--text:#1b1f24;--dim:#57606a;--back:#f6f8fa;--card:#ffffff;--line:#d0d7de;--good:#00674b;--bad:#a63c00;--code:#eef1f4}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--dim:#9da7b3;--back:#0d1117;--card:#14181d;--line:#30363d;--good:#4cc9a0;--bad:#ff9a5c;--code:#1f252c}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}
main{max-width:1080px;margin:0 auto;padding:16px}
header,section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 16px;margin:0 0 12px}
h1{font-size:1.5rem;margin:0 0 8px;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:0 0 8px;overflow-wrap:anywhere}
p{margin:4px 0;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:8px 0 0}
dt{color:var(--dim)}
dd{margin:0;overflow-wrap:anywhere}
ul{margin:0;padding-left:20px}
li{overflow-wrap:anywhere}
.wide{overflow-x:auto}
.picture>svg{display:block;width:100%;height:auto}
.narrow{display:none}
table{border-collapse:collapse;width:100%;font-size:.92em}
th,td{text-align:left;vertical-align:top;padding:4px 12px 4px 0;border-bottom:1px solid var(--line);max-width:420px;overflow-wrap:break-word}
th{color:var(--dim);font-weight:600;white-space:nowrap}
pre{background:var(--code);padding:12px;border-radius:6px;overflow:auto;max-height:32em;font-size:.86em;white-space:pre-wrap;overflow-wrap:anywhere}
code{background:var(--code);padding:1px 5px;border-radius:4px;font-size:.9em;overflow-wrap:anywhere}
.badge{font-size:.8rem;padding:3px 10px;border-radius:12px;border:2px solid;vertical-align:middle;color:var(--bad)}
.badge.passed,.good{color:var(--good)}
.bad{color:var(--bad);font-weight:600}
.dim{color:var(--dim)}
.alarm{border-left:4px solid var(--bad);padding-left:10px;font-weight:600}
@media(max-width:700px){
main{padding:8px}header,section{padding:10px 12px}
.picture{display:none}.narrow.picture{display:block}
table,tbody,tr,td{display:block}
thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
tr{border-bottom:1px solid var(--line);padding:6px 0}
td{display:grid;grid-template-columns:7.5em minmax(0,1fr);gap:8px;border:0;padding:1px 0;max-width:none;overflow-wrap:anywhere}
td::before{content:attr(data-label);color:var(--dim);font-weight:400}
td:empty{display:none}
td svg{max-width:100%;height:auto}
dl{grid-template-columns:minmax(0,7.5em) minmax(0,1fr)}
}
@media print{body{background:none}header,section{break-inside:avoid}}
"""  # noqa: E501
