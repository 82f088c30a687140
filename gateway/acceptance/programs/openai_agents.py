"""openai-agents: the Daytona client of the Agents SDK's sandboxes. Its session
is called directly, as the SDK's shell and file tools call it. Without a
snapshot the package asks for an image from a public registry.
"""

import asyncio
import io
from pathlib import Path

from agents.extensions.sandbox.daytona import DaytonaSandboxClient, DaytonaSandboxClientOptions
from agents.sandbox.entries import File
from agents.sandbox.manifest import Manifest
from harness import has, same, step

ROOT = "/home/daytona/workspace"


def main():
    with asyncio.Runner() as runner:
        run = runner.run

        async def client():
            return DaytonaSandboxClient()

        c = run(client())
        try:
            drive(c, run)
        finally:
            run(c.close())


def drive(c, run):
    options = DaytonaSandboxClientOptions(
        sandbox_snapshot_name="atoll-small", env_vars={"GREETING": "hello there"}, exposed_ports=(3000,)
    )

    async def create():
        sb = await c.create(manifest=Manifest(root=ROOT, entries={"notes/a.txt": File(content=b"one\ntwo\n")}), options=options)
        await sb.start()
        same(await sb.running(), True)
        return sb

    sb = step("create", lambda: run(create()))
    if sb is None:
        return
    for name, work in [("exec", execute), ("files", files), ("session", session), ("archive", archive), ("preview", preview)]:
        step(name, lambda work=work: run(work(sb)))

    async def find():
        again = await c.resume(c.deserialize_session_state(c.serialize_session_state(sb.state)))
        await again.start()
        has((await again.exec("cat notes/a.txt")).stdout, "two")

    step("find", lambda: run(find()))

    async def delete():
        await c.delete(sb)
        same(await sb.running(), False)

    step("delete", lambda: run(delete()))


async def execute(sb):
    r = await sb.exec('echo "$GREETING"; echo oh >&2; exit 3')
    same([r.exit_code, r.stdout, r.stderr], [3, b"hello there\n", b"oh\n"])


async def files(sb):
    same((await sb.read(Path("notes/a.txt"))).read(), b"one\ntwo\n")
    await sb.write(Path("notes/b.txt"), io.BytesIO("more ü\n".encode()))
    has((await sb.exec("cat notes/b.txt")).stdout.decode(), "more ü")
    has([x.path for x in await sb.ls(Path("notes"))], "b.txt")
    await sb.mv(Path("notes/b.txt"), Path("notes/c.txt"))
    await sb.rm(Path("notes/c.txt"))
    has((await sb.exec("ls notes")).stdout, "a.txt")


async def session(sb):
    update = await sb.pty_exec_start("sh", tty=True, yield_time_s=1)
    update = await sb.pty_write_stdin(session_id=update.process_id, chars="echo to-$((40+2))\n", yield_time_s=2)
    has(update.output, "to-42")
    await sb.pty_terminate_all()


async def archive(sb):
    tar = io.BytesIO((await sb.persist_workspace()).read())
    await sb.exec("rm -rf notes")
    await sb.hydrate_workspace(tar)
    has((await sb.exec("cat notes/a.txt")).stdout, "two")


async def preview(sb):
    has((await sb.resolve_exposed_port(3000)).host, ".")


if __name__ == "__main__":
    main()
