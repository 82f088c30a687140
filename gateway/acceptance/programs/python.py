"""The Python SDK: the main work of its users, synchronous and asynchronous.

DAYTONA_API_URL and DAYTONA_API_KEY name the server, IMAGE an image for it.
"""

import asyncio
import io
import os
import tempfile
import time

import daytona
from daytona import (
    AsyncDaytona,
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    CreateSnapshotParams,
    Daytona,
    FileUpload,
    ListSandboxesQuery,
    PtySize,
    SessionExecuteRequest,
)
from daytona.common.errors import DaytonaNotFoundError
from harness import raises, same, step


def main():
    d = Daytona()
    run = f"py-{os.getpid()}-{int(time.time() * 1000)}"

    def create():
        params = CreateSandboxFromSnapshotParams(
            name=run, language="python", env_vars={"GREETING": "hello there"}, labels={"run": run}, auto_stop_interval=30
        )
        sb = d.create(params)
        same([sb.name, sb.state, sb.labels["run"], sb.auto_stop_interval], [run, "started", run, 30])
        return sb

    sb = step("create", create)
    if sb is None:
        return
    step("find", lambda: find(d, sb, run))
    step("settings", lambda: settings(sb))
    step("exec", lambda: execute(sb))
    step("code run", lambda: code(sb))
    step("interpreter", lambda: interpreter(sb))
    step("session", lambda: session(sb))
    step("stream", lambda: asyncio.run(stream(sb)))
    step("pty", lambda: pty(sb))
    step("files", lambda: files(sb))
    step("git", lambda: git(sb))
    step("preview", lambda: preview(sb))
    step("signed preview", lambda: sb.create_signed_preview_url(3000, 60).url)
    step("signed file URL", lambda: sb.download_url("/etc/hostname"))
    step("ssh", lambda: sb.create_ssh_access(5).token)
    step("metrics", lambda: sb.get_metrics_latest())
    step("snapshot", lambda: snapshot(d, sb, run))
    step("image", lambda: image(d))
    step("volume", lambda: volume(d, run))
    step("secret", lambda: secret(d, run))
    step("stop and start", lambda: restart(sb))
    step("async", lambda: asyncio.run(asynchronous()))

    def delete():
        sb.delete(wait=True)
        raises(DaytonaNotFoundError, lambda: d.get(run))

    step("delete", delete)


def find(d, sb, run):
    same([d.get(run).id, d.get(sb.id).name], [sb.id, run])
    same([x.id for x in d.list(ListSandboxesQuery(labels={"run": run}, limit=1))], [sb.id])
    raises(DaytonaNotFoundError, lambda: d.get("no-such-sandbox"))


def settings(sb):
    sb.set_labels({"run": sb.name, "also": "this"})
    sb.set_autostop_interval(45)
    sb.set_auto_archive_interval(600)
    sb.set_auto_delete_interval(1200)
    sb.set_ttl(600)
    sb.refresh_activity()
    sb.refresh_data()
    same([sb.labels["also"], sb.auto_stop_interval, sb.auto_delete_interval], ["this", 45, 1200])
    sb.set_ttl(0)
    assert sb.get_work_dir().startswith("/") and sb.get_user_home_dir().startswith("/")


def execute(sb):
    r = sb.process.exec('pwd; echo "$GREETING $MORE"; exit 3', cwd="/tmp", env={"MORE": "it's"}, timeout=20)
    same([r.exit_code, r.result], [3, "/tmp\nhello there it's\n"])
    raises(daytona.common.errors.DaytonaTimeoutError, lambda: sb.process.exec("sleep 20", timeout=1))


def code(sb):
    r = sb.process.code_run("print(6 * 7)")
    same([r.exit_code, r.result.strip()], [0, "42"])
    assert sb.process.code_run("raise SystemExit(4)").exit_code != 0


def interpreter(sb):
    c = sb.code_interpreter
    out = []
    same(c.run_code("x = 20\nprint(x + 1)", on_stdout=lambda m: out.append(m.output)).stdout, "21\n")
    same("".join(out), "21\n")
    same(c.run_code("print(x * 2)").stdout, "40\n")
    same(c.run_code("1 / 0").error.name, "ZeroDivisionError")
    context = c.create_context(cwd="/tmp")
    same(c.run_code("import os; print(os.getcwd())", context=context).stdout, "/tmp\n")
    assert context.id in [x.id for x in c.list_contexts()]
    c.delete_context(context)


def session(sb):
    p = sb.process
    p.create_session("one")
    p.execute_session_command("one", SessionExecuteRequest(command="cd /tmp && export KEPT=yes"))
    r = p.execute_session_command("one", SessionExecuteRequest(command="pwd; echo $KEPT; echo err >&2; (exit 5)"))
    same([r.exit_code, r.stdout, r.stderr], [5, "/tmp\nyes\n", "err\n"])
    same(p.get_session_command("one", r.cmd_id).exit_code, 5)
    same(p.get_session_command_logs("one", r.cmd_id).stderr, "err\n")
    wait = p.execute_session_command("one", SessionExecuteRequest(command='read line; echo "got $line"', run_async=True))
    p.send_session_command_input("one", wait.cmd_id, "a word")
    for _ in range(1200):
        if p.get_session_command("one", wait.cmd_id).exit_code is not None:
            break
        time.sleep(0.05)
    assert "got a word" in p.get_session_command_logs("one", wait.cmd_id).stdout
    assert "one" in [s.session_id for s in p.list_sessions()]
    p.delete_session("one")
    raises(DaytonaNotFoundError, lambda: p.get_session("one"))


async def stream(sb):
    p = sb.process
    p.create_session("two")
    command = "for i in 1 2 3; do echo out$i; echo err$i >&2; sleep 0.05; done"
    run = p.execute_session_command("two", SessionExecuteRequest(command=command, run_async=True))
    out, err = [], []
    await p.get_session_command_logs_async("two", run.cmd_id, out.append, err.append)
    same(["".join(out), "".join(err)], ["out1\nout2\nout3\n", "err1\nerr2\nerr3\n"])
    p.delete_session("two")


def pty(sb):
    handle = sb.process.create_pty_session("term", cwd="/tmp", envs={"COLOUR": "blue"}, pty_size=PtySize(cols=100, rows=30))
    same([(x.cols, x.rows) for x in sb.process.list_pty_sessions() if x.id == "term"], [(100, 30)])
    same(handle.resize(PtySize(cols=90, rows=20)).cols, 90)
    seen = []
    handle.send_input("echo $COLOUR-$PWD; exit 7\n")
    same(handle.wait(on_data=seen.append).exit_code, 7)
    assert b"blue-/tmp" in b"".join(seen)


def files(sb):
    f = sb.fs
    f.create_folder("work/sub", "755")
    f.upload_file(b"one\ntwo needle\n", "work/a.txt")
    f.upload_files([FileUpload(source=b"b needle", destination="work/b.txt"), FileUpload(source="ü".encode(), destination="work/sp ace ü.txt")])
    same([f.download_file("work/a.txt"), f.download_file("work/sp ace ü.txt")], [b"one\ntwo needle\n", "ü".encode()])
    big = b"abcdefg" * (3 << 17)
    with tempfile.TemporaryDirectory() as local:
        with open(local + "/up", "wb") as w:
            w.write(big)
        f.upload_file(local + "/up", "work/sub/big.bin")
        f.download_file("work/sub/big.bin", local + "/down")
        with open(local + "/down", "rb") as r:
            same(r.read() == big, True)
    f.upload_file_stream(io.BytesIO(big), "work/streamed")
    same(b"".join(f.download_file_stream("work/streamed")) == big, True)
    info = f.get_file_info("work/a.txt")
    same([info.name, info.size, info.is_dir], ["a.txt", 15, False])
    same(sorted(x.name for x in f.list_files("work"))[:2], ["a.txt", "b.txt"])
    same(len(f.find_files("work", "needle")), 2)
    same(len(f.search_files("work", "*.txt").files), 3)
    same([r.success for r in f.replace_in_files(["work/a.txt", "work/none"], "needle", "thread")], [True, False])
    f.set_file_permissions("work/a.txt", mode="600")
    f.move_files("work/a.txt", "work/c.txt")
    same(f.get_file_info("work/c.txt").permissions, "0600")
    raises(daytona.common.errors.DaytonaNotFoundError, lambda: f.get_file_info("work/a.txt"))
    f.delete_file("work", recursive=True)


def git(sb):
    g = sb.git
    sb.process.exec("rm -rf repo origin.git copy; git init -q --bare -b main origin.git; git init -q -b main repo; git -C repo remote add origin \"$PWD/origin.git\"")
    sb.fs.upload_file(b"text\n", "repo/file.txt")
    g.add("repo", ["file.txt"])
    same(len(g.commit("repo", "first", "A Person", "a@example.com").sha), 40)
    g.push("repo")
    g.clone(f"file://{sb.get_work_dir()}/origin.git", "copy")
    g.create_branch("repo", "side")
    g.checkout_branch("repo", "side")
    same(g.status("repo").current_branch, "side")
    same(sorted(g.branches("repo").branches), ["main", "side"])
    g.pull("copy")


def preview(sb):
    link = sb.get_preview_link(3000)
    assert link.url.startswith("http") and link.token


def snapshot(d, sb, run):
    name = run + "-image"
    same(d.snapshot.create(CreateSnapshotParams(name=name, image=os.environ["IMAGE"]), timeout=120).state, "active")
    same(d.snapshot.get(name).name, name)
    assert name in [s.name for s in d.snapshot.list().items]
    d.snapshot.delete(d.snapshot.get(name))
    raises(DaytonaNotFoundError, lambda: d.snapshot.get(name))
    saved = run + "-saved"
    sb.process.exec("echo kept > /tmp/kept")
    sb.create_snapshot(saved)
    child = d.create(CreateSandboxFromSnapshotParams(snapshot=saved))
    same(child.process.exec("cat /tmp/kept").result, "kept\n")
    child.delete()
    d.snapshot.delete(d.snapshot.get(saved))


def image(d):
    sb = d.create(CreateSandboxFromImageParams(image=os.environ["IMAGE"]), timeout=120)
    same(sb.process.exec("echo up").result, "up\n")
    sb.delete()


def volume(d, run):
    raises(DaytonaNotFoundError, lambda: d.volume.get("no-such-volume"))
    v = d.volume.get(run, create=True)
    same(v.name, run)
    d.volume.delete(v)


def secret(d, run):
    s = d.secret.create(daytona.CreateSecretParams(name=run, value="v"))
    same(d.secret.get(s.id).name, run)
    d.secret.delete(s.id)


def restart(sb):
    sb.stop()
    same(sb.state, "stopped")
    sb.start()
    same(sb.process.exec("echo up").result, "up\n")


async def asynchronous():
    async with AsyncDaytona() as d:
        sb = await d.create()
        try:
            r = await sb.process.exec("echo hello")
            same(r.result, "hello\n")
            await sb.fs.upload_file(b"text", "a.txt")
            same(await sb.fs.download_file("a.txt"), b"text")
            p = sb.process
            await p.create_session("s")
            run = await p.execute_session_command("s", SessionExecuteRequest(command="echo out; sleep 0.1", run_async=True))
            out = []
            await p.get_session_command_logs_async("s", run.cmd_id, out.append, lambda _: None)
            same("".join(out), "out\n")
        finally:
            await sb.delete()


if __name__ == "__main__":
    main()
