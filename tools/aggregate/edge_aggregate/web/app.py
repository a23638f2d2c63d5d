"""The web application: routes, and what every answer carries."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import anyio
from jinja2 import Environment, PackageLoader, StrictUndefined
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from edge.errors import ConfigError, EdgeError
from edge_aggregate.decode import instant
from edge_aggregate.store import open_store
from edge_aggregate.web import charts, freshness, views
from edge_aggregate.web.auth import BasicAuth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from edge_aggregate.sites import Sites
    from edge_aggregate.store import Store
    from edge_aggregate.web.freshness import Look

LOOK_S: Final = 1.0
"""How often a watcher asks the store whether anything came."""

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Pages:
    """The pages of one store. `opened` opens it, read-only, for each look."""

    def __init__(self, address: str, sites: Sites) -> None:
        self._address, self._sites = address, sites
        self._templates = Environment(
            loader=PackageLoader("edge_aggregate.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.globals.update(band_bar=charts.band_bar, lasts=views.LASTS, weightings=views.WEIGHTINGS)
        self._templates.filters.update(percent=_percent, points=_points, moment=_moment, span=freshness.span)
        # A page costs queries; most are looked at again before anything new came.
        self._rendered = lru_cache(64)(self._render)

    def opened(self) -> Store:
        """The store. Raises StorageError."""
        return open_store(self._address, read_only=True)

    def version(self) -> Look:
        """Changes when something was merged, a device says something else, or nothing comes. Raises StorageError."""
        with self.opened() as store:
            return freshness.look(store)

    async def answer(
        self, request: Request, template: str, build: Callable[..., dict[str, Any]], **asked: str
    ) -> Response:
        """A page, or the part of it that changes where htmx asks for that alone."""
        part = "figures" if request.headers.get("hx-request") == "true" else "page"
        try:
            text = await run_in_threadpool(self._page, template, build, part, tuple(sorted(asked.items())))
        except ConfigError as error:
            return self._trouble(str(error), 404)
        except EdgeError as error:
            return self._trouble(str(error), 503)
        return HTMLResponse(text, headers={"Cache-Control": "no-store"})

    def _page(
        self, template: str, build: Callable[..., dict[str, Any]], part: str, asked: tuple[tuple[str, str], ...]
    ) -> str:
        return self._rendered(template, build, part, asked, self.version())

    def _render(
        self,
        template: str,
        build: Callable[..., dict[str, Any]],
        part: str,
        asked: tuple[tuple[str, str], ...],
        version: Look,
    ) -> str:
        with self.opened() as store:
            newest_ms = store.newest_ms
            if not newest_ms:
                return self._templates.get_template("empty.html").render(address=store.engine.name, version=version)
            heard = instant(freshness.heard_ms(store))
            context = build(store, self._sites, **dict(asked))
        page = self._templates.get_template(template)
        context |= {"newest": instant(newest_ms), "sites": self._sites, "asked": dict(asked), "version": version}
        context |= {"heard": heard, "quiet_h": version.quiet_h}
        if part == "figures":
            return "".join(page.blocks["figures"](page.new_context(context)))
        return page.render(context)

    def _trouble(self, text: str, status: int) -> Response:
        return HTMLResponse(self._templates.get_template("trouble.html").render(text=text, status=status), status)


def make_app(address: str, sites: Sites, passwords: Mapping[str, str] | None = None) -> Starlette:
    """The application over a store. `passwords`: who may look; None: whoever reaches it."""
    pages = Pages(address, sites)

    async def overview(request: Request) -> Response:
        asked = _one_of(request, "last", views.LASTS, "7d")
        weighting = _one_of(request, "weighting", views.WEIGHTINGS, "votes")
        page = request.query_params.get("page", "1")
        page = page if page.isdecimal() and len(page) < 7 else "1"
        return await pages.answer(request, "overview.html", views.overview, asked=asked, weighting=weighting, page=page)

    async def site(request: Request) -> Response:
        asked = _one_of(request, "last", views.LASTS, "28d")
        name = request.path_params["name"]
        return await pages.answer(request, "site.html", views.site, name=name, asked=asked)

    async def fleet(request: Request) -> Response:
        return await pages.answer(request, "fleet.html", views.fleet)

    async def quality(request: Request) -> Response:
        return await pages.answer(request, "quality.html", views.quality)

    async def live(request: Request) -> Response:
        ending, seen = anyio.Event(), request.query_params.get("seen")
        return EventSourceResponse(
            _changes(pages, request, ending, seen or None),
            ping=15,
            shutdown_event=ending,
            shutdown_grace_period=2 * LOOK_S,
        )

    async def icon(_: Request) -> Response:
        return RedirectResponse("/static/icon.svg")

    middleware = [Middleware(_Headers)]
    if passwords is not None:
        middleware.append(Middleware(BasicAuth, passwords=dict(passwords)))
    return Starlette(
        routes=[
            Route("/", overview),
            Route("/site/{name}", site),
            Route("/fleet", fleet),
            Route("/quality", quality),
            Route("/live", live),
            Route("/favicon.ico", icon),
            Mount("/static", StaticFiles(packages=[("edge_aggregate.web", "static")])),
        ],
        middleware=middleware,
    )


class _Headers:
    """Puts the headers of safety on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.lower().encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


async def _changes(
    pages: Pages, request: Request, ending: anyio.Event, seen: str | None
) -> AsyncIterator[ServerSentEvent]:
    """An event whenever the version of the page has passed; none while the store cannot be read.

    `seen`: the version of which the page was made, so that nothing is missed between the two. Ends with the server.
    """
    while not ending.is_set() and not await request.is_disconnected():
        with suppress(EdgeError):
            version = str(await run_in_threadpool(pages.version))
            if seen is not None and version != seen:
                yield ServerSentEvent(data=version, event="changed")
            seen = version
        with anyio.move_on_after(LOOK_S):
            await ending.wait()


def _one_of(request: Request, name: str, known: Mapping[str, str], otherwise: str) -> str:
    value = request.query_params.get(name, otherwise)
    return value if value in known else otherwise


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%d %b %Y %H:%M")
