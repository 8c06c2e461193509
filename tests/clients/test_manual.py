"""Every program of the manual, run against the API on real engines with a sandbox's key."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aforo import worker
from aforo.api.parts.relay import local_id
from aforo.sdk.ids import TenantId
from aforo.storage.scope import Runtime
from aforo.tenants.commands import create_tenant
from tests.api.forms import http, poster
from tests.clients.conftest import ROOT, Address, again_and_again, served
from tests.clients.node import MODULES, Ended, Node, run

PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("docs/frontend/*.md")])

TYPESCRIPT_CLIENT = ROOT / "clients/typescript/aforo.ts"
PYTHON_CLIENT = ROOT / "clients/python"
"""The clients, which a reader has installed, or copied beside the program."""

NO_TOPIC = {
    "docs/README.md": "the index",
    "docs/architecture.md": "how it works inside",
    "docs/deploy.md": "commands on servers",
    "docs/frontend/README.md": "TypeScript alone; its programs are files of a project",
    "docs/import.md": "a command",
    "docs/measurements.md": "figures",
    "docs/operations.md": "commands on servers",
    "docs/scaling.md": "arithmetic",
}
"""Pages without something to call; every other page shows it in all three languages."""

CREATE_SANDBOX = """
mutation {
  createSandbox(input: { name: "manual" }) {
    ... on NewSandbox { token sandbox { tenantId } }
    ... on Problem { message }
  }
}
"""

LANGUAGES = ("sh", "ts", "python")
SECONDS_MAX = 120


@dataclass(frozen=True)
class Program:
    """A block of a page that is run as it stands."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.language}"

    @property
    def listens(self) -> bool:
        """Whether it goes on until it is stopped, as `curl -N` does."""
        return self.language == "sh" and bool(re.search(r"\bcurl\b[^|]* -N\b", self.text))


def programs() -> list[Program]:
    """In the order of their pages; a shell block is one if it calls the API."""
    fence = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in fence.finditer(text):
            language, words = block.groups()
            if language in LANGUAGES and (language != "sh" or "curl" in words):
                line = text.count("\n", 0, block.start()) + 1
                found.append(Program(str(page.relative_to(ROOT)), line, language, words))
    return found


PROGRAMS = programs()


def test_every_topic_has_its_programs_in_every_language() -> None:
    pages = {str(page.relative_to(ROOT)) for page in PAGES}
    assert pages >= NO_TOPIC.keys()
    missing = {
        page: sorted(set(LANGUAGES) - {each.language for each in PROGRAMS if each.page == page})
        for page in sorted(pages - NO_TOPIC.keys())
    }
    assert {page: languages for page, languages in missing.items() if languages} == {}


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_a_program_takes_the_address_and_the_key_from_its_environment(program: Program) -> None:
    assert "AFORO_URL" in program.text
    assert "AFORO_API_KEY" in program.text
    assert not re.search(r"127\.0\.0\.1|localhost|afo_(live|test)_[0-9a-f]{8}", program.text)


async def test_the_programs_in_typescript_are_typescript(node: Node, tmp_path: Path) -> None:
    # Not strictly: a reader of JavaScript should feel at home too.
    options = {
        "module": "esnext",
        "moduleResolution": "bundler",
        "target": "es2022",
        "lib": ["es2022", "dom", "dom.iterable"],
        "types": ["node"],
        "noEmit": True,
        "strict": False,
        "skipLibCheck": True,
        "moduleDetection": "force",
    }
    for program in PROGRAMS:
        if program.language == "ts":
            name = re.sub(r"\W", "-", str(program))
            (tmp_path / f"{name}.ts").write_text(program.text)
    shutil.copy(TYPESCRIPT_CLIENT, tmp_path)
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options}))
    (tmp_path / "node_modules").symlink_to(MODULES)
    await node.passes("tsc", "--project", ".", folder=tmp_path)


class Sandboxes:
    """A sandbox for each page, made when its first program runs."""

    def __init__(self, runtime: Runtime, url: str, folder: Path, project: Path) -> None:
        self._runtime = runtime
        self._url = url
        self._folder = folder
        self._project = project
        self._made: dict[str, tuple[TenantId, Address, Path]] = {}
        self.run: set[Program] = set()

    async def of(self, page: str) -> tuple[Address, Path]:
        """The address with the key, and the folder in which the page's programs run."""
        if page not in self._made:
            owner = await create_tenant(self._runtime, name=f"Reader of {page}")
            async with http(self._runtime, owner) as client:
                made = (await poster(client)(CREATE_SANDBOX))["createSandbox"]
            tenant_id = TenantId(local_id("Tenant", made["sandbox"]["tenantId"]))
            address = Address(self._url, made["token"])
            self._made[page] = tenant_id, address, self._folder_for(page)
        _, address, folder = self._made[page]
        return address, folder

    def _folder_for(self, page: str) -> Path:
        if Path(page).parent.name == "frontend":
            return self._project
        folder = self._folder / re.sub(r"\W", "-", page)
        folder.mkdir()
        (folder / "node_modules").symlink_to(MODULES)
        shutil.copy(TYPESCRIPT_CLIENT, folder)
        return folder

    async def work(self) -> None:
        """What a worker does for them."""
        for tenant_id, _, _ in list(self._made.values()):
            await worker.drain(self._runtime, tenant_id)


@pytest.fixture(scope="module")
async def sandboxes(
    shared_runtime: Runtime, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sandboxes]:
    """The API by the real time, as programs go by it, while a worker works for the sandboxes."""
    async with served(shared_runtime) as url:
        folder = tmp_path_factory.mktemp("manual")
        made = Sandboxes(shared_runtime, url, folder, project)
        async with again_and_again(made.work):
            yield made


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
async def test_a_program_of_the_manual_runs(
    program: Program, node: Node, sandboxes: Sandboxes
) -> None:
    address, folder = await sandboxes.of(program.page)
    # A reader begins at the top; with several processes, another one may have run what is above.
    page = [each for each in PROGRAMS if each.page == program.page]
    for above in page[: page.index(program)]:
        if above not in sandboxes.run:
            sandboxes.run.add(above)
            await RUNNERS[above.language](above, node, address, folder)
    sandboxes.run.add(program)
    ended = await RUNNERS[program.language](program, node, address, folder)
    assert ended.code == 0, f"{program}\n{ended.said}\n{ended.failed}"
    if program.language != "sh":
        assert ended.said.strip(), f"{program} prints nothing"


async def run_sh(program: Program, _node: Node, address: Address, folder: Path) -> Ended:
    if shutil.which("curl") is None:
        reason = "curl is not installed: the shell programs of the manual are left out"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    words = ("bash", "-euo", "pipefail", "-c", program.text)
    if program.listens:
        return await listened(words, address, folder)
    ended = await run(*words, environment=address.environment, folder=folder, seconds=SECONDS_MAX)
    for answer in answers(ended.said):
        assert not answer.keys() & {"error", "errors", "faults"}, f"{program}\n{ended.said}"
        assert "Problem" not in json.dumps(answer), f"{program}\n{ended.said}"
    return ended


async def run_ts(program: Program, node: Node, address: Address, folder: Path) -> Ended:
    (folder / f"{program.line}.ts").write_text(program.text)
    build = ("--bundle", "--packages=external", "--format=esm", "--target=node20")
    build += (f"--outfile={program.line}.mjs",)
    await node.passes("esbuild", f"{program.line}.ts", *build, "--log-level=error", folder=folder)
    return await node.run(
        "node",
        f"{program.line}.mjs",
        environment=address.environment,
        folder=folder,
        seconds=SECONDS_MAX,
    )


async def run_python(program: Program, _node: Node, address: Address, folder: Path) -> Ended:
    (folder / f"{program.line}.py").write_text(program.text)
    return await run(
        sys.executable,
        "-W",
        "error",
        f"{program.line}.py",
        environment={**address.environment, "PYTHONPATH": str(PYTHON_CLIENT)},
        folder=folder,
        seconds=SECONDS_MAX,
    )


Runner = Callable[[Program, Node, Address, Path], Awaitable[Ended]]
RUNNERS: dict[str, Runner] = {"sh": run_sh, "ts": run_ts, "python": run_python}


async def listened(words: tuple[str, ...], address: Address, folder: Path) -> Ended:
    """Run a program that listens until it has heard something, then stop it."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **address.environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS_MAX):
            heard = await process.stdout.readline()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        await process.communicate()
    is_stream = heard.startswith((b":", b"event:", b"id:", b"data:"))
    return Ended(0 if is_stream else 1, heard.decode(), "")


def answers(said: str) -> list[dict[str, object]]:
    """The JSON objects among what a program said, a line or a whole each."""
    found = []
    for text in (said, *said.splitlines()):
        with contextlib.suppress(ValueError):
            if isinstance(value := json.loads(text), dict):
                found.append(value)
    return found
