"""Dagster's web server, with the pages that checks link to beside its UI: ``python -m freshdata_assets.web``."""

from typing import Any

from dagster_webserver import app
from dagster_webserver.cli import main
from dagster_webserver.webserver import DagsterWebserver
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from freshdata.settings import load_settings
from freshdata_assets.platform import PAGES_ROUTE


class Pages(StaticFiles):
    """Files that are shown and do nothing, whatever the data on them says."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer with a file that may run and load nothing."""
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


class Webserver(DagsterWebserver[Any, Any]):
    """Dagster's web server with the instance's pages."""

    def build_routes(self) -> list[Any]:
        """Dagster's routes, behind that of the pages: the last of its own takes everything."""
        pages = Pages(directory=load_settings().pages_dir, check_dir=False)
        return [Mount(f"{self._app_path_prefix}{PAGES_ROUTE}", pages), *super().build_routes()]  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    app.DagsterWebserver = Webserver  # type: ignore[attr-defined] # Dagster's command takes what is there.
    main()  # type: ignore[no-untyped-call]
