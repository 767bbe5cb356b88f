"""The web page of a server: its files, and what it shows beside answers.

The page is plain HTML, CSS and JavaScript in ``page_files``. Its answers come from the server's
other routes; those here tell what there is (``about``), what a medium looks like (``preview``), the
way that media of a question take (``paths``), and give questions to begin with (``examples``).
"""

import asyncio
import base64
import binascii
import mimetypes
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from pathweave.data.manifest import Manifest
from pathweave.data.messages import Part, Sample
from pathweave.decoders import Clip, Decoder, Points, RangeMap
from pathweave.decoders.decoder import SIGNATURES
from pathweave.errors import MediaError, PathWeaveError
from pathweave.evaluate.gates import gate_usage_by_site
from pathweave.evaluate.inspect import inspect_run
from pathweave.model.pathweave import PathWeave
from pathweave.model.prompt import Medium, Native, Prompt
from pathweave.runs.run_directory import RunDirectory
from pathweave.serve.openai_requests import ChatRequest, read_request
from pathweave.serve.preview import preview, unguarded
from pathweave.serve.service import Service
from pathweave.validation import unknown

EXAMPLES = 3  # of a test set
MOST_BYTES = 4 << 20  # of an example's media
# Nothing is loaded from elsewhere, and nothing inline is run. Media are shown from memory.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


FILES = Path(__file__).parent / "page_files"


class PageFiles(StaticFiles):
    """The files of the page, with headers that forbid the browser to load or run any other."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def add_files(app: FastAPI) -> None:
    """Add the page at ``/`` and its files, which anyone may read: they tell nothing of a model."""
    app.mount("/page/files", PageFiles(directory=FILES))

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(FILES / "index.html", headers=HEADERS)


class _Shown(BaseModel, frozen=True, extra="forbid"):
    name: str
    data: str
    modality: str | None = None


class _Example(NamedTuple):
    modality: str
    dataset: str
    sample: Sample
    media: tuple[tuple[Part, bytes], ...]


def page_routes(service: Service, root: Path | None) -> APIRouter:
    """Return the routes that the page asks, beside those of the API.

    Args:
        service: Answers.
        root: Directory of the run that is served; None if it is a base by itself.
    """
    routes = APIRouter(prefix="/page", include_in_schema=False)
    kept: list[_Example] = []

    @routes.get("/about")
    def about() -> dict[str, Any]:
        model = service.assistant.model
        known: dict[str, Any] = {
            "run": None,
            "base": model.base.kind,
            "paths": {},
            "curriculum": [],
        }
        return (known if root is None else inspect_run(root, gates=False)) | {
            "modalities": [
                {"name": name, "reads": unguarded(decoder).noun}
                for name, decoder in service.reads[None].items()
            ],
            "models": service.paths,
            "loaded": model.paths.names,
        }

    @routes.post("/preview")
    async def preview_of(http: Request) -> dict[str, Any]:
        shown = read_request(_Shown, await service.body(http))
        try:
            data = base64.b64decode(shown.data, validate=True)
        except binascii.Error as error:
            raise MediaError(f"data must be base64, got {error}; encode the whole file") from error
        return await asyncio.to_thread(
            look, service.reads[None], data, shown.name[:100], shown.modality
        )

    @routes.post("/paths")
    async def paths(http: Request) -> list[dict[str, Any]]:
        request = read_request(ChatRequest, await service.body(http))
        prompt, _ = await service.attended(http, service.prompt(request))
        return await service.call(lambda: paths_taken(service.assistant.model, prompt))

    @routes.get("/examples")
    def examples() -> list[dict[str, Any]]:
        if root is not None and not kept:
            kept.extend(_examples(root, service.reads[None]))
        return [_told(number, one) for number, one in enumerate(kept)]

    @routes.get("/examples/{number}/{part}")
    def example(number: int, part: int) -> Response:
        if number >= len(kept) or part >= len(kept[number].media):
            return Response(status_code=404)
        _, data = kept[number].media[part]
        kind = mimetypes.guess_type(f"x{_ending(data)}")[0]
        return Response(data, media_type=kind or "application/octet-stream")

    return routes


def look(
    decoders: Mapping[str, Decoder], data: bytes, name: str, modality: str | None = None
) -> dict[str, Any]:
    """Return what is to be shown of a medium (``preview``), and the ``modality`` it is taken for.

    Args:
        decoders: Decoders by modality.
        data: The bytes of the medium.
        name: Name of its file.
        modality: What it is; None tries all, and first those that refuse most.

    Raises:
        MediaError: If it cannot be decoded.
    """
    if modality is not None:
        if modality not in decoders:
            raise MediaError(unknown("a medium", modality[:100], list(decoders)))
        return preview(decoders[modality], data, name) | {"modality": modality}
    reasons, still = [], None
    for one in sorted(decoders, key=lambda n: _tried(unguarded(decoders[n]))):
        try:
            shown = preview(decoders[one], data, name) | {"modality": one}
        except PathWeaveError as error:
            reasons.append(f"as {one}: {error}")
            continue
        if not isinstance(unguarded(decoders[one]), Clip) or len(set(shown["frames"])) > 1:
            return shown
        still = still or shown  # a clip in which nothing moves is a picture, if one is read
    if still is None:
        raise MediaError(
            f"{name} must be a medium that a path reads, got none; tried {'; '.join(reasons)}"
        )
    return still


def _tried(decoder: Decoder) -> int:
    """Return when a decoder is tried: those that refuse most come first."""
    is_map = isinstance(decoder, RangeMap) and decoder.scaling == "own"
    return [is_map, isinstance(decoder, Points), isinstance(decoder, Clip), True].index(True)


def paths_taken(model: PathWeave, prompt: Prompt) -> list[dict[str, Any]]:
    """Return the way that each medium of a prompt takes, and what its gates mix.

    Args:
        model: The model; nothing else may call its language model meanwhile.
        prompt: The prompt.

    Returns:
        For each medium: ``path`` (None where the base reads it), ``units`` (frames or windows),
        ``features`` of a unit (tokens and width), ``tokens`` that the language model reads,
        ``builds_on``, and ``gates``: mean weights of experts, of all sites and of groups of sites.
    """
    text = " ".join(piece for piece in prompt if isinstance(piece, str))
    taken: list[dict[str, Any]] = []
    for piece in prompt:
        if isinstance(piece, Native):
            taken.append({"path": None, "medium": piece.kind})
        elif isinstance(piece, Medium):
            units, tokens, width = piece.features.shape
            usage = gate_usage_by_site(model, piece.path, [piece.features], [text])
            groups: defaultdict[str, list[Mapping[str, float]]] = defaultdict(list)
            for site, weights in usage.items():
                groups[site.rpartition("/")[0] or site].append(weights)
            taken.append(
                {
                    "path": piece.path,
                    "medium": piece.modality or piece.path,
                    "units": units,
                    "features": [tokens, width],
                    "tokens": model.tokens_of(piece),
                    "builds_on": list(model.paths[piece.path].spec.predecessors),
                    "gates": {
                        "all": _mean(list(usage.values())),
                        "groups": {name: _mean(sites) for name, sites in groups.items()},
                    },
                }
            )
    return taken


def _mean(sites: list[Mapping[str, float]]) -> dict[str, float]:
    experts = dict.fromkeys(expert for weights in sites for expert in weights)
    return {e: round(sum(w.get(e, 0.0) for w in sites) / len(sites), 4) for e in experts}


def _examples(root: Path, known: Mapping[str, Decoder]) -> list[_Example]:
    """Return a few questions of each test set of a run, as far as their media are at hand."""
    found = []
    for modality, declared in RunDirectory(root).recipe().modalities.items():
        for dataset, test in declared.test.items():
            try:
                manifest = Manifest(Path(test.manifest))
                count = min(EXAMPLES, len(manifest))
                for sample in (manifest[i * len(manifest) // count] for i in range(count)):
                    parts = [part for part in sample.prompt if not part.is_text]
                    media = tuple((part, manifest.read_media(part)) for part in parts)
                    size = sum(len(data) for _, data in media)
                    if size <= MOST_BYTES and all(part.type in known for part in parts):
                        found.append(_Example(modality, dataset, sample, media))
            except PathWeaveError:  # a run may be served where its data are not
                continue
    return found


def _told(number: int, one: _Example) -> dict[str, Any]:
    sample = one.sample
    return {
        "modality": one.modality,
        "dataset": one.dataset,
        "text": " ".join(part.text or "" for part in sample.prompt if part.is_text),
        "media": [
            {
                "modality": part.type,
                "name": f"{sample.id}{_ending(data)}",
                "url": f"page/examples/{number}/{place}",
            }
            for place, (part, data) in enumerate(one.media)
        ],
        "references": sample.references or [sample.answer],
        **sample.model_dump(include={"choices", "source", "licence", "attribution"}),
    }


def _ending(data: bytes) -> str:
    """Return how names of files end that begin like this; empty if it is not known."""
    endings = (ends for at, marks, _, ends in SIGNATURES if data.startswith(marks, at))
    return next(endings, "").split(" ")[0]
