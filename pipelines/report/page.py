"""The page of a run: `write("runs/first")` puts one self-contained HTML file into the run.

No network, no server: styles, script, charts, strips and videos stand inside the file. Imports neither Ray nor torch.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from rushes.pipelines.media.passed_over import line
from rushes.pipelines.report import accounting, captions, facts, latents, measures, models, rights, sections, shares
from rushes.pipelines.report.accounting import Account
from rushes.pipelines.report.markup import Html, count, el, seconds, share
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import Ledger

_NAMES = {
    "account": "Account",
    "selections": "Selections",
    "funnel": "Funnel",
    "mixture": "Mixture",
    "bias": "Bias",
    "licences": "Licences",
    "takedowns": "Takedowns",
    "measures": "Measures",
    "clips": "Clips",
    "duplicates": "Duplicates",
    "captions": "Captions",
    "failures": "Failures",
    "sources": "Sources",
    "shards": "Shards",
    "latents": "Latents",
    "tokenizer": "Tokenizer",
    "dit": "Generator",
}


def write(
    run: str, out: str = "report/index.html", policy: str | None = None, books: accounting.Books | None = None
) -> str:
    """Write the page of a run, as far as the run has come, and return its URI.

    Args:
        run: The run folder, on disk or in a bucket.
        out: Where the page goes: a path inside the run, or an absolute path or URI.
        policy: The policy whose selection is shown; see `rushes.pipelines.report.accounting.account`.
        books: The run's books under that policy, where they are open already.

    Raises ValueError if `run` is no run folder, was written by another schema version or lacks the policy.
    """
    Ledger(run).require()
    uri = out if "://" in out or out.startswith("/") else f"{run.rstrip('/')}/{out}"
    storage.write_bytes(uri, render(books or accounting.open_books(run, policy)).encode())
    return uri


def render(books: accounting.Books) -> str:
    """Return the page of a run as HTML."""
    run, account = books.run, books.account
    rules = measures.rules(run, books.policy)
    strips = facts.Strips(run)
    cards = facts.cards(books, strips)
    shards = models.manifest(f"{run.rstrip('/')}/shards/{books.policy}")
    parts = [
        sections.accounting(account, line(facts.passed_over(books))),
        sections.selections(facts.selected(books), selections.stale(books.ledger)),
        sections.funnel(facts.funnel(account, rules), facts.packed(books)),
        sections.mixture(facts.mixture(books)),
        shares.page(books),
        *rights.page(books),
        sections.measures(measures.measures(run, books)),
        sections.strips(cards, facts.tally(books, "clips")),
        sections.duplicates(facts.pairs(books, strips), facts.tally(books, "pairs")),
        captions.page(books),
        sections.failures(facts.failures(books), facts.failed(books)),
        sections.sources(facts.timelines(books), facts.distinct_sources(books), {card.key for card in cards}),
        models.shards(books),
        latents.latents(books, strips),
        models.training(run, "tokenizer", "Tokenizer", "How well the tokenizer gives back what it was shown."),
        models.training(run, "dit", "Generator", "The generator trained on the latents of the clips above."),
    ]
    packed = (len(shards.get("shards", [])), int(shards.get("samples", 0)))
    return _document(run, account, sections.headline(account, packed), [part for part in parts if part])


def _document(run: str, account: Account, headline: Html, parts: list[Html]) -> str:
    name = run.rstrip("/").rsplit("/", 1)[-1]
    style, script = _asset("page.css"), _asset("page.js")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    )
    links = [el("a", title, href=f"#{anchor}") for anchor, title in _NAMES.items() if _has(parts, anchor)]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{name} · Rushes"),
        el("style", Html(style)),
    )
    body = el(
        "body",
        el("header", el("p", "Rushes", class_="mark"), el("h1", name), _summary(account), class_="top"),
        el("nav", el("div", *links), aria_label="Parts of this page"),
        el("main", headline, *parts),
        el("footer", el("p", f"Made from the ledger of {name}. Every table of it opens in DuckDB.")),
        el("dialog", el("img", alt=""), el("p"), id="large"),
        el("script", Html(script)),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def _has(parts: list[Html], anchor: str) -> bool:
    return any(part.startswith(f'<section id="{anchor}"') for part in parts)


def _summary(account: Account) -> Html:
    kept, total = account.seconds("kept"), account.input_s
    if account.policy is None:
        text = f"{count(account.inputs, 'input')}, {seconds(total)} of footage; nothing is selected yet."
        return el("p", text, class_="summary")
    others = [name for name in account.policies if name != account.policy]
    return el(
        "p",
        f"Of {seconds(total)} of footage from {count(account.inputs, 'input')}, the policy ",
        el("b", account.policy),
        f" keeps {count(account.clips('kept'), 'clip')}: {seconds(kept)}, {share(kept, total)}.",
        others and f" Other selections in this run: {', '.join(others)}.",
        class_="summary",
    )


def _asset(name: str) -> str:
    return (resources.files("rushes.pipelines.report") / name).read_text(encoding="utf-8")
