"""pydantic-ai-daytona: an agent of Pydantic AI with the sandbox as a capability.
A script stands in for the model; all else is the agent's own.
"""

import asyncio

from daytona import Daytona
from daytona.common.errors import DaytonaNotFoundError
from harness import has, raises, same, step
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai_daytona import DaytonaSandbox, DaytonaSandboxSession


def ask(capability, *calls):
    """Has an agent make the calls, (tool, arguments), and returns the answers."""
    answers = []

    def model(messages, _):
        for part in messages[-1].parts:
            if isinstance(part, ToolReturnPart):
                answers.append(part.content)
        if len(answers) == len(calls):
            return ModelResponse(parts=[TextPart("done")])
        return ModelResponse(parts=[ToolCallPart(*calls[len(answers)])])

    async def run():
        return await Agent(FunctionModel(model), capabilities=[capability]).run("go")

    same(asyncio.run(run()).output, "done")
    return answers


def main():
    d = Daytona()
    found = {}

    def create():
        answers = ask(DaytonaSandbox(env={"GREETING": "hello there"}, labels={"run": "own"}), ("run_command", {"command": "hostname"}))
        same(len(answers), 1)
        same([x.id for x in d.list() if x.labels.get("run") == "own"], [])  # it ends with the agent's run

    step("create", create)

    async def keep():
        session = await DaytonaSandboxSession(labels={"run": "kept"}, env={"GREETING": "hello there"}).__aenter__()
        found["id"] = session.sandbox_id

    step("find", lambda: asyncio.run(keep()))
    if "id" not in found:
        return
    attached = DaytonaSandbox(sandbox_id=found["id"], env={"GREETING": "hello there"})
    step("exec", lambda: execute(attached))
    step("files", lambda: files(attached))

    def delete():
        d.get(found["id"]).delete(wait=True)
        raises(DaytonaNotFoundError, lambda: d.get(found["id"]))

    step("delete", delete)


def execute(sandbox):
    answer, late = ask(
        sandbox,
        ("run_command", {"command": 'echo "$GREETING"; echo oh >&2; exit 3'}),
        ("run_command", {"command": "echo begun; sleep 60", "timeout_seconds": 1}),
    )
    has(answer, "hello there")
    has(answer, "oh")
    has(answer, "3")
    has(late, "begun")


def files(sandbox):
    _, text, listed, shown = ask(
        sandbox,
        ("write_file", {"path": "notes/a.txt", "content": "one\ntwo ü\n"}),
        ("read_file", {"path": "notes/a.txt", "offset": 2}),
        ("list_directory", {"path": "notes"}),
        ("run_command", {"command": "cat notes/a.txt"}),
    )
    has(text, "two ü")
    same(listed, "a.txt")
    has(shown, "two ü")


if __name__ == "__main__":
    main()
