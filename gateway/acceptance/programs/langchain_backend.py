"""langchain-daytona: the sandbox backend of deepagents, called as its agents
call it. All file tools but upload and download are scripts in the sandbox.
"""

from daytona import CreateSandboxFromSnapshotParams, Daytona
from daytona.common.errors import DaytonaNotFoundError
from harness import has, raises, same, step
from langchain_daytona import DaytonaSandbox


def main():
    d = Daytona()
    params = CreateSandboxFromSnapshotParams(language="python", env_vars={"GREETING": "hello there"})
    sb = step("create", lambda: DaytonaSandbox(sandbox=d.create(params), timeout=30))
    if sb is None:
        return
    step("exec", lambda: execute(sb))
    step("files", lambda: files(sb))
    step("find", lambda: same(DaytonaSandbox(sandbox=d.get(sb.id)).execute("cat ~/notes/b.txt").output, "edited\n"))

    def delete():
        d.get(sb.id).delete(wait=True)
        raises(DaytonaNotFoundError, lambda: d.get(sb.id))

    step("delete", delete)


def execute(sb):
    r = sb.execute('echo "$GREETING"; echo oh >&2; exit 3')
    same([r.exit_code, r.output], [3, "hello there\n\n<stderr>oh</stderr>"])
    r = sb.execute("echo begun; sleep 60", timeout=3)
    same(r.exit_code, 124)
    has(r.output, "begun")


def files(sb):
    notes = sb.execute("echo ~/notes").output.strip()
    a, b = notes + "/a.txt", notes + "/b.txt"
    same([u.error for u in sb.upload_files([(a, b"one\ntwo needle\n")])], [None])
    down = sb.download_files([a, notes + "/none", "relative"])
    same([down[0].content, down[1].error, down[2].error], [b"one\ntwo needle\n", "file_not_found", "invalid_path"])
    has(sb.read(a).file_data, "two needle")
    same(sb.write(b, "written\n").error, None)
    same(sb.edit(b, "written", "edited").error, None)
    same([x["path"] for x in sb.grep("needle", notes).matches], [a])
    same(sorted(x["path"] for x in sb.ls(notes).entries), [a, b])
    same(sorted(x["path"] for x in sb.glob("*.txt", notes).matches), [a, b])


if __name__ == "__main__":
    main()
